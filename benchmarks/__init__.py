"""Commands that measure dermaseg, run from the repository's root as `python -m benchmarks.NAME`."""

import os

# As the command line does for a user: by itself, TensorFlow leaves oneDNN's kernels out on some processors (AMD Zen 3), at half
# the speed. It reads this when it is loaded, so it stands before any benchmark's imports.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
