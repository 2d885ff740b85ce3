import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermaseg.data.ham10000 import read_ham10000
from dermaseg.data.samples import Sample, Samples
from dermaseg.data.splits import Split, group_samples, k_folds, official_split, split_samples
from dermaseg.errors import DataError


def table_of(lesions, labels=None, parts=None):
    """Build a table from the lesion, label and part of each row."""
    labels = labels or [0] * len(lesions)
    rows = [
        Sample(
            f"ISIC_{row:04d}",
            Path(f"{row}.jpg"),
            label=label,
            lesion_id=None if lesion is None else f"HAM_{lesion}",
            metadata={"part": parts[row]} if parts else {},
        )
        for row, (lesion, label) in enumerate(zip(lesions, labels, strict=True))
    ]
    return Samples(rows, class_names=("a", "b", "c"))


def random_table(seed, groups=60):
    """Lesions of one to four photographs in three classes of unequal frequency."""
    random = np.random.default_rng(seed)
    sizes = random.choice([1, 1, 1, 2, 3, 4], size=groups)
    classes = random.choice(3, size=groups, p=[0.6, 0.3, 0.1])
    return table_of(np.repeat(np.arange(groups), sizes).tolist(), np.repeat(classes, sizes).tolist())


tables = st.integers(0, 10_000).map(random_table)
seeds = st.integers(0, 1000)
some_examples = settings(deadline=None, max_examples=30)


def part_of_each_id(split):
    return {key: name for name, ids in split.parts.items() for key in ids}


class TestGroups:
    def test_lesion_and_patient_and_duplicates_chain(self):
        rows = [
            Sample("a", Path("a"), lesion_id="1"),
            Sample("b", Path("b"), lesion_id="1", patient_id="p"),
            Sample("c", Path("c"), patient_id="p"),
            Sample("d", Path("d")),
            Sample("e", Path("e")),
            Sample("f", Path("f"), lesion_id="p"),
        ]
        assert group_samples(Samples(rows)).tolist() == [0, 0, 0, 1, 2, 3]
        assert group_samples(Samples(rows), [("c", "e"), ("d", "elsewhere")]).tolist() == [0, 0, 0, 1, 0, 2]

    def test_empty_table(self):
        assert group_samples(Samples([])).shape == (0,)


