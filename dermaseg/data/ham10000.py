"""HAM10000: 10,015 photographs of 7,470 pigmented lesions in seven classes, with masks of the lesion."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from dermaseg.data.layout import Listing, check_same_ids, find_images, find_masks, locate, read_rows
from dermaseg.data.samples import Sample, Samples
from dermaseg.errors import DataError

__all__ = ["HAM10000_CLASSES", "MALIGNANT", "is_ham10000", "read_ham10000", "to_benign_malignant"]

HAM10000_CLASSES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
"""The seven classes, in the column order of the ISIC 2018 challenge, task 3."""

MALIGNANT = ("mel", "bcc", "akiec")
"""Melanoma, basal cell carcinoma, and actinic keratoses with intraepithelial carcinoma."""

_METADATA_FILE = "HAM10000_metadata.csv"
_LABEL_FILE = "GroundTruth.csv"
_PART_FOLDERS = ("ham10000_images_part_1", "ham10000_images_part_2")
_IMAGE_FOLDERS = ("images", *_PART_FOLDERS)
_MASK_FOLDERS = ("masks", "ham10000_segmentations_lesion_tschandl")
_METADATA = ("dx_type", "age", "sex", "localization")
_DRAWN = "SYN_"  # begins the ids of make_synthetic, whose figures must not pass for HAM10000's


def read_ham10000(folder: str | Path) -> Samples:
    """Read HAM10000 as Kaggle hands it out, with lesions and metadata, with masks, or both in one folder.

    Two layouts are known, and a folder that holds both gives the union of what they say:

    - `kmader/skin-cancer-mnist-ham10000`: `HAM10000_metadata.csv`, `HAM10000_images_part_1/`, `..._part_2/`;
    - `surajghuwalewala/ham1000-segmentation-and-classification`: `GroundTruth.csv`, `images/`, `masks/`.

    The second alone does not say which photographs show the same lesion (`lesion_id` is None then), so a split of it
    leaks: put `HAM10000_metadata.csv` beside it.

    Args:
        folder: The folder of the files above, or the one around it.

    Returns:
        One sample for each photograph, in the table's order, with the classes of `HAM10000_CLASSES` and the metadata
        `dx_type`, `age` (years), `sex` and `localization` as the file spells them, `""` where it is silent. Its source is
        "HAM10000", or "synthetic photographs" where `make_synthetic` drew them all.

    Raises:
        DataError: If files, columns, images or masks are missing, ids repeat or are no plain names, a row of labels is
            not one-hot, or the two tables disagree.

    Examples:
        >>> import tempfile
        >>> from dermaseg.data import make_synthetic
        >>> folder = tempfile.mkdtemp()
        >>> _ = make_synthetic(folder, count=4, size=(24, 32))
        >>> [(sample.id, sample.lesion_id, sample.label) for sample in read_ham10000(folder)][1:3]
        [('SYN_0000001', 'SYN_L000000', 0), ('SYN_0000002', 'SYN_L000001', 1)]

    References:
        P. Tschandl, C. Rosendahl, H. Kittler, "The HAM10000 dataset, a large collection of multi-source dermatoscopic
        images of common pigmented skin lesions", Scientific Data 5, 2018 (photographs, diagnoses). P. Tschandl et al.,
        "Human-computer collaboration for skin cancer recognition", Nature Medicine 26, 2020 (masks).
    """
    listing = locate(folder, is_ham10000, f"HAM10000: {_METADATA_FILE} or {_LABEL_FILE} beside a folder of images")
    images = _images(listing)
    rows, labels = _tables(listing)
    check_same_ids(images, labels, f"{listing.path}: no image of {{}}. Unpack every part of the photographs.")
    check_same_ids(labels, images, f"{listing.path}: no row for the image {{}}. Complete the table or move the image away.")
    mask_folder = listing.folder(*_MASK_FOLDERS)
    masks = {} if mask_folder is None else find_masks(mask_folder)
    if masks:
        check_same_ids(images, masks, f"{mask_folder}: no image for the mask of {{}}. Move the mask away.")
        check_same_ids(masks, images, f"{mask_folder}: no mask of {{}}. Unpack all masks, or move the folder away.")
    samples = [
        Sample(
            id=name,
            image=images[name],
            mask=masks.get(name),
            label=label,
            lesion_id=rows[name]["lesion_id"] or None if rows else None,
            metadata={column: rows[name][column] for column in _METADATA} if rows else {},
        )
        for name, label in labels.items()
    ]
    source = "synthetic photographs" if all(name.startswith(_DRAWN) for name in labels) else "HAM10000"
    return Samples(samples, class_names=HAM10000_CLASSES, source=source)


def to_benign_malignant(samples: Samples, malignant: Collection[str] = MALIGNANT) -> Samples:
    """Merge the classes of a table into `benign` (0) and `malignant` (1).

    Args:
        samples: A table whose class names include `malignant`.
        malignant: The classes to call malignant. The default counts actinic keratosis in, as most published two-class
            work on HAM10000 does; it is a precursor, so leave it out where invasive cancer alone is asked for.

    Returns:
        The same rows with the class names `("benign", "malignant")`; a row without a label stays without.

    Raises:
        DataError: If a name in `malignant` is no class of the table.
        ValueError: If no class or every class is malignant.

    Examples:
        >>> table = Samples([Sample("a", Path("a.jpg"), label=0)], class_names=HAM10000_CLASSES)
        >>> to_benign_malignant(table).class_counts()
        {'benign': 0, 'malignant': 1}
    """
    unknown = [name for name in malignant if name not in samples.class_names]
    if unknown:
        raise DataError(
            f"malignant: {unknown[0]!r} is no class of the table. Its classes are {', '.join(samples.class_names)}."
        )
    benign = [name for name in samples.class_names if name not in malignant]
    if not benign or not malignant:
        raise ValueError(f"malignant={tuple(malignant)!r} leaves one of the two classes empty: name some classes, not all.")
    # relabel() numbers the new classes as the mapping first names them: benign comes first, to be 0.
    return samples.relabel(dict.fromkeys(benign, "benign") | dict.fromkeys(malignant, "malignant"))


def is_ham10000(listing: Listing) -> bool:
    """Tell whether a folder holds HAM10000."""
    has_table = _METADATA_FILE in listing.files or (_LABEL_FILE in listing.files and listing.folder("images") is not None)
    return has_table or listing.folder(*_PART_FOLDERS) is not None


def _images(listing: Listing) -> dict[str, Path]:
    """Gather the images of all parts."""
    # Kaggle's archive holds each part twice, in folders whose names differ in case only: the first is enough.
    folders = {name.casefold(): name for name in reversed(listing.folders) if name.casefold() in _IMAGE_FOLDERS}
    if not folders:
        raise DataError(f"{listing.path}: no folder of images. Looked for HAM10000_images_part_1, ..._part_2 and images.")
    images: dict[str, Path] = {}
    for name in sorted(folders.values()):
        for stem, path in find_images(listing.path / name).items():
            if stem in images:
                raise DataError(f"{stem} lies both in {images[stem].parent} and in {path.parent}. Keep one of the two.")
            images[stem] = path
    return images


def _tables(listing: Listing) -> tuple[Mapping[str, Mapping[str, str]], dict[str, int]]:
    """Read the metadata (empty where there is none) and the label of every id, and see that both tables agree."""
    rows: Mapping[str, Mapping[str, str]] = {}
    labels: dict[str, int] = {}
    metadata_path, label_path = listing.path / _METADATA_FILE, listing.path / _LABEL_FILE
    if _METADATA_FILE in listing.files:
        rows = read_rows(metadata_path, "image_id", ("lesion_id", "dx", *_METADATA))
        for name, row in rows.items():
            if row["dx"] not in HAM10000_CLASSES:
                raise DataError(f"{metadata_path}: dx of {name} is {row['dx']!r}, not one of {', '.join(HAM10000_CLASSES)}.")
            labels[name] = HAM10000_CLASSES.index(row["dx"])
    if _LABEL_FILE in listing.files:
        one_hot = _one_hot_labels(label_path)
        if rows:
            check_same_ids(one_hot, labels, f"{label_path}: no row for {{}}, which {metadata_path.name} has.")
            check_same_ids(labels, one_hot, f"{metadata_path}: no row for {{}}, which {label_path.name} has.")
            for name, label in one_hot.items():
                if label != labels[name]:
                    raise DataError(
                        f"{listing.path}: {name} is {HAM10000_CLASSES[label]!r} in {_LABEL_FILE} and "
                        f"{HAM10000_CLASSES[labels[name]]!r} in {_METADATA_FILE}. Correct one of them."
                    )
        labels = labels or one_hot
    if not labels:
        raise DataError(f"{listing.path} holds neither {_METADATA_FILE} nor {_LABEL_FILE}. Put one of them beside the images.")
    return rows, labels


def _one_hot_labels(path: Path) -> dict[str, int]:
    columns = [name.upper() for name in HAM10000_CLASSES]
    labels = {}
    for name, row in read_rows(path, "image", columns).items():
        values = [row[column] for column in columns]
        try:
            marks = [float(value) for value in values]
        except ValueError:
            marks = []
        if sorted(marks) != [0.0] * (len(columns) - 1) + [1.0]:
            raise DataError(f"{path}: the row of {name} is not one-hot: {', '.join(values)}. Exactly one class must be 1.")
        labels[name] = marks.index(1.0)
    return labels
