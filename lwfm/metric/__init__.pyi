from .distances import RelativeDistributionEntropyDistance as RelativeDistributionEntropyDistance
from .distances import relative_entropy as relative_entropy
from .distances import soft_histogram as soft_histogram
from .estimator import MetricEstimator as MetricEstimator
from .losses import LinearCrossEntropy as LinearCrossEntropy
from .losses import SquaredContrastiveLoss as SquaredContrastiveLoss
from .systems.cell_types import CellTypeAnnotator as CellTypeAnnotator
from .systems.pvc_beats import PVCDetector as PVCDetector
