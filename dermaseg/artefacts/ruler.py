"""The even ticks of a ruler."""

from __future__ import annotations

import numpy as np

from dermaseg.arrays import check_image
from dermaseg.data.hair import hair_width

__all__ = ["RULER_THRESHOLD", "ruler_score"]

RULER_THRESHOLD = 0.5
"""`ruler_score` from which a picture counts as showing a ruler."""

_TICK = 60  # grey levels: from this depth on, ticks, hairs and ink count alike
_FAINTEST_TICKS = 1.5  # grey levels, standard deviation of a strip's profile: below it is noise


def ruler_score(image: np.ndarray) -> float:
    """Return how regularly dark ticks follow each other in the most regular strip of the picture.

    Strips as high as a twentieth of the shorter side run along the rows and the columns. In each, thin dark structures (a
    black top-hat) are summed across the strip, and the profile is correlated with itself: ticks at a pitch p agree at the
    lags p, 2p and 3p. The score is the least of the three correlations for the best p from 3 to 14 % of the shorter side.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255.

    Returns:
        0 to 1. Rulers that are oblique by more than a few degrees, or have fewer than about five ticks, are not found; skin
        furrows and stubble at even distances may be.

    Raises:
        ValueError: If `image` has another shape, type or range.

    Examples:
        >>> image = np.full((100, 100, 3), (225, 185, 165), np.uint8)
        >>> image[90:, ::8] = 40  # a tick every 8 pixels along the lower edge
        >>> ruler_score(image) >= RULER_THRESHOLD
        True
    """
    from scipy import ndimage

    grey = check_image(image).mean(axis=-1)
    short, width = min(grey.shape), hair_width(grey.shape)
    thin = (ndimage.grey_closing(grey, size=(width, width)) - grey).clip(0, _TICK)
    return max(_periodicity(thin, short), _periodicity(thin.T, short))


def _periodicity(thin: np.ndarray, short: int) -> float:
    """Correlate strips along the rows with themselves; return the best agreement at a pitch, twice and three times it."""
    from scipy import ndimage

    height, length = max(4, short // 20), thin.shape[1]
    lags = np.arange(max(3, round(0.03 * short)), min(round(0.14 * short), (length - 2) // 3) + 1)
    if thin.shape[0] < height or not len(lags):
        return 0.0
    sums = np.cumsum(np.pad(thin, ((1, 0), (0, 0))), axis=0)
    tops = np.arange(0, thin.shape[0] - height + 1, height // 2)
    profiles = (sums[tops + height] - sums[tops]) / height
    profiles -= ndimage.uniform_filter1d(profiles, max(3, round(short / 8)), axis=1)
    profiles = profiles[profiles.std(axis=1) >= _FAINTEST_TICKS]
    if not len(profiles):
        return 0.0
    # The autocorrelation by Wiener and Khinchin; at a lag k only length - k products are summed.
    products = np.fft.irfft(np.abs(np.fft.rfft(profiles, 2 * length)) ** 2)[:, :length]
    agreement = products / products[:, :1] * (length / (length - np.arange(length)))
    # A pitch of 6.4 px has its third multiple at 19.2, not at 18: the neighbours count too.
    near = ndimage.maximum_filter1d(agreement, 3, axis=1)
    return float(np.minimum.reduce([agreement[:, lags], near[:, 2 * lags], near[:, 3 * lags]]).max().clip(0, 1))