class TestSplitSamples:
    @some_examples
    @given(tables, seeds)
    def test_parts_are_a_partition_that_no_lesion_straddles(self, table, seed):
        split = split_samples(table, seed=seed)
        assert sorted(part_of_each_id(split)) == sorted(table.ids)
        assert sum(len(ids) for ids in split.parts.values()) == len(table)
        part = part_of_each_id(split)
        for lesion in {sample.lesion_id for sample in table}:
            assert len({part[sample.id] for sample in table if sample.lesion_id == lesion}) == 1

    @some_examples
    @given(tables, seeds, st.randoms(use_true_random=False))
    def test_row_order_has_no_influence(self, table, seed, random):
        order = list(range(len(table)))
        random.shuffle(order)
        assert split_samples(table.select(order), seed=seed).fingerprint == split_samples(table, seed=seed).fingerprint

    @some_examples
    @given(tables, seeds)
    def test_fractions_and_class_shares_are_near(self, table, seed):
        split = split_samples(table, seed=seed)
        for name, part in split.apply(table).items():
            assert abs(len(part) - split.fractions[name] * len(table)) <= 4  # lesions have up to 4 photographs
            for label, count in table.class_counts().items():
                assert abs(part.class_counts()[label] - split.fractions[name] * count) <= 4

    def test_a_saved_split_gives_the_order_of_the_one_that_was_saved(self, tmp_path):
        rows = [Sample(name, Path(name), lesion_id=name) for name in "qhzambxkcwdy"]  # a table that is not sorted
        split = split_samples(Samples(rows))
        split.save(tmp_path / "split.json")
        saved = Split.load(tmp_path / "split.json").apply(Samples(rows))
        assert {name: part.ids for name, part in split.apply(Samples(rows)).items()} == {
            name: part.ids for name, part in saved.items()
        }

    def test_another_seed_draws_another_split(self):
        table = random_table(0)
        assert split_samples(table, seed=1).parts != split_samples(table, seed=2).parts
        assert split_samples(table, seed=1) == split_samples(table, seed=1)

    def test_large_lesions_reach_every_part(self):
        table = table_of(np.repeat(np.arange(40), [4] * 20 + [1] * 20).tolist())
        for part in split_samples(table).apply(table).values():
            assert max(np.unique([sample.lesion_id for sample in part], return_counts=True)[1]) == 4

    def test_many_classes_of_few_images_leave_no_part_empty(self):
        rows = [Sample(str(i), Path(str(i)), label=i // 3, lesion_id=str(i)) for i in range(30)]
        split = split_samples(Samples(rows, class_names=tuple("abcdefghij")))
        assert {name: len(ids) for name, ids in split.parts.items()} == {
            "train": pytest.approx(21, abs=1),
            "validation": pytest.approx(4.5, abs=1),
            "test": pytest.approx(4.5, abs=1),
        }

    def test_rows_without_label_are_spread_too(self):
        table = table_of(list(range(40)), [None] * 20 + [0] * 20)
        split = split_samples(table, fractions={"train": 0.5, "test": 0.5})
        assert sum(sample.label is None for sample in split.apply(table)["test"]) == 10

    def test_duplicates_stay_together(self):
        table = table_of(list(range(40)))
        pairs = [(f"ISIC_{i:04d}", f"ISIC_{i + 20:04d}") for i in range(20)]
        split = split_samples(table, duplicates=pairs)
        part = part_of_each_id(split)
        assert all(part[a] == part[b] for a, b in pairs)
        assert split.group == "lesion_id, duplicates"

    def test_split_by_image_warns(self):
        with pytest.warns(UserWarning, match="group=None splits by image"):
            split = split_samples(random_table(0), group=None)
        assert split.group == "image"

    def test_unknown_lesions_warn(self):
        table = table_of([None] * 20)
        with pytest.warns(UserWarning, match="20 of 20 photographs .*pass duplicates="):
            split_samples(table)
        with pytest.warns(UserWarning, match="near-duplicates are"):
            split_samples(table, duplicates=[("ISIC_0000", "ISIC_0001")])
        with pytest.warns(UserWarning, match="1 of 21 photographs"):
            split_samples(table_of([*range(20), None]))

    @pytest.mark.parametrize("fractions", [{}, {"train": 0.7, "test": 0.7}, {"train": 1.0, "test": 0.0}, {"a": 1.5, "b": -0.5}])
    def test_fractions_must_divide_one(self, fractions):
        with pytest.raises(ValueError, match="fractions="):
            split_samples(random_table(0), fractions=fractions)

    def test_group_is_auto_or_none(self):
        with pytest.raises(ValueError, match="group='image'"):
            split_samples(random_table(0), group="image")

    @pytest.mark.parametrize("lesions", [[], [1, 1, 1, 1, 2, 2]])
    def test_too_few_lesions(self, lesions):
        with pytest.raises(DataError, match=r"leave one of 3 parts empty\. Add photographs: 4 groups are enough"):
            split_samples(table_of(lesions))

    @pytest.mark.parametrize("fractions", [(0.7, 0.15, 0.15), (0.8, 0.2), (0.6, 0.3, 0.1), (0.25,) * 4])
    @pytest.mark.parametrize("classes", [1, 3])
    def test_so_many_lesions_as_are_said_to_be_enough_are_and_no_fewer_of_one_class(self, fractions, classes):
        asked = {f"part {number}": fraction for number, fraction in enumerate(fractions)}
        with pytest.raises(DataError) as said:
            split_samples(table_of([1]), fractions=asked)
        enough = int(re.search(r"(\d+) groups are enough", str(said.value))[1])
        lesions = range(classes * enough)
        for seed in range(20):
            split_samples(table_of(lesions, labels=[lesion % classes for lesion in lesions]), fractions=asked, seed=seed)
        with pytest.raises(DataError, match="empty"):
            split_samples(table_of(range(enough - 1)), fractions=asked)


class TestFolds:
    @some_examples
    @given(tables, seeds, st.integers(2, 6))
    def test_each_photograph_is_validated_once_and_no_lesion_straddles(self, table, seed, k):
        folds = k_folds(table, k=k, seed=seed)
        assert len(folds) == k
        assert sorted(key for fold in folds for key in fold.parts["validation"]) == sorted(table.ids)
        lesion = {sample.id: sample.lesion_id for sample in table}
        for fold in folds:
            assert sorted([*fold.parts["train"], *fold.parts["validation"]]) == sorted(table.ids)
            assert not {lesion[i] for i in fold.parts["train"]} & {lesion[i] for i in fold.parts["validation"]}

    def test_too_many_or_too_few(self):
        with pytest.raises(ValueError, match="k=1"):
            k_folds(random_table(0), k=1)
        with pytest.raises(DataError, match="leave one of 5 parts empty"):
            k_folds(table_of([1, 2, 3]))


class TestOfficial:
    def test_test_part_is_kept_and_validation_is_carved_out(self):
        lesions = [*range(50), *range(100, 150), *range(200, 220)]
        table = table_of(lesions, parts=["train"] * 100 + ["test"] * 20)
        split = official_split(table, validation=0.2)
        assert {name: len(ids) for name, ids in split.parts.items()} == {"train": 80, "validation": 20, "test": 20}
        assert set(split.parts["test"]) == {sample.id for sample in table if sample.metadata["part"] == "test"}

    def test_official_validation_part_is_kept(self):
        table = table_of(list(range(30)), parts=["train"] * 20 + ["validation"] * 4 + ["test"] * 6)
        assert {name: len(ids) for name, ids in official_split(table).parts.items()} == {
            "train": 20,
            "validation": 4,
            "test": 6,
        }

    def test_training_photographs_that_leak_are_left_out(self):
        table = table_of([*range(20), 0, 100], parts=["train"] * 20 + ["test"] * 2)
        with pytest.warns(UserWarning, match="left 2 of 20 training photographs out"):
            split = official_split(table, duplicates=[("ISIC_0005", "ISIC_0021")])
        assert not {"ISIC_0000", "ISIC_0005"} & set(part_of_each_id(split))
        assert split.parts["test"] == ("ISIC_0020", "ISIC_0021")

    def test_a_picture_in_validation_and_test_stays_in_the_test_alone(self):
        # 20 is a copy of a test photograph; 3 shows the same lesion as 20 does.
        table = table_of([*range(20), 3, 30, 31, 100], parts=["train"] * 20 + ["validation"] * 3 + ["test"])
        with (
            pytest.warns(UserWarning, match="left 1 of 3 validation photographs out of the split: the official test part"),
            pytest.warns(UserWarning, match="left 1 of 20 training photographs out"),
        ):
            split = official_split(table, duplicates=[("ISIC_0020", "ISIC_0023")])
        assert split.parts["validation"] == ("ISIC_0021", "ISIC_0022")
        assert split.parts["test"] == ("ISIC_0023",)
        assert not {"ISIC_0003", "ISIC_0020"} & set(part_of_each_id(split))

    def test_a_validation_part_of_copies_alone_is_carved_out_anew(self):
        table = table_of([*range(20), 100, 100], parts=["train"] * 20 + ["validation"] + ["test"])
        with pytest.warns(UserWarning, match="left 1 of 1 validation photographs out"):
            split = official_split(table, validation=0.2)
        assert {name: len(ids) for name, ids in split.parts.items()} == {"train": 16, "validation": 4, "test": 1}

    def test_faults(self):
        with pytest.raises(DataError, match="in the part '', not in one of"):
            official_split(table_of([1, 2]))
        with pytest.raises(DataError, match="no photograph is left for training"):
            official_split(table_of([1, 2], parts=["test", "test"]))
        with pytest.raises(ValueError, match="validation=1"):
            official_split(table_of([1, 2]), validation=1)

    def test_ids_are_gathered_a_few_times_however_many_rows_there_are(self, monkeypatch):
        gathered = []
        plain = Samples.ids.fget
        monkeypatch.setattr(Samples, "ids", property(lambda table: gathered.append(table) or plain(table)))
        official_split(table_of(list(range(200)), parts=["train"] * 150 + ["test"] * 50))
        assert len(gathered) < 20


class TestManifest:
    @pytest.fixture
    def path(self, tmp_path):
        split_samples(random_table(0), seed=3).save(tmp_path / "split.json")
        return tmp_path / "split.json"

    def test_round_trip(self, path):
        split = split_samples(random_table(0), seed=3)
        loaded = Split.load(path)
        assert loaded.fingerprint == split.fingerprint
        assert (loaded.seed, loaded.group, loaded.fractions) == (
            3,
            "lesion_id",
            {"train": 0.7, "validation": 0.15, "test": 0.15},
        )
        assert list(loaded.parts) == ["train", "validation", "test"]

    @pytest.mark.parametrize("key", ["seed", "group", "fractions", "parts"])
    def test_every_change_is_noticed(self, path, key):
        content = json.loads(path.read_text())
        content[key] = {"seed": 4, "group": "image", "fractions": {}, "parts": {"train": content["parts"]["train"]}}[key]
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match="was changed after it was saved"):
            Split.load(path)

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", '{"parts": {"train": ["a", "a"]}, "seed": 0, "group": "", "fractions": {}}']
    )
    def test_other_files_are_refused(self, path, text):
        path.write_text(text)
        with pytest.raises(DataError, match="is not a split"):
            Split.load(path)

    def test_missing_file(self, tmp_path):
        with pytest.raises(DataError, match="does not exist"):
            Split.load(tmp_path / "nowhere.json")

    def test_apply_names_what_is_missing(self):
        table = random_table(0)
        with pytest.raises(DataError, match=r"1 of the .* first 'ISIC_0000'"):
            split_samples(table).apply(table[1:])

    def test_apply_keeps_rows_and_classes(self):
        table = random_table(0)
        parts = split_samples(table).apply(table)
        assert all(part.class_names == table.class_names for part in parts.values())
        assert sum(len(part) for part in parts.values()) == len(table)

    @pytest.mark.parametrize(
        ("parts", "message"),
        [({}, "the split is empty"), ({"a": ()}, "a is empty"), ({"a": ("x",), "b": ("x",)}, "'x' stands in a and again in b")],
    )
    def test_parts_are_checked(self, parts, message):
        with pytest.raises(ValueError, match=message):
            Split(parts)


