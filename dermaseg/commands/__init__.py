"""What each command of the shell does with its parsed options.

Each loads when it is named, and heavy libraries within it, so that what needs none of them answers at once.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
