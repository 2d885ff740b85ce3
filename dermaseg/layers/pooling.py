"""Pool a feature map where a mask says that it matters."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["BorderPooling", "LesionPooling"]


class _GuidedPooling(keras.layers.Layer):
    """What the two poolings share: weights over the places of a map, in float32 also under mixed precision."""

    # The mask is called guide: Keras fills an argument of the name `mask` by itself.

    def weights_of_places(self, features: Any, guide: Any) -> Any:
        """Return non-negative weights `(batch, height, width, 1)` that sum to 1 over the places."""
        raise NotImplementedError

    def call(self, features: Any, guide: Any) -> Any:
        """Return the weighted mean of the features over the places."""
        features = ops.cast(features, "float32")
        weights = self.weights_of_places(features, ops.cast(guide, "float32"))
        return ops.cast(ops.sum(weights * features, axis=(1, 2)), self.compute_dtype)

    def compute_output_shape(
        self, features_shape: tuple[int | None, ...], guide_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Return `(batch, channels)`."""
        _check_shapes(features_shape, guide_shape)
        return features_shape[0], features_shape[-1]


@keras.saving.register_keras_serializable(package="dermaseg")
class LesionPooling(_GuidedPooling):
    """Average a feature map over the places that attention chooses, and that a mask may favour.

    w = softmax_i(a . f_i + beta ln(m_i + 1e-3)), the output is sum_i w_i f_i. a and beta are learned from 0: the layer
    starts as global average pooling, and the mask counts as much as it proves to help. With a = 0 and beta = 1 it is the
    mean over the lesion. a has no bias, which the softmax would cancel.

    Input: `pool(features, guide)`, `(batch, height, width, channels)` and `(batch, height, width, 1)`, 0 to 1, of one size.
    Output shape: `(batch, channels)`.

    Raises:
        ValueError: If the inputs differ in height or width, or the mask has more than one channel.

    Examples:
        >>> features = keras.random.normal((2, 8, 8, 16))
        >>> pooled = LesionPooling()(features, ops.ones((2, 8, 8, 1)))
        >>> bool(ops.all(ops.isclose(pooled, ops.mean(features, axis=(1, 2)), atol=1e-6)))
        True

    References:
        Ilse et al., 2018, "Attention-based deep multiple instance learning", equations 7 and 8. Deviations: a linear score,
        and the mask as a prior on the places.
    """

    def build(self, features_shape: tuple[int | None, ...], guide_shape: tuple[int | None, ...]) -> None:
        """Create a and beta."""
        _check_shapes(features_shape, guide_shape)
        self.attention = self.add_weight(shape=(features_shape[-1], 1), initializer="zeros", autocast=False, name="attention")
        self.beta = self.add_weight(shape=(), initializer="zeros", autocast=False, name="beta")

    def weights_of_places(self, features: Any, guide: Any) -> Any:
        """Return w."""
        scores = ops.matmul(features, self.attention) + self.beta * ops.log(guide + 1e-3)
        # Not ops.softmax: over two axes it fails on TensorFlow where the batch size is not known.
        weights = ops.exp(scores - ops.max(scores, axis=(1, 2), keepdims=True))
        return weights / ops.sum(weights, axis=(1, 2), keepdims=True)


@keras.saving.register_keras_serializable(package="dermaseg")
class BorderPooling(_GuidedPooling):
    """Average a feature map over the places where a mask is undecided: the lesion's border.

    w_i is 4 m_i (1 - m_i) + 1e-3 over its sum. A mask averaged down to the map's grid is a fraction along the outline, so
    that a crisp mask has a border too; with the 1e-3, a mask without any gives the mean over the whole map.

    Input: `pool(features, guide)`, `(batch, height, width, channels)` and `(batch, height, width, 1)`, 0 to 1, of one size.
    Output shape: `(batch, channels)`.

    Raises:
        ValueError: If the inputs differ in height or width, or the mask has more than one channel.

    Examples:
        >>> features = ops.reshape(ops.arange(4.0), (1, 2, 2, 1))
        >>> mask = ops.reshape(ops.convert_to_tensor([0.0, 1.0, 0.5, 0.0]), (1, 2, 2, 1))
        >>> round(float(BorderPooling()(features, mask)[0, 0]), 2)
        2.0
    """

    def build(self, features_shape: tuple[int | None, ...], guide_shape: tuple[int | None, ...]) -> None:
        """Check the shapes; there is nothing to learn."""
        _check_shapes(features_shape, guide_shape)

    def weights_of_places(self, features: Any, guide: Any) -> Any:
        """Return w."""
        weights = 4.0 * guide * (1.0 - guide) + 1e-3
        return weights / ops.sum(weights, axis=(1, 2), keepdims=True)


def _check_shapes(features: tuple[int | None, ...], guide: tuple[int | None, ...]) -> None:
    ranks_fit = len(features) == len(guide) == 4 and guide[-1] == 1
    if not ranks_fit or any(None not in pair and pair[0] != pair[1] for pair in zip(features[1:3], guide[1:3], strict=True)):
        raise ValueError(
            "features and guide must be (batch, height, width, channels) and (batch, height, width, 1) of one size, "
            f"got {features} and {guide}."
        )
