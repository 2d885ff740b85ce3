"""Look at every file of a table once and say what is wrong: leaks, copies, contradictions, broken files and masks."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from dermaseg.data.duplicates import near_identical_pairs, thumbnail
from dermaseg.data.grouping import copies
from dermaseg.data.images import cut_mask, read_image, read_mask_grey, same_proportions
from dermaseg.data.samples import Sample, Samples
from dermaseg.data.splits import Split
from dermaseg.errors import DataError

__all__ = ["Audit", "Finding", "audit_samples"]

TINY_PX = 32
"""A photograph with a side below this many pixels shows no lesion."""

# Of a mask that covers all four corners: lesions that fill the picture reach less of its border, or leave less of it free.
_INVERTED_BORDER, _INVERTED_FREE = 0.9, 0.01

_SEVERITY: dict[str, Literal["error", "warning"]] = {
    "unreadable image": "error",
    "unreadable mask": "error",
    "two classes": "error",
    "leaking lesion": "error",
    "leaking image": "error",
    "mask proportions": "error",
    "identical images": "warning",
    "near-identical images": "warning",
    "mask size": "warning",
    "empty mask": "warning",
    "full mask": "warning",
    "inverted mask": "warning",
    "grey mask": "warning",
    "tiny image": "warning",
}
_UNUSABLE = ("unreadable image", "two classes")
_UNUSABLE_MASK = ("unreadable mask", "mask proportions")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and with which photographs.

    Args:
        kind: What it is, as `"two classes"`; the table of `Audit` counts by it.
        severity: `"error"` spoils a training or its figures; `"warning"` wants a look.
        ids: The photographs concerned.
        message: One sentence that names them.
    """

    kind: str
    severity: Literal["error", "warning"]
    ids: tuple[str, ...]
    message: str


