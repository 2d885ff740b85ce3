"""Seconds of a training step and of a prediction on a GPU: dermaseg on JAX beside PyTorch, in one run.

    KERAS_BACKEND=jax python -m benchmarks.gpu --output gpu-steps
    KERAS_BACKEND=jax python -m benchmarks.gpu --output gpu-steps --sizes 256 --rounds 5

A machine with a CUDA device, JAX and PyTorch is enough; TensorFlow need not be there. This is `benchmarks.peers.steps` with
`--device cuda` and the contestants that run there: the default and the plain U-Net on JAX, in float32 (TF32 products, as both
frameworks have them) and bfloat16, and the same graphs in PyTorch, channels last, eager and by `torch.compile`, MONAI's and
segmentation_models_pytorch's. The share of the peak is of the quickest large matrix product of the same run. Memory is the
card's, as each framework's allocator counts it. Six processes at a time share the card, the reference in each group;
`--alive` says otherwise. A framework that finds no card stands under "Not measured" and is not run on the processor.

    KERAS_BACKEND=jax python -m benchmarks.gpu --output rehearsal --device cpu --quick    # without a GPU: does everything run?
"""

import sys
from collections.abc import Sequence

from benchmarks.peers import steps
from benchmarks.peers.contestants import ACCELERATED, CONTESTANTS

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; further arguments are those of `benchmarks.peers.steps`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    names = [name for name, one in CONTESTANTS.items() if one.framework in ACCELERATED and name != "ours-jax-eager"]
    # What is given comes last, and wins.
    steps.main(["--device", "cuda", "--alive", "6", "--contestants", *names, *given])


if __name__ == "__main__":
    main()
