"""LPIPS: recorded distances of the original code, and what any distance between images must do."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from zero123s.errors import CheckpointError
from zero123s.ops.lpips import BACKBONES, Lpips, backbone_shapes, linear_shapes

NETS = tuple(BACKBONES)


def random_weights(net, seed=0):
    """Weights of a random network in both files' key layout; RandomState's stream never changes."""
    random = np.random.RandomState(seed)
    backbone = {}
    for name, shape in backbone_shapes(net).items():
        deviation = 0.1 if name.endswith("bias") else (2 / np.prod(shape[1:])) ** 0.5
        backbone[name] = torch.from_numpy(deviation * random.standard_normal(shape)).float()
    linear = {k: torch.from_numpy(random.uniform(0, 1, shape)).float() for k, shape in linear_shapes(net).items()}
    return backbone, linear


def two_pictures(height=64, width=48, seed=1):
    """Two batches of two soft images in [0, 1]."""
    random = np.random.RandomState(seed)
    noise = gaussian_filter(random.uniform(0, 1, (2, 2, 3, height, width)), (0, 0, 0, 2, 2))
    low, high = noise.min(), noise.max()
    return tuple(torch.from_numpy((noise - low) / (high - low)).float())


@pytest.fixture(scope="module", params=NETS)
def lpips(request):
    return Lpips(*random_weights(request.param), request.param)


# From the authors' code (package lpips 0.1.4, normalize=True) run by hand with `random_weights(net)` on `two_pictures()`.
RECORDED = {"alex": (0.763279021, 0.660361409), "vgg": (0.823261678, 0.786713123)}


def test_distances_are_those_of_the_original_code(lpips):
    assert lpips(*two_pictures()).tolist() == pytest.approx(RECORDED[lpips.net], rel=1e-5)


def test_distance_is_symmetric_and_zero_for_equals(lpips):
    a, b = two_pictures()
    assert lpips(a, a).tolist() == [0, 0]
    assert lpips(a, b).tolist() == pytest.approx(lpips(b, a).tolist(), rel=1e-6)


def test_images_of_a_batch_are_independent(lpips):
    a, b = two_pictures()
    alone = [float(lpips(a[i : i + 1], b[i : i + 1])) for i in range(2)]
    assert lpips(a, b).tolist() == pytest.approx(alone, rel=1e-5)


def test_more_blur_and_more_noise_are_further_away(lpips):
    a = two_pictures()[0]
    noise = torch.from_numpy(np.random.RandomState(2).standard_normal(a.shape)).float()
    noisy = [float(lpips(a, (a + s * noise).clamp(0, 1)).mean()) for s in (0.01, 0.03, 0.1)]
    assert 0 < noisy[0] < noisy[1] < noisy[2]
    blurred = [torch.from_numpy(gaussian_filter(a.numpy(), (0, 0, s, s))) for s in (1, 2, 4)]
    apart = [float(lpips(a, b).mean()) for b in blurred]
    assert 0 < apart[0] < apart[1] < apart[2]


def test_it_is_linear_in_the_channel_weights():
    backbone, linear = random_weights("alex")
    once = Lpips(backbone, linear)(*two_pictures())
    thrice = Lpips(backbone, {name: 3 * w for name, w in linear.items()})(*two_pictures())
    assert thrice.tolist() == pytest.approx((3 * once).tolist(), rel=1e-5)


def through_all_stages(lpips, x):
    for stage in BACKBONES[lpips.net].stages:
        x = lpips._pass(x, stage)


def test_the_smallest_image_is_as_stated(lpips):
    least = BACKBONES[lpips.net].min_size
    a, b = two_pictures(least, least)
    assert (lpips(a, b) > 0).all()
    with pytest.raises(AssertionError, match="pixels"):
        lpips(a[..., 1:], b[..., 1:])
    # ... and not larger than it must be: the layers themselves refuse one pixel less.
    with pytest.raises(RuntimeError, match="too small"):
        through_all_stages(lpips, torch.rand(1, 3, least - 1, least - 1))


def test_it_adds_nothing_to_a_checkpoint(lpips):
    assert not lpips.state_dict()
    assert not list(lpips.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b, l: b.pop("features.3.bias"), "no tensor 'features.3.bias'"),
        (lambda b, l: b.update({"features.0.weight": torch.zeros(64, 3, 3, 3)}), r"\(64, 3, 3, 3\) instead of"),
        (lambda b, l: b["features.6.weight"].fill_(torch.nan), "'features.6.weight' holds values that are not finite"),
        (lambda b, l: l["lin2.model.1.weight"].neg_(), "'lin2.model.1.weight' holds values below 0"),
        (lambda b, l: l.clear(), "no tensor 'lin0.model.1.weight'"),
    ],
)
def test_other_weights_are_refused(change, message):
    backbone, linear = random_weights("alex")
    change(backbone, linear)
    with pytest.raises(CheckpointError, match=message):
        Lpips(backbone, linear)
