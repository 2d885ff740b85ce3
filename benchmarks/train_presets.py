"""Train the networks that come with the library, again, from the folders of photographs.

    python benchmarks/train_presets.py unet --ham10000 DIR --isic2018 DIR --output FOLDER
    python benchmarks/train_presets.py hybrid --ham10000 DIR --isic2018 DIR --output FOLDER

`unet` learns masks from HAM10000; ISIC 2018 Task 1 is scored whole. `hybrid` learns masks and diagnoses from HAM10000 and masks
from ISIC 2018 at once, in the stages of `STAGES`: from the preset of `unet`, whose training part is the same, at 128 pixels
with strong augmentation, then at 192 with less. It is scored on both test parts. Splits are by lesion (`split_samples`, seed
0, the same for both presets). Each stage has its run folder under FOLDER: given again, the command goes on where it stopped.
The card's figures come from photographs that neither trained nor chose anything.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from dermaseg.data import Samples, Split, read_samples, split_samples
from dermaseg.evaluation import evaluate, evaluate_run
from dermaseg.prediction import Predictor
from dermaseg.presets import FOLDER, save_preset
from dermaseg.progress import counting, training_progress
from dermaseg.runs import RunFolder, read_json
from dermaseg.training import resume, train

NAMES = {"unet": "unet-ham10000-128", "hybrid": "hybrid-ham10000-isic2018-192"}
SUMMARIES = {"unet": "Outlines the lesion, 128 px.", "hybrid": "Outlines the lesion and names one of seven diagnoses, 192 px."}
STAGES: dict[str, tuple[dict[str, Any], ...]] = {
    "unet": ({},),
    # What the coarse stage learns of lesions in every light and position, the fine one takes to the size of use.
    "hybrid": (
        {"size": 128, "steps": 7500, "augment": "strong"},
        {"size": 192, "steps": 3400, "augment": "medium", "learning_rate": 1e-3},
    ),
}
"""Settings of each stage, in place of the task's defaults; a stage starts from the weights of the one before."""
BUILDERS = {"unet": "build_unet", "hybrid": "build_hybrid"}
DATA = {
    "unet": "HAM10000 (Tschandl et al., 2018; masks: Tschandl et al., 2020)",
    "hybrid": "HAM10000 (Tschandl et al., 2018; masks: Tschandl et al., 2020), ISIC 2018 Task 1 (Codella et al., 2019)",
}
LICENSE = "Weights: CC BY-NC 4.0, as the photographs that they were trained on."
MASK_FIGURES = ("jaccard", "thresholded_jaccard", "dice", "hausdorff95_px")
CLASS_FIGURES = ("accuracy", "majority_share", "balanced_accuracy", "macro_auc", "calibration_error")


def main() -> None:
    """Read the command line, train what is not trained, and write the preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=list(NAMES))
    parser.add_argument("--ham10000", type=Path, required=True)
    parser.add_argument("--isic2018", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="holds a run folder for each preset")
    parser.add_argument("--weights", type=Path, default=FOLDER, help="where the preset is written")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    ham, isic = read_samples(options.ham10000), read_samples(options.isic2018)
    folder = options.output / options.preset
    if options.preset == "unet":
        run = _trained("segment", ham, folder, options.seed)
        reports = {"HAM10000, test part": _report(run), "ISIC 2018 Task 1, whole": _report(run, options.isic2018)}
        figures = {name: _chosen(report, MASK_FIGURES) for name, report in reports.items()}
    else:
        parts = [split_samples(table, seed=options.seed) for table in (ham, isic)]
        joint = {part: tuple(key for split in parts for key in split.parts[part]) for part in parts[0].parts}
        split = Split(joint, seed=options.seed, group=parts[0].group)
        run = _trained("hybrid", Samples.concatenate([ham, isic]), folder, options.seed, split=split, start=NAMES["unet"])
        predictor = Predictor(run.path)
        figures = {}
        for name, table, part in (("HAM10000", ham, parts[0]), ("ISIC 2018 Task 1", isic, parts[1])):
            report = evaluate(predictor, part.apply(table)["test"], title=f"hybrid: test part of {name}").to_dict()
            figures[f"{name}, test part"] = _chosen(report, (*MASK_FIGURES, *CLASS_FIGURES))
    _write(options.preset, run, figures, options.weights)
    print(json.dumps(figures, indent=2))


def _trained(
    task: str, samples: Samples, folder: Path, seed: int, *, split: Split | None = None, start: str | Path | None = None
) -> RunFolder:
    """Train stage after stage, each in a folder of its own, and return the last; what is finished is not made again."""
    console = Console()
    for number, settings in enumerate(STAGES[folder.name], start=1):
        stage = folder / f"stage-{number}"
        with counting(console, "decode") as decoded, training_progress(console) as shown:
            how: dict[str, Any] = {"callbacks": [shown], "on_decode": decoded}
            if (stage / "settings.json").is_file():
                run = resume(stage, **how)
            else:
                run = train(task, samples, stage, split=split, start=start, seed=seed, **settings, **how)
        start = run.path
    return run


def _report(run: RunFolder, data: Path | None = None) -> dict[str, Any]:
    """Return the report of the run's test part or of other data; one that is there is not made again."""
    path = run.path / ("report.json" if data is None else f"report-{data.name}.json")
    if not path.is_file():
        evaluate_run(run, data=data)
    return read_json(path)


def _chosen(report: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    found = {name: report["figures"][name] for name in names if name in report["figures"]}
    return {"images": report["images"], "groups": report["groups"], **found}


def _write(preset: str, run: RunFolder, figures: dict[str, Any], folder: Path) -> None:
    saved, own = read_json(run.settings), read_json(run.model_card)
    arguments = dict(saved["settings"]["model"])
    if preset == "hybrid":
        arguments |= {"num_classes": len(own["class_names"]), "learned_weights": False}
    card = {
        "summary": SUMMARIES[preset],
        "license": LICENSE,
        "task": saved["task"],
        "size": own["size"],
        "class_names": own.get("class_names", []) if preset == "hybrid" else [],
        "decisions": own["decisions"],
        "data": DATA[preset],
        "split": saved["split"],
        "settings": saved["settings"],
        "versions": {name: saved["versions"][name] for name in ("dermaseg", "keras", "tensorflow", "backend")},
        "command": f"python benchmarks/train_presets.py {preset} --ham10000 DIR --isic2018 DIR --output FOLDER",
        "figures": figures,
        "intended_use": "Research, teaching, and a start for training on own photographs of single pigmented skin lesions.",
        "limits": "Not a medical device. Trained on square crops of dermoscopic photographs, at 128 pixels, of mostly light "
        "skin. Clinical photographs, several lesions, frames with black rims and skin of colour are outside what was measured.",
    }
    made = save_preset(
        Predictor(run.path).model, NAMES[preset], builder=BUILDERS[preset], arguments=arguments, card=card, folder=folder
    )
    print(f"{made.path}: {made.path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
