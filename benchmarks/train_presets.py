"""Train the networks that come with the library, again, from the folders of photographs.

    python -m benchmarks.train_presets all --ham10000 DIR --isic2018 DIR --output FOLDER
    python -m benchmarks.train_presets hybrid --ham10000 DIR --isic2018 DIR --output FOLDER
    python -m benchmarks.train_presets all --packed packed.zip --output FOLDER      # a file of benchmarks/pack.py
    python -m benchmarks.train_presets score --ham10000 DIR --isic2018 DIR          # the cards' figures of what is packaged

`unet` learns masks from HAM10000; ISIC 2018 Task 1 is scored whole. `hybrid` learns masks and diagnoses from HAM10000 and masks
from ISIC 2018 at once, in the stages of `STAGES`: from the network of `unet`, whose training part is the same, at 128 pixels
with strong augmentation, then at 192 with less, then with frames and mixed photographs. The preset has the mean of the last
two stages' weights: the one outlines best what is cropped, the other what is not. It is scored on both test parts. `all` makes
`unet`, then `hybrid`. Splits are by lesion (`split_samples`, seed 0, the same for both presets). Each stage has its run folder
under FOLDER: given again, the command goes on where it stopped, and stages that are finished are only written. The card's
figures come from photographs that neither trained nor chose anything, by the preset as it is delivered: weights in half
precision, run on ONNX Runtime where its graph can be written (TensorFlow's backend and `dermaseg[export]`).

`score` trains nothing: it scores the packaged presets again, each on the parts that its own split kept from it, and writes the
figures into their cards.
"""

import argparse
import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from benchmarks.pack import SETS, unpack
from dermaseg.data import Samples, Split, read_samples, split_samples
from dermaseg.decisions import Decisions
from dermaseg.errors import DataError
from dermaseg.evaluation import evaluate
from dermaseg.prediction import Predictor
from dermaseg.presets import Preset, load_preset, save_preset
from dermaseg.pretrained import FOLDER, find_preset
from dermaseg.progress import counting, training_progress
from dermaseg.report import Report
from dermaseg.run_data import draw_split
from dermaseg.runs import RunFolder, read_json, write_atomically, write_json
from dermaseg.training import average_runs, recalibrate, resume, train

NAMES = {"unet": "unet-ham10000-128", "hybrid": "hybrid-ham10000-isic2018-192"}
SUMMARIES = {"unet": "Outlines the lesion, 128 px.", "hybrid": "Outlines the lesion and names one of seven diagnoses, 192 px."}
STAGES: dict[str, tuple[dict[str, Any], ...]] = {
    "unet": ({"steps": 7200},),
    # What the coarse stage learns of lesions in every light and position, the fine one takes to the size of use.
    "hybrid": (
        {"size": 128, "steps": 7500, "augment": "strong"},
        {"size": 192, "steps": 3400, "augment": "medium", "learning_rate": 1e-3},
        # Frames, small lesions and mixed photographs, for what is not a centred crop and for what was learned by heart.
        {"size": 192, "steps": 7500, "augment": "frames", "mix": "mixup", "learning_rate": 1.5e-3, "ema": 0.999},
    ),
}
"""Settings of each stage, in place of the task's defaults; a stage starts from the weights of the one before."""
AVERAGED = {"hybrid": 2}
"""The mean of how many stages, the last ones, is the preset, instead of the last stage alone."""
BUILDERS = {"unet": "build_unet", "hybrid": "build_hybrid"}
DATA = {
    "unet": "HAM10000 (Tschandl et al., 2018; masks: Tschandl et al., 2020)",
    "hybrid": "HAM10000 (Tschandl et al., 2018; masks: Tschandl et al., 2020), ISIC 2018 Task 1 (Codella et al., 2019)",
}
LICENSE = "Weights: CC BY-NC 4.0, as the photographs that they were trained on."
FIGURES = (
    *("jaccard", "thresholded_jaccard", "dice", "hausdorff95_px"),
    *("accuracy", "majority_share", "balanced_accuracy", "macro_auc", "calibration_error"),
    *("alarm_sensitivity", "conformal_coverage", "conformal_size", "referred_share"),
)
SUBGROUP_FIGURES = ("jaccard", "accuracy", "balanced_accuracy")
VERSIONS = ("dermaseg", "keras", "tensorflow", "jax", "torch", "backend")

