from .config import OptimConfig as OptimConfig
from .config import SGDConfig as SGDConfig
from .modules import LWFMModule as LWFMModule
from .pretraining import pretrain as pretrain
from .run import TrainingSummary as TrainingSummary
from .trainer import RunOptions as RunOptions
from .training import EpisodeConfig as EpisodeConfig
from .training import train as train
