"""Hollow things: cups, bowls, buckets, baskets, shoes."""

import numpy as np

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.blends import Bone, add_blend
from zero123s.scenes.primitives import (
    Builder,
    box,
    capsule,
    cylinder,
    ellipsoid,
    extrude,
    lathe,
    scaled,
    sheet,
    torus,
    tube,
    wrapped,
)
from zero123s.scenes.procedural_color import (
    DARK,
    WHITE,
    WHITE_PAINT,
    any_color,
    fabric,
    jitter,
    metal,
    plain,
    surface,
    vivid,
)
from zero123s.scenes.procedural_images import knitted, label

Rng = np.random.Generator


def ceramic(rng: Rng) -> Paint:
    """Return a glaze: white in two of five cases."""
    return plain(jitter(rng, WHITE, 0.02)) if rng.uniform() < 0.4 else plain(any_color(rng))


def _shell(profile, thick: float, segments: int = 36):
    """Return an open vessel: a wall of `thick` along an outer profile (N 2: radius, height) that starts on the axis."""
    outer = np.asarray(profile, float)
    inner = outer[:0:-1] - [thick, 0]
    inner[:, 0] = np.maximum(inner[:, 0], 0.01)
    inner[-1] = (max(outer[1, 0] - thick, 0.01), outer[1, 1] + thick)
    return lathe([*outer, *inner, (0, outer[0, 1] + thick)], segments, 35)


def empty_cup(b: Builder, rng: Rng) -> None:
    """An empty cup, mug or tankard with a thin handle, printed or glazed; at times on a saucer."""
    r, h = rng.uniform(0.24, 0.38), rng.uniform(0.3, 0.7)
    top = r * rng.uniform(0.95, 1.4)
    glaze = ceramic(rng)
    t = np.linspace(0, 1, 8)
    curve = rng.uniform(0.4, 1.2)
    body = _shell([(0, 0), (r * 0.9, 0), *zip(r + (top - r) * t**curve, 0.03 + (h - 0.03) * t, strict=True)], 0.03)
    b.add(body, glaze)
    if rng.uniform() < 0.5:
        middle = 0.5 * (r + top)
        b.add(
            sheet(middle * 2.4, h * 0.5, 137),
            WHITE_PAINT,
            at=(0.012 + max(top, r) - middle, 0, h * 0.5),
            texture=label(rng, glaze.color, 1.6),
        )
    n = 2 if rng.uniform() < 0.1 else 1
    a, size = np.linspace(-1.45, 1.45, 11), h * rng.uniform(0.28, 0.38)
    path = np.stack(
        [0 * a, r + (top - r) * 0.5 + size * rng.uniform(0.7, 1.1) * np.cos(a) - 0.03, h * 0.52 + size * np.sin(a)], -1
    )
    b.add(
        tube(path, rng.uniform(0.02, 0.045), 10),
        glaze if rng.uniform() < 0.7 else plain(any_color(rng)),
        turn=(0, 0, rng.choice([0, 0, -60, 180])),
        mirror=n == 2,
    )
    if rng.uniform() < 0.35:
        b.add(
            lathe(
                [(0, -0.05), (r * 0.9, -0.05), (r * 1.8, 0.03), (r * 1.8, 0.05), (r * 0.9, -0.02), (0, -0.02)], 40, 60
            ),
            glaze,
        )


def open_bowl(b: Builder, rng: Rng) -> None:
    """An empty bowl, dish, bucket, flower pot, wine glass or goblet."""
    kind, r = rng.integers(4), rng.uniform(0.4, 0.55)
    paint = ceramic(rng) if rng.uniform() < 0.6 else surface(rng, 0.5)
    if kind == 0:
        h, t = rng.uniform(0.15, 0.4), np.linspace(0.25, np.pi / 2, 10)
        b.add(_shell([(0, 0), (r * 0.3, 0), *zip(r * np.sin(t), 0.02 + h * (1 - np.cos(t)), strict=True)], 0.03), paint)
        b.add(torus(r, 0.02), plain(any_color(rng)) if rng.uniform() < 0.4 else paint, at=(0, 0, h + 0.02))
    elif kind == 1:
        h, top = rng.uniform(0.5, 0.7), r * 0.85
        b.add(_shell([(0, 0), (r * 0.6, 0), (top, h)], 0.025), paint)
        b.add(torus(top, 0.025), paint, at=(0, 0, h))
        a = np.linspace(-np.pi / 2, np.pi / 2, 15)
        up = rng.uniform(0.1, 0.5)
        b.add(tube(np.stack([0 * a, (top + 0.02) * np.sin(a), h - 0.05 + up * np.cos(a)], -1), 0.018, 8), metal(rng))
    elif kind == 2:
        stem, cup, z = rng.uniform(0.25, 0.5), rng.uniform(0.25, 0.4), np.linspace(0, 1, 9)
        belly = rng.uniform(0.2, 0.3) * (0.25 + np.sin(0.4 + 2.1 * z))
        b.add(lathe([(0, 0), (0.26, 0), (0.24, 0.02), (0.03, 0.05), (0.025, stem), (0, stem)], 32), paint)
        b.add(_shell([(0, stem), *zip(belly, stem + cup * z, strict=True)], 0.018), paint)
        if rng.uniform() < 0.4:
            b.add(cylinder(float(belly[4]) * 0.92, 0.02), plain((0.5, 0.06, 0.12)), at=(0, 0, stem + cup * 0.5))
    else:
        h = rng.uniform(0.35, 0.6)
        b.add(
            _shell([(0, 0), (r * 0.6, 0), (r * 0.8, h * 0.85), (r * 0.9, h * 0.85), (r * 0.9, h)], 0.03),
            plain(jitter(rng, (0.75, 0.42, 0.28), 0.06)) if rng.uniform() < 0.5 else paint,
        )
        b.add(cylinder(r * 0.74, 0.02), plain((0.25, 0.18, 0.13)), at=(0, 0, h * 0.75))


