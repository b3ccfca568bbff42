from .network import LWFM as LWFM
from .network import ModelConfig as ModelConfig
from .network import build_head as build_head
from .network import describe_model as describe_model
from .network import load_model as load_model
from .network import load_parameters as load_parameters
from .network import rebuild_model as rebuild_model
from .network import save_model as save_model
