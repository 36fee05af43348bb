"""The two files of LPIPS: where they are looked for, and what is said when one is missing, damaged or another one."""

import sys
import tarfile
from pathlib import Path

import pytest
import torch
from tiny_lpips import write_weights

from zero123s.diffusion.checkpoint import lpips_files
from zero123s.diffusion.checkpoint.lpips_files import BACKBONE_FILES, find_lpips_files, load_lpips
from zero123s.errors import CheckpointError

NAME = BACKBONE_FILES["alex"][0]


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """A machine whose hub cache is empty and whose packages carry no weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(lpips_files, "INSTALLED_LINEAR", {})
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.mark.parametrize("net", BACKBONE_FILES)
@pytest.mark.parametrize("legacy", [True, False])
def test_both_forms_of_files_are_read(tmp_path, net, legacy):
    lpips = load_lpips(net, write_weights(tmp_path / "w", net, legacy))
    a = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert float(lpips(a, 1 - a)) > 0
    assert lpips.key == {"alex": "lpips", "vgg": "lpips_vgg"}[net]


def test_a_folder_precedes_the_cache_per_file(tmp_path, bare_machine):
    assert not find_lpips_files("alex").are_complete
    write_weights(bare_machine)
    assert find_lpips_files("alex").backbone == bare_machine / NAME
    assert find_lpips_files("alex").linear == bare_machine / "alex.pth"
    only = write_weights(tmp_path / "own" / "lpips" / "weights" / "v0.1", backbone=False)
    found = find_lpips_files("alex", tmp_path / "own")
    assert (found.backbone, found.linear) == (bare_machine / NAME, only / "alex.pth")
    assert not find_lpips_files("vgg", tmp_path / "own").are_complete


def test_installed_lpips_weights_are_read_without_importing(tmp_path, bare_machine, monkeypatch):
    package = tmp_path / "site" / "package_with_weights"
    write_weights(package / "weights" / "v0.1", backbone=False)
    (package / "__init__.py").write_text("raise ImportError('torchvision is of another torch')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(lpips_files, "INSTALLED_LINEAR", {"not_installed": "x", "package_with_weights": "weights/v0.1"})
    write_weights(bare_machine, linear=False)
    assert find_lpips_files("alex").linear == package / "weights" / "v0.1" / "alex.pth"
    assert load_lpips().net == "alex"
    assert "package_with_weights" not in sys.modules


def test_the_real_weights_that_torchmetrics_brings_are_read(bare_machine, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(bare_machine.parents[1]))
    for net in BACKBONE_FILES:
        write_weights(bare_machine, net, linear=False)
        linear = find_lpips_files(net).linear
        if linear is None:
            pytest.skip("this torchmetrics carries no weights of LPIPS")
        assert load_lpips(net).get_buffer("lin0_model_1_weight").max() > 0


def test_a_missing_file_is_reported_with_both_sources(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"LPIPS lacks alexnet-owt-7be5be79.pth and alex.pth in .*checkpoints"
    ) as e:
        load_lpips()
    assert "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth" in str(e.value)
    assert "pip download lpips" in str(e.value)
    with pytest.raises(CheckpointError, match=r"LPIPS lacks vgg.pth in .*own and "):
        load_lpips("vgg", write_weights(tmp_path / "own", "vgg", linear=False))
    with pytest.raises(CheckpointError, match="nowhere is not a folder"):
        load_lpips("alex", tmp_path / "nowhere")


class Runs:
    """Pickles as a call."""

    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return Path.touch, (self.flag,)


def as_tar(path, flag):
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "storages")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path, flag: path.write_bytes(b""), "damaged, truncated or not a weight file"),
        (lambda path, flag: path.write_bytes(b"<html>not found</html>"), "damaged, truncated or not a weight file"),
        (lambda path, flag: path.write_bytes(path.read_bytes()[:5000]), "damaged, truncated or not a weight file"),
        (lambda path, flag: path.write_bytes(path.read_bytes()[:-5000]), "damaged, truncated or not a weight file"),
        (
            lambda path, flag: torch.save({"features.0.weight": Runs(flag)}, path),
            "damaged, truncated or not a weight file",
        ),
        (as_tar, "tar archive"),
        (lambda path, flag: torch.save([1, 2], path), "holds no table of tensors"),
        (lambda path, flag: torch.save({"features.0.weight": 1}, path), "no tensor 'features.0.weight'"),
        (
            lambda path, flag: torch.save({"features.0.weight": torch.zeros(2)}, path),
            r"has the shape \(2,\) instead of",
        ),
    ],
)
@pytest.mark.parametrize("legacy", [True, False])
def test_a_damaged_file_is_one_sentence_executing_nothing(tmp_path, spoil, message, legacy):
    folder = write_weights(tmp_path / "w", legacy=legacy)
    spoil(folder / NAME, tmp_path / "flag")
    with pytest.raises(CheckpointError, match=message) as raised:
        load_lpips("alex", folder)
    assert str(folder / NAME) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "flag").exists()
