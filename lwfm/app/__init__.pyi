from .command import app as app
from .session import LocalImage as LocalImage
from .session import Session as Session
