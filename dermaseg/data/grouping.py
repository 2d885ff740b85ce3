"""Which photographs must stay together, and how such groups are dealt out to the parts of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from dermaseg.data.samples import Sample, Samples
from dermaseg.errors import DataError

__all__ = ["copies", "deal_groups", "group_samples"]


def group_samples(samples: Samples, duplicates: Iterable[tuple[str, str]] | None = None) -> np.ndarray:
    """Number the groups of photographs that must stay together in a split.

    Two photographs belong together if they share a lesion or a patient or are near-duplicates, or if a chain of such
    ties joins them: the groups are the connected components of that graph.

    Args:
        samples: The table.
        duplicates: Pairs of ids of the same picture, as `Audit.duplicates`. Pairs with an id outside the table are of
            no consequence.

    Returns:
        Integers of shape `(samples,)`, from 0, numbered as the groups first appear.

    Examples:
        >>> from pathlib import Path
        >>> from dermaseg.data.samples import Sample
        >>> rows = [Sample(name, Path(name), lesion_id=lesion) for name, lesion in [("a", "1"), ("b", "2"), ("c", "1")]]
        >>> group_samples(Samples(rows)).tolist()
        [0, 1, 0]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    row_of = {key: row for row, key in enumerate(samples.ids)}
    first: dict[tuple[str, str], int] = {}
    edges = [(row_of[a], row_of[b]) for a, b in duplicates or () if a in row_of and b in row_of]
    for row, sample in enumerate(samples):
        for kind, key in (("lesion", sample.lesion_id), ("patient", sample.patient_id)):
            if key is not None:
                edges.append((row, first.setdefault((kind, key), row)))
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges), dtype=bool), tuple(ends)), shape=(len(samples), len(samples)))
    _, component = connected_components(graph, directed=False)
    return _by_appearance(component)


def copies(samples: Samples, duplicates: Iterable[tuple[str, str]]) -> list[Samples]:
    """Join pairs of copies to the sets of photographs that show one picture, whatever lesions they are said to be of.

    Args:
        samples: The table.
        duplicates: As for `group_samples`.

    Returns:
        One table for each picture that stands in `samples` more than once.
    """
    members: dict[int, list[int]] = defaultdict(list)
    plain = samples.map(lambda sample: Sample(sample.id, sample.image))
    for row, group in enumerate(group_samples(plain, duplicates)):
        members[group].append(row)
    return [samples.select(rows) for rows in members.values() if len(rows) > 1]


def deal_groups(samples: Samples, groups: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Deal groups of photographs out to parts, so that each part gets its share of every class.

    Large groups first, each to the part that is least full with half of it: the sum of the part's fill counted over the
    group's classes and counted over all photographs (which spreads classes of a few images over the parts). With half of
    the group this is Sainte-Laguë's rule for dealing out seats, which favours neither large nor small parts; with all of
    it (D'Hondt's rule), small parts would go without rare classes.

    Args:
        samples: The table; only ids and labels count.
        groups: The group of each row, integers of shape `(samples,)`.
        shares: The share of each part, above 0, with the sum 1, shape `(parts,)`.
        seed: Draws the order of groups of one size. The order of the rows has no influence.

    Returns:
        The part of each row, integers of shape `(samples,)`.

    Raises:
        DataError: If a part would be empty.

    References:
        M. Balinski, H. Young, "Fair Representation", 2nd edition, 2001, appendix A (divisor methods; there Webster's).
    """
    by_id = np.argsort(np.array(samples.ids, dtype=str))
    group = np.empty(len(samples), dtype=np.int64)
    group[by_id] = _by_appearance(groups[by_id])
    _, stratum = np.unique(samples.labels, return_inverse=True)
    counts = np.zeros((group.max(initial=-1) + 1, stratum.max(initial=-1) + 1))
    np.add.at(counts, (group, stratum), 1)

    shuffled = np.random.default_rng(seed).permutation(len(counts))
    largest_first = shuffled[np.argsort(-counts[shuffled].sum(axis=1), kind="stable")]
    capacity = shares[:, None] * counts.sum(axis=0)  # (parts, classes)
    filled = np.zeros_like(capacity)
    part_of_group = np.empty(len(counts), dtype=np.int64)
    for index in largest_first:
        midway = filled + counts[index] / 2
        class_fill = (midway / capacity) @ (counts[index] / counts[index].sum())
        part = np.argmin(class_fill + midway.sum(axis=1) / capacity.sum(axis=1))
        filled[part] += counts[index]
        part_of_group[index] = part
    if not filled.sum(axis=1).all():
        # How many groups of one size Sainte-Laguë deals out until the smallest part has one.
        enough = int(np.floor(shares / shares.min() / 2 + 0.5 + 1e-9).sum())  # 0.3 / 0.1 is less than 3
        raise DataError(
            f"{samples.source or 'samples'}: {len(samples)} photographs in {len(counts)} groups (lesions, patients or "
            f"near-duplicates) leave one of {len(shares)} parts empty. Add photographs: {enough} groups are enough; where "
            f"there are classes, {enough} of each."
        )
    return part_of_group[group]


def _by_appearance(keys: np.ndarray) -> np.ndarray:
    """Number keys from 0 in the order in which they first appear."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
