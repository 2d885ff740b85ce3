"""Does sharing one network help mask or diagnosis, and does the mask help the diagnosis?

    python benchmarks/hybrid_ablation.py --data ham10000 --output ablation --seeds 0 1 2

Arms, all of one architecture, one split and one augmentation stream a seed:

- `class-only`, `mask-only`: the other loss has the weight 0;
- `shared`: both losses, the classifier reads global means alone;
- `guided`: both, and the classifier also reads the lesion and its border by the predicted mask: `build_hybrid`'s default;
- `true-mask`: guided by the true mask, an upper bound;
- `shuffled-mask`: guided by the mask of another photograph: is it the mask that helps?

Every finished (arm, seed) is a JSON file and is not run again. Differences are paired over photographs, with bootstrap
intervals over lesions of the test part, for each seed; the table shows their mean over seeds and the widest ends.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from dermaseg.data import Augment, Samples, canvas, group_samples, make_dataset, read_mask, read_samples, split_samples
from dermaseg.losses import LogitAdjustedCrossentropy, OverlapCrossentropy
from dermaseg.metrics import paired_bootstrap, segmentation_scores
from dermaseg.models import build_hybrid
from dermaseg.runs import write_atomically, write_json

ARMS: Mapping[str, Mapping[str, Any]] = {
    "class-only": {"guidance": False, "weights": {"mask": 0.0, "label": 1.0}},
    "mask-only": {"guidance": False, "weights": {"mask": 1.0, "label": 0.0}},
    "shared": {"guidance": False, "weights": None},
    "guided": {"guidance": True, "weights": None},
    "true-mask": {"guidance": "input", "weights": None},
    "shuffled-mask": {"guidance": "input", "weights": None},
}
QUESTIONS = (
    ("shared", "class-only", "right"),
    ("shared", "mask-only", "jaccard"),
    ("guided", "shared", "right"),
    ("guided", "shuffled-mask", "right"),
    ("true-mask", "guided", "right"),
)


class Guided(keras.utils.PyDataset):
    """The batches of another data set, with a mask beside the images where the arm wants one."""

    def __init__(self, batches: keras.utils.PyDataset, arm: str) -> None:
        super().__init__()
        self.batches = batches
        self.arm = arm

    @property
    def num_batches(self) -> int:
        """As many as the other has."""
        return self.batches.num_batches

    def __getitem__(self, index: int) -> Any:
        images, targets = self.batches[index]
        if ARMS[self.arm]["guidance"] != "input":
            return images, targets
        guide = targets["mask"] if self.arm == "true-mask" else np.roll(targets["mask"], 1, axis=0)
        return {"images": images, "guide": guide.astype("float32")}, targets

    def on_epoch_begin(self) -> None:
        """Tell the other, which counts epochs."""
        self.batches.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tell the other, which counts epochs."""
        self.batches.on_epoch_end()


def run(arm: str, seed: int, parts: Mapping[str, Samples], options: argparse.Namespace) -> dict[str, list[float]]:
    """Train one arm and score it on the test part: a Jaccard index at own size and a right or wrong for each photograph."""
    keras.utils.set_random_seed(seed)
    train, test = parts["train"], parts["test"]
    size = canvas(train, options.size)
    common = {"size": size, "target": "both", "framework": "pydataset", "cache_dir": options.output / "pixels"}
    batches = make_dataset(
        train,
        batch_size=min(32, len(train)),
        augment=Augment.preset(options.augment),
        shuffle=True,
        drop_remainder=True,
        seed=seed,
        **common,
    )
    epochs = max(1, round(options.steps / batches.num_batches))
    weights = ARMS[arm]["weights"]
    model = build_hybrid(
        num_classes=train.num_classes,
        filters=tuple(options.filters),
        mask_guidance=ARMS[arm]["guidance"],
        learned_weights=weights is None,
        dropout=0.2,
    )
    rate = keras.optimizers.schedules.CosineDecay(2e-5, epochs * batches.num_batches, warmup_target=2e-3, warmup_steps=50)
    losses = {
        "mask": OverlapCrossentropy(overlap="jaccard"),
        "label": LogitAdjustedCrossentropy(priors=np.bincount(train.labels, minlength=train.num_classes).tolist(), tau=0.5),
    }
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-3, global_clipnorm=1.0), losses, loss_weights=weights)
    model.fit(Guided(batches, arm), epochs=epochs, shuffle=False, verbose=0)

    scores: dict[str, list[float]] = {"jaccard": [], "right": []}
    seen = Guided(make_dataset(test, batch_size=32, **common), arm)
    for index in range(seen.num_batches):
        images, targets = seen[index]
        outputs = {name: np.asarray(values, np.float32) for name, values in model.predict_on_batch(images).items()}
        scores["right"] += (outputs["label"].argmax(axis=1) == targets["label"]).astype(float).tolist()
        for offset, mask in enumerate(outputs["mask"][..., 0]):
            true = read_mask(test[index * 32 + offset].mask)
            own = np.asarray(Image.fromarray(mask).resize(true.shape[::-1], Image.Resampling.BILINEAR)) > 0.5
            scores["jaccard"].append(segmentation_scores(true, own.astype(np.uint8))["jaccard"])
    return scores


def table(output: Path, test: Samples, seeds: list[int]) -> str:
    """Return the table of all finished runs as Markdown."""
    found = {
        (arm, seed): json.loads(path.read_text())
        for arm in ARMS
        for seed in seeds
        if (path := output / f"{arm}-{seed}.json").is_file()
    }
    labels, groups = test.labels, group_samples(test)
    lines = ["| arm | seeds | Jaccard | accuracy | balanced accuracy |", "| --- | --- | --- | --- | --- |"]
    for arm in ARMS:
        runs = [np.array([found[arm, seed]["jaccard"], found[arm, seed]["right"]]) for seed in seeds if (arm, seed) in found]
        if not runs:
            continue
        balanced = [np.mean([run[1][labels == label].mean() for label in np.unique(labels)]) for run in runs]
        columns = ([run[0].mean() for run in runs], [run[1].mean() for run in runs], balanced)
        cells = (f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" for values in columns)
        lines.append(f"| {arm} | {len(runs)} | {' | '.join(cells)} |")
    lines += ["", "| difference | figure | mean over seeds | widest interval |", "| --- | --- | --- | --- |"]
    for first, second, figure in QUESTIONS:
        both = [seed for seed in seeds if (first, seed) in found and (second, seed) in found]
        intervals = [
            paired_bootstrap(
                np.array(found[first, seed][figure]), np.array(found[second, seed][figure]), groups=groups, seed=seed
            )
            for seed in both
        ]
        if intervals:
            mean = np.mean([interval.value for interval in intervals])
            low, high = min(interval.low for interval in intervals), max(interval.high for interval in intervals)
            lines.append(f"| {first} less {second} | {figure} | {mean:+.3f} | {low:+.3f} to {high:+.3f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Read the command line and run what is not finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--filters", type=int, nargs="+", default=[16, 32, 64, 128, 256, 384])
    parser.add_argument("--augment", default="light")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    samples = read_samples(options.data).with_masks().with_labels()
    parts = split_samples(samples, seed=0).apply(samples)
    for seed in options.seeds:
        for arm in options.arms:
            path = options.output / f"{arm}-{seed}.json"
            if not path.is_file():
                print(f"{arm}, seed {seed}", flush=True)
                write_json(path, run(arm, seed, parts, options))
    text = table(options.output, parts["test"], options.seeds)
    write_atomically(options.output / "table.md", lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
    print(text)


if __name__ == "__main__":
    main()
