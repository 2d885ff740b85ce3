import keras
import numpy as np
import pytest
from keras import ops


@pytest.fixture
def gradient():
    """The gradient of the sum of a function of one tensor, on the backend in use, as NumPy."""
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()]


def _tensorflow(function, point):
    import tensorflow as tf

    variable = tf.Variable(point)
    with tf.GradientTape() as tape:
        total = ops.sum(function(variable))
    return tape.gradient(total, variable).numpy()


def _jax(function, point):
    import jax

    return np.asarray(jax.grad(lambda x: ops.sum(function(x)))(ops.convert_to_tensor(point)))


def _torch(function, point):
    import torch

    variable = torch.tensor(point, requires_grad=True)
    ops.sum(function(variable)).backward()
    return variable.grad.numpy()
