"""What the default preset keeps of its figures where photographs are not as those that it learned from.

    python -m benchmarks.robustness --ham10000 DIR

HAM10000's held-out test part (the split of `benchmarks/train_presets.py`, seed 0), once as it is and once under each change of
`CHANGES`: a frame as of uncropped photographs, dark corners, hairs, light and colour of another camera, blur, grain, less or
more pixels. Geometry moves the true mask along. Each row has the figures, and the differences to the photographs as they are,
paired, with 95 % bootstrap intervals over lesions. A run folder in the place of a preset is measured the same way, on its
own validation part with `--part validation` where a design is still to be chosen.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dermaseg.data import Augment, Samples, group_samples, read_image, read_mask, read_samples, split_samples
from dermaseg.metrics import bootstrap_interval, jaccard_index, paired_bootstrap
from dermaseg.prediction import Predictor
from dermaseg.pretrained import DEFAULT_PRESET

CHANGES: dict[str, Augment | float] = {
    "as it is": Augment(),
    "in a frame": Augment(frame=1),
    "dark corners": Augment(vignette=1),
    "hairs": Augment(hair=1),
    "other light and colour": Augment(brightness=0.35, contrast=0.35, saturation=0.35, channel_gain=0.12, gamma=0.3),
    "blur and grain, each on a quarter": Augment(blur_px=3, noise=12),
    "half of the pixels a side": 0.5,
    "four times the pixels a side": 4.0,
}
"""A change of the picture, or a factor of its size, by its name in the table."""


def changed(samples: Samples, change: Augment | float, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read photographs and masks one by one and change each, by a stream of chance of its own."""
    for index, sample in enumerate(samples):
        image, mask = read_image(sample.image), read_mask(sample.mask)
        if isinstance(change, Augment):
            rng = np.random.default_rng((seed, index))
            varied, masks = change(image[np.newaxis], mask[np.newaxis, ..., np.newaxis], rng=rng)
            yield varied[0], masks[0, ..., 0]
        else:
            size = tuple(round(side * change) for side in image.shape[1::-1])
            resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
            yield np.asarray(resized), np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def scores(predictor: Predictor, samples: Samples, change: Augment | float, seed: int) -> dict[str, np.ndarray]:
    """Return the Jaccard index of each photograph, and whether its class is named rightly, each `(samples,)`."""
    found: dict[str, list[float]] = {"jaccard": [], "accuracy": []}
    for sample, (image, mask) in zip(samples, changed(samples, change, seed), strict=True):
        prediction = predictor(image)
        found["jaccard"].append(jaccard_index(mask, prediction.mask))
        if prediction.classes and sample.label is not None:
            found["accuracy"].append(float(prediction.label == samples.class_names[sample.label]))
    return {name: np.array(values) for name, values in found.items() if values}


def main() -> None:
    """Read the command line, and print a row for each change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ham10000", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_PRESET, help="a preset or a run folder of HAM10000, split by seed 0")
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    parser.add_argument("--images", type=int, default=None, help="only so many photographs of the part, evenly taken")
    parser.add_argument("--changes", nargs="+", choices=list(CHANGES), default=list(CHANGES))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    samples = read_samples(options.ham10000)
    part = split_samples(samples, seed=0).apply(samples)[options.part].with_masks()
    count = min(options.images or len(part), len(part))
    part = part.select(np.linspace(0, len(part) - 1, count).astype(int).tolist())  # the table may be sorted by diagnosis
    predictor, groups = Predictor(options.model), group_samples(part)
    plain = scores(predictor, part, CHANGES["as it is"], options.seed)
    print(f"{options.model}, {options.part} part: {len(part)} photographs of {len(np.unique(groups))} lesions\n")
    print("| photographs | " + " | ".join(f"{name} | difference" for name in plain) + " |")
    print("| --- |" + " --- | --- |" * len(plain))
    for name in options.changes:
        found = plain if name == "as it is" else scores(predictor, part, CHANGES[name], options.seed)
        cells = []
        for figure, values in found.items():
            difference = "" if found is plain else str(paired_bootstrap(values, plain[figure], groups=groups))
            cells += [str(bootstrap_interval(values, groups=groups)), difference]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
