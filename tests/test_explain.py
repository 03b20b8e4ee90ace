"Explanations: captum's numbers, the laws that they keep, and values worked by hand."

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn

from mmcourse.classifiers import AudioNet, Classifier, TextNet
from mmcourse.explain import (
    class_score,
    completeness_gap,
    deletion_curve,
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
    without_patch,
    word_gradients,
    word_logits,
)
from mmcourse.explorables import curve_panels, destroyed_slider, map_rows
from mmcourse.vit import ViT, ViTClassifier


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


# words
def test_a_pair_is_read_only_when_both_words_are_there():
    class Read(nn.Module):
        def forward(self, ids):  # one hundred for a word, one for a pair
            word = ((ids == 1) | (ids == 2)).sum(1)
            return torch.stack([0 * word, 100 * word + (ids == 3).sum(1)], 1)

    known = {"big": 1, "seven": 2, "big seven": 3, "big big": 3}
    says = word_logits(Read(), ["big", "old", "seven"], known)
    there = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0]], bool)
    assert says(there)[:, 1].tolist() == [200, 200, 0]  # no pair across the gap
    assert says(there)[:, 0].tolist() == [0, 0, 0]
    says = word_logits(Read(), ["big", "seven"], known)
    assert says(np.array([[1, 1], [1, 0]]))[:, 1].tolist() == [201, 100]


@pytest.fixture(scope="module")
def reader():
    torch.manual_seed(2)
    model = Classifier(TextNet(9)).eval()
    nn.init.normal_(model.net.embed.weight)
    nn.init.zeros_(model.net.embed.weight[0:1].detach())  # 0 means nothing
    model.temperature.fill_(2)
    return model


HINT = ["it", "is", "big"]
KNOWN = {"it": 1, "is": 4, "big": 7, "it is": 9, "is big": 2}


def test_the_gradients_of_words_are_captums_and_add_up(reader, captum):
    parts, a = word_gradients(reader, HINT, KNOWN, 3, 400)
    says = word_logits(reader, HINT, KNOWN)
    whole = (says(np.ones((1, 3))) - says(np.zeros((1, 3))))[0, 3]
    assert parts.sum() == pytest.approx(whole, abs=0.01)
    ids = torch.tensor([[1, 4, 7, 9, 2]])
    theirs = captum.LayerIntegratedGradients(reader, reader.net.embed)
    options = {"n_steps": 400, "method": "riemann_middle"}
    theirs = theirs.attribute(ids, torch.zeros_like(ids), 3, **options)[0]
    torch.testing.assert_close(a, theirs.float(), rtol=1e-4, atol=1e-5)
    w = a.sum(1)
    expected = [w[0] + w[3] / 2, w[1] + (w[3] + w[4]) / 2, w[2] + w[4] / 2]
    assert parts == pytest.approx([v.item() for v in expected], abs=1e-5)


def test_an_unknown_word_has_no_part(reader):
    parts, _ = word_gradients(reader, ["it", "zzz"], KNOWN, 3)
    assert parts[1] == 0 and parts[0] != 0


# sounds
def test_grad_cam_and_occlusion_of_sounds_are_captums(captum):
    torch.manual_seed(1)
    net, clips = AudioNet(8, 6).eval(), torch.randn(3, 8, 16)
    k = torch.tensor([1, 0, 9])
    f, layer = class_score(net, k), net.body[-1]
    own = clips.clone().requires_grad_()
    theirs = captum.LayerGradCam(net, layer).attribute(own, k).detach().relu()
    torch.testing.assert_close(grad_cam(f, clips, layer), theirs)
    start = torch.zeros_like(clips)
    window = {"sliding_window_shapes": (4, 4), "strides": (4, 4)}
    theirs = captum.Occlusion(net).attribute(clips, baselines=start, target=k, **window)
    ours = occlude(f, clips, start)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-5)


# patches
def test_a_patch_that_is_gone_is_not_read():
    torch.manual_seed(3)
    model = ViTClassifier(ViT(size=8, patch=4, d=16, depth=2)).eval()
    pixels = torch.rand(2, 1, 8, 8)
    whole, changed = model(pixels), pixels.clone()
    changed[..., :4, 4:] = 0.7  # patch 1
    torch.testing.assert_close(without_patch(model, pixels, None), whole)
    one, other = (without_patch(model, v, 1) for v in (pixels, changed))
    torch.testing.assert_close(one, other)
    assert not torch.allclose(one, whole)
    assert not torch.allclose(
        without_patch(model, changed, 2), without_patch(model, pixels, 2)
    )
    assert not torch.allclose(without_patch(model, pixels, 0), one)


