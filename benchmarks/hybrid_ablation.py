"""Does sharing one network help mask or diagnosis, and does the mask help the diagnosis?

    python -m benchmarks.hybrid_ablation --data ham10000 --output ablation --seeds 0 1 2

Arms, all of one architecture, one split and one augmentation stream per seed:

- `class-only`, `mask-only`: the other loss has the weight 0;
- `shared`: both losses by learned weights, the classifier reads global means alone;
- `guided`: both, and the classifier also reads the lesion and its border by the predicted mask: `build_hybrid`'s default;
- `shared-fixed`, `guided-fixed`: the same with both losses weighted 1 to 1: is it the learned weights that help?
- `true-mask`: guided by the true mask, an upper bound;
- `shuffled-mask`: guided by the mask of another lesion, drawn at random: is it the mask that helps?

Every finished (arm, seed) is a JSON file and is not run again; a folder holds results of one setting. Differences are paired
over photographs, with bootstrap intervals over lesions of the test part, for each seed; the table shows their mean over seeds
and the widest ends. Seconds cover training and compilation, on a machine that may have been busy; for `shuffled-mask` they
include reading a second photograph for each.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from dermaseg.data import Augment, Samples, canvas, group_samples, make_dataset, read_mask, read_samples, split_samples
from dermaseg.errors import DataError
from dermaseg.losses import LogitAdjustedCrossentropy, OverlapCrossentropy
from dermaseg.metrics import jaccard_index, paired_bootstrap
from dermaseg.models import build_hybrid
from dermaseg.optimizers import AdamW
from dermaseg.runs import read_json, write_atomically, write_json

ARMS: Mapping[str, Mapping[str, Any]] = {
    "class-only": {"guidance": False, "weights": {"mask": 0.0, "label": 1.0}},
    "mask-only": {"guidance": False, "weights": {"mask": 1.0, "label": 0.0}},
    "shared": {"guidance": False, "weights": None},
    "guided": {"guidance": True, "weights": None},
    "shared-fixed": {"guidance": False, "weights": {"mask": 1.0, "label": 1.0}},
    "guided-fixed": {"guidance": True, "weights": {"mask": 1.0, "label": 1.0}},
    "true-mask": {"guidance": "input", "weights": None},
    "shuffled-mask": {"guidance": "input", "weights": None},
}
QUESTIONS = (
    ("shared", "class-only", "right"),
    ("shared", "mask-only", "jaccard"),
    ("shared-fixed", "class-only", "right"),  # as the two before, with the fixed weights that the single heads have
    ("shared-fixed", "mask-only", "jaccard"),
    ("guided", "class-only", "right"),
    ("guided", "mask-only", "jaccard"),
    ("guided-fixed", "class-only", "right"),
    ("guided-fixed", "mask-only", "jaccard"),
    ("guided", "shared", "right"),
    ("guided", "guided-fixed", "right"),
    ("guided", "guided-fixed", "jaccard"),
    ("shared", "shared-fixed", "right"),
    ("shared", "shared-fixed", "jaccard"),
    ("guided", "shuffled-mask", "right"),
    ("true-mask", "guided", "right"),
)


FIGURES = {"mask": "jaccard", "label": "right"}  # of each head


class Guided(keras.utils.PyDataset):
    """The batches of another data set, with a mask beside the images where the arm wants one.

    Args:
        batches: The other data set, of both targets.
        arm: A key of `ARMS`.
        guides: For `"shuffled-mask"`: a data set of the same seed and order over `samples.select(derange(samples, seed))`,
            whose row of a batch is thus the photograph that the position in the table was given.
    """

    def __init__(self, batches: keras.utils.PyDataset, arm: str, guides: keras.utils.PyDataset | None = None) -> None:
        super().__init__()
        if (guides is None) == (arm == "shuffled-mask"):
            raise ValueError(f"{arm}: guides are for shuffled-mask, which needs them.")
        self.batches, self.arm, self.guides = batches, arm, guides

    @property
    def num_batches(self) -> int:
        """As many as the other has."""
        return self.batches.num_batches

    def __getitem__(self, index: int) -> Any:
        images, targets = self.batches[index]
        if ARMS[self.arm]["guidance"] != "input":
            return images, targets
        guide = (targets if self.guides is None else self.guides[index][1])["mask"]
        return {"images": images, "guide": guide.astype("float32")}, targets

    def on_epoch_begin(self) -> None:
        """Tell the others, which count epochs."""
        self.batches.on_epoch_begin()
        if self.guides is not None:
            self.guides.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tell the others, which count epochs."""
        self.batches.on_epoch_end()
        if self.guides is not None:
            self.guides.on_epoch_end()


def derange(samples: Samples, seed: int) -> np.ndarray:
    """Give each photograph one of another lesion, each of them once.

    A table is often sorted by diagnosis: a neighbour's mask would still tell the class.

    Returns:
        Positions of shape `(samples,)`, a permutation that maps no photograph into its own group of `group_samples`.

    Raises:
        DataError: If one lesion has more than half of the photographs.
    """
    groups = group_samples(samples)
    if 2 * np.bincount(groups).max() > len(groups):
        raise DataError(f"{samples.source}: one lesion has more than half of the photographs. Leave out shuffled-mask.")
    generator = np.random.default_rng(seed)
    given = generator.permutation(len(groups))
    for position in np.flatnonzero(groups[given] == groups):
        own = groups[position]
        if groups[given[position]] != own:  # mended as the other place of an exchange
            continue
        # One exchange mends one and breaks none; with no lesion above a half, there is always a place to exchange with.
        other = generator.choice(np.flatnonzero((groups != own) & (groups[given] != own)))
        given[[position, other]] = given[[other, position]]
    return given


