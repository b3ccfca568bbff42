from .index import ImageIndex as ImageIndex
from .index import build_index as build_index
from .index import load_index as load_index
from .search import search_index as search_index
