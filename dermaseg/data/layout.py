"""What the readers share: finding a layout, listing its files in one scan, pairing masks, reading a table."""

from __future__ import annotations

import csv
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dermaseg.errors import DataError

__all__ = [
    "Listing",
    "check_same_ids",
    "few",
    "find_images",
    "find_masks",
    "list_images",
    "locate",
    "parts",
    "parts_or_whole",
    "read_rows",
    "scan",
]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

# What archives carry beside the photographs; anything else that is no image earns a warning.
_COMPANION_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".json", ".md", ".html", ".xml", ".pdf", ".db", ".ini"})
_MASK_SUFFIX = re.compile(r"_(segmentation|mask|seg)$", re.IGNORECASE)
_PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class Listing:
    """The visible names in one folder, sorted, as one directory scan saw them."""

    path: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]

    def folder(self, *names: str) -> Path | None:
        """Return the subfolder that bears the first of `names` that is there, whatever its case, or None."""
        found = {name.casefold(): name for name in self.folders}
        return next((self.path / found[name] for name in names if name in found), None)

    def has_images(self) -> bool:
        """Tell whether an image lies directly in the folder."""
        return any(_split_name(name)[1] in IMAGE_SUFFIXES for name in self.files)


def scan(folder: Path) -> Listing:
    """List a folder with one `os.scandir`: a question per file would cost seconds on a network disk.

    Raises:
        DataError: If there is no such folder.
    """
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {problem}. Give the folder into which the data set was unpacked.")
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            # "._x.jpg" and "__MACOSX" are left by macOS archives and hold no pictures.
            if not entry.name.startswith((".", "__MACOSX")):
                (folders if entry.is_dir() else files).append(entry.name)
    return Listing(folder, tuple(sorted(files)), tuple(sorted(folders)))


def locate(folder: str | Path, fits: Callable[[Listing], bool], looked_for: str) -> Listing:
    """Find the one folder that `fits`: the one given, or one directly inside it.

    Args:
        folder: Where to look.
        fits: Tells from a listing whether the layout starts there.
        looked_for: The layout in words, for the message.

    Raises:
        DataError: If the folder is missing or empty, or if no folder or several of them fit.
    """
    top = scan(Path(folder))
    if not top.files and not top.folders:
        raise DataError(f"{top.path} is empty. Unpack the data set into it; looked for {looked_for}.")
    if fits(top):
        return top
    inside = [listing for listing in (scan(top.path / name) for name in top.folders) if fits(listing)]
    if not inside:
        raise DataError(f"{top.path} holds {few(top.folders + top.files)}. Looked there and one level down for {looked_for}.")
    if len(inside) > 1:
        names = few([listing.path.name for listing in inside])
        raise DataError(f"{top.path} holds {len(inside)} data sets: {names}. Give the folder of one of them.")
    return inside[0]


def parts(listing: Listing) -> list[tuple[str, str, Listing]]:
    """Scan the Train, Validation and Test folders of a data set.

    Returns:
        For each part folder its name as written, the part that it means (`train`, `validation`, `test`) and its
        listing; empty where no folder has the name of a part.
    """
    names = [name for name in listing.folders if name.casefold() in _PART_NAMES]
    return [(name, _PART_NAMES[name.casefold()], scan(listing.path / name)) for name in names]


def parts_or_whole(listing: Listing) -> list[tuple[str, str, Listing]]:
    """Return the `parts` of a data set, or the whole of it as one nameless part.

    Raises:
        DataError: If images or other folders stand beside the parts, or two folders mean one part.
    """
    found = parts(listing)
    names = [name for name, _, _ in found]
    others = [name for name in listing.folders if name not in names]
    if found and others:
        raise DataError(f"{listing.path}: {few(others)} stands beside {few(names)}. Move it into a part, or away.")
    if found and listing.has_images():
        raise DataError(f"{listing.path} holds images beside {few(names)}. Move them into a part, or away.")
    if len({part for _, part, _ in found}) < len(found):
        raise DataError(f"{listing.path}: two of {few(names)} mean the same part. Merge or rename them.")
    return found or [("", "", listing)]


def find_images(folder: Path, *, ignore: str = "") -> dict[str, Path]:
    """Map the stem of every image in a folder to its path.

    An archive unpacked into a folder of its own name is looked through: `images/images/*.jpg`.

    Args:
        folder: Where the images lie.
        ignore: Ending of stems that are no photographs, as `"_superpixels"`.

    Raises:
        DataError: If the folder holds no image, or two images of one stem.

    Warns:
        UserWarning: If other files, or folders, stand beside the images: they are left out.
    """
    found: dict[str, Path] = {}
    for path in list_images(folder, ignore=ignore):
        if path.stem in found:
            raise DataError(f"{path.parent} holds both {found[path.stem].name} and {path.name}. Keep one of them.")
        found[path.stem] = path
    return found


