import csv
import time

import pytest

from dermaseg.data.ham10000 import HAM10000_CLASSES, read_ham10000, to_benign_malignant
from dermaseg.data.samples import Samples
from dermaseg.errors import DataError

ROWS = [  # lesion, image, dx, dx_type, age, sex, localization
    ["HAM_1", "ISIC_1", "bkl", "histo", "80.0", "male", "scalp"],
    ["HAM_1", "ISIC_2", "bkl", "histo", "80.0", "male", "scalp"],
    ["HAM_2", "ISIC_3", "mel", "histo", "", "unknown", ""],
    ["HAM_3", "ISIC_4", "nv", "follow_up", "45.0", "female", "back"],
]
METADATA_COLUMNS = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
LABEL_COLUMNS = ["image", *(name.upper() for name in HAM10000_CLASSES)]


def write_csv(path, columns, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def one_hot(rows=ROWS):
    return [[row[1], *(str(float(row[2] == name)) for name in HAM10000_CLASSES)] for row in rows]


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.fixture
def with_metadata(tmp_path):
    """Kaggle's kmader/skin-cancer-mnist-ham10000."""
    write_csv(tmp_path / "HAM10000_metadata.csv", METADATA_COLUMNS, ROWS)
    touch(tmp_path, "hmnist_8_8_L.csv")
    touch(tmp_path / "HAM10000_images_part_1", "ISIC_1.jpg", "ISIC_2.jpg")
    touch(tmp_path / "HAM10000_images_part_2", "ISIC_3.jpg", "ISIC_4.jpg")
    return tmp_path


@pytest.fixture
def with_masks(tmp_path):
    """Kaggle's surajghuwalewala/ham1000-segmentation-and-classification."""
    write_csv(tmp_path / "GroundTruth.csv", LABEL_COLUMNS, one_hot())
    touch(tmp_path / "images", *(f"ISIC_{i}.jpg" for i in (1, 2, 3, 4)))
    touch(tmp_path / "masks", *(f"ISIC_{i}_segmentation.png" for i in (1, 2, 3, 4)))
    return tmp_path


def test_metadata_layout(with_metadata):
    table = read_ham10000(with_metadata)
    assert table.ids == ("ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4")
    assert table.class_names == HAM10000_CLASSES
    assert [HAM10000_CLASSES[sample.label] for sample in table] == ["bkl", "bkl", "mel", "nv"]
    assert [sample.lesion_id for sample in table] == ["HAM_1", "HAM_1", "HAM_2", "HAM_3"]
    assert table[2].metadata == {"dx_type": "histo", "age": "", "sex": "unknown", "localization": ""}
    assert table[3].image == with_metadata / "HAM10000_images_part_2" / "ISIC_4.jpg"
    assert all(sample.mask is None for sample in table)


def test_mask_layout(with_masks):
    table = read_ham10000(with_masks)
    assert [HAM10000_CLASSES[sample.label] for sample in table] == ["bkl", "bkl", "mel", "nv"]
    assert table[0].mask == with_masks / "masks" / "ISIC_1_segmentation.png"
    assert all(sample.lesion_id is None and not sample.metadata for sample in table)


def test_both_layouts_in_one_folder_are_merged(with_masks):
    write_csv(with_masks / "HAM10000_metadata.csv", METADATA_COLUMNS, ROWS)
    table = read_ham10000(with_masks)
    assert table[0].lesion_id == "HAM_1"
    assert table[0].mask is not None


def test_found_one_level_down(with_metadata):
    folder = with_metadata.parent / "outer" / "archive"
    folder.parent.mkdir()
    with_metadata.rename(folder)
    assert len(read_ham10000(folder.parent)) == 4


def test_archive_with_every_part_twice(with_metadata):
    touch(with_metadata / "ham10000_images_part_1", "ISIC_1.jpg", "ISIC_2.jpg")
    assert read_ham10000(with_metadata)[0].image.parent.name == "HAM10000_images_part_1"


def test_byte_order_mark(with_metadata):
    path = with_metadata / "HAM10000_metadata.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_ham10000(with_metadata)) == 4


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "images/ISIC_3.jpg").unlink(), r"no image of ISIC_3\."),
        (lambda f: touch(f / "images", "ISIC_9.jpg"), "no row for the image ISIC_9"),
        (lambda f: touch(f / "images", "ISIC_1.png"), "both ISIC_1.jpg and ISIC_1.png"),
        (lambda f: (f / "masks/ISIC_3_segmentation.png").unlink(), "no mask of ISIC_3"),
        (lambda f: touch(f / "masks", "ISIC_9_segmentation.png"), "no image for the mask of ISIC_9"),
        (lambda f: touch(f / "masks", "ISIC_1.png"), "two masks of ISIC_1"),
        (lambda f: (f / "images").rename(f / "photos"), "Looked there and one level down"),
        (lambda f: write_csv(f / "GroundTruth.csv", LABEL_COLUMNS[:-1], []), "no column VASC"),
        (lambda f: write_csv(f / "GroundTruth.csv", LABEL_COLUMNS, []), "no rows"),
        (
            lambda f: write_csv(f / "GroundTruth.csv", LABEL_COLUMNS, [*one_hot(), *one_hot()[:1]]),
            "'ISIC_1' stands there twice",
        ),
        (lambda f: write_csv(f / "GroundTruth.csv", LABEL_COLUMNS, [["ISIC_1", *"1100000"]]), "ISIC_1 is not one-hot"),
        (lambda f: write_csv(f / "GroundTruth.csv", LABEL_COLUMNS, [["ISIC_1", *"0000000"]]), "ISIC_1 is not one-hot"),
        (lambda f: write_csv(f / "GroundTruth.csv", LABEL_COLUMNS, [["ISIC_1", *"x000000"]]), "ISIC_1 is not one-hot"),
        (lambda f: write_csv(f / "GroundTruth.csv", LABEL_COLUMNS, [["ISIC_1", "1.0"]]), "line 2: the row has not as many"),
        (lambda f: (f / "GroundTruth.csv").write_bytes(b"\xff\xfe\x00image"), "not a CSV file in UTF-8"),
        (lambda f: write_csv(f / "HAM10000_metadata.csv", METADATA_COLUMNS[1:], []), "no column lesion_id"),
        (lambda f: write_csv(f / "HAM10000_metadata.csv", METADATA_COLUMNS, ROWS[:3]), "no row for ISIC_4"),
        (
            lambda f: write_csv(
                f / "HAM10000_metadata.csv", METADATA_COLUMNS, [*ROWS[:3], [*ROWS[3][:2], "mel", "", "", "", ""]]
            ),
            "ISIC_4 is 'nv' in GroundTruth.csv and 'mel'",
        ),
        (
            lambda f: write_csv(
                f / "HAM10000_metadata.csv", METADATA_COLUMNS, [*ROWS[:3], [*ROWS[3][:2], "xyz", "", "", "", ""]]
            ),
            "dx of ISIC_4 is 'xyz'",
        ),
    ],
)
def test_faults_are_named(with_masks, break_it, message):
    break_it(with_masks)
    with pytest.raises(DataError, match=message):
        read_ham10000(with_masks)


