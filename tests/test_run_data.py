"""Which photographs train, validate and test: official parts, pictures in two classes, masks of another size."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from dermaseg.data import Split, make_synthetic, read_mask, read_samples
from dermaseg.errors import DataError
from dermaseg.evaluation import evaluate, evaluate_run
from dermaseg.models import build_unet
from dermaseg.prediction import Predictor
from dermaseg.run_data import check_output, draw_split, warn_of_absent_classes
from dermaseg.runs import read_json
from dermaseg.training import train

TINY = {"size": 32, "batch_size": 4, "steps": 2, "precision": "float32", "model": {"filters": (8, 16)}}

pytestmark = pytest.mark.filterwarnings("ignore:.*say neither lesion nor patient:UserWarning")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    make_synthetic(folder, count=42, size=(48, 64), seed=4)
    return read_samples(folder)


@pytest.fixture
def class_folders(drawn, tmp_path):
    """Train/ and Test/ with a folder a class; one training photograph stands in a second class too."""
    for index, sample in enumerate(drawn):
        part, name = ("Test" if index % 4 == 0 else "Train"), ("naevus", "other")[index // 4 % 2]
        (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / part / name / sample.image.name).write_bytes(sample.image.read_bytes())
    copied = next((tmp_path / "Train" / "naevus").iterdir())
    (tmp_path / "Train" / "other" / "copy.jpg").write_bytes(copied.read_bytes())
    return tmp_path


def test_the_official_test_part_is_kept_and_pictures_in_two_classes_are_left_out(class_folders):
    samples = read_samples(class_folders)
    with pytest.warns(UserWarning, match=r"left out 2 of 43 photographs, copies of 1 picture"):
        left, split = draw_split(samples, "official", seed=0, by_class=True)
    assert not any("copy" in name for name in left.ids)
    assert len(left) == 41
    test = split.apply(left)["test"]
    assert {sample.metadata["part"] for sample in test} == {"test"}
    assert len(test) == sum(sample.metadata["part"] == "test" for sample in left)
    kept, _ = draw_split(samples, "random", seed=0, by_class=False)
    assert kept == samples


def test_a_copy_of_a_test_photograph_does_not_train(class_folders):
    source = next((class_folders / "Test" / "naevus").iterdir())
    (class_folders / "Train" / "naevus" / "again.jpg").write_bytes(source.read_bytes())
    with pytest.warns(UserWarning, match=r"left 1 of \d+ training photographs out"):
        _, split = draw_split(read_samples(class_folders), "official", seed=0, by_class=False)
    assert not any("again" in key for ids in split.parts.values() for key in ids)


@pytest.mark.filterwarnings("ignore:.*copies of 1 picture:UserWarning")
@pytest.mark.filterwarnings("ignore:the model names the class right:UserWarning")
def test_a_run_is_trained_on_the_official_parts(class_folders, tmp_path_factory):
    run = train("classify", class_folders, tmp_path_factory.mktemp("run") / "run", split="official", **TINY)
    report = evaluate_run(run)
    official = {sample.id for sample in read_samples(class_folders) if sample.metadata["part"] == "test"}
    assert {row["id"] for row in report.rows} == official
    assert read_json(run.settings)["split"] == Split.load(run.split).fingerprint


def test_a_class_that_a_part_has_no_photograph_of_is_named_with_what_follows(drawn):
    names = drawn.class_names
    rows = {name: [sample.id for sample in drawn if sample.label == index] for index, name in enumerate(names)}
    some = drawn.filter(lambda sample: sample.id not in rows["vasc"])  # of which there is none at all
    parts = {"train": [ids[0] for ids in rows.values()], "validation": [ids[1] for ids in rows.values()]}
    parts["test"] = [ids[2] for ids in rows.values()]
    for part in parts:
        parts[part].remove(rows["vasc"][list(parts).index(part)])
    warn_of_absent_classes(Split(parts), some)
    parts["validation"].remove(rows["mel"][1])
    with pytest.warns(UserWarning, match="validation part has no photograph of mel: such a class gets no threshold"):
        warn_of_absent_classes(Split(parts), some)
    parts["validation"].append(rows["mel"][1])
    for name in ("df", "nv"):
        parts["test"].remove(rows[name][2])
    with pytest.warns(UserWarning, match="test part has no photograph of nv, df: balanced accuracy and macro AUC leave"):
        warn_of_absent_classes(Split(parts), some)


def test_a_run_does_not_begin_among_photographs_and_a_log_is_no_matter(tmp_path):
    for name in (".DS_Store", "log.txt"):
        (tmp_path / name).touch()
    (tmp_path / "cache").mkdir()  # of a run that could not begin
    check_output(tmp_path)
    check_output(tmp_path / "nowhere")
    (tmp_path / "lesion.JPG").touch()
    with pytest.raises(DataError, match=r"holds lesion\.JPG, which is none of a run's\. Give the run a folder of its own"):
        check_output(tmp_path)
    (tmp_path / "lesion.JPG").unlink()
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="holds the folder images, which"):
        check_output(tmp_path)


def test_official_parts_must_be_there(drawn):
    with pytest.raises(DataError, match="did not come with a test part"):
        draw_split(drawn, "official", seed=0, by_class=True)
    with pytest.raises(ValueError, match="split must be 'random', 'official' or a Split, got 'mine'"):
        draw_split(drawn, "mine", seed=0, by_class=True)


def test_a_predictor_keeps_no_classes_of_what_it_was_scored_on(drawn):
    outlines = Predictor(build_unet(filters=(8, 16)), size=32)
    some = drawn[:4]
    for classes in (dict.fromkeys(some.class_names, "lesion"), {name: name.upper() for name in some.class_names}):
        assert evaluate(outlines, some.relabel(classes), subgroups=()).figures["jaccard"].count == 4
    assert outlines.class_names == ()


def test_a_mask_of_another_size_counts_and_one_of_another_shape_is_refused(drawn, tmp_path):
    def resized(sample, size):
        path = tmp_path / f"{size[0]}-{sample.mask.name}"
        Image.fromarray(read_mask(sample.mask) * np.uint8(255)).resize(size, Image.Resampling.BILINEAR).save(path)
        return dataclasses.replace(sample, mask=path)

    some = drawn[:6]
    predictor = Predictor(build_unet(filters=(8, 16)), size=32)
    own = evaluate(predictor, some, subgroups=()).figures["jaccard"].value
    halved = evaluate(predictor, some.map(lambda sample: resized(sample, (32, 24))), subgroups=()).figures["jaccard"].value
    assert halved == pytest.approx(own, abs=0.03)
    with pytest.raises(DataError, match=r"32-.*png is 32 by 32 pixels and does not have the proportions .* 64 by 48"):
        evaluate(predictor, some.map(lambda sample: resized(sample, (32, 32))), subgroups=())
