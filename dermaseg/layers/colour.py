"""Colour constancy: take the colour of the lamp out of a photograph."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["ShadesOfGray", "shades_of_gray"]

_DARK = 1e-3  # of full scale: a channel without light has no colour that could be corrected
_LEAST = 1e-30


def shades_of_gray(images: Any, *, power: float = 6.0) -> Any:
    """Correct the colour of the light by the shades-of-grey assumption.

    The light's colour is taken to be the Minkowski mean of each channel over the image,
    `e_c = (mean(I_c ** p)) ** (1 / p)`, and each channel is scaled by `|e| / (sqrt(3) * e_c)`: what was lit by white stays
    as it is, and brightness hardly changes. `p = 1` is the grey-world assumption; a large `p` approaches that the
    brightest spot is white. Dermoscopes and cameras differ in the colour of their light more than lesions do.

    Args:
        images: Shape `(batch, height, width, 3)`, RGB from 0 to 255.
        power: Minkowski power `p`, at least 1; the default is the authors' best over their image sets.

    Returns:
        Shape `(batch, height, width, 3)`, float32 from 0 to 255, clipped there.

    Raises:
        ValueError: If `power` is below 1.

    Examples:
        >>> import numpy as np
        >>> reddish = np.full((1, 4, 4, 3), (200.0, 100.0, 100.0))
        >>> np.asarray(shades_of_gray(reddish)).round().astype(int)[0, 0, 0].tolist()
        [141, 141, 141]

    References:
        G. D. Finlayson, E. Trezzi, "Shades of Gray and Colour Constancy", 12th Color Imaging Conference, 2004, eq. 5 (the
        estimate). C. Barata, M. E. Celebi, J. S. Marques, "Improving Dermoscopy Image Classification Using Color
        Constancy", IEEE JBHI 19(3), 2015, eq. 6-7 (normalisation of the gains, use on skin lesions). Deviation: no
        derivative, no gamma expansion.
    """
    if power < 1:
        raise ValueError(f"power={power}: a Minkowski power is at least 1.")
    light = ops.cast(images, "float32") / 255.0
    # By each channel's peak, which cancels out: the sixtieth power of a dim picture would be no float32 number but 0.
    peak = ops.stop_gradient(ops.maximum(ops.max(light, axis=(1, 2), keepdims=True), _DARK))
    mean = ops.mean((light / peak) ** power, axis=(1, 2), keepdims=True)
    # The floor is under what a lit channel can have; the root's slope at 0 is infinite.
    illuminant = ops.maximum(peak * ops.maximum(mean, _LEAST) ** (1.0 / power), _DARK)
    brightness = ops.sqrt(ops.mean(ops.square(illuminant), axis=-1, keepdims=True))
    return ops.clip(light * (brightness / illuminant), 0.0, 1.0) * 255.0


@keras.saving.register_keras_serializable(package="dermaseg")
class ShadesOfGray(keras.layers.Layer):
    """Apply `shades_of_gray` as the first layer of a model, so that an exported model carries it along.

    Computes and returns float32 under every precision policy: the sixth power of a half-precision number is noise.

    Args:
        power: Minkowski power, at least 1.
        **kwargs: Passed on to `keras.layers.Layer`.

    Raises:
        ValueError: If `power` is below 1.

    Examples:
        >>> import numpy as np
        >>> np.asarray(ShadesOfGray()(np.full((1, 8, 8, 3), 120.0))).mean().round().item()
        120.0
    """

    def __init__(self, power: float = 6.0, **kwargs: Any) -> None:
        if power < 1:
            raise ValueError(f"power={power}: a Minkowski power is at least 1.")
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.power = power

    def call(self, inputs: Any) -> Any:
        """Return the corrected images."""
        return shades_of_gray(inputs, power=self.power)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape as it came."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "power": self.power}