@pytest.mark.parametrize("name", ["../ISIC_1", "/etc/passwd", "a/b", "a\\b", "", ".hidden", "C:x"])
def test_ids_that_are_no_plain_names_are_refused(with_metadata, name):
    write_csv(with_metadata / "HAM10000_metadata.csv", METADATA_COLUMNS, [[ROWS[0][0], name, *ROWS[0][2:]]])
    with pytest.raises(DataError, match="not the plain name of a file"):
        read_ham10000(with_metadata)


def test_many_missing_files_are_counted(with_metadata):
    rows = [["HAM", f"ISIC_{i}", *ROWS[0][2:]] for i in range(1, 51)]
    write_csv(with_metadata / "HAM10000_metadata.csv", METADATA_COLUMNS, rows)
    with pytest.raises(DataError, match=r"ISIC_5, ISIC_6, ISIC_7 \.\.\. \(46 in all\)"):
        read_ham10000(with_metadata)


def test_missing_table_image_folder_and_folder(with_metadata):
    (with_metadata / "HAM10000_metadata.csv").unlink()
    with pytest.raises(DataError, match=r"neither HAM10000_metadata\.csv nor GroundTruth\.csv"):
        read_ham10000(with_metadata)
    with pytest.raises(DataError, match="does not exist"):
        read_ham10000(with_metadata / "nowhere")
    with pytest.raises(DataError, match="is a file"):
        read_ham10000(with_metadata / "hmnist_8_8_L.csv")
    (with_metadata / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        read_ham10000(with_metadata / "empty")


def test_one_photograph_in_both_parts(with_metadata):
    touch(with_metadata / "HAM10000_images_part_2", "ISIC_1.jpg")
    with pytest.raises(DataError, match="ISIC_1 lies both in"):
        read_ham10000(with_metadata)


def test_benign_and_malignant(with_metadata):
    table = to_benign_malignant(read_ham10000(with_metadata))
    assert table.class_names == ("benign", "malignant")
    assert table.labels.tolist() == [0, 0, 1, 0]
    assert to_benign_malignant(read_ham10000(with_metadata), malignant=("bkl",)).labels.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("malignant", [(), HAM10000_CLASSES])
def test_both_of_the_two_classes_need_members(malignant):
    with pytest.raises(ValueError, match="leaves one of the two classes empty"):
        to_benign_malignant(Samples([], class_names=HAM10000_CLASSES), malignant)


def test_unknown_malignant_class():
    with pytest.raises(DataError, match="'scc' is no class"):
        to_benign_malignant(Samples([], class_names=HAM10000_CLASSES), ("mel", "scc"))


@pytest.mark.realdata
def test_real_folder_reads_completely_and_fast(real_data):
    seconds = []
    for _ in range(3):
        start = time.process_time()
        table = read_ham10000(real_data / "ham10000")
        seconds.append(time.process_time() - start)
    assert len(table) == len(table.with_masks()) == 8520
    assert table.class_counts() == {"mel": 954, "nv": 5704, "bcc": 436, "akiec": 284, "bkl": 929, "df": 97, "vasc": 116}
    assert len({sample.lesion_id for sample in table}) == 6350
    assert sum(sample.metadata["age"] == "" for sample in table) == 47
    assert min(seconds) < 0.5
