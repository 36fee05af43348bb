"""The exposure of the guidance's images: a white object on the white background of Zero123 has no outline."""

from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from zero123s.errors import ConfigError
from zero123s.structures import RadianceField, ReferenceView, RenderOutput

BRIGHTEST = 0.6
"""Mean of the object's colours that "auto" allows."""


def guidance_exposure(setting: Any, reference: ReferenceView | None, guidance_input: str) -> float:
    """Return the factor on the object's colours in the input views and renderings that the guidance is given.

    Args:
        setting: a factor in (0, 1], or "auto": as large as the mean of the object's colours allows.
        reference: the input views; None = there are none, and "auto" is 1.
        guidance_input: of the system; only colours are scaled.

    Returns:
        The factor, in (0, 1].

    Raises:
        ConfigError: the setting is neither.
    """
    if setting == "auto":
        if reference is None or guidance_input != "rgb":
            return 1.0
        shown = float(reference.mask.sum()) * reference.rgb.shape[-1]
        mean = float((reference.rgb * reference.mask).sum()) / max(shown, 1e-6)
        return min(1.0, BRIGHTEST / max(mean, 1e-6))
    if isinstance(setting, bool) or not isinstance(setting, int | float) or not 0 < setting <= 1:
        raise ConfigError(f"system.guidance_exposure: {setting!r} is neither auto nor a number in (0, 1].")
    return float(setting) if guidance_input == "rgb" else 1.0


def expose_views(reference: ReferenceView, exposure: float) -> ReferenceView:
    """Return input views with the object's colours scaled; their background is added later.

    Args:
        reference: the input views.
        exposure: the factor.

    Returns:
        The same views, `rgb` scaled.
    """
    return reference if exposure == 1 else replace(reference, rgb=exposure * reference.rgb)


def expose_render(out: RenderOutput, exposure: float) -> Float[Tensor, "B H W C"]:
    """Return rendered colours with those of the object scaled, and the background as it is.

    Args:
        out: rendered views.
        exposure: the factor.

    Returns:
        B H W C.
    """
    if exposure == 1 or out.background is None:
        return out.comp_rgb
    behind = (1 - out.opacity) * out.background
    return exposure * (out.comp_rgb - behind) + behind


class UnexposedField:
    """The scene predicted by the guidance, with its colours divided by the exposure; a `RadianceField`.

    Args:
        field: the prediction.
        exposure: the factor that its input was scaled by.
    """

    def __init__(self, field: RadianceField, exposure: float) -> None:
        self.field, self.exposure, self.bound = field, exposure, field.bound

    def density(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return volume density per world unit."""
        return self.field.density(x)

    def surface_level(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return what grows towards the inside."""
        return self.field.surface_level(x)

    def query(self, *args: Any, **kwargs: Any) -> Any:
        """Return density and colour."""
        out = self.field.query(*args, **kwargs)
        assert out.rgb is not None
        return replace(out, rgb=(out.rgb / self.exposure).clamp(0, 1))

    def gaussians(
        self, centers: Float[Tensor, "B 3"], needs: frozenset[str], light_positions: Float[Tensor, "B 3"]
    ) -> None:
        """Return None: the prediction is not made of Gaussians."""