def basket(b: Builder, rng: Rng) -> None:
    """A woven or wire basket with or without a handle; empty or with eggs, fruit or a cushion."""
    r, h, flare = rng.uniform(0.4, 0.55), rng.uniform(0.25, 0.5), rng.uniform(1.0, 1.35)
    oval = (1.0, rng.uniform(1.0, 1.4), 1.0)
    tan = jitter(rng, (0.7, 0.5, 0.28), 0.07) if rng.uniform() < 0.75 else jitter(rng, WHITE, 0.03)
    low = r / flare
    if rng.uniform() < 0.6:
        wall = wrapped(scaled(_shell([(0, 0), (low, 0), (r, h)], 0.035), *oval), repeat=3)
        b.add(wall, WHITE_PAINT, texture=knitted(rng, tan, jitter(rng, tan, 0.06)))
    else:
        for k in range(20):
            a = 2 * np.pi * k / 20
            x, y = np.cos(a), np.sin(a) * oval[1]
            b.add(capsule((low * x, low * y, 0), (r * x, r * y, h), 0.014), plain(tan))
        for z in np.linspace(0.02, h, 5):
            b.add(scaled(torus(low + (r - low) * z / h, 0.016), *oval), plain(tan), at=(0, 0, z))
        b.add(scaled(cylinder(low, 0.02), *oval), plain(tan), at=(0, 0, 0.01))
    b.add(scaled(torus(r, 0.035), *oval), plain(tan), at=(0, 0, h))
    if rng.uniform() < 0.7:
        a, up = np.linspace(-np.pi / 2, np.pi / 2, 17), rng.uniform(0.35, 0.6)
        along_y = np.stack([0 * a, r * oval[1] * np.sin(a), h + up * np.cos(a)], -1)
        b.add(tube(along_y, 0.03, 8), plain(tan), turn=(0, 0, 90 * rng.integers(2)) if oval[1] < 1.15 else (0, 0, 0))
    content = plain(any_color(rng))
    if rng.uniform() < 0.5:
        for k in range(7):
            a = 2.4 * k
            at = (r * 0.5 * np.cos(a) * (k > 0), r * 0.5 * np.sin(a) * (k > 0), h * 0.75)
            b.add(ellipsoid(0.14, 0.14, 0.16), content if k % 2 else plain(vivid(rng)), at=at)


def shoe(b: Builder, rng: Rng) -> None:
    """A shoe, trainer, boot or slipper with sole and laces, hollow at the top; one or a pair."""
    upper, sole = _upper(rng), plain(WHITE) if rng.uniform() < 0.5 else plain(jitter(rng, DARK, 0.05))
    shaft, pair = rng.choice([0.0, 0.0, 0.15, 0.45]), rng.uniform() < 0.35
    heel, toe = rng.uniform(0.0, 0.08), upper if rng.uniform() < 0.6 else plain(any_color(rng))
    for side in (-1, 1) if pair else (0,):
        y = 0.22 * side
        bones = [
            Bone((-0.28, 0, 0.17 + heel), (0.02, 0, 0.15 + heel * 0.5), 0.125, 0.12, upper),
            Bone((0.02, 0, 0.14), (0.36, 0, 0.09), 0.115, 0.085, upper),
            Bone((0.37, 0, 0.085), (0.42, 0, 0.08), 0.087, 0.075, toe),
            Bone((-0.26, 0, 0.22 + heel), (-0.26, 0, 0.3 + heel), 0.11, 0.1, upper),
        ]
        add_blend(b, bones, smooth=0.05, at=(0.0, y, 0.0), scale=(1.0, 0.95, 1.0))
        outline = np.array(
            [
                (-0.42, 0),
                (-0.38, 0.1),
                (-0.2, 0.11),
                (0.1, 0.13),
                (0.35, 0.12),
                (0.49, 0.06),
                (0.51, 0),
                (0.49, -0.06),
                (0.35, -0.12),
                (0.1, -0.13),
                (-0.2, -0.11),
                (-0.38, -0.1),
            ]
        )
        b.add(extrude(outline, 0.06), sole, at=(0, y, 0.03), turn=(90, 0, 0))
        if heel > 0.03:
            b.add(box(0.2, 0.2, 0.07 + heel, 0.02), sole, at=(-0.28, y, 0.05 + heel / 2))
        top = 0.36 + heel + shaft
        tubes = [(0.115, 0.25), (0.12, top), (0.1, top), (0.095, top - 0.15), (0, top - 0.15)]
        b.add(scaled(lathe(tubes, 28, 60), 1.25, 0.95, 1.0), upper, at=(-0.25, y, 0))
        b.add(scaled(cylinder(0.1, 0.01), 1.25, 0.95, 1), plain(DARK), at=(-0.25, y, top - 0.06))
        for k in range(4):
            x = -0.06 + 0.085 * k
            b.add(
                capsule((x, y - 0.06, 0.275 - 0.024 * k), (x + 0.02, y + 0.06, 0.275 - 0.024 * k), 0.014), plain(WHITE)
            )


def _upper(rng: Rng) -> Paint:
    kind = rng.uniform()
    if kind < 0.25:
        return plain(jitter(rng, WHITE, 0.02))
    if kind < 0.45:
        return plain(jitter(rng, DARK, 0.04))
    return plain(jitter(rng, (0.5, 0.32, 0.18), 0.07)) if kind < 0.65 else fabric(rng, 0.4)


KINDS = (empty_cup, empty_cup, open_bowl, basket, shoe, shoe)