@pytest.mark.realdata
def test_real_lesions_are_spread_alike(real_data):
    table = read_ham10000(real_data / "ham10000")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = split_samples(table).apply(table)
    lesions = [{sample.lesion_id for sample in part} for part in parts.values()]
    assert sum(map(len, lesions)) == len(set.union(*lesions)) == 6350
    for part, share in zip(parts.values(), (0.7, 0.15, 0.15), strict=True):
        assert len(part) == pytest.approx(share * len(table), abs=5)
        for name, count in table.class_counts().items():
            assert part.class_counts()[name] == pytest.approx(share * count, abs=2)


def test_samples_and_splits_go_into_sets():
    first, second = Sample("a", Path("a.jpg"), metadata={"sex": "female"}), Sample("b", Path("b.jpg"))
    assert {first, second, Sample("a", Path("a.jpg"), metadata={"sex": "female"})} == {first, second}
    assert len({Samples([first]), Samples([first]), Samples([second])}) == 2
    assert len({Split({"train": ("a",)}), Split({"train": ("a",)}), Split({"train": ("b",)})}) == 2


def test_a_table_s_missing_ids_are_no_lesion_and_its_types_are_taken():
    rows = [
        Sample("a", "a.jpg", mask="a.png", label=np.int64(1), lesion_id="", patient_id=float("nan")),
        Sample("b", Path("b.jpg"), label=0, lesion_id=17),
    ]
    first, second = Samples(rows, class_names=("x", "y"))
    assert (first.image, first.mask) == (Path("a.jpg"), Path("a.png"))
    assert type(first.label) is int
    assert (first.lesion_id, first.patient_id, second.lesion_id, second.patient_id) == (None, None, "17", None)
    with pytest.raises(DataError, match=r"sample 'c': label 0\.5 is no integer"):
        Sample("c", Path("c.jpg"), label=0.5)
