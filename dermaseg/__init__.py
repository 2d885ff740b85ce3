"""dermaseg: segment and classify skin lesions in dermoscopic photographs.

Everything loads when it is first used: `import dermaseg` itself loads no deep-learning library.
"""

import lazy_loader as _lazy

from dermaseg._version import __version__ as __version__

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
