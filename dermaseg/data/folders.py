"""Plain folders: one folder per class, or images beside masks; and `read_samples`, which recognises any layout."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from dermaseg.data.ham10000 import is_ham10000, read_ham10000
from dermaseg.data.isic import is_isic_task1, read_isic_task1
from dermaseg.data.layout import (
    Listing,
    check_same_ids,
    few,
    find_images,
    find_masks,
    list_images,
    locate,
    parts,
    parts_or_whole,
    scan,
)
from dermaseg.data.samples import Sample, Samples
from dermaseg.errors import DataError

__all__ = ["read_class_folders", "read_image_mask_folders", "read_samples"]

_IMAGE_FOLDERS = ("images", "image", "imgs", "img")
_MASK_FOLDERS = ("masks", "mask", "labels", "annotations")
# A class of such a name is rather half of a data set of masks, whose folders are called otherwise than these.
_NO_CLASS = re.compile(r"images?|imgs?|gt|.*(masks?|ground[ _-]?truths?|segmentations?|annotations?|labels|_input|_data)", re.I)


def read_samples(folder: str | Path, *, need_targets: bool = True) -> Samples:
    """Read a data set of any layout that the library knows, recognised from the folder alone.

    Args:
        folder: A folder for `read_ham10000`, `read_isic_task1`, `read_image_mask_folders` or `read_class_folders`,
            or the one around it. The first that fits, in this order, reads it.
        need_targets: False also takes a folder of photographs alone, or the one around a single class: for an audit, or a look.

    Returns:
        What the reader of that layout returns; of photographs alone, their file names as ids, without masks and labels.

    Raises:
        DataError: If no layout fits, or what the reader of the layout finds wrong.

    Examples:
        >>> import tempfile
        >>> from dermaseg.data import make_synthetic
        >>> folder = tempfile.mkdtemp()
        >>> _ = make_synthetic(folder, count=4, size=(24, 32))  # in the layout of HAM10000
        >>> read_samples(folder)
        <Samples: synthetic photographs: 4 images; 4 masks; 2 lesions; mel 2, nv 2, bcc 0, akiec 0, bkl 0, df 0, vasc 0>
    """
    looked_for = (
        "HAM10000 (HAM10000_metadata.csv or GroundTruth.csv), ISIC task 1 (ISIC2018_Task1-2_Training_Input ...), "
        "images/ with masks/, or one folder of images for each class, with or without Train/ and Test/ around them"
    )
    try:
        listing = locate(folder, lambda listing: _reader_of(listing) is not None, looked_for)
    except DataError as error:
        alone = _photographs_alone(Path(folder))
        if not alone:
            raise
        if need_targets:
            raise DataError(f"found neither masks nor classes for the photographs in {folder}. {error}") from error
        paths = [path for inside in alone for path in list_images(inside)]
        return Samples([Sample(path.relative_to(folder).as_posix(), path) for path in paths], source=alone[0].name)
    reader = _reader_of(listing)
    assert reader is not None  # locate() returns what fits
    return reader(listing.path)


def read_class_folders(folder: str | Path) -> Samples:
    """Read one folder of photographs for each class: `melanoma/*.jpg`, or `Train/melanoma/*.jpg` and `Test/...`.

    An id is the path inside the folder without its ending, as `"Train/melanoma/ISIC_0000139"`, because the same file
    name often stands in two classes or parts. Whether it is also the same picture is for `audit_samples` to find.

    Args:
        folder: The folder of the classes or parts, or the one around it.

    Returns:
        One sample for each photograph; the classes are the folders' names in alphabetical order. With Train, Validation
        or Test folders (also `val`, `valid`; any case) the metadata says the `part`. `lesion_id` is None.

    Raises:
        DataError: If nothing fits, a class has no image or the name of a folder of images or masks, images lie outside the
            classes, or a part has a class that the training part lacks.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("melanoma", "nevus"):
        ...     (folder / name).mkdir()
        ...     (folder / name / "a.jpg").touch()  # only names are looked at
        >>> read_class_folders(folder).ids
        ('melanoma/a', 'nevus/a')
    """
    root = locate(folder, _has_class_folders, "one folder of images for each class, with or without Train/ and Test/")
    found = parts_or_whole(root)
    class_names = tuple(sorted({class_name for _, _, listing in found for class_name in listing.folders}))
    if no_class := [name for name in class_names if _NO_CLASS.fullmatch(name)]:
        raise DataError(
            f"{root.path}: {few(no_class)} looks like a folder of photographs or of masks, not like a class. Call the folders "
            "images/ and masks/, or rename the class."
        )
    rows = []
    for name, part, listing in found:
        if listing.has_images():
            raise DataError(f"{listing.path} holds images beside its class folders. Move them into their class.")
        unknown = [class_name for class_name in class_names if class_name not in listing.folders]
        if unknown and part == "train":
            raise DataError(f"{listing.path} lacks the class {few(unknown)}, which another part has. Check the spelling.")
        for class_name in listing.folders:
            inner = scan(listing.path / class_name)
            if inner.folders:
                raise DataError(f"{inner.path} is a class but holds the folder {few(inner.folders)}. Move its images up.")
            prefix = f"{name}/{class_name}" if name else class_name
            label = class_names.index(class_name)
            metadata = {"part": part} if part else {}
            rows += [
                Sample(f"{prefix}/{stem}", path, label=label, metadata=metadata)
                for stem, path in find_images(inner.path).items()
            ]
    return Samples(rows, class_names=class_names, source=root.path.name)


def read_image_mask_folders(folder: str | Path) -> Samples:
    """Read a folder of images with a folder of masks beside it, as `images/a.jpg` and `masks/a.png`.

    A mask bears its image's name, or that and `_mask`, `_segmentation` or `_seg`. The folders are called `images`,
    `image`, `imgs` or `img`, and `masks`, `mask`, `labels` or `annotations`, in any case; both may stand inside Train,
    Validation and Test folders.

    Args:
        folder: The folder of those two or of the parts, or the one around it.

    Returns:
        One sample for each image. Ids are the images' stems, behind the part folder's name where there are parts, as
        `"train/a"`; then the metadata says the `part`.

    Raises:
        DataError: If nothing fits, an image has no mask, or a mask has no image.

    Examples:
        >>> import tempfile
        >>> from dermaseg.data import make_synthetic
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = make_synthetic(folder, count=1, size=(24, 32))
        >>> [(sample.id, sample.mask.name) for sample in read_image_mask_folders(folder)]
        [('SYN_0000000', 'SYN_0000000_segmentation.png')]
    """
    root = locate(folder, _has_image_mask_folders, "a folder of images (images/) beside a folder of masks (masks/)")
    found = [("", "", root)] if _is_image_mask_pair(root) else parts_or_whole(root)
    rows = []
    for name, part, listing in found:
        image_folder, mask_folder = listing.folder(*_IMAGE_FOLDERS), listing.folder(*_MASK_FOLDERS)
        if image_folder is None or mask_folder is None:
            raise DataError(f"{listing.path} has no images/ beside masks/, as other parts have. Complete the part.")
        images, masks = find_images(image_folder), find_masks(mask_folder)
        check_same_ids(images, masks, f"{image_folder}: no image for the mask of {{}}. Move the mask away.")
        check_same_ids(masks, images, f"{mask_folder}: no mask of {{}}. Add the mask or move the image away.")
        metadata = {"part": part} if part else {}
        rows += [
            Sample(f"{name}/{stem}" if name else stem, path, mask=masks[stem], metadata=metadata)
            for stem, path in images.items()
        ]
    return Samples(rows, source=root.path.name)


def _reader_of(listing: Listing) -> Callable[[Path], Samples] | None:
    if is_ham10000(listing):
        return read_ham10000
    if is_isic_task1(listing):
        return read_isic_task1
    if _has_image_mask_folders(listing):
        return read_image_mask_folders
    if _has_class_folders(listing):
        return read_class_folders
    return None


def _photographs_alone(folder: Path) -> list[Path]:
    """Return a folder of no layout if photographs lie in it, else those in it that hold some; none if some may be masks."""
    if not folder.is_dir():
        return []
    top = scan(folder)
    inside = [scan(top.path / name) for name in top.folders]
    found = [top] if top.has_images() else [listing for listing in inside if listing.has_images()]
    masks = any(_NO_CLASS.fullmatch(name) and name.casefold() not in _IMAGE_FOLDERS for name in top.folders)
    known = any(_reader_of(listing) is not None for listing in (top, *inside))
    return [] if masks or known else [listing.path for listing in found]


def _is_image_mask_pair(listing: Listing) -> bool:
    return listing.folder(*_IMAGE_FOLDERS) is not None and listing.folder(*_MASK_FOLDERS) is not None


def _has_image_mask_folders(listing: Listing) -> bool:
    return _is_image_mask_pair(listing) or any(_is_image_mask_pair(part) for _, _, part in parts(listing))


def _has_class_folders(listing: Listing) -> bool:
    """Tell whether images lie in two folders or more directly inside, or inside one of the parts."""
    tops = [part for _, _, part in parts(listing)] or [listing]
    return any(sum(scan(top.path / name).has_images() for name in top.folders) > 1 for top in tops)
