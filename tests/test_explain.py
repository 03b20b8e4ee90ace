"Explanations: captum's numbers, the laws that they keep, and values worked by hand."

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn

from mmcourse.explain import (
    class_score,
    completeness_gap,
    deletion_curve,
    edges,
    grad_cam,
    guided_gradient,
    insertion_curve,
    integrated_gradients,
    occlude,
    randomised,
    rank_correlation,
    score_gradient,
    shapley_sampled,
    shapley_values,
    word_worth,
)
from mmcourse.explorables import destroyed_slider


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(5)  # not that of `randomised`
    body = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)
    return nn.Sequential(
        *body, nn.ReLU(), nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 4)
    ).eval()


@pytest.fixture(scope="module")
def x():
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


LABEL = torch.tensor([0, 1, 2, 3, 0, 2])


# captum
@pytest.fixture
def captum():
    return pytest.importorskip("captum.attr")


def test_the_gradients_are_captums(net, x, captum):
    f = class_score(net, LABEL)
    own = x.clone().requires_grad_()
    theirs = captum.Saliency(net).attribute(own, LABEL, abs=False)
    torch.testing.assert_close(score_gradient(f, x), theirs)
    theirs = captum.InputXGradient(net).attribute(own, LABEL)
    torch.testing.assert_close(score_gradient(f, x) * x, theirs.detach())


@pytest.mark.filterwarnings("ignore:Setting backward hooks:UserWarning")
def test_guided_backpropagation_is_captums(net, x, captum):
    theirs = captum.GuidedBackprop(net)
    theirs = theirs.attribute(x.clone().requires_grad_(), LABEL)
    torch.testing.assert_close(guided_gradient(net, x, LABEL), theirs)
    plain = score_gradient(class_score(net, LABEL), x)
    assert not torch.allclose(plain, theirs)  # and no hook is left behind


@pytest.mark.parametrize("steps", [2, 7, 20])
def test_integrated_gradients_are_captums(net, x, captum, steps):
    start = torch.full_like(x, -0.5)
    ours = integrated_gradients(class_score(net, LABEL), x, start, steps)
    options = {"n_steps": steps, "method": "riemann_middle"}
    theirs = captum.IntegratedGradients(net).attribute(x, start, LABEL, **options)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_occlusion_is_captums(net, x, captum, side):
    start = torch.full_like(x, 0.25)
    window = {"sliding_window_shapes": (1, side, side), "strides": (1, side, side)}
    theirs = captum.Occlusion(net).attribute(x, baselines=start, target=LABEL, **window)
    ours = occlude(class_score(net, LABEL), x, start, side)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [1, 3])
def test_grad_cam_is_captums(net, x, captum, layer):
    theirs = captum.LayerGradCam(net, net[layer])
    theirs = theirs.attribute(x, LABEL, relu_attributions=True)
    ours = grad_cam(class_score(net, LABEL), x, net[layer])
    torch.testing.assert_close(ours, theirs.detach())
    assert not net[layer]._forward_hooks


def test_shapley_values_are_captums(captum):
    table = torch.randn(16, generator=torch.Generator().manual_seed(3)).numpy()
    power = 2 ** np.arange(4)

    def worth(there):
        return table[there @ power]

    theirs = captum.ShapleyValues(lambda t: torch.as_tensor(worth(t.numpy() > 0)))
    theirs = theirs.attribute(torch.ones(1, 4))[0]
    assert shapley_values(worth, 4) == pytest.approx(theirs.numpy(), abs=1e-5)


# laws
def test_integrated_gradients_add_up(net, x):
    f, start = class_score(net, LABEL), torch.zeros_like(x)
    a = integrated_gradients(f, x, start, 400)
    gap = completeness_gap(f, x, start, a)
    assert gap.shape == (6,) and gap.max() < 0.01
    assert torch.allclose(completeness_gap(f, x, start, a + 1), gap + 64, atol=0.05)


def test_a_linear_score_gives_each_input_its_part():
    w = torch.tensor([1.0, -2, 0])
    x, start = torch.tensor([[3.0, 1, 5]]), torch.tensor([[1.0, 1, 1]])
    found = integrated_gradients(lambda v: v @ w + 7, x, start, 1)
    assert found.tolist() == [[2, 0, 0]]


def test_the_middle_of_each_piece_is_exact_for_a_square():
    x, start = torch.tensor([[3.0]]), torch.tensor([[1.0]])
    found = integrated_gradients(lambda v: v.square().sum(1), x, start, 1)
    assert found.item() == 8


worths = st.lists(st.floats(-9, 9), min_size=16, max_size=16)


@given(worths)
@settings(max_examples=30, deadline=None)
def test_shapley_values_are_means_over_orders_and_add_up(values):
    table, power = np.array(values), 2 ** np.arange(4)
    found = shapley_values(lambda there: table[there @ power], 4)
    assert found.sum() == pytest.approx(table[-1] - table[0], abs=1e-6)
    slow = np.zeros(4)
    for order in itertools.permutations(range(4)):
        here = 0
        for i in order:
            slow[i] += (table[here + 2**i] - table[here]) / 24
            here += 2**i
    assert found == pytest.approx(slow, abs=1e-6)


