"""Eyes, noses and mouths on heads that look towards +x."""

from collections.abc import Sequence

import numpy as np

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.blends import Point
from zero123s.scenes.primitives import Builder, ellipsoid, tube
from zero123s.scenes.procedural_color import DARK, WHITE, jitter, plain, vivid

Rng = np.random.Generator


def on_head(
    centre: Point, radii: Sequence[float], azimuth_deg: float, elevation_deg: float, lift: float = 1.0
) -> Point:
    """Return the point of an ellipsoid in a direction; azimuth 0 is +x, `lift` scales its distance from the centre."""
    a, e = np.deg2rad([azimuth_deg, elevation_deg])
    direction = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    x, y, z = np.asarray(centre) + lift * direction / np.linalg.norm(direction / np.asarray(radii))
    return float(x), float(y), float(z)


def eyes(
    b: Builder, rng: Rng, centre: Point, radii: Sequence[float], aside: float = 28, up: float = 12, size: float = 0.18
) -> None:
    """Place two eyes: buttons, or white balls with an iris and at times a highlight; `size` is relative to the head."""
    r = size * float(np.mean(radii))
    kind = rng.integers(4)
    at = on_head(centre, radii, aside, up, 0.97)
    if kind == 0:
        b.add(ellipsoid(r * 0.75, r * 0.75, r * 0.85, 8, 12), plain(DARK), at=at, mirror=True)
        shine = on_head(centre, radii, aside - 3, up + 5, 0.99 + 0.75 * size)
        b.add(ellipsoid(r * 0.22, r * 0.22, r * 0.22, 6, 8), plain(WHITE), at=shine, mirror=True)
        return
    b.add(ellipsoid(r * 0.8, r, r * 1.15, 10, 14), plain(WHITE), at=at, mirror=True)
    iris = plain(DARK) if kind < 3 else plain(vivid(rng))
    pupil = on_head(centre, radii, aside - 1, up, 0.97 + 0.5 * size)
    b.add(ellipsoid(r * 0.5, r * 0.58, r * 0.68, 8, 12), iris, at=pupil, mirror=True)
    if kind == 3:
        middle = on_head(centre, radii, aside - 1, up, 0.97 + 0.8 * size)
        b.add(ellipsoid(r * 0.3, r * 0.34, r * 0.4, 8, 12), plain(DARK), at=middle, mirror=True)


def brows(b: Builder, rng: Rng, centre: Point, radii: Sequence[float], paint: Paint) -> None:
    """Place two eyebrows."""
    tilt, thick = rng.uniform(-8, 8), 0.05 * float(np.mean(radii))
    path = [on_head(centre, radii, a, 38 + tilt * (a - 27) / 15 - abs(a - 27) * 0.3, 1.02) for a in (12, 27, 42)]
    b.add(tube(path, thick, 8), paint, mirror=True)


def mouth(b: Builder, rng: Rng, centre: Point, radii: Sequence[float], down: float = -28) -> None:
    """Place a mouth: a smile, a straight line, or an open one with a tongue."""
    kind, wide = rng.integers(4), rng.uniform(14, 30)
    paint = plain(jitter(rng, (0.35, 0.08, 0.08), 0.04)) if rng.uniform() < 0.6 else plain(DARK)
    thick = 0.045 * float(np.mean(radii))
    if kind < 3:
        curve = (1.0, 1.0, 0.0)[kind] * rng.uniform(6, 16)
        turns = np.linspace(-1, 1, 9)
        path = [on_head(centre, radii, wide * t, down + curve * t**2, 1.01) for t in turns]
        b.add(tube(path, thick, 8), paint)
        return
    r = 0.16 * float(np.mean(radii))
    at = on_head(centre, radii, 0, down, 0.98)
    b.add(ellipsoid(r * 0.5, r * 1.4, r, 10, 14), paint, at=at)
    tongue = on_head(centre, radii, 0, down - 5, 1.02)
    b.add(ellipsoid(r * 0.4, r * 0.8, r * 0.45, 8, 12), plain((0.9, 0.45, 0.45)), at=tongue)
