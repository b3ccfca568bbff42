from .classifier import FewShotClassifier as FewShotClassifier
from .encoded import EncodedImages as EncodedImages
from .network import OnnxNetwork as OnnxNetwork
