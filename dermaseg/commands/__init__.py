"""What each command of the shell does with its parsed options.

Heavy libraries are imported inside the commands, so that what needs none of them answers at once.
"""

from dermaseg.commands.exporting import export
from dermaseg.commands.learning import DEMO_STEPS, demo, evaluate, train
from dermaseg.commands.looking import audit, presets, tasks
from dermaseg.commands.predicting import predict

__all__ = ["DEMO_STEPS", "audit", "demo", "evaluate", "export", "predict", "presets", "tasks", "train"]
