"""Measure each stage from files to batches.

    python -m benchmarks.input_pipeline
    python -m benchmarks.input_pipeline 512                     # so many photographs, a multiple of 32
    KERAS_BACKEND=jax python -m benchmarks.input_pipeline       # photographs varied on JAX's device too

The stages use one thread; "whole data set" uses as many as a training does. The best of three rounds is printed; for the end of
an epoch, from its last batch until training continues, the longest of ten.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np

from dermaseg.data.augment import Augment
from dermaseg.data.cache import PixelCache
from dermaseg.data.images import read_image, read_mask
from dermaseg.data.on_device import OnDevice
from dermaseg.data.pipeline import make_dataset
from dermaseg.data.synthetic import make_synthetic

BATCH = 32


def report(stage: str, count: int, run: Callable[[], object]) -> None:
    """Print milliseconds an image and images a second."""
    run()
    best_s = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        run()
        best_s = min(best_s, time.perf_counter() - start)
    print(f"{stage:<44} {1e3 * best_s / count:7.3f} ms/image {count / best_s:8.0f} images/s")


def whole_batches(text: str) -> int:
    """Read a number of photographs: cached ones are read in whole batches."""
    count = int(text)
    if count < BATCH or count % BATCH:
        raise argparse.ArgumentTypeError(f"{count} is no multiple of {BATCH}")
    return count


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all stages on synthetic files of the size of HAM10000."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=whole_batches, nargs="?", default=128, help=f"photographs, a multiple of {BATCH}")
    count = parser.parse_args(arguments).count
    with tempfile.TemporaryDirectory() as folder:
        samples = make_synthetic(folder, count=count)
        report("decode 600x450 JPEG", count, lambda: [read_image(sample.image) for sample in samples])
        for size in (192, 128):
            report(
                f"decode 600x450 JPEG, scaled for {size} px",
                count,
                lambda size=size: [read_image(sample.image, min_size=(size, size)) for sample in samples],
            )
        report("decode 600x450 PNG mask", count, lambda: [read_mask(sample.mask) for sample in samples])
        for size in (128, 192):
            cache = PixelCache(samples, size=(size, size), masks=True, folder=folder)
            positions = np.random.default_rng(0).permutation(count).reshape(-1, BATCH)
            report(f"cached read, {size} px", count, lambda: [cache.read(batch) for batch in positions])  # noqa: B023
            images, masks = cache.read(np.arange(BATCH))
            for name, augment in (("light", Augment.light()), ("strong", Augment.strong())):
                rng = np.random.default_rng(0)
                report(f"augment {name}, {size} px", BATCH, lambda: augment(images, masks, rng=rng))  # noqa: B023
                dataset = make_dataset(samples, size=size, batch_size=BATCH, augment=augment, shuffle=True, cache_dir=folder)
                report(f"whole data set, augment {name}, {size} px", count, lambda: list(dataset))  # noqa: B023
                print(f"{f'end of an epoch, augment {name}, {size} px':<44} {1e3 * longest_end(dataset):7.3f} ms")
                if keras.backend.backend() == "jax":
                    report_on_device(name, OnDevice(augment), images, masks)


def longest_end(dataset: Iterable[object], epochs: int = 10) -> float:
    """Return the longest of some waits for the end of an epoch after its last batch, in seconds."""
    waits = []
    for _ in range(epochs):
        last = time.perf_counter()
        for _ in dataset:
            last = time.perf_counter()
        waits.append(time.perf_counter() - last)
    return max(waits)


def report_on_device(name: str, augment: OnDevice, images: np.ndarray, masks: np.ndarray) -> None:
    """Measure what the processor draws, and all of it on JAX's device."""
    import jax

    rng, size = np.random.default_rng(0), images.shape[1]
    report(f"draw {name}, {size} px", BATCH, lambda: augment.draw(BATCH, images.shape[1:3], rng))
    where = f"JAX's {jax.devices()[0].platform}"
    report(f"augment {name}, {size} px, on {where}", BATCH, lambda: jax.block_until_ready(augment(images, masks, rng=rng)[:2]))


if __name__ == "__main__":
    main()
