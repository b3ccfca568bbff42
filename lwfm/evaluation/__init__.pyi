from .comparison import compare as compare
from .evaluation import evaluate as evaluate
from .evaluation import open_network as open_network
from .results import EvaluationResult as EvaluationResult
from .results import MethodResult as MethodResult
