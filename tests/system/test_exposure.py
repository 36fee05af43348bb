"""A bright object is shown darker to the guidance, and keeps its own colours."""

from types import SimpleNamespace

import pytest
import torch
from tiny_run import SMALL

from zero123s.errors import ConfigError
from zero123s.ops.cameras import orbit_cameras
from zero123s.run.plan import plan_run
from zero123s.structures import FieldOutput, ReferenceView, RenderOutput
from zero123s.system.exposure import UnexposedField, expose_render, expose_views, guidance_exposure


def view_of(level, size=4):
    mask = torch.zeros(1, size, size, 1)
    mask[:, : size // 2] = 1
    rgb = torch.where(mask > 0, torch.tensor(level), torch.tensor(0.3)).expand(1, size, size, 3)
    return ReferenceView(orbit_cameras(0.0, 0.0, height=size, width=size), rgb.clone(), mask)


@pytest.mark.parametrize(("level", "expected"), [(0.9, 0.6 / 0.9), (0.6, 1.0), (0.2, 1.0), (0.0, 1.0)])
def test_auto_darkens_bright_objects_alone(level, expected):
    assert guidance_exposure("auto", view_of(level), "rgb") == pytest.approx(expected)


def test_auto_is_one_without_colours():
    assert guidance_exposure("auto", None, "rgb") == 1
    assert guidance_exposure("auto", view_of(0.9), "normal") == 1
    assert guidance_exposure(0.5, view_of(0.9), "latents") == 1


@pytest.mark.parametrize("setting", [0, 1.5, -1, True, "bright", None])
def test_other_settings_are_refused(setting):
    with pytest.raises(ConfigError, match="neither auto nor a number"):
        guidance_exposure(setting, None, "rgb")


def test_a_wrong_setting_is_found_before_training():
    with pytest.raises(ConfigError, match=r"system\.guidance_exposure: 'dark'"):
        plan_run("configs/stable-zero123.yaml", [*SMALL, "system.guidance_exposure=dark"])


def test_renderings_and_inputs_agree():
    """A rendering of the input view itself is, exposed, the exposed input over white."""
    view = view_of(0.9)
    comp = view.rgb * view.mask + (1 - view.mask)
    out = RenderOutput(comp_rgb=comp, opacity=view.mask, depth=view.mask, background=torch.ones_like(comp))
    exposed = expose_views(view, 0.5)
    torch.testing.assert_close(expose_render(out, 0.5), exposed.rgb * view.mask + (1 - view.mask))
    torch.testing.assert_close(expose_render(out, 0.5)[0, 0, 0], torch.full((3,), 0.45))
    torch.testing.assert_close(expose_render(out, 0.5)[0, -1, 0], torch.ones(3))


def test_without_exposure_nothing_is_copied():
    view = view_of(0.9)
    out = SimpleNamespace(comp_rgb=view.rgb, background=view.rgb)
    assert expose_views(view, 1.0) is view
    assert expose_render(out, 1.0) is view.rgb


def test_predicted_colours_are_scaled_back():
    points = torch.zeros(3, 3)
    rgb = torch.tensor([[0.1, 0.3, 0.5]]).expand(3, 3)
    prediction = SimpleNamespace(
        bound=0.7,
        density=lambda x: x[:, 0] + 2,
        surface_level=lambda x: x[:, 0] + 2,
        query=lambda *args: FieldOutput(torch.ones(3), rgb),
    )
    field = UnexposedField(prediction, 0.5)
    torch.testing.assert_close(field.query(points, points, frozenset({"rgb"})).rgb[0], torch.tensor([0.2, 0.6, 1.0]))
    assert field.density(points).tolist() == [2, 2, 2]
    assert field.bound == 0.7
    assert field.gaussians(points, frozenset(), points) is None
