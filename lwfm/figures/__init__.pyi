from .curves import curves_figure as curves_figure
from .files import check_figure_suffix as check_figure_suffix
from .files import save_figure as save_figure
from .matches import match as match
from .matches import match_figure as match_figure
from .matches import match_files as match_files
from .matches import match_images as match_images
