import shutil

import pytest

from dermaseg.data.folders import read_class_folders, read_image_mask_folders, read_samples
from dermaseg.errors import DataError


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.fixture
def classes(tmp_path):
    for part in ("Train", "Test"):
        touch(tmp_path / part / "nevus", "a.jpg", "b.JPG", "Thumbs.db", ".DS_Store")
        touch(tmp_path / part / "melanoma", "a.jpg")
    return tmp_path


@pytest.fixture
def pairs(tmp_path):
    touch(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg")
    touch(tmp_path / "masks", "a_mask.png", "b_Segmentation.png", "c.png")
    return tmp_path


def test_parts_and_classes(classes):
    table = read_class_folders(classes)
    assert table.class_names == ("melanoma", "nevus")
    assert table.ids == (
        *("Test/melanoma/a", "Test/nevus/a", "Test/nevus/b"),
        *("Train/melanoma/a", "Train/nevus/a", "Train/nevus/b"),
    )
    assert [sample.metadata["part"] for sample in table] == ["test"] * 3 + ["train"] * 3
    assert table.labels.tolist() == [0, 1, 1, 0, 1, 1]
    assert all(sample.lesion_id is None for sample in table)


@pytest.mark.parametrize("name", ["valid", "VAL", "Validation"])
def test_names_of_the_validation_part(classes, name):
    (classes / "Test").rename(classes / name)
    assert {sample.metadata["part"] for sample in read_class_folders(classes)} == {"train", "validation"}


def test_classes_without_parts(classes):
    table = read_class_folders(classes / "Train")
    assert table.ids == ("melanoma/a", "nevus/a", "nevus/b")
    assert not table[0].metadata


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: touch(f / "Test" / "Nevus", "a.jpg"), "Train lacks the class Nevus"),
        (lambda f: touch(f / "Train", "stray.jpg"), "holds images beside its class folders"),
        (lambda f: touch(f / "Train" / "nevus" / "more", "x.jpg"), "is a class but holds the folder more"),
        (lambda f: (f / "Train" / "melanoma" / "a.jpg").unlink(), "melanoma holds no image"),
        (lambda f: touch(f / "other" / "nevus", "a.jpg"), "other stands beside Test, Train"),
        (lambda f: touch(f / "TRAINING" / "nevus", "a.jpg"), "mean the same part"),
        (lambda f: touch(f / "Train" / "nevus", "a.png"), "both a.jpg and a.png"),
    ],
)
def test_class_folder_faults_are_named(classes, break_it, message):
    break_it(classes)
    with pytest.raises(DataError, match=message):
        read_class_folders(classes)


def test_a_file_that_is_no_image_is_named(classes):
    touch(classes / "Train" / "nevus", "phone.heic")
    with pytest.warns(UserWarning, match=r"nevus: left out phone\.heic"):
        assert len(read_class_folders(classes)) == 6


def test_pairs(pairs):
    table = read_image_mask_folders(pairs)
    assert table.ids == ("a", "b", "c")
    assert [sample.mask.name for sample in table] == ["a_mask.png", "b_Segmentation.png", "c.png"]
    assert table.class_names == ()


@pytest.mark.parametrize("names", [("image", "mask"), ("imgs", "labels"), ("img", "annotations"), ("IMAGES", "Masks")])
def test_names_of_the_two_folders(pairs, names):
    (pairs / "images").rename(pairs / names[0])
    (pairs / "masks").rename(pairs / names[1])
    assert len(read_image_mask_folders(pairs)) == 3


def test_pairs_in_parts(tmp_path):
    for part in ("train", "test"):
        touch(tmp_path / part / "images", "a.jpg")
        touch(tmp_path / part / "masks", "a.png")
    table = read_image_mask_folders(tmp_path)
    assert table.ids == ("test/a", "train/a")
    (tmp_path / "test" / "masks").rename(tmp_path / "test" / "notes")
    with pytest.raises(DataError, match="test has no images/ beside masks/"):
        read_image_mask_folders(tmp_path)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "images" / "b.jpg").unlink(), "no image for the mask of b"),
        (lambda f: (f / "masks" / "a_mask.png").unlink(), "no mask of a"),
        (lambda f: touch(f / "masks", "a_seg.png"), "two masks of a"),
        (lambda f: (f / "masks").rename(f / "other"), "a folder of images"),
    ],
)
def test_pair_faults_are_named(pairs, break_it, message):
    break_it(pairs)
    with pytest.raises(DataError, match=message):
        read_image_mask_folders(pairs)