def test_players_alike_share_alike_and_idle_ones_get_nothing():
    def worth(there):  # the first two only together; the third does nothing
        return 6.0 * (there[:, 0] & there[:, 1])

    assert shapley_values(worth, 3) == pytest.approx([3, 3, 0])


def test_sampled_values_add_up_and_come_near():
    table = np.random.default_rng(0).normal(size=32)
    power = 2 ** np.arange(5)

    def worth(there):
        return table[there @ power]

    near, error = shapley_sampled(worth, 5, 400)
    assert near.sum() == pytest.approx(table[-1] - table[0])
    assert (abs(near - shapley_values(worth, 5)) < 4 * error).all()
    again, _ = shapley_sampled(worth, 5, 400)
    assert (near == again).all()
    assert shapley_sampled(worth, 5, 100)[1].mean() > 1.5 * error.mean()


# curves
def test_curves_by_hand():
    "Four pixels, one counts; the score is its value."

    class First(nn.Module):
        def forward(self, x):
            z = x.flatten(1)[:, 0]
            return torch.stack([z, torch.zeros_like(z)], 1)

    x, black = torch.full((1, 1, 2, 2), 2.0), torch.zeros(1, 1, 2, 2)
    label, high, low = torch.tensor([0]), torch.tensor(2.0).sigmoid().item(), 0.5
    first = torch.tensor([[[[9.0, 1], [2, 3]]]])
    args = First(), x, label
    found = deletion_curve(*args, first, black, 4)
    assert found[0].tolist() == pytest.approx([high, low, low, low, low])
    found = deletion_curve(*args, -first, black, 4)
    assert found[0].tolist() == pytest.approx([high, high, high, high, low])
    found = insertion_curve(*args, first, black, 4)
    assert found[0].tolist() == pytest.approx([low, high, high, high, high])
    assert deletion_curve(*args, first, black, 2).shape == (1, 3)


# rank correlation
def test_the_rank_correlation_is_scipys_also_of_chosen_pixels():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randint(5, (2, 3, 1, 4, 4), generator=g).float()
    where = torch.rand(3, 1, 4, 4, generator=g) > 0.4
    all_of_them, some = rank_correlation(a, b), rank_correlation(a, b, where)
    for i in range(3):
        expected = spearmanr(a[i].flatten(), b[i].flatten()).statistic
        assert all_of_them[i] == pytest.approx(expected)
        expected = spearmanr(a[i][where[i]], b[i][where[i]]).statistic
        assert some[i] == pytest.approx(expected)


def test_a_constant_map_is_like_nothing():
    a = torch.arange(4.0).view(1, 4)
    assert rank_correlation(a, torch.ones(1, 4)).tolist() == [0]
    assert rank_correlation(a, a**3).tolist() == pytest.approx([1])
    assert rank_correlation(a, -a).tolist() == pytest.approx([-1])


# a model that is destroyed
@pytest.mark.parametrize("layers", range(5))
def test_the_last_layers_become_random_in_a_copy(net, layers):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.random.get_rng_state()
    other = randomised(net, layers).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    names = ["0", "2", "5", "7"]
    for i, name in enumerate(names):
        same = torch.equal(other[f"{name}.weight"], before[f"{name}.weight"])
        assert same == (i < 4 - layers)
    again = randomised(net, layers).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in other.items())


def test_edges_by_hand():
    step = torch.zeros(1, 1, 4, 4)
    step[..., 2:] = 1
    assert edges(step)[0, 0].tolist() == [[0, 4, 4, 0]] * 4
    assert edges(torch.ones(1, 1, 3, 3)).abs().max() == 0


# words
def test_a_pair_is_read_only_when_both_words_are_there():
    class Read(nn.Module):
        def forward(self, ids):  # one hundred for a word, one for a pair
            word = ((ids == 1) | (ids == 2)).sum(1)
            return torch.stack([0 * word, 100 * word + (ids == 3).sum(1)], 1)

    known = {"big": 1, "seven": 2, "big seven": 3, "big big": 3}
    worth = word_worth(Read(), ["big", "old", "seven"], known, 1)
    there = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0]], bool)
    assert worth(there).tolist() == [200, 200, 0]  # no pair across the gap
    worth = word_worth(Read(), ["big", "seven"], known, 1)
    assert worth(np.array([[1, 1], [1, 0]], bool)).tolist() == [201, 100]


# the explorable
def test_the_slider_tells_how_alike_the_maps_are():
    g = torch.Generator().manual_seed(0)
    page = destroyed_slider({"a map": torch.rand(2, 2, 4, 4, generator=g)})
    assert page._repr_html_().count('role="img"') == 2
    assert "a map, 0 of 1 layers random" in page._repr_html_()
    assert "first map 1.00 over all pixels" in page._repr_html_()


# refusals
@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: integrated_gradients(torch.sum, torch.ones(2), torch.ones(3)), "size"),
        (lambda: shapley_values(lambda there: np.zeros(3), 2), "out of bounds|index"),
        (lambda: rank_correlation(torch.ones(1, 3), torch.ones(1, 4), None), "shape"),
        (lambda: class_score(nn.Identity(), torch.tensor([5]))(torch.ones(1, 3)), "5"),
    ],
)
def test_what_does_not_fit_is_refused(call, error):
    with pytest.raises((RuntimeError, IndexError, ValueError), match=error):
        call()
