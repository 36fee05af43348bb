"""Extensions of threestudio's: the error they raise, and how `zero123s migrate` rewrites them."""

import ast

import pytest

from zero123s.commands.main import main
from zero123s.commands.migrate import migrate
from zero123s.errors import ConfigError
from zero123s.run.plugins import load_plugins

MATERIAL = """from dataclasses import dataclass

import torch

import threestudio
from threestudio.models.materials.base import BaseMaterial
from threestudio.utils.typing import *


@threestudio.register("striped-material")
class Striped(BaseMaterial):
    @dataclass
    class Config(BaseMaterial.Config):
        width: float = 0.1

    cfg: Config

    def configure(self) -> None:
        super().configure()
        self.scale = 1 / self.cfg.width

    def forward(self, features: Float[Tensor, "*N C"], positions: Float[Tensor, "*N 3"], **kwargs) -> Tensor:
        threestudio.info("striping")
        return torch.sigmoid(features) * (torch.sin(self.scale * positions) > 0)
"""
GUIDANCE = """import threestudio
from threestudio.utils.base import BaseObject


@threestudio.register("grey-guidance")
class Grey(BaseObject):
    class Config(BaseObject.Config):
        strength: float = 1.0

    def configure(self):
        self.model = threestudio.find("x")

    def __call__(self, rgb, prompt_utils, **kwargs):
        return {"loss_sds": rgb.var()}
"""


def test_a_material_is_rewritten_in_its_common_forms():
    text, advice = migrate(MATERIAL)
    ast.parse(text)
    for line in (
        "from zero123s.material.base import MATERIALS, BaseMaterial",
        '@MATERIALS.register("striped-material")',
        "    class Config(BaseMaterial.Config):",
        "    def __init__(self, cfg, n_features):",
        "        super().__init__(cfg, n_features)",
        "    def forward(self, features, x, dirs, normal, light_positions, shading):",
        "        self.scale = 1 / self.cfg.width",
    ):
        assert line in text.splitlines()
    assert "import threestudio" not in text
    assert "super().configure()" not in text
    assert advice == ["line 23: use logging.getLogger(__name__)."]


def test_a_guidance_is_known_by_its_name():
    text, advice = migrate(GUIDANCE)
    ast.parse(text)
    assert "class Grey(BaseGuidance):" in text
    assert (
        '    def __init__(self, cfg, reference, device="cpu"):\n        super().__init__(cfg, reference, device)'
        in text
    )
    assert "    def __call__(self, comp_rgb, cameras, step, generator):" in text
    assert [line.split(":")[0] for line in advice] == ["line 11", "line 13"]


def test_other_code_stays_as_it_is():
    assert migrate("x = 1\n").text == "x = 1\n"


def test_the_command_only_prints_a_diff_by_default(tmp_path, capsys):
    path = tmp_path / "striped.py"
    path.write_text(MATERIAL)
    assert main(["migrate", str(path)]) == 0
    shown = capsys.readouterr().out
    assert '-@threestudio.register("striped-material")' in shown
    assert '+@MATERIALS.register("striped-material")' in shown
    assert path.read_text() == MATERIAL
    assert main(["migrate", "--write", str(tmp_path)]) == 0
    assert path.read_text() == migrate(MATERIAL).text


def test_a_missing_file_is_reported(capsys):
    assert main(["migrate", "nowhere.py"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_plugin_that_imports_threestudio_gets_an_answer(tmp_path):
    (tmp_path / "striped.py").write_text(MATERIAL)
    with pytest.raises(ConfigError, match=r"zero123s migrate .*striped\.py"):
        load_plugins(folder=tmp_path)


def test_a_package_of_threestudios_gets_an_answer(tmp_path):
    package = tmp_path / "threestudio-xyz"
    package.mkdir()
    (package / "__init__.py").write_text("from . import striped\n")
    (package / "striped.py").write_text(MATERIAL)
    with pytest.raises(
        ConfigError, match=r"striped\.py was written for threestudio.*zero123s migrate .*threestudio-xyz"
    ):
        load_plugins(folder=tmp_path)