def list_images(folder: Path, *, ignore: str = "") -> list[Path]:
    """Return the path of every image in a folder, as `find_images` does, also where two have one stem.

    Args:
        folder: Where the images lie.
        ignore: Ending of stems that are no photographs.

    Raises:
        DataError: If the folder holds no image.

    Warns:
        UserWarning: As `find_images`.
    """
    listing = scan(folder)
    if not listing.has_images() and listing.folders == (folder.name,):
        listing = scan(folder / folder.name)
    found: list[Path] = []
    foreign: list[str] = []
    for name in listing.files:
        stem, suffix = _split_name(name)
        if suffix not in IMAGE_SUFFIXES:
            if suffix not in _COMPANION_SUFFIXES:
                foreign.append(name)
        elif not (ignore and stem.endswith(ignore)):
            found.append(listing.path / name)
    if not found and listing.folders:
        raise DataError(
            f"{listing.path} holds no image itself, but the folders {few(listing.folders)}. Give each by itself, to predict "
            f"also as {listing.path / '*' / '*'}, or move its images up."
        )
    if not found:
        raise DataError(f"{listing.path} holds no image. Looked for {', '.join(sorted(IMAGE_SUFFIXES))}.")
    if foreign:
        warnings.warn(f"{listing.path}: left out {few(foreign)}, no image by its name.", UserWarning, stacklevel=4)
    if listing.folders:
        warnings.warn(
            f"{listing.path}: left out what lies in {few(listing.folders)}. Give each folder by itself, or move its images up.",
            UserWarning,
            stacklevel=4,
        )
    return found


def find_masks(folder: Path) -> dict[str, Path]:
    """Map the id of each photograph to its mask: the mask's stem without `_segmentation`, `_mask` or `_seg`.

    Raises:
        DataError: If the folder holds no image, or two masks of one photograph.
    """
    found: dict[str, Path] = {}
    for stem, path in find_images(folder).items():
        name = _MASK_SUFFIX.sub("", stem)
        if name in found:
            raise DataError(f"{path.parent} holds two masks of {name}: {found[name].name} and {path.name}. Keep one.")
        found[name] = path
    return found


def check_same_ids(have: Iterable[str], need: Iterable[str], problem: str) -> None:
    """Raise unless `have` holds all of `need`.

    Args:
        have: The ids that are there.
        need: The ids that should be there.
        problem: The message, with `{}` where the missing ids go.

    Raises:
        DataError: If one is missing.
    """
    have = frozenset(have)
    missing = [name for name in need if name not in have]
    if missing:
        raise DataError(problem.replace("{}", few(missing)))  # no str.format: the folder's name may hold braces


def read_rows(path: Path, id_column: str, columns: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """Read a CSV file into one row for each id.

    Args:
        path: The file, UTF-8 with or without a byte order mark.
        id_column: The column that names the photograph.
        columns: The other columns that must be there.

    Raises:
        DataError: If a column is missing, the file has no rows or is no text, a row is short, an id stands twice, or an
            id is not a plain name (it becomes part of a path, so `../x` must not pass).
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in (id_column, *columns) if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} has no column {few(missing)}. Its columns are {few(reader.fieldnames or [], 20)}.")
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}.") from error
    if not rows:
        raise DataError(f"{path} has a header but no rows. Download it again.")
    table: dict[str, Mapping[str, str]] = {}
    for number, row in enumerate(rows, start=2):
        name = row[id_column]
        if None in row or None in row.values():
            raise DataError(f"{path}, line {number}: the row has not as many fields as the header. Download it again.")
        if not re.fullmatch(r"[\w.+ -]+", name) or name.startswith("."):
            raise DataError(f"{path}, line {number}: the id {name!r} is not the plain name of a file.")
        if name in table:
            raise DataError(f"{path}, line {number}: the id {name!r} stands there twice. Keep one row for each photograph.")
        table[name] = row
    return table


def few(names: Sequence[str], most: int = 3) -> str:
    """Write the first names of a list, and how many there are in all.

    Examples:
        >>> few(["a", "b", "c", "d", "e"])
        'a, b, c ... (5 in all)'
    """
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text} ... ({len(names)} in all)"


def _split_name(name: str) -> tuple[str, str]:
    stem, suffix = os.path.splitext(name)
    return stem, suffix.lower()