def trained_figures(arm: str) -> list[str]:
    """Return the figures of the heads that an arm trains; the other head says nothing."""
    weights = ARMS[arm]["weights"]
    return [figure for head, figure in FIGURES.items() if weights is None or weights[head] > 0]


def load(samples: Samples, arm: str, seed: int, options: argparse.Namespace, **how: Any) -> Guided:
    """Feed a part to an arm, by the options of `make_dataset`."""
    common: dict[str, Any] = {"target": "both", "framework": "pydataset", "seed": seed, **how}
    batches = make_dataset(samples, cache_dir=options.output / "pixels", **common)
    if arm != "shuffled-mask":
        return Guided(batches, arm)
    # Its pixels are of this seed alone, not worth keeping.
    return Guided(batches, arm, make_dataset(samples.select(derange(samples, seed).tolist()), **common))


def run(arm: str, seed: int, parts: Mapping[str, Samples], options: argparse.Namespace) -> dict[str, Any]:
    """Train one arm and score it on the test part: a Jaccard index at own size and a right or wrong for each photograph."""
    keras.utils.set_random_seed(seed)
    train, test = parts["train"], parts["test"]
    size = canvas(train, options.size)
    augment = Augment.preset(options.augment)
    batch_size = min(32, len(train))
    batches = load(
        train, arm, seed, options, size=size, batch_size=batch_size, augment=augment, shuffle=True, drop_remainder=True
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
    model.compile(AdamW(rate, weight_decay=1e-3, global_clipnorm=1.0), losses, loss_weights=weights)
    model.optimizer.build(model.trainable_variables)
    start = time.perf_counter()
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    seconds = time.perf_counter() - start

    scores: dict[str, list[float]] = {"jaccard": [], "right": []}
    seen = load(test, arm, seed, options, size=size, batch_size=32)
    for index in range(seen.num_batches):
        images, targets = seen[index]
        outputs = {name: np.asarray(values, np.float32) for name, values in model.predict_on_batch(images).items()}
        scores["right"] += (outputs["label"].argmax(axis=1) == targets["label"]).astype(float).tolist()
        for offset, mask in enumerate(outputs["mask"][..., 0]):
            true = read_mask(test[index * 32 + offset].mask)
            own = np.asarray(Image.fromarray(mask).resize(true.shape[::-1], Image.Resampling.BILINEAR)) > 0.5
            scores["jaccard"].append(jaccard_index(true, own.astype(np.uint8)))
    costs = {"training_s": round(seconds, 2), "parameters": model.count_params()}
    return costs | {figure: scores[figure] for figure in trained_figures(arm)}


def hold_to(settings: Mapping[str, Any], output: Path) -> None:
    """Write the settings, or see that they are those of the results that are there."""
    path = output / "settings.json"
    content = json.loads(json.dumps(settings))
    if path.is_file():
        saved = read_json(path)
        changed = [f"{key} was {saved.get(key)!r}, is {value!r}" for key, value in content.items() if saved.get(key) != value]
        if changed:
            raise SystemExit(f"{output} holds results of other settings: {'; '.join(changed)}. Give another --output.")
    elif any(next(output.glob(f"{arm}-*.json"), None) for arm in ARMS):
        raise SystemExit(f"{output} holds results, but no settings.json to say of what. Give another --output.")
    else:
        write_json(path, content)


def table(output: Path, test: Samples, seeds: list[int]) -> str:
    """Return the table of all finished runs as Markdown."""
    found = {
        (arm, seed): json.loads(path.read_text())
        for arm in ARMS
        for seed in seeds
        if (path := output / f"{arm}-{seed}.json").is_file()
    }
    labels, groups = test.labels, group_samples(test)
    lines = [
        "| arm | seeds | parameters | training [s] | Jaccard | accuracy | balanced accuracy |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for arm in ARMS:
        runs = [found[arm, seed] for seed in seeds if (arm, seed) in found]
        if not runs:
            continue
        jaccard, right = ([np.array(one[figure]) for one in runs if figure in one] for figure in ("jaccard", "right"))
        balanced = [np.mean([one[labels == label].mean() for label in np.unique(labels)]) for one in right]
        columns = ([one.mean() for one in jaccard], [one.mean() for one in right], balanced)
        cells = [f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else "" for values in columns]
        seconds = np.mean([one["training_s"] for one in runs])
        lines.append(f"| {arm} | {len(runs)} | {runs[0]['parameters']:,} | {seconds:.0f} | {' | '.join(cells)} |")
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
            lines.append(f"| {first} minus {second} | {figure} | {mean:+.3f} | {low:+.3f} to {high:+.3f} |")
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> None:
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
    options = parser.parse_args(arguments)
    samples = read_samples(options.data).with_masks().with_labels()
    split = split_samples(samples, seed=0)
    parts = split.apply(samples)
    if "shuffled-mask" in options.arms:
        for name in ("train", "test"):
            try:  # before anything is trained
                derange(parts[name], 0)
            except DataError as error:
                raise SystemExit(f"{name} part: {error}") from None
    settings = {key: getattr(options, key) for key in ("steps", "size", "filters", "augment")}
    hold_to({**settings, "split": split.fingerprint, "classes": samples.class_names}, options.output)
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
