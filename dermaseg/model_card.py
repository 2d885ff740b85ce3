"""A model card from what a run folder knows: data, split, figures with intervals, subgroups, licence, intended use, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dermaseg.data import Samples, Split
from dermaseg.disclaimer import NOT_A_DIAGNOSIS
from dermaseg.report import Report
from dermaseg.run_data import settings_taken
from dermaseg.runs import RunFolder, read_json, write_atomically
from dermaseg.tasks import TASKS

__all__ = ["model_card", "write_model_card"]

LICENSES: Mapping[str, str] = {
    "HAM10000": "CC BY-NC 4.0 (Tschandl et al., 2018, 2020): models trained on it are for non-commercial use.",
    "synthetic photographs": "free of others' rights: drawn by dermaseg. Figures on them say nothing about skin.",
    "ISIC": "each photograph its own, most CC0 or CC BY-NC (Codella et al., 2019): look at the ISIC Archive.",
}
# How `Split.group` names what was kept together, in a reader's words.
TIES: Mapping[str, str] = {"lesion_id": "lesion", "patient_id": "patient", "duplicates": "near-duplicate"}
BY_IMAGE = (
    "**Warning: photographs of one lesion may stand in both the training and the test part; the figures may measure memory.** "
    "{why}."
)
UNKNOWN_LICENSE = "not known to dermaseg: write down that of your photographs."


def model_card(run: RunFolder, report: Report) -> str:
    """Return the card of a finished run as Markdown.

    Args:
        run: The run folder.
        report: Of its test part, which neither trained nor chose the model.

    References:
        Mitchell et al., 2019, "Model cards for model reporting".
    """
    saved, card, split = read_json(run.settings), read_json(run.model_card), Split.load(run.split)
    settings, versions = settings_taken(run), saved["versions"]
    samples = Samples.load(run.samples)
    source = report.title.partition(" part of ")[2] or saved["data"]
    task = TASKS.get(saved["task"])
    lines = [
        f"# Model card: {saved['task']}",
        "",
        task.summary if task is not None else "",
        "",
        "## Intended use",
        "",
        "Research and teaching on dermoscopic photographs like those that it was trained on, one lesion each.",
        f"**{NOT_A_DIAGNOSIS}**",
        "",
        "## Data",
        "",
        f"- Source: {source}.",
        f"- Licence of the data: {_license(source)}",
        f"- Photographs: {', '.join(_count(name, part) for name, part in split.apply(samples).items())}.",
        f"- Split by {_ties(split)}, seed {split.seed}, SHA-256 `{split.fingerprint}`.",
        *_warning(samples, split),
        *([f"- Classes: {', '.join(card['class_names'])}."] if card.get("class_names") else []),
        "",
        "## Training",
        "",
        *(f"- {name}: {value}" for name, value in settings.items()),
        *([f"- started from: {saved['start']}"] if saved.get("start") else []),
        *([f"- best epoch on the validation part: {card['best_epoch']}"] if "best_epoch" in card else []),
        *([f"- mean of the weights of: {', '.join(card['mean_of'])}"] if "mean_of" in card else []),
        f"- dermaseg {versions['dermaseg']}, Keras {versions['keras']} on {versions['backend']}, {saved['precision']}",
        "",
        f"## Figures: {report.title}",
        "",
        # Without its own heading and the note, which stands above.
        *report.to_markdown().splitlines()[2:-2],
        "",
        "## Limits",
        "",
        "- One training, one seed: another would differ by more than rounding.",
        "- Measured on one source. Other cameras, clinics, skin tones and unusual lesions are outside these figures; "
        "a subgroup of few photographs has a wide interval, or none worth the name.",
        "- Masks and diagnoses in the data are opinions of their makers.",
        "",
    ]
    return "\n".join(lines)


def write_model_card(run: RunFolder, report: Report) -> None:
    """Write the card as `MODEL_CARD.md` into the run folder."""
    text = model_card(run, report)
    write_atomically(run.path / "MODEL_CARD.md", lambda path: path.write_text(text, encoding="utf-8"))


def _ties(split: Split) -> str:
    return " and ".join(TIES.get(tie, tie) for tie in split.group.split(", "))


def _count(name: str, part: Samples) -> str:
    """Say how many photographs a part has, and of how many lesions where all of them say theirs."""
    lesions = {sample.lesion_id for sample in part}
    known = "" if None in lesions else f" ({len(lesions):,} {'lesion' if len(lesions) == 1 else 'lesions'})"
    return f"{len(part):,} in {name}{known}"


def _warning(samples: Samples, split: Split) -> list[str]:
    unknown = sum(sample.lesion_id is None and sample.patient_id is None for sample in samples)
    if split.group == "image":
        why = "The split was asked for by image, or nothing in the data said which belong together"
    elif unknown:
        why = f"Nothing said of which lesion or patient {unknown} of the {len(samples)} photographs are"
    else:
        return []
    return [f"- {BY_IMAGE.format(why=why)}"]


def _license(source: Any) -> str:
    """Return the licence of the data; of joined sets, that of each."""
    sources = str(source).split(" + ")
    found = {
        each: next((text for name, text in LICENSES.items() if name.casefold() in each.casefold()), UNKNOWN_LICENSE)
        for each in sources
    }
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return " ".join(f"{each}: {text}" for each, text in found.items())
