"""Samples, readers, splits, audits and pixel pipelines. No deep-learning library loads before a pipeline is made."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