Tables = Mapping[str, Samples]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, train what is not trained, and write the presets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=[*NAMES, "all", "score"])
    parser.add_argument("--ham10000", type=Path)
    parser.add_argument("--isic2018", type=Path)
    parser.add_argument("--packed", type=Path, help="both data sets, as benchmarks/pack.py packs them")
    parser.add_argument("--output", type=Path, help="holds a folder of runs for each preset; needed to train")
    parser.add_argument("--weights", type=Path, default=FOLDER, help="where the presets are written")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    folders = {name: getattr(options, name) for name in SETS}
    if (options.packed is None) == (None in folders.values()):
        parser.error("give --ham10000 and --isic2018, or --packed")
    if options.output is None and (options.preset != "score" or options.packed is not None):
        parser.error("--output is needed: runs, and what --packed holds, go there")
    if options.packed is not None:
        folders = unpack(options.packed, options.output / "data")
    ham, isic = (read_samples(folders[name]) for name in SETS)
    if options.preset == "score":
        for name in NAMES:
            print(json.dumps(rescore(name, ham, isic, options.weights).card["figures"], indent=2))
        return
    for name in NAMES if options.preset == "all" else [options.preset]:
        folder = options.output / name
        if name == "unet":
            runs = _trained("segment", ham, folder, options.seed)
        else:
            # ISIC 2018 says no lesions: near-duplicates are looked for there, and stay together.
            split = _joined(draw_split(table, "random", seed=options.seed, by_class=False)[1] for table in (ham, isic))
            start = _finished_unet(options.output) or NAMES["unet"]
            runs = _trained("hybrid", Samples.concatenate([ham, isic]), folder, options.seed, split=split, start=start)
        preset = write_preset(name, runs, _tables(name, ham, isic, Split.load(runs[-1].split)), options.weights)
        print(json.dumps(preset.card["figures"], indent=2))
        print(f"{preset.path}: {preset.path.stat().st_size / 1e6:.1f} MB")


def _trained(
    task: str, samples: Samples, folder: Path, seed: int, *, split: Split | None = None, start: str | Path | None = None
) -> list[RunFolder]:
    """Train stage after stage, each in a folder of its own, and return all; what is finished is not made again."""
    console = Console()
    runs: list[RunFolder] = []
    for number, settings in enumerate(STAGES[folder.name], start=1):
        stage = folder / f"stage-{number}"
        with counting(console, "decode") as decoded, training_progress(console) as shown:
            how: dict[str, Any] = {"callbacks": [shown], "on_decode": decoded}
            if (stage / "settings.json").is_file():
                run = resume(stage, **how)
            else:
                run = train(task, samples, stage, split=split or "random", start=start, seed=seed, **settings, **how)
        runs.append(run)
        start = run.path
    if folder.name in AVERAGED:
        mean = RunFolder(folder / "mean")
        if not mean.model.is_file():
            return [*runs, average_runs(runs[-AVERAGED[folder.name] :], mean.path)]
        runs.append(mean)
    recalibrate(runs[-1])
    return runs


def _joined(splits: Iterable[Split]) -> Split:
    """Return one split of several tables, each part of which holds theirs."""
    parts = list(splits)
    joint = {part: tuple(key for split in parts for key in split.parts[part]) for part in parts[0].parts}
    return Split(joint, seed=parts[0].seed, group=", ".join(dict.fromkeys(each.group for each in parts)))


def rescore(name: str, ham: Samples, isic: Samples, folder: Path) -> Preset:
    """Score a packaged preset on what its own split kept from it, and write the figures into its card.

    Raises:
        DataError: If the split that it was trained with is not one of these tables.
    """
    preset = find_preset(NAMES[name])
    seed = preset.card["stages"][0]["settings"]["seed"]
    splits = [split_samples(table, seed=seed) for table in (ham, isic)]
    # The packaged hybrid's joint split bears the name of the first table's groups.
    split = splits[0] if name == "unet" else dataclasses.replace(_joined(splits), group=splits[0].group)
    if split.fingerprint != preset.card["split"]:
        raise DataError(f"{preset.name} was trained with another split than these photographs give: are some missing?")
    card = {**preset.card, "figures": score(preset, _tables(name, ham, isic, split))}
    write_json(folder / f"{preset.name}.json", card)
    return Preset(preset.name, preset.path, card)


def _tables(name: str, ham: Samples, isic: Samples, split: Split) -> dict[str, Samples]:
    """Return the photographs to score a preset on, by what its card calls them."""
    tested = set(split.parts["test"])
    tables = {"HAM10000, test part": _with_ids(ham, tested)}
    if name == "unet":
        return {**tables, "ISIC 2018 Task 1, whole": isic}
    return {**tables, "ISIC 2018 Task 1, test part": _with_ids(isic, tested)}


def _with_ids(samples: Samples, ids: Collection[str]) -> Samples:
    return samples.filter(lambda sample: sample.id in ids)


def _finished_unet(output: Path) -> Path | None:
    """Return the last stage of `unet` under the same folder: before it is a preset of the installation, it is there."""
    last = output / "unet" / f"stage-{len(STAGES['unet'])}"
    return last if RunFolder(last).model.is_file() else None


