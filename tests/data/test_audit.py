import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermaseg.data.audit import audit_samples
from dermaseg.data.duplicates import near_identical_pairs, thumbnail
from dermaseg.data.folders import read_samples
from dermaseg.data.samples import Sample, Samples
from dermaseg.data.splits import Split, split_samples


def photograph(seed, size=128):
    """A dark blob on bright skin under a vignette, as all dermoscopic photographs; texture and hairs of its own."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    texture = np.asarray(Image.fromarray(random.uniform(0, 1, (24, 24))).resize((size, size), Image.Resampling.BICUBIC))
    grey = 190 - 110 * np.exp(-4 * (x**2 + y**2)) + 50 * (texture - 0.5)
    grey[np.hypot(x, y) > 1.1] = 10
    return np.clip(grey[..., None] * [1.0, 0.8, 0.7], 0, 255).astype(np.uint8)


def save(array, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def make(tmp_path):
    """Write one photograph (and mask) and return its row."""

    def make(name, image, mask=None, **known):
        path = image if isinstance(image, Path) else save(image, tmp_path / f"{name}.png")
        mask_path = mask if mask is None or isinstance(mask, Path) else save(mask, tmp_path / f"{name}_mask.png")
        return Sample(name, path, mask=mask_path, **known)

    return make


def audit(*rows, **options):
    return audit_samples(Samples(rows, class_names=("nevus", "melanoma"), source="test"), **options)


def kinds(report):
    return [(finding.kind, finding.ids) for finding in report.findings]


DISC = (np.hypot(*np.mgrid[-1:1:128j, -1:1:128j]) < 0.5).astype(np.uint8) * 255


def test_nothing_wrong(make):
    rows = [make(f"p{seed}", photograph(seed), DISC, label=seed % 2, lesion_id=str(seed)) for seed in range(20)]
    report = audit(*rows)
    assert report.findings == ()
    assert report.duplicates == ()
    assert str(report) == "test: 20 images, nothing wrong"


def test_empty_table():
    assert audit().num_images == 0


def test_identical_pixels_in_two_files_of_other_compression(make, tmp_path):
    again = save(photograph(0), tmp_path / "again.png", compress_level=1)
    report = audit(make("a", photograph(0)), make("b", again), make("c", photograph(1)))
    assert kinds(report) == [("identical images", ("a", "b"))]
    assert report.duplicates == (("a", "b"),)


@pytest.mark.parametrize("change", ["jpeg", "smaller", "darker", "warmer"])
def test_near_identical_pictures(make, tmp_path, change):
    image = photograph(0)
    other = {
        "jpeg": lambda: save(image, tmp_path / "b.jpg", quality=70),
        "smaller": lambda: np.asarray(Image.fromarray(image).resize((90, 90))),
        "darker": lambda: (image * 0.6).astype(np.uint8),
        "warmer": lambda: np.clip(image * [1.1, 0.9, 0.8], 0, 255).astype(np.uint8),
    }[change]()
    report = audit(make("a", image), make("b", other), *(make(f"p{seed}", photograph(seed)) for seed in range(1, 20)))
    assert kinds(report) == [("near-identical images", ("a", "b"))]


def test_near_identical_pictures_of_one_lesion_are_no_fault_but_known(make, tmp_path):
    again = save(photograph(0), tmp_path / "b.jpg", quality=70)
    report = audit(make("a", photograph(0), lesion_id="1"), make("b", again, lesion_id="1"))
    assert report.findings == ()
    assert report.duplicates == (("a", "b"),)


def test_one_picture_in_two_classes_and_clean(make):
    rows = [make("a", photograph(0), label=0), make("b", photograph(0), label=1), make("c", photograph(1), label=1)]
    report = audit(*rows)
    assert kinds(report) == [("two classes", ("a", "b")), ("identical images", ("a", "b"))]
    assert report.of_kind("two classes")[0].message == "one picture is nevus and melanoma: a, b."
    kept, dropped = report.clean(Samples(rows, class_names=("nevus", "melanoma")))
    assert (kept.ids, dropped.ids) == (("c",), ("a", "b"))


def test_leaks_between_the_parts_of_a_split(make):
    rows = [
        make("a", photograph(0), lesion_id="1"),
        make("b", photograph(1), lesion_id="1"),
        make("c", photograph(2), patient_id="p"),
        make("d", photograph(3), patient_id="p"),
        make("e", photograph(0)),
    ]
    report = audit(*rows, split=Split({"train": ("a", "c"), "test": ("b", "d", "e")}))
    assert kinds(report) == [
        ("leaking lesion", ("a", "b")),
        ("leaking lesion", ("c", "d")),
        ("leaking image", ("a", "e")),
        ("identical images", ("a", "e")),
    ]
    assert report.of_kind("leaking lesion")[0].message == "lesion 1 stands in train and test: a, b."
    assert not audit(*rows, split=Split({"train": ("a", "b", "e"), "test": ("c", "d")})).of_kind(
        "leaking lesion", "leaking image"
    )


def test_leaks_between_official_parts(make):
    rows = [make(part, photograph(0), metadata={"part": part}) for part in ("train", "test")]
    assert audit(*rows).of_kind("leaking image")[0].message == "one picture stands in train and test: train, test."


def test_duplicates_lead_to_a_split_without_leak(make):
    rows = [make(f"p{i}", photograph(i // 2)) for i in range(20)]
    report = audit(*rows)
    with pytest.warns(UserWarning, match="neither lesion nor patient"):
        split = split_samples(Samples(rows), duplicates=report.duplicates)
    assert not audit(*rows, split=split).of_kind("leaking image")


def test_files_that_cannot_be_read_are_named(make, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    rows = [
        make("missing", tmp_path / "nowhere.jpg"),
        make("broken", tmp_path / "broken.jpg"),
        make("good", photograph(0), tmp_path / "nomask.png"),
    ]
    report = audit(*rows)
    assert kinds(report) == [
        ("unreadable image", ("missing",)),
        ("unreadable image", ("broken",)),
        ("unreadable mask", ("good",)),
    ]
    names = ("nowhere.jpg", "broken.jpg", "nomask.png")
    assert all(name in finding.message for name, finding in zip(names, report.findings, strict=True))
    assert report.clean(Samples(rows))[0].ids == ("good",)


@pytest.mark.parametrize(
    ("mask", "kind", "message"),
    [
        (DISC[:100], "mask proportions", "is 128 by 100 pixels, its image 128 by 128"),
        (DISC[::2, ::2], "mask size", "is 64 by 64 pixels, its image 128 by 128"),
        (np.zeros((128, 128), np.uint8), "empty mask", "no lesion"),
        (np.full((128, 128), 2, np.uint8), "unreadable mask", "its grey values are 2, none above 127"),
        ((DISC // 100).clip(1), "unreadable mask", "its grey values are 1, 2, none above 127"),
        (np.full((128, 128), 255, np.uint8), "full mask", "edge to edge"),
        (np.full((128, 128), 1, np.uint8), "full mask", "edge to edge"),
        (255 - DISC, "inverted mask", "lesion all around and skin inside"),
        (1 - DISC // 255, "inverted mask", "lesion all around and skin inside"),
        (np.where(np.arange(128) == 64, 128, DISC).astype(np.uint8), "grey mask", "3 values; 128 pixels lie between"),
    ],
)
def test_faults_of_masks(make, mask, kind, message):
    report = audit(make("a", photograph(0), mask))
    assert kinds(report) == [(kind, ("a",))]
    assert message in report.findings[0].message


@pytest.mark.parametrize("mask", [DISC, DISC // 255, DISC // 100])
def test_two_valued_masks_are_right(make, mask):
    assert not audit(make("a", photograph(0), mask)).findings


def test_a_lesion_that_fills_the_picture_is_not_called_inverted(make):
    corner, notch, speck = (np.full((128, 128), 255, np.uint8) for _ in range(3))
    corner[:40, :40] = 0
    notch[50:80, 40:] = 0  # with the next line, 14 % of the border
    notch[-1, 40:80] = 0
    speck[60:70, 60:70] = 0
    for mask in (corner, notch, speck):
        assert not audit(make("a", photograph(0), mask)).findings


def test_a_photograph_whose_mask_is_of_no_use_stays_without_it(make, tmp_path):
    rows = [
        make("missing", photograph(0), tmp_path / "nowhere.png", label=0),
        make("dark", photograph(1), np.full((128, 128), 3, np.uint8), label=1),
        make("other", photograph(2), DISC[:100], label=1),
        make("good", photograph(3), DISC),
        make("small", photograph(4), DISC[::2, ::2]),
    ]
    table = Samples(rows, class_names=("nevus", "melanoma"))
    kept, dropped = audit(*rows).clean(table)
    assert not len(dropped)
    assert kept.with_masks().ids == ("good", "small")
    assert kept.labels.tolist() == table.labels.tolist()


def test_tiny_images(make):
    report = audit(make("dot", np.zeros((1, 1, 3), np.uint8)), make("strip", photograph(0)[:8]))
    assert kinds(report) == [("tiny image", ("dot",)), ("tiny image", ("strip",))]


def test_views(make, tmp_path):
    report = audit(make("a", photograph(0), label=0), make("b", photograph(0), label=1))
    report.save(tmp_path / "audit.json")
    assert json.loads((tmp_path / "audit.json").read_text()) == report.to_dict()
    assert report.to_dict()["findings"][0]["ids"] == ["a", "b"]
    lines = str(report).splitlines()
    assert lines[0] == "test: 2 images"
    assert lines[4] == "| two classes | error | 1 | 2 | one picture is nevus and melanoma: a, b. |"
    with pytest.raises(ValueError, match="'duplicates' is not one of"):
        report.of_kind("duplicates")


def test_progress_counts_every_photograph(make):
    seen = []
    audit(*(make(f"p{i}", photograph(i)) for i in range(3)), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_near_identical_pairs_agree_with_a_loop_across_blocks():
    # More thumbnails than one block holds; the copy of each tenth stands far behind it.
    base = np.stack([thumbnail(photograph(seed, size=32)) for seed in range(600)])
    noise = np.random.default_rng(0).normal(0, 1, (60, 32, 32)).astype(np.float32)
    pairs = near_identical_pairs(np.concatenate([base, base[::10] + noise]))
    assert sorted(map(tuple, pairs.tolist())) == [(10 * i, 600 + i) for i in range(60)]


def test_flat_pictures_are_not_alike_by_chance():
    flat = np.stack([np.full((32, 32), value, np.float32) for value in (0, 100, 255)])
    assert not len(near_identical_pairs(flat))
    assert near_identical_pairs(flat[:0]).shape == (0, 2)


@pytest.mark.realdata
@pytest.mark.slow
def test_real_folders_with_contradictions(real_data):
    table = read_samples(real_data / "isic9")
    report = audit_samples(table)
    pairs = {finding.message.split(":")[0].removeprefix("one picture is ") for finding in report.of_kind("two classes")}
    assert {frozenset(pair.split(" and ")) for pair in pairs} == {
        frozenset({"melanoma", "seborrheic keratosis"}),
        frozenset({"actinic keratosis", "nevus"}),
    }
    assert len(report.of_kind("two classes")) == 143
    assert len(report.of_kind("leaking image")) == 16
    kept, dropped = report.clean(table)
    assert (len(kept), len(dropped)) == (1833, 287)


@pytest.mark.realdata
@pytest.mark.slow
def test_no_false_alarm_among_real_lesions(real_data):
    # The 1,500 rows keep the test short; the whole folder gives none either.
    table = read_samples(real_data / "ham10000")[:1500]
    report = audit_samples(table, split=split_samples(table))
    assert not [finding for finding in report.findings if finding.severity == "error"]
    assert not report.of_kind("near-identical images")
