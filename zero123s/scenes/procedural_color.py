"""Plausible colours and patterns for generated objects."""

import colorsys

import numpy as np

from zero123s.mesh.scene_mesh import Paint

Color = tuple[float, float, float]

WOODS: tuple[Color, ...] = (
    (0.55, 0.36, 0.2),
    (0.72, 0.52, 0.32),
    (0.4, 0.24, 0.14),
    (0.82, 0.66, 0.46),
    (0.3, 0.19, 0.13),
)
METALS: tuple[Color, ...] = (
    (0.72, 0.73, 0.75),
    (0.5, 0.52, 0.55),
    (0.83, 0.68, 0.32),
    (0.72, 0.45, 0.3),
    (0.25, 0.26, 0.28),
)
DARK: Color = (0.13, 0.13, 0.15)
WHITE: Color = (0.94, 0.94, 0.92)


def jitter(rng: np.random.Generator, color: Color, amount: float = 0.05) -> Color:
    """Return a colour near the given one."""
    r, g, b = np.clip(np.asarray(color) + rng.normal(0, amount, 3), 0.03, 0.97)
    return float(r), float(g), float(b)


def vivid(rng: np.random.Generator) -> Color:
    """Return a saturated colour of random hue."""
    return colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.5, 0.95), rng.uniform(0.55, 0.97))


def soft(rng: np.random.Generator) -> Color:
    """Return a pastel or greyish colour."""
    return colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.05, 0.45), rng.uniform(0.5, 0.97))


def any_color(rng: np.random.Generator) -> Color:
    """Return a vivid, soft, neutral or dark colour."""
    kind = rng.choice(4, p=[0.5, 0.25, 0.15, 0.1])
    if kind < 2:
        return (vivid, soft)[kind](rng)
    return jitter(rng, (0.7, 0.7, 0.7) if kind == 2 else DARK, 0.08)


def wood(rng: np.random.Generator) -> Paint:
    """Return wood, some of it with a grain."""
    color = jitter(rng, WOODS[rng.integers(len(WOODS))], 0.03)
    darker: Color = (color[0] * 0.75, color[1] * 0.72, color[2] * 0.7)
    return Paint(color, darker, "noise" if rng.uniform() < 0.5 else "plain", rng.uniform(3, 8))


def metal(rng: np.random.Generator) -> Paint:
    """Return a plain metal colour."""
    return Paint(jitter(rng, METALS[rng.integers(len(METALS))], 0.03))


def fabric(rng: np.random.Generator, scale: float = 1.0) -> Paint:
    """Return one of all patterns in random colours, plain in half of the cases; about 5 periods per `scale`."""
    pattern = str(
        rng.choice(["plain", "stripes", "checks", "dots", "gradient", "noise"], p=[0.5, 0.15, 0.1, 0.1, 0.07, 0.08])
    )
    frequency = rng.uniform(2.5, 7) / scale if pattern != "gradient" else 0.9 / scale
    direction = [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.7, 0.7)][rng.integers(4)]
    return Paint(any_color(rng), any_color(rng), pattern, frequency, direction)


def surface(rng: np.random.Generator, scale: float = 1.0) -> Paint:
    """Return wood, metal or fabric."""
    kind = rng.uniform()
    if kind < 0.25:
        return wood(rng)
    return metal(rng) if kind < 0.35 else fabric(rng, scale)


def plain(color: Color) -> Paint:
    """Return one flat colour."""
    return Paint(color)


WHITE_PAINT = plain((1.0, 1.0, 1.0))
"""Pure white; `WHITE` is slightly grey."""