@dataclass(frozen=True)
class Audit:
    """What `audit_samples` found; `str(audit)` is a Markdown table.

    Args:
        findings: All findings, errors first.
        duplicates: Pairs of ids that show the same picture, also where that is no fault (two photographs of one lesion,
            taken one after the other): for the argument `duplicates` of `split_samples`.
        num_images: How many photographs were looked at.
        source: What the table was read from.
    """

    findings: tuple[Finding, ...]
    duplicates: tuple[tuple[str, str], ...]
    num_images: int
    source: str = ""

    def of_kind(self, *kinds: str) -> tuple[Finding, ...]:
        """The findings of the kinds named, as `audit.of_kind("two classes")`."""
        unknown = [kind for kind in kinds if kind not in _SEVERITY]
        if unknown:
            raise ValueError(f"kinds: {unknown[0]!r} is not one of {', '.join(_SEVERITY)}.")
        return tuple(finding for finding in self.findings if finding.kind in kinds)

    def clean(self, samples: Samples) -> tuple[Samples, Samples]:
        """Take out what no training can use: photographs that stand in two classes, and files that can't be read.

        Of a picture in two classes every copy goes, as nobody can say which label is right. Copies within one class stay:
        a split keeps them together. A photograph whose mask can't be read, or has other proportions, stays without its mask:
        its class may be of use.

        Returns:
            The rows kept, such masks being None, and the rows dropped.
        """
        unusable = {key for finding in self.of_kind(*_UNUSABLE) for key in finding.ids}
        without_mask = {key for finding in self.of_kind(*_UNUSABLE_MASK) for key in finding.ids}
        kept = samples.filter(lambda row: row.id not in unusable)
        return (
            kept.map(lambda row: replace(row, mask=None) if row.id in without_mask else row),
            samples.filter(lambda row: row.id in unusable),
        )

    def to_dict(self) -> dict[str, object]:
        """Everything as plain lists and strings, ready for JSON."""
        return {
            "source": self.source,
            "num_images": self.num_images,
            "findings": [{**asdict(finding), "ids": list(finding.ids)} for finding in self.findings],
            "duplicates": [list(pair) for pair in self.duplicates],
        }

    def save(self, path: str | Path) -> None:
        """Write `to_dict()` as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        title = f"{self.source or 'Audit'}: {self.num_images} images"
        if not self.findings:
            return f"{title}, nothing wrong"
        rows = ["| kind | severity | findings | images | first |", "| --- | --- | ---: | ---: | --- |"]
        for kind, count in Counter(finding.kind for finding in self.findings).items():
            found = self.of_kind(kind)
            images = len({key for finding in found for key in finding.ids})
            first = found[0].message.replace("|", "\\|")
            rows.append(f"| {kind} | {found[0].severity} | {count} | {images} | {first} |")
        return "\n".join([title, "", *rows])


def audit_samples(
    samples: Samples,
    *,
    split: Split | None = None,
    near: float = 0.7,
    progress: Callable[[int, int], object] | None = None,
) -> Audit:
    """Read every photograph and mask of a table once, and list all that is wrong.

    Looks for files that are missing or can't be read; lesions, patients and pictures in two parts of a split; one
    picture in two classes; copies; masks of another size or other proportions than their photograph, empty, full, with lesion
    and skin swapped, or with values between background and lesion; and tiny photographs. Two photographs of one lesion may be
    near-identical without fault.

    Args:
        samples: The table.
        split: The split to look for leaks in; without it the metadata's `part`, where the data set came in parts.
        near: How alike the detail of two photographs must be to call them copies, as for `near_identical_pairs`.
        progress: Called with the number of photographs read and their total, after each.

    Returns:
        The findings. Nothing is raised for bad data: it is what an audit is for.

    Examples:
        >>> import tempfile
        >>> from dermaseg.data import make_synthetic
        >>> samples = make_synthetic(tempfile.mkdtemp(), count=2, size=(48, 64))
        >>> _ = samples[1].image.write_bytes(samples[0].image.read_bytes())  # the same photograph under another name
        >>> [(finding.kind, finding.ids) for finding in audit_samples(samples).findings]
        [('identical images', ('SYN_0000000', 'SYN_0000001'))]
    """
    looks: list[_Look] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for look in pool.map(_look, samples):
            looks.append(look)
            if progress is not None:
                progress(len(looks), len(samples))
    identical, alike = _duplicates(samples, looks, near)
    if split is None:
        part_of = {sample.id: sample.metadata["part"] for sample in samples if sample.metadata.get("part")}
    else:
        part_of = {key: name for name, ids in split.parts.items() for key in ids}
    findings = [
        *(
            _finding(kind, (sample.id,), text)
            for sample, look in zip(samples, looks, strict=True)
            for kind, text in look.faults
        ),
        *_leaking_lesions(samples, part_of),
        *_faulty_duplicates(samples, identical, alike, part_of),
    ]
    order = list(_SEVERITY)
    findings.sort(key=lambda finding: order.index(finding.kind))
    return Audit(tuple(findings), (*identical, *alike), len(samples), samples.source)


@dataclass(frozen=True, slots=True)
class _Look:
    """What is kept of one photograph and its mask: some 4 kB, whatever their size."""

    digest: bytes = b""
    thumbnail: np.ndarray | None = None
    faults: tuple[tuple[str, str], ...] = ()


def _finding(kind: str, ids: Iterable[str], message: str) -> Finding:
    return Finding(kind, _SEVERITY[kind], tuple(ids), message)


def _look(sample: Sample) -> _Look:
    try:
        image = read_image(sample.image)
    except DataError as error:
        return _Look(faults=(("unreadable image", str(error)), *_mask_faults(sample, None)))
    height, width = image.shape[:2]
    faults = list(_mask_faults(sample, (height, width)))
    if min(height, width) < TINY_PX:
        faults.append(("tiny image", f"{sample.image} is {width} by {height} pixels."))
    digest = hashlib.blake2b(image.tobytes() + bytes(f"{height}x{width}", "ascii"), digest_size=16).digest()
    return _Look(digest, thumbnail(image), tuple(faults))


def _mask_faults(sample: Sample, image_size: tuple[int, int] | None) -> Iterator[tuple[str, str]]:
    if sample.mask is None:
        return
    try:
        grey = read_mask_grey(sample.mask)
        lesion = cut_mask(grey, sample.mask)
    except DataError as error:
        yield "unreadable mask", str(error)
        return
    if image_size is not None and grey.shape != image_size:
        height, width = grey.shape
        kind = "mask size" if same_proportions(grey.shape, image_size) else "mask proportions"
        yield kind, f"{sample.mask} is {width} by {height} pixels, its image {image_size[1]} by {image_size[0]}."
    values = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
    if not lesion.any():
        yield "empty mask", f"{sample.mask} has no lesion."
    elif lesion.all():
        yield "full mask", f"{sample.mask} is lesion from edge to edge."
    elif _is_inverted(lesion):
        yield "inverted mask", f"{sample.mask} is lesion all around and skin inside. If they are swapped, invert it."
    between = np.count_nonzero((grey != values[0]) & (grey != values[-1]))
    if between:
        yield "grey mask", f"{sample.mask} has {len(values)} values; {between} pixels lie between background and lesion."


def _is_inverted(lesion: np.ndarray) -> bool:
    """Tell whether a mask covers what a photograph shows of the skin, and leaves out what it shows of the lesion."""
    lesion = lesion.astype(bool)
    border = np.concatenate([lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1]])
    corners = lesion[[0, 0, -1, -1], [0, -1, 0, -1]]
    return bool(corners.all() and border.mean() >= _INVERTED_BORDER and 1 - lesion.mean() >= _INVERTED_FREE)


_Pairs = list[tuple[str, str]]


def _duplicates(samples: Samples, looks: list[_Look], near: float) -> tuple[_Pairs, _Pairs]:
    """Return the pairs with the same pixels, and those that are only alike."""
    by_digest: dict[bytes, list[int]] = defaultdict(list)
    for row, look in enumerate(looks):
        if look.thumbnail is not None:
            by_digest[look.digest].append(row)
    ids = samples.ids
    identical = [(ids[i], ids[j]) for rows in by_digest.values() for i, j in combinations(rows, 2)]
    # One of each set of copies is enough to find what is alike.
    firsts = [rows[0] for rows in by_digest.values()]
    if not firsts:
        return [], []
    thumbnails = np.array([looks[row].thumbnail for row in firsts])
    return identical, [(ids[firsts[i]], ids[firsts[j]]) for i, j in near_identical_pairs(thumbnails, near=near)]


def _leaking_lesions(samples: Samples, part_of: dict[str, str]) -> Iterator[Finding]:
    for what in ("lesion", "patient"):
        members: dict[str, list[str]] = defaultdict(list)
        for sample in samples:
            key = sample.lesion_id if what == "lesion" else sample.patient_id
            if key is not None and sample.id in part_of:
                members[key].append(sample.id)
        for key, ids in members.items():
            if parts := _several(part_of[name] for name in ids):
                yield _finding("leaking lesion", ids, f"{what} {key} stands in {parts}: {', '.join(ids)}.")


def _faulty_duplicates(samples: Samples, identical: _Pairs, alike: _Pairs, part_of: dict[str, str]) -> Iterator[Finding]:
    """Judge the copies: each set once for its classes and its parts, each pair that is alike once for itself."""
    for same in copies(samples, identical):
        yield _finding("identical images", same.ids, f"the same pixels: {', '.join(same.ids)}.")
    by_id = {sample.id: sample for sample in samples}
    for first, second in alike:
        lesion = by_id[first].lesion_id
        if lesion is None or lesion != by_id[second].lesion_id:
            yield _finding("near-identical images", (first, second), f"the same picture but for details: {first}, {second}.")
    for same in copies(samples, [*identical, *alike]):
        ids = same.ids
        if classes := _several(samples.class_names[sample.label] for sample in same if sample.label is not None):
            yield _finding("two classes", ids, f"one picture is {classes}: {', '.join(ids)}.")
        if parts := _several(part_of[name] for name in ids if name in part_of):
            yield _finding("leaking image", ids, f"one picture stands in {parts}: {', '.join(ids)}.")


def _several(names: Iterable[str]) -> str:
    """Join different names by "and"; empty where there is only one."""
    different = list(dict.fromkeys(names))
    return " and ".join(different) if len(different) > 1 else ""
