"""What changes when several devices share a batch."""

from __future__ import annotations

import sys

__all__ = ["replica_count"]


def replica_count() -> int:
    """Return over how many devices the tf.distribute strategy in scope splits each batch; 1 without one, and on JAX.

    JAX's `keras.distribution.DataParallel` needs no count: a program there is written as for one device.
    """
    import keras

    tensorflow = sys.modules.get("tensorflow")  # whoever opened a strategy's scope has imported it
    if tensorflow is None or keras.backend.backend() != "tensorflow":
        return 1
    return int(tensorflow.distribute.get_strategy().num_replicas_in_sync)
