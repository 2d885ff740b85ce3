"""What changes when several devices share a batch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["batch_shares", "check_strategy", "host_share", "replica_count", "undistributed"]


def batch_shares() -> int:
    """Return into how many equal shares a `keras.distribution` splits each batch; 1 without one.

    Keras 3.15 refuses a batch that they do not divide.
    """
    import keras

    distribution = keras.distribution.distribution()
    if distribution is None or distribution.device_mesh is None:
        return 1
    mesh = distribution.device_mesh
    return int(mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)])


def host_share() -> tuple[int, int]:
    """Return which share of each batch this process feeds, and of how many: (0, 1) unless `DataParallel` spans processes.

    Keras on JAX takes from each process the rows of its own devices. `tf.distribute` deals them out by itself.
    """
    import keras

    if keras.backend.backend() != "jax" or keras.distribution.distribution() is None:
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


@contextmanager
def undistributed() -> Iterator[None]:
    """Do without the `keras.distribution` in use for a while: batches of any size are then computed by every device alike."""
    import keras

    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def check_strategy() -> None:
    """Refuse TensorFlow's strategy for several machines: Keras 3.15 fits no model under it (keras-team/keras, issue 20585).

    Raises:
        ValueError: If it is in scope.
    """
    import keras

    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or keras.backend.backend() != "tensorflow":
        return
    if isinstance(tensorflow.distribute.get_strategy(), tensorflow.distribute.MultiWorkerMirroredStrategy):
        raise ValueError(
            "Keras 3 does not train under MultiWorkerMirroredStrategy. Train on several machines with JAX, or a seed on each."
        )


def replica_count() -> int:
    """Return over how many devices the tf.distribute strategy in scope splits each batch; 1 without one, and on JAX.

    JAX's `keras.distribution.DataParallel` needs no count: a program there is written as for one device.
    """
    import keras

    tensorflow = sys.modules.get("tensorflow")  # whoever opened a strategy's scope has imported it
    if tensorflow is None or keras.backend.backend() != "tensorflow":
        return 1
    return int(tensorflow.distribute.get_strategy().num_replicas_in_sync)