def write_preset(name: str, runs: Sequence[RunFolder], tables: Tables, folder: Path) -> Preset:
    """Make a preset of a finished training: weights, graph, and a card with the figures of just these files.

    Args:
        name: A key of `NAMES`.
        runs: The stages, in order; the last one's model becomes the preset.
        tables: Photographs to score, by what the card calls them.
        folder: Where the files go when they are whole. They are made beside the runs: what users read never lacks its figures.
    """
    run = runs[-1]
    saved, own = read_json(run.settings), read_json(run.model_card)
    stages = _stages(name, runs)
    arguments = dict(saved["settings"]["model"])
    if name == "hybrid":
        arguments |= {"num_classes": len(own["class_names"]), "learned_weights": False}
    seed = saved["settings"]["seed"]
    card = {
        "summary": SUMMARIES[name],
        "license": LICENSE,
        "task": saved["task"],
        "size": own["size"],
        "class_names": own.get("class_names", []) if name == "hybrid" else [],
        "decisions": own["decisions"],
        "data": DATA[name],
        "split": saved["split"],
        "stages": stages,
        "versions": {key: saved["versions"][key] for key in VERSIONS if key in saved["versions"]},
        "command": f"python -m benchmarks.train_presets {name} --ham10000 DIR --isic2018 DIR --output FOLDER"
        + (f" --seed {seed}" if seed else ""),
        "intended_use": "Research, teaching, and a start for training on own photographs of single pigmented skin lesions.",
        "limits": f"Not a medical device. Trained on square crops of dermoscopic photographs, at {_sizes(stages)} pixels, of "
        "mostly light skin. Clinical photographs, several lesions, uncropped frames and skin of colour are outside what was "
        "measured.",
    }
    made = save_preset(
        Predictor(run.path).model,
        NAMES[name],
        builder=BUILDERS[name],
        arguments=arguments,
        card=card,
        folder=run.path.parent / "preset",
    )
    made = _with_graph(made)
    figures = score(made, tables)
    write_json(made.path.with_suffix(".json"), {**made.card, "figures": figures})
    # The card last, for it names the others' hashes.
    for file in (made.path, made.graph, made.path.with_suffix(".json")):
        if file.is_file():
            content = file.read_bytes()
            write_atomically(folder / file.name, lambda unfinished, content=content: unfinished.write_bytes(content))
    return Preset(made.name, folder / made.path.name, read_json(folder / f"{made.name}.json"))


def _stages(name: str, runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Return each stage's settings and what its weights started from, without the paths of this machine."""
    trained = [run for run in runs if run.history.is_file()]
    starts = [read_json(run.settings)["start"] for run in trained]
    first = None if starts[0] is None else NAMES["unet"]
    named = [first, *(f"stage {number}" for number in range(1, len(trained)))]
    stages: list[dict[str, Any]] = [
        {"start": start, "settings": read_json(run.settings)["settings"]} for start, run in zip(named, trained, strict=True)
    ]
    if len(runs) > len(trained):
        stages.append({"mean_of": [f"stage {number + 1}" for number in range(len(trained))][-AVERAGED[name] :]})
    return stages


def _sizes(stages: Sequence[Mapping[str, Any]]) -> str:
    return " and then ".join(dict.fromkeys(str(stage["settings"]["size"]) for stage in stages if "settings" in stage))


def _with_graph(preset: Preset) -> Preset:
    """Write the preset's ONNX graph, where this process can."""
    if keras.backend.backend() != "tensorflow":
        print("no graph: converting takes TensorFlow. Give the command again with KERAS_BACKEND=tensorflow.")
        return preset
    from dermaseg.export import export_graph

    export_graph(preset)
    return Preset(preset.name, preset.path, read_json(preset.path.with_suffix(".json")))


def score(preset: Preset, tables: Tables) -> dict[str, Any]:
    """Return the figures of a preset's own files on each table: with intervals and counts, over all and by subgroup."""
    network: Any
    if preset.runs_without_keras:
        from dermaseg.runtime import OnnxModel

        network = OnnxModel.from_preset(preset)
    else:
        network = load_preset(preset.name, folder=preset.path.parent)
    predictor = Predictor(network, size=preset.card["size"])
    predictor.class_names = tuple(preset.card["class_names"])
    predictor.decisions = Decisions.from_dict(preset.card["decisions"])
    console, found = Console(), {}
    for title, table in tables.items():
        with counting(console, "evaluate") as scored:
            found[title] = _chosen(evaluate(predictor, table, title=f"{preset.name}: {title}", on_image=scored))
    return found


def _chosen(report: Report) -> dict[str, Any]:
    content = report.to_dict()  # where a figure or an interval that there is not is None
    whole = {name: content["figures"][name] for name in FIGURES if name in content["figures"]}
    subgroups = {
        grouping: {
            value: {name: figures[name] for name in SUBGROUP_FIGURES if name in figures} for value, figures in values.items()
        }
        for grouping, values in content["subgroups"].items()
    }
    return {"images": len(report.rows), "groups": report.groups, **whole, "subgroups": subgroups}


if __name__ == "__main__":
    main()