# the explorable
def test_the_slider_tells_how_alike_the_maps_are():
    g = torch.Generator().manual_seed(0)
    page = destroyed_slider({"a map": torch.rand(2, 2, 4, 4, generator=g)})
    assert page._repr_html_().count('role="img"') == 2
    assert "a map, 0 of 1 layers random" in page._repr_html_()
    assert "first map 1.00 over all pixels" in page._repr_html_()


# figures
@pytest.fixture
def plt():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    yield pyplot
    pyplot.close("all")


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive:UserWarning")
def test_each_map_has_its_own_scale_with_zero_in_the_middle(plt):
    maps = np.array([[[1.0, -4]], [[0.5, 0.25]]])
    map_rows(np.zeros((2, 1, 2)), ["one", "two"], {"a map": maps})
    axs = np.reshape(plt.gcf().axes, (2, 2))
    assert [ax.get_title() for ax in axs[0]] == ["one", "two"]
    assert axs[1, 0].get_ylabel() == "a map"
    scales = [ax.images[0].get_clim() for ax in axs[1]]
    assert scales == [(-4, 4), (-0.5, 0.5)]


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive:UserWarning")
def test_panels_show_means_inside_their_bands(plt):
    v = np.random.default_rng(0).standard_normal((3, 20, 4))
    curve_panels({"A": {"k": v}, "B": {"k": v + 1}}, range(4), "x", "y", 0.5)
    first, second = plt.gcf().axes
    assert first.lines[0].get_ydata() == pytest.approx(v.mean((0, 1)))
    assert second.lines[0].get_ydata() == pytest.approx(v.mean((0, 1)) + 1)
    band = first.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() < v.mean((0, 1)).min() < v.mean((0, 1)).max() < band.max()
    assert list(first.lines[1].get_ydata()) == [0.5, 0.5]


# refusals
X = torch.ones(1, 1, 4, 4)


def total(v):
    return v.flatten(1).sum(1)


def small_vit():
    return ViTClassifier(ViT(size=8, patch=4, d=16, depth=1))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: integrated_gradients(total, X, 0 * X, 0), "steps: .* from 1, got 0"),
        (lambda: integrated_gradients(total, X, 0 * X, 2.5), "steps: .* whole number"),
        (lambda: integrated_gradients(total, X, torch.ones(3)), "size"),
        (lambda: occlude(total, X, 0 * X, 0), "side: .* from 1, got 0"),
        (
            lambda: deletion_curve(nn.Flatten(), X, LABEL[:1], X, X, 0),
            "steps: .* from 1, got 0",
        ),
        (lambda: randomised(nn.Linear(2, 2), 2), "layers: .* from 0 to 1, got 2"),
        (lambda: randomised(nn.Linear(2, 2), -1), "layers: .* from 0 to 1, got -1"),
        (lambda: shapley_values(lambda there: np.zeros(3), 2), r"worth: .*\(4\)"),
        (lambda: shapley_values(lambda there: np.zeros(4), 20), "n: .* to 16, got 20"),
        (lambda: shapley_sampled(total, 3, 1), "orders: .* from 2, got 1"),
        (lambda: rank_correlation(torch.ones(1, 3), torch.ones(1, 4)), "b: .* shape"),
        (
            lambda: rank_correlation(torch.tensor([[1, np.nan]]), torch.ones(1, 2)),
            "a: expected finite values",
        ),
        (lambda: class_score(nn.Identity(), torch.tensor([5]))(torch.ones(1, 3)), "5"),
        (
            lambda: without_patch(small_vit(), torch.rand(1, 1, 8, 8), 4),
            "gone: .* to 3",
        ),
        (
            lambda: word_logits(nn.Identity(), HINT, KNOWN)(np.ones((1, 2))),
            r"there: expected shape \(any, 3\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error):
    with pytest.raises((RuntimeError, IndexError, ValueError, TypeError), match=error):
        call()
