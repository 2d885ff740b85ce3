import dataclasses

import pytest

from dermaseg.data import Sample, Samples, Split
from dermaseg.model_card import write_model_card
from dermaseg.report import Report
from dermaseg.runs import RunFolder, write_json
from dermaseg.tasks import Settings


def card(folder, group, source="HAM10000", lesion=None, **taken):
    run = RunFolder.create(folder)
    split = Split({"train": ("a",), "validation": ("b",), "test": ("c",)}, seed=7, group=group)
    split.save(run.split)
    known = lesion if lesion is not None else group.startswith("lesion")
    rows = [Sample(key, folder / f"{key}.png", lesion_id=key if known or key == "a" else None) for key in "abc"]
    Samples(rows).save(run.samples)
    versions = {"dermaseg": "0.1.0", "keras": "3.15.1", "backend": "tensorflow"}
    saved = {"task": "segment", "data": "clinic", "settings": dataclasses.asdict(Settings()), "precision": "float32"}
    write_json(run.settings, {**saved, "split": split.fingerprint, "versions": versions})
    write_json(run.model_card, {"task": "segment", "size": 128, "best_epoch": 3, **taken})
    write_model_card(run, Report(f"segment: test part of {source}", {}, {}, [{"id": "c"}], 1))
    return (folder / "MODEL_CARD.md").read_text(), split


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("lesion_id", "lesion"),
        ("lesion_id, patient_id, duplicates", "lesion and patient and near-duplicate"),
        ("duplicates", "near-duplicate"),
        ("image", "image"),
    ],
)
def test_the_card_says_what_the_split_kept_together(tmp_path, group, words):
    text, split = card(tmp_path, group)
    assert f"- Split by {words}, seed 7, SHA-256 `{split.fingerprint}`." in text
    assert ("Warning: photographs of one lesion may stand in both" in text) == (group in ("image", "duplicates"))


def test_the_card_says_how_many_photographs_there_were_and_what_was_done_with_them(tmp_path):
    text, _ = card(tmp_path / "known", "lesion_id", steps=100, batch_size=1)
    assert "- Photographs: 1 in train (1 lesion), 1 in validation (1 lesion), 1 in test (1 lesion)." in text
    assert "- steps: 100 (setting: 3200)" in text
    assert "- batch_size: 1 (setting: 32)" in text
    text, _ = card(tmp_path / "others", "duplicates", steps=3200)
    assert "- Photographs: 1 in train (1 lesion), 1 in validation, 1 in test." in text
    assert "- steps: 3200\n" in text
    assert "- batch_size: 32\n" in text


def test_the_card_claims_no_licence_of_a_data_set_that_was_not_used(tmp_path):
    assert "CC BY-NC" in card(tmp_path / "real", "lesion_id")[0]
    text, _ = card(tmp_path / "drawn", "lesion_id", source="synthetic photographs")
    assert "- Source: synthetic photographs." in text
    assert "drawn by dermaseg" in text
    assert "CC BY-NC" not in text


def test_the_card_of_joined_sets_has_the_licence_of_each_and_says_whose_lesions_are_not_known(tmp_path):
    text, _ = card(tmp_path / "joined", "lesion_id, duplicates", source="HAM10000 + ISIC 2018 task 1 + clinic", lesion=False)
    assert "HAM10000: CC BY-NC 4.0" in text
    assert "ISIC 2018 task 1: each photograph its own" in text
    assert "clinic: not known to dermaseg" in text
    assert "Nothing said of which lesion or patient 2 of the 3 photographs are" in text
