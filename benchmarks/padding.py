"""What is gained by padding feature maps where they are halved, instead of padding the picture to the network's total stride.

    python -m benchmarks.padding --rounds 15
    python -m benchmarks.padding --ham10000 DIR --images 400

The default U-Net halves a picture six times. As is usual, one would mirror a photograph out to multiples of 64: one of 111 by
148 pixels, HAM10000's shape, becomes 128 by 192, half as much again. Timed are training steps and predictions of both, in
interleaved rounds. With data, the presets' outlines of photographs cut to 4:3 are scored both ways: the presets learned from
square crops, which need no padding, and have not seen its mirror images.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from benchmarks.fuzzy_step_time import seconds
from dermaseg.data import Samples, fit_area, group_samples, read_image, read_mask, read_samples, split_samples
from dermaseg.layers import CropLike, PadToStride
from dermaseg.metrics import jaccard_index, paired_bootstrap
from dermaseg.models import build_unet
from dermaseg.prediction import Predictor
from dermaseg.presets import list_presets, load_preset

TOTAL_STRIDE = 64
_SHAPE = (450, 600)


def padded_to_total_stride(network: keras.Model) -> keras.Model:
    """Return the network with its picture mirrored out beforehand, at the lower and the right border, and its mask cut back."""
    inputs = keras.Input((None, None, 3))
    outputs = network(PadToStride(TOTAL_STRIDE)(inputs))
    if isinstance(outputs, dict):
        outputs = {**outputs, "mask": CropLike()([outputs["mask"], inputs])}
    else:
        outputs = CropLike()([outputs, inputs])
    return keras.Model(inputs, outputs)


def cut(samples: Samples) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read photographs and masks, and cut what is higher than 4:3 at the top and the bottom."""
    for sample in samples:
        image, mask = read_image(sample.image), read_mask(sample.mask)
        height, width = mask.shape
        kept = min(height, width * _SHAPE[0] // _SHAPE[1])
        top = (height - kept) // 2
        yield image[top : top + kept], mask[top : top + kept]


def jaccards(network: keras.Model, samples: Samples, size: int) -> np.ndarray:
    """Return the Jaccard index of each photograph's outline, `(samples,)`."""
    predictor = Predictor(network, size=size)
    return np.array([jaccard_index(mask, predictor(image).mask) for image, mask in cut(samples)])


def time_both(size: int, batch: int, rounds: int) -> None:
    """Print the milliseconds of a training step and of a prediction, and the rounds' ratios."""
    shape = fit_area(_SHAPE, size)
    generator = np.random.default_rng(0)
    images = generator.uniform(0, 255, (batch, *shape, 3)).astype("float32")
    masks = (generator.uniform(size=(batch, *shape, 1)) > 0.5).astype("float32")
    models = [build_unet(), padded_to_total_stride(build_unet())]
    for model in models:
        model.compile("adam", "binary_crossentropy", jit_compile="auto")
        model.train_on_batch(images, masks)
        model.predict_on_batch(images)
    print(f"{keras.backend.backend()}, {batch} photographs of {shape[0]} by {shape[1]} pixels")
    calls: dict[str, list[Callable[[], object]]] = {
        "training step": [lambda model=model: model.train_on_batch(images, masks) for model in models],
        "prediction": [lambda model=model: model.predict_on_batch(images) for model in models],
    }
    for name, (own, usual) in calls.items():
        taken = 1e3 * np.array([[seconds(own), seconds(usual)] for _ in range(rounds)])
        low, middle, high = np.quantile(taken[:, 1] / taken[:, 0], [0.25, 0.5, 0.75])
        times = np.median(taken, axis=0)
        print(
            f"{name}: {times[0]:.0f} ms, padded to {TOTAL_STRIDE} {times[1]:.0f}: {middle:.2f} times ({low:.2f} to {high:.2f})"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, time, and score where there are data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ham10000", type=Path)
    parser.add_argument("--images", type=int, help="only so many photographs of the test part, evenly taken")
    parser.add_argument("--size", type=int, default=128, help="side in pixels of the square of the same area")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(arguments)

    time_both(options.size, options.batch, options.rounds)
    if options.ham10000 is None:
        return
    samples = read_samples(options.ham10000).with_masks()
    test = split_samples(samples, seed=0).apply(samples)["test"]
    count = min(options.images or len(test), len(test))
    test = test.select(np.linspace(0, len(test) - 1, count).astype(int).tolist())
    for preset in list_presets():
        network = load_preset(preset.name)
        own, usual = (jaccards(each, test, preset.card["size"]) for each in (network, padded_to_total_stride(network)))
        difference = paired_bootstrap(own, usual, groups=group_samples(test))
        print(f"{preset.name}: Jaccard {own.mean():.3f}, padded to {TOTAL_STRIDE} {usual.mean():.3f}, difference {difference}")


if __name__ == "__main__":
    main()
