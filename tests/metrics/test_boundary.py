import numpy as np
import pytest
from scipy.spatial.distance import cdist, directed_hausdorff

from dermaseg.metrics import average_boundary_distance, boundary_distances, boundary_jaccard, hausdorff95


def disc(size, row, column, radius):
    rows, columns = np.mgrid[:size, :size]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def outline(mask):
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inner)


def test_distances_agree_with_every_pair_of_outline_pixels():
    true, pred = disc(40, 18, 20, 9), disc(40, 22, 17, 7)
    pairs = cdist(outline(pred), outline(true))
    from_true, from_pred, _ = boundary_distances(true, pred)
    np.testing.assert_allclose(np.sort(from_true), np.sort(pairs.min(1)))
    np.testing.assert_allclose(np.sort(from_pred), np.sort(pairs.min(0)))
    assert hausdorff95(true, pred) == pytest.approx(max(np.percentile(pairs.min(1), 95), np.percentile(pairs.min(0), 95)))
    assert average_boundary_distance(true, pred) == pytest.approx(np.concatenate([pairs.min(1), pairs.min(0)]).mean())
    full = max(from_true.max(), from_pred.max())
    assert full == pytest.approx(
        max(directed_hausdorff(outline(pred), outline(true))[0], directed_hausdorff(outline(true), outline(pred))[0])
    )


def test_a_shifted_square_by_hand():
    true, pred = np.zeros((20, 20)), np.zeros((20, 20))
    true[5:10, 5:10] = 1
    pred[5:10, 8:13] = 1
    assert hausdorff95(true, pred) == 3.0


def test_a_lesion_cut_by_the_edge_has_its_border_there():
    full = np.ones((10, 10))
    assert hausdorff95(full, full) == 0
    assert boundary_jaccard(full, full) == 1
    inner = np.zeros((10, 10))
    inner[2:8, 2:8] = 1
    assert hausdorff95(full, inner) >= 2


def test_boundary_jaccard_sees_what_jaccard_does_not():
    true = disc(200, 100, 100, 80)
    pred = disc(200, 100, 100, 76)
    jaccard = (true & pred).sum() / (true | pred).sum()
    assert jaccard > 0.9
    assert boundary_jaccard(true, pred) < 0.5
    assert boundary_jaccard(true, true) == 1


def test_empty_masks():
    empty, full = np.zeros((5, 5)), np.ones((5, 5))
    assert hausdorff95(empty, empty) == average_boundary_distance(empty, empty) == 0
    assert boundary_jaccard(empty, empty) == 1
    for true, pred in ((empty, full), (full, empty)):
        assert np.isnan(hausdorff95(true, pred))
        assert np.isnan(average_boundary_distance(true, pred))
        assert boundary_jaccard(true, pred) == 0


def test_spacing_scales_each_axis():
    true, pred = np.zeros((2, 20, 20))
    true[5:10, 5:10] = 1
    pred[5:10, 8:13] = 1
    assert hausdorff95(true, pred, spacing=(9.0, 0.5)) == 1.5
    assert hausdorff95(true.T, pred.T, spacing=(0.5, 9.0)) == 1.5
    discs = disc(60, 30, 30, 15), disc(60, 28, 35, 12)
    assert average_boundary_distance(*discs, spacing=(2, 2)) == pytest.approx(2 * average_boundary_distance(*discs))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (25, 40), (38, 10)])
def test_nothing_depends_on_where_in_the_picture_the_lesion_is(row, column):
    true, pred = disc(24, 11, 12, 9), disc(24, 12, 10, 8)
    small = np.pad(true, 1), np.pad(pred, 1)
    large = np.zeros((2, 64, 80), bool)
    large[:, row : row + 26, column : column + 26] = small
    for distance in (hausdorff95, average_boundary_distance):
        assert distance(*large) == pytest.approx(distance(*small))
    width = 2.0 / np.hypot(26, 26)
    assert boundary_jaccard(*large, width=2.0 / np.hypot(64, 80)) == pytest.approx(boundary_jaccard(*small, width=width))


def test_a_band_of_one_pixel_is_the_outline():
    true, pred = disc(40, 18, 20, 9), disc(40, 19, 20, 9)
    ours, theirs = (set(map(tuple, outline(mask))) for mask in (true, pred))
    expected = len(ours & theirs) / len(ours | theirs)
    assert boundary_jaccard(true, pred, width=0) == pytest.approx(expected)


def test_both_directions_count_alike():
    true, pred = disc(60, 30, 30, 15), disc(60, 28, 35, 12)
    for distance in (hausdorff95, average_boundary_distance, boundary_jaccard):
        assert distance(true, pred) == pytest.approx(distance(pred, true))