def test_read_samples_recognises_folders(classes, pairs):
    # Both fixtures build in one folder: images beside masks win over parts.
    assert read_samples(pairs).ids == ("a", "b", "c")
    assert read_samples(classes / "Train").class_names == ("melanoma", "nevus")


def test_read_samples_recognises_the_other_readers_layouts(tmp_path):
    touch(tmp_path / "isic" / "ISIC2018_Task1-2_Training_Input", "ISIC_1.jpg")
    touch(tmp_path / "isic" / "ISIC2018_Task1_Training_GroundTruth", "ISIC_1_segmentation.png")
    assert read_samples(tmp_path).source == "ISIC 2018 task 1"
    touch(tmp_path / "ham" / "images", "ISIC_1.jpg")
    (tmp_path / "ham" / "GroundTruth.csv").write_text("image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nISIC_1,1,0,0,0,0,0,0\n")
    assert read_samples(tmp_path / "ham").source == "HAM10000"
    with pytest.raises(DataError, match="holds 2 data sets: ham, isic"):
        read_samples(tmp_path)


def test_photographs_alone_are_read_where_no_mask_or_class_is_needed(classes, tmp_path):
    with pytest.raises(DataError, match=r"^found neither masks nor classes for the photographs in .*melanoma\. .*Looked there"):
        read_samples(classes / "Train" / "melanoma")
    table = read_samples(classes / "Train" / "melanoma", need_targets=False)
    assert all(key == sample.image.name for key, sample in zip(table.ids, table, strict=True))
    assert all(sample.mask is None and sample.label is None for sample in table)
    (tmp_path / "one").mkdir()
    shutil.copytree(classes / "Train" / "melanoma", tmp_path / "one" / "nevus")
    assert read_samples(tmp_path / "one", need_targets=False).ids == tuple(f"nevus/{key}" for key in table.ids)
    shutil.copytree(classes / "Train" / "melanoma", tmp_path / "one" / "nevus" / "masks")
    with pytest.raises(DataError, match="/nevus holds masks, "):  # which may be those of the photographs beside it
        read_samples(tmp_path / "one" / "nevus", need_targets=False)


def test_read_samples_says_what_it_looked_for(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_samples(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is empty"):
        read_samples(tmp_path)
    touch(tmp_path / "papers", "a.pdf")
    with pytest.raises(DataError, match=r"holds papers\. Looked there and one level down for HAM10000 .*one folder of images"):
        read_samples(tmp_path)


@pytest.mark.realdata
def test_real_class_folders(real_data):
    table = read_samples(real_data / "isic9")
    assert len(table) == 2120
    assert table.num_classes == 9
    assert sum(sample.metadata["part"] == "test" for sample in table) == 106


@pytest.mark.parametrize("masks", ["ground_truth", "gt", "train_masks", "Segmentations", "ISIC_Test_Input"])
def test_a_folder_of_masks_by_another_name_is_no_class(tmp_path, masks):
    touch(tmp_path / "images", "a.jpg", "b.jpg")
    touch(tmp_path / masks, "a.png", "b.png")
    with pytest.raises(DataError, match=rf"(images, {masks}|{masks}, images) looks like .*Call the folders images/ and masks/"):
        read_samples(tmp_path)


def test_the_masks_are_in_the_folder_that_is_called_so(pairs):
    touch(pairs / "annotations", "notes.json")
    touch(pairs / "labels", "a.txt")
    assert {sample.mask.parent.name for sample in read_image_mask_folders(pairs)} == {"masks"}


def test_what_a_folder_of_images_hides_is_told(pairs):
    touch(pairs / "images" / "more", "d.jpg")
    touch(pairs / "masks" / "more", "d.png")
    with pytest.warns(UserWarning, match="left out what lies in more") as told:
        assert len(read_image_mask_folders(pairs)) == 3
    assert len(told) == 2


def test_images_beside_the_parts_are_refused(classes):
    touch(classes, "stray.jpg")
    with pytest.raises(DataError, match="holds images beside Test, Train"):
        read_class_folders(classes)


def test_a_folder_may_bear_braces(tmp_path):
    touch(tmp_path / "{old}" / "images", "a.jpg", "b.jpg")
    touch(tmp_path / "{old}" / "masks", "a.png")
    with pytest.raises(DataError, match="no mask of b"):
        read_samples(tmp_path / "{old}")
