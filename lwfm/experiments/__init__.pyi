from .run import experiment as experiment
