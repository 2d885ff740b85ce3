"""The tasks that dermaseg trains from a folder: what each predicts, with which model, loss and defaults.

A task is data, not a class hierarchy: `training`, `evaluation` and the command line read its fields. Nothing here loads
Keras before a task is built.
"""

from dermaseg.tasks.declarations import TASKS, get_task
from dermaseg.tasks.objectives import prior_factors
from dermaseg.tasks.task import IMBALANCE, Settings, Task

__all__ = ["IMBALANCE", "TASKS", "Settings", "Task", "get_task", "prior_factors"]
