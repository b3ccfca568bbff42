from .classifier import FewShotClassifier as FewShotClassifier
from .decision import Decision as Decision
