import pytest

from dermaseg.data.isic import read_isic_task1
from dermaseg.errors import DataError


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


LAYOUTS = {
    "2016": {
        "train": ("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth", "_Segmentation"),
        "test": ("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth", "_Segmentation"),
    },
    "2017": {
        "train": ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth", "_segmentation"),
        "validation": ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth", "_segmentation"),
        "test": ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth", "_segmentation"),
    },
    "2018": {
        "train": ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth", "_segmentation"),
        "validation": ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth", "_segmentation"),
        "test": ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth", "_segmentation"),
    },
}


def build(folder, year):
    for number, (images, masks, ending) in enumerate(LAYOUTS[year].values()):
        ids = [f"ISIC_{number}{i}" for i in range(3)]
        touch(folder / images, *(f"{name}.jpg" for name in ids), "LICENSE.txt")
        touch(folder / masks, *(f"{name}{ending}.png" for name in ids))
    return folder


@pytest.mark.parametrize("year", LAYOUTS)
def test_every_part_of_every_year(tmp_path, year):
    table = read_isic_task1(build(tmp_path, year))
    assert [sample.metadata["part"] for sample in table[::3]] == list(LAYOUTS[year])
    assert all(sample.metadata["year"] == year for sample in table)
    assert all(sample.mask.stem.lower() == f"{sample.id}_segmentation".lower() for sample in table)
    assert len(table) == 3 * len(LAYOUTS[year])


def test_superpixels_and_metadata_of_2017_are_passed_over(tmp_path):
    build(tmp_path, "2017")
    touch(tmp_path / "ISIC-2017_Training_Data", "ISIC_00_superpixels.png", "ISIC-2017_Training_Data_metadata.csv")
    assert len(read_isic_task1(tmp_path)) == 9


def test_other_tasks_are_passed_over(tmp_path):
    build(tmp_path, "2018")
    touch(tmp_path / "ISIC2018_Task2_Training_GroundTruth_v3", "ISIC_00_attribute_globules.png")
    assert len(read_isic_task1(tmp_path)) == 9


def test_a_part_without_masks_keeps_its_photographs(tmp_path):
    build(tmp_path, "2018")
    (tmp_path / "ISIC2018_Task1_Test_GroundTruth").rename(tmp_path / "elsewhere")
    assert [sample.mask is None for sample in read_isic_task1(tmp_path)] == [False] * 6 + [True] * 3


def test_archive_unpacked_into_a_folder_of_its_own_name(tmp_path):
    build(tmp_path, "2018")
    images = tmp_path / "ISIC2018_Task1-2_Training_Input"
    images.rename(tmp_path / "moved")
    images.mkdir()
    (tmp_path / "moved").rename(images / images.name)
    assert len(read_isic_task1(tmp_path)) == 9


def test_found_one_level_down(tmp_path):
    build(tmp_path / "inner", "2016")
    assert len(read_isic_task1(tmp_path)) == 6


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "ISIC2018_Task1-2_Test_Input/ISIC_20.jpg").unlink(), "no image for the mask of ISIC_20"),
        (lambda f: (f / "ISIC2018_Task1_Test_GroundTruth/ISIC_20_segmentation.png").unlink(), "no mask of ISIC_20"),
        (lambda f: touch(f / "ISIC2018_Task1-2_Test_Input", "ISIC_00.jpg"), "no mask of ISIC_00"),
        (lambda f: (f / "ISIC2018_Task1-2_Test_Input").rename(f / "x"), "masks but no photographs of the part test"),
        (lambda f: (f / "ISIC-2017_Test_v2_Data").mkdir(), "mixes 2017, 2018"),
        (lambda f: (f / "ISIC2018_Test_Input").mkdir(), "are the same part"),
        (lambda f: [p.unlink() for p in (f / "ISIC2018_Task1-2_Test_Input").iterdir()], "holds no image"),
    ],
)
def test_faults_are_named(tmp_path, break_it, message):
    build(tmp_path, "2018")
    break_it(tmp_path)
    with pytest.raises(DataError, match=message):
        read_isic_task1(tmp_path)


def test_no_masks_at_all(tmp_path):
    touch(tmp_path / "ISIC2018_Task1-2_Test_Input", "ISIC_0.jpg")
    with pytest.raises(DataError, match="no GroundTruth folder beside ISIC2018_Task1-2_Test_Input"):
        read_isic_task1(tmp_path)


def test_another_data_set(tmp_path):
    touch(tmp_path / "images", "a.jpg")
    with pytest.raises(DataError, match=r"holds images\. Looked there and one level down for ISIC task 1"):
        read_isic_task1(tmp_path)


@pytest.mark.realdata
def test_real_folder(real_data):
    table = read_isic_task1(real_data / "isic2018_task1")
    assert len(table) == len(table.with_masks()) == 2065
    assert {(sample.metadata["part"], sample.metadata["year"]) for sample in table} == {("train", "2018")}
