"What comes from several models is looked at once: forms, holes, and what is refused."

import matplotlib
import numpy as np
import pytest
import torch

from mmcourse.opinions import (
    cluster_shares,
    in_form,
    in_triangle,
    model_weights,
    opinions,
    partitions,
    show_correlations,
    show_reliability,
    show_weights,
    squares_saved,
)

P = np.array([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])
Q = P[:, ::-1]


@pytest.mark.parametrize(
    "probs",
    [
        {0: P, 1: Q},
        [P, Q],
        np.stack([P, Q]),
        torch.tensor(np.stack([P, Q]), requires_grad=True),
        {0: torch.tensor(P), 1: Q.tolist()},
    ],
)
def test_every_form_is_read_alike(probs):
    names, p, here = opinions(probs)
    assert names == [0, 1] and here.all() and here.shape == (2, 3)
    assert p.dtype == np.float64 and p.tolist() == [P.tolist(), Q.tolist()]


def test_names_keep_their_order_and_absent_models_say_nothing():
    names, p, here = opinions({"b": Q, "none": None, "a": P})
    assert names == ["b", "none", "a"]
    assert here.tolist() == [[True] * 3, [False] * 3, [True] * 3]
    assert (p[1] == 0.5).all() and p[2].tolist() == P.tolist()


@pytest.mark.parametrize(
    "mask",
    [
        {"b": [True, False, True]},
        {"a": None, "b": torch.tensor([1, 0, 1])},
        [[True] * 3, [True, False, True]],
        np.array([[1, 1, 1], [1, 0, 1]]),
    ],
)
def test_a_mask_in_every_form(mask):
    broken = Q.copy()
    broken[1] = np.nan, 7
    _, p, here = opinions({"a": P, "b": broken}, mask)
    assert here.tolist() == [[True] * 3, [True, False, True]]
    assert p[1].tolist() == [[0.8, 0.2], [0.5, 0.5], [0.0, 1.0]]


def test_rounding_is_mended_and_nothing_is_changed_in_place():
    given = P.astype(np.float32) * np.float32(1.001)
    before = given.copy()
    _, p, _ = opinions([given])
    np.testing.assert_allclose(p[0].sum(1), 1, rtol=1e-12)
    assert (given == before).all()


REFUSED = [
    ({"a": [1, 2, 0]}, None, "labels cannot be averaged"),
    ({"a": P, "b": P[:2]}, None, "one shape for all"),
    ({"a": P, "b": np.full((3, 3), 1 / 3)}, None, "one shape for all"),
    ({"a": None}, None, "got none"),
    ([], None, "got none"),
    ({"a": P, "b": 2 * P}, None, r"probs\['b'\].*add up to 1"),
    ({"a": P - [0.5, -0.5]}, None, "add up to 1"),
    ({"a": P * np.nan}, None, "finite"),
    ({"a": P}, {"a": [True]}, r"mask\['a'\].*\(3\)"),
    ({"a": P}, {"a": [0.5, 1, 0]}, r"mask\['a'\]"),
]


@pytest.mark.parametrize("probs, mask, says", REFUSED)
def test_what_is_refused(probs, mask, says):
    with pytest.raises(ValueError, match=says):
        opinions(probs, mask)


def test_weights():
    names = ["a", "b"]
    assert model_weights(None, names).tolist() == [1, 1]
    assert model_weights({"b": 2, "c": 9, "a": 0}, names).tolist() == [0, 2]
    assert model_weights(torch.tensor([3, 4]), names).tolist() == [3.0, 4.0]
    for wrong in ([1], [1, 2, 3], [1, -1], [np.nan, 1]):
        with pytest.raises(ValueError, match="weights"):
            model_weights(wrong, names)


def test_numbers_go_back_in_the_form_that_came():
    w = in_form({"a": P, "b": P}, ["a", "b"], np.array([0.25, 0.75]))
    assert w == {"a": 0.25, "b": 0.75} and all(type(x) is float for x in w.values())
    assert in_form([P, P], [0, 1], (1, 2)).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("m, k, n", [(1, 3, 1), (3, 2, 4), (4, 3, 14), (5, 5, 52)])
def test_partitions_are_complete(m, k, n):
    rows = partitions(m, k)
    assert rows.shape == (n, m) and rows.max() < k and (rows[:, 0] == 0).all()
    assert len({tuple(r) for r in rows}) == n
    assert (np.diff(rows.max(1)) >= 0).all()  # few groups first
    for row in rows:  # numbers are given in the order of their coming
        assert row.tolist() == [list(dict.fromkeys(row)).index(g) for g in row]


def test_squares_saved_are_what_a_partition_leaves():
    p = np.random.default_rng(0).dirichlet(np.ones(4), (4, 3))
    groups = partitions(4, 3)
    saved = squares_saved(groups, np.einsum("mnc,jnc->nmj", p, p))
    for n, s in np.ndindex(*saved.shape):
        left = 0.0
        for g in range(groups[s].max() + 1):
            q = p[groups[s] == g, n]
            left += ((q - q.mean(0)) ** 2).sum()
        np.testing.assert_allclose((p[:, n] ** 2).sum() - saved[n, s], left)


def test_shares_by_hand():
    p = np.array([[0.7, 0.3], [0.7, 0.3], [0.1, 0.9]])[:, None]
    assert cluster_shares(p, 1)[:, 0].tolist() == [1 / 3] * 3
    np.testing.assert_allclose(cluster_shares(p, 2)[:, 0], [0.25, 0.25, 0.5])
    np.testing.assert_allclose(cluster_shares(p, 3)[:, 0], [0.25, 0.25, 0.5])
    equal = np.eye(3)[:, None]  # any two of the three may be paired
    np.testing.assert_allclose(cluster_shares(equal, 2)[:, 0], 1 / 3)


def test_a_triangle_with_equal_sides():
    corners = in_triangle(np.eye(3))
    sides = [
        np.linalg.norm(corners[i] - corners[j]) for i, j in ((0, 1), (1, 2), (2, 0))
    ]
    np.testing.assert_allclose(sides, 1)
    assert corners[1, 1] > corners[0, 1] == corners[2, 1]  # the second is on top
    np.testing.assert_allclose(in_triangle([1 / 3] * 3), corners.mean(0))


def test_figures_show_what_they_are_given():
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    grid = np.array([*np.eye(3), [1 / 3] * 3])
    show_weights(grid, [50, 60, 70, 80], grid[:2], [0.3, 0.5, 0.2])
    marks = {line.get_label(): line.get_xydata() for line in plt.gca().lines}
    np.testing.assert_allclose(marks["article"], [in_triangle([0.3, 0.5, 0.2])])
    np.testing.assert_allclose(marks["learnt, each seed"], in_triangle(grid[:2]))
    show_correlations([[1, -0.04], [0.62, 1]], ["a", "b"])
    assert [t.get_text() for t in plt.gca().texts] == ["1.0", "0.0", "0.6", "1.0"]
    sure = np.tile([0.9, 0.1], (40, 1))  # right every second time
    show_reliability({"a": [sure]}, {"a": [sure * 0 + 0.5]}, np.arange(40) % 2)
    lines = plt.gca().lines
    np.testing.assert_allclose(lines[1].get_xydata(), [[0.9, 0.5]])
    assert [line.get_label() for line in lines[1:]] == [
        "as it is (40)",
        "calibrated (0)",
    ]
    plt.close("all")
