"""Metrics: streaming ones for Keras, and NumPy ones for reports. The NumPy ones load no backend."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
