"""Vessels, food, hats, tools."""

import numpy as np

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.primitives import Builder, box, capsule, cylinder, ellipsoid, lathe, torus, tube
from zero123s.scenes.procedural_color import WHITE, any_color, fabric, jitter, metal, plain, soft, surface, vivid, wood

Rng = np.random.Generator
BREAD = Paint((0.85, 0.56, 0.25), (0.76, 0.45, 0.18), "noise", 5.0)


def mug(b: Builder, rng: Rng) -> None:
    """A cup with a handle to one side and something to drink."""
    paint, h, r = fabric(rng, 0.5), rng.uniform(0.5, 0.9), rng.uniform(0.3, 0.42)
    top = r * rng.uniform(0.9, 1.25)
    b.add(
        lathe([(0, 0), (r, 0), (r * 1.02, h * 0.3), (top, h), (top - 0.04, h), (r - 0.04, 0.08), (0, 0.08)], 36), paint
    )
    b.add(cylinder(min(r, top) - 0.03, 0.02), plain((0.3, 0.18, 0.1)), at=(0, 0, h * 0.8))
    t, size = np.linspace(-1.4, 1.4, 9), h * rng.uniform(0.25, 0.36)
    y = (r + top) / 2 + size * 0.9 * np.cos(t) - 0.05
    handle = paint if rng.uniform() < 0.6 else plain(any_color(rng))
    b.add(tube(np.stack([0 * t, y, h / 2 + size * np.sin(t)], -1), 0.05), handle, turn=(0, 0, rng.uniform(-90, 90)))


def vase(b: Builder, rng: Rng) -> None:
    """A smooth random profile, at times with two handles or flowers."""
    h, n = rng.uniform(0.7, 1.3), 6
    knots = rng.uniform(0.1, 0.42, n)
    knots[0] = rng.uniform(0.12, 0.3)
    z = np.linspace(0, 1, 22)
    r = np.interp(z, np.linspace(0, 1, n), knots)
    r = np.convolve(np.pad(r, 2, "edge"), np.ones(5) / 5, "valid")
    profile = [(0, 0), *zip(r, z * h, strict=True), (r[-1] * 0.85, h), (r[-4] * 0.8, h * 0.8), (0, h * 0.75)]
    b.add(lathe(profile, 36, 60), fabric(rng, 0.5))
    if rng.uniform() < 0.3:
        t, mid = np.linspace(-1.5, 1.5, 8), float(np.interp(0.65, z, r))
        b.add(
            tube(np.stack([0 * t, mid + 0.14 * np.cos(t), 0.65 * h + 0.15 * np.sin(t)], -1), 0.03),
            surface(rng),
            mirror=True,
        )
    elif rng.uniform() < 0.35:
        petal = plain(vivid(rng))
        for _ in range(rng.integers(3, 7)):
            tip = (rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3), h + rng.uniform(0.2, 0.5))
            b.add(capsule((0, 0, h * 0.7), tip, 0.015), plain((0.2, 0.5, 0.2)))
            b.add(ellipsoid(0.12, 0.12, 0.07, 8, 12), petal, at=tip)
            b.add(ellipsoid(0.05, 0.05, 0.09, 8, 12), plain((0.95, 0.8, 0.2)), at=tip)


def bottle(b: Builder, rng: Rng) -> None:
    """A bottle with a label and a cap."""
    r, body, h = rng.uniform(0.16, 0.3), rng.uniform(0.4, 0.7), rng.uniform(0.9, 1.2)
    neck, glass = r * rng.uniform(0.25, 0.5), plain(any_color(rng))
    shoulder = body + rng.uniform(0.05, 0.25)
    b.add(lathe([(0, 0), (r * 0.95, 0), (r, 0.04), (r, body), (neck, shoulder), (neck, h), (0, h)], 32, 50), glass)
    b.add(lathe([(r * 1.015, body * 0.2), (r * 1.015, body * 0.85)], 32), fabric(rng, 0.4))
    b.add(cylinder(neck * 1.25, 0.12, bevel=0.02), plain(vivid(rng)), at=(0, 0, h))


def teapot(b: Builder, rng: Rng) -> None:
    """Body, lid with a knob, spout to the front, handle at the back."""
    paint, accent = fabric(rng, 0.5), plain(any_color(rng))
    if rng.uniform() < 0.5:
        accent = paint
    r, z = rng.uniform(0.38, 0.48), rng.uniform(0.3, 0.45)
    b.add(ellipsoid(r, r, z, 20, 36), paint, at=(0, 0, z))
    b.add(lathe([(0, 0), (r * 0.6, 0), (r * 0.5, 0.06)]), accent)
    b.add(ellipsoid(r * 0.55, r * 0.55, 0.09), accent, at=(0, 0, 2 * z * 0.95))
    b.add(ellipsoid(0.07, 0.07, 0.07), accent, at=(0, 0, 2 * z + 0.09))
    spout = [(r * 0.7, 0, z * 0.7), (r * 1.2, 0, z * 0.9), (r * 1.4, 0, z * 1.5), (r * 1.65, 0, z * 1.9)]
    b.add(tube(spout, [0.12, 0.085, 0.06, 0.05]), accent)
    t = np.linspace(-1.5, 1.5, 10)
    b.add(tube(np.stack([-r * 0.85 - 0.3 * np.cos(t), 0 * t, z + z * 0.65 * np.sin(t)], -1), 0.045), accent)


def bowl(b: Builder, rng: Rng) -> None:
    """A bowl or basket of fruit."""
    r, h = rng.uniform(0.45, 0.65), rng.uniform(0.22, 0.4)
    b.add(
        lathe([(0, 0), (r * 0.5, 0), (r * 0.85, h * 0.5), (r, h), (r - 0.04, h), (r * 0.5, 0.06), (0, 0.06)], 36, 60),
        fabric(rng, 0.5),
    )
    for i in range(rng.integers(3, 8)):
        a, s = 2.4 * i, rng.uniform(0.12, 0.18)
        at = (r * 0.5 * np.cos(a) * (i > 0), r * 0.5 * np.sin(a) * (i > 0), h * 0.85 + 0.1 * (i == 0))
        b.add(ellipsoid(s, s, s * rng.uniform(0.85, 1.1)), plain(vivid(rng)), at=at)


def burger(b: Builder, rng: Rng) -> None:
    """Buns, patties, lettuce, cheese, tomato; sesame on top."""
    r, z = rng.uniform(0.5, 0.62), 0.0
    h = rng.uniform(0.13, 0.2)
    b.add(cylinder(r, h, r * 1.02, 36, 0.06), BREAD, at=(0, 0, h / 2))
    z = h
    for _ in range(rng.integers(1, 3)):
        _lettuce(b, rng, r * 1.06, z)
        b.add(
            cylinder(r * 0.98, 0.14, segments=36, bevel=0.05),
            Paint((0.36, 0.2, 0.12), (0.24, 0.12, 0.07), "noise", 9.0),
            at=(0, 0, z + 0.1),
        )
        b.add(box(r * 1.5, r * 1.5, 0.03, 0.01), plain((0.98, 0.76, 0.18)), at=(0, 0, z + 0.185), turn=(0, 0, 45))
        if rng.uniform() < 0.7:
            b.add(cylinder(r * 0.94, 0.06, segments=32, bevel=0.02), plain((0.83, 0.2, 0.14)), at=(0, 0, z + 0.23))
        z += 0.25
    dome = rng.uniform(0.28, 0.4)
    t = np.linspace(0.02, np.pi / 2, 12)
    b.add(
        lathe([(0, z), (r * 0.96, z), *zip(r * 1.04 * np.cos(t), z + 0.05 + dome * np.sin(t), strict=True)], 40, 60),
        BREAD,
    )
    for i in range(26):
        a, s = 2.39996 * i, np.sqrt((i + 0.5) / 26) * 0.8
        at = (r * 1.04 * s * np.cos(a), r * 1.04 * s * np.sin(a), z + 0.055 + dome * np.sqrt(1 - s * s))
        b.add(ellipsoid(0.034, 0.02, 0.014, 6, 8), plain((0.98, 0.92, 0.74)), at=at, turn=(0, 0, 57 * i))


def _lettuce(b: Builder, rng: Rng, r: float, z: float) -> None:
    """Place a wavy leaf."""
    wave = lathe([(0, 0.0), (r * 0.8, 0.02), (r, 0.0), (r * 0.97, -0.04)], 72, 180)
    v = wave.vertices.copy()
    radius, angle = np.hypot(v[:, 0], v[:, 1]), np.arctan2(v[:, 1], v[:, 0])
    v[:, 2] += 0.04 * np.sin(11 * angle) * (radius / r) ** 3
    b.add(wave._replace(vertices=v), Paint((0.4, 0.68, 0.2), (0.28, 0.55, 0.14), "noise", 8.0), at=(0, 0, z + 0.04))


def cupcake(b: Builder, rng: Rng) -> None:
    """A pleated cup, swirls of icing, a cherry."""
    r, icing = rng.uniform(0.32, 0.42), plain(soft(rng) if rng.uniform() < 0.5 else vivid(rng))
    b.add(cylinder(r * 0.75, 0.42, r, 36), fabric(rng, 0.4), at=(0, 0, 0.21))
    z, size = 0.42, r * 0.85
    for _ in range(rng.integers(2, 5)):
        b.add(torus(size * 0.72, size * 0.42, squash=0.8), icing, at=(0, 0, z + 0.05))
        b.add(ellipsoid(size * 0.9, size * 0.9, 0.1), icing, at=(0, 0, z + 0.06))
        z, size = z + size * 0.45, size * 0.72
    b.add(ellipsoid(0.09, 0.09, 0.09), plain((0.82, 0.08, 0.12)), at=(0, 0, z + 0.08))


def ice_cream(b: Builder, rng: Rng) -> None:
    """A cone with one to three scoops."""
    b.add(cylinder(0.03, 0.8, 0.3, 32), Paint((0.85, 0.62, 0.32), (0.7, 0.47, 0.2), "checks", 10.0), at=(0, 0, 0.4))
    b.add(torus(0.29, 0.04), plain((0.8, 0.57, 0.28)), at=(0, 0, 0.79))
    z, r = 0.92, 0.31
    for _ in range(rng.integers(1, 4)):
        b.add(ellipsoid(r, r, r * 0.92), fabric(rng, 0.3), at=(0, 0, z))
        b.add(torus(r * 0.92, 0.05), plain(soft(rng)), at=(0, 0, z - r * 0.35))
        z, r = z + r * 1.25, r * 0.9


def fruit(b: Builder, rng: Rng) -> None:
    """Apple, pear, pumpkin, pineapple, mushroom."""
    kind, green = rng.integers(5), plain((0.22, 0.5, 0.18))
    color = plain(vivid(rng)) if kind < 2 else fabric(rng, 0.4)
    if kind == 0:
        t = np.linspace(-np.pi / 2, np.pi / 2, 18)
        r = 0.5 * np.cos(t) * (1 + 0.15 * np.sin(t))
        b.add(
            lathe(
                np.stack([r, 0.45 * np.sin(t) - 0.12 * np.exp(-((r / 0.12) ** 2)) * np.sign(np.sin(t))], -1), 32, 180
            ),
            color,
        )
    elif kind == 1:
        b.add(
            lathe(
                [(0, -0.5), (0.3, -0.45), (0.44, -0.2), (0.4, 0.05), (0.24, 0.35), (0.2, 0.5), (0.1, 0.6), (0, 0.62)],
                32,
                180,
            ),
            color,
        )
    elif kind == 2:
        body = ellipsoid(0.55, 0.55, 0.42, 16, 64)
        v = (
            body.vertices
            * (1 + 0.06 * np.abs(np.cos(5 * np.arctan2(body.vertices[:, 1], body.vertices[:, 0]))))[:, None]
        )
        b.add(body._replace(vertices=v), plain(jitter(rng, (0.9, 0.45, 0.1), 0.08)))
    elif kind == 3:
        b.add(ellipsoid(0.35, 0.35, 0.5), Paint((0.9, 0.68, 0.2), (0.6, 0.4, 0.1), "checks", 9.0))
        for i in range(9):
            a = 2.4 * i
            b.add(capsule((0, 0, 0.45), (0.25 * np.cos(a), 0.25 * np.sin(a), 0.75 + 0.03 * i), 0.05, 0.01), green)
        return
    else:
        b.add(lathe([(0, -0.5), (0.2, -0.5), (0.14, 0), (0, 0)]), plain(WHITE))
        t = np.linspace(0, np.pi / 2, 10)
        b.add(lathe([(0, -0.05), (0.5, -0.05), *zip(0.52 * np.cos(t), 0.42 * np.sin(t), strict=True)], 36, 60), color)
        return
    b.add(tube([(0, 0, 0.35), (0.01, 0, 0.55), (0.06, 0, rng.uniform(0.65, 0.8))], 0.03), wood(rng))
    if rng.uniform() < 0.6:
        b.add(ellipsoid(0.15, 0.08, 0.02), green, at=(0.14, 0.02, 0.6), turn=(0, -20, 0))


def cake(b: Builder, rng: Rng) -> None:
    """A tiered cake with icing and candles."""
    z, r = 0.0, rng.uniform(0.5, 0.65)
    icing = plain(soft(rng))
    for _ in range(rng.integers(1, 4)):
        h = rng.uniform(0.2, 0.32)
        b.add(cylinder(r, h, segments=40, bevel=0.03), fabric(rng, 0.5), at=(0, 0, z + h / 2))
        b.add(torus(r * 0.97, 0.04), icing, at=(0, 0, z + h))
        z, r = z + h, r * rng.uniform(0.6, 0.75)
    candle, n = plain(vivid(rng)), rng.integers(1, 7)
    for i in range(n):
        at = (r * 0.7 * np.cos(2 * np.pi * i / n), r * 0.7 * np.sin(2 * np.pi * i / n), z + 0.1)
        b.add(cylinder(0.025, 0.2, segments=10), candle, at=at)
        b.add(ellipsoid(0.025, 0.025, 0.05, 6, 8), plain((1.0, 0.75, 0.2)), at=(at[0], at[1], z + 0.24))


def hat(b: Builder, rng: Rng) -> None:
    """Top hat, sun hat, cap or party cone."""
    paint, band, kind = fabric(rng, 0.5), plain(vivid(rng)), rng.integers(4)
    if kind < 2:
        r, brim, h = rng.uniform(0.28, 0.36), rng.uniform(0.5, 0.75), rng.uniform(0.2, 0.6)
        b.add(cylinder(brim, 0.04, segments=40, bevel=0.015), paint, at=(0, 0, 0.02))
        b.add(cylinder(r, h, r * rng.uniform(0.75, 1.15), 36, 0.05), paint, at=(0, 0, h / 2 + 0.02))
        b.add(cylinder(r * 1.04, 0.1, segments=36), band, at=(0, 0, 0.09))
    elif kind == 2:
        t = np.linspace(0, np.pi / 2, 12)
        b.add(lathe([(0, 0), *zip(0.5 * np.cos(t), 0.45 * np.sin(t), strict=True)], 36, 60), paint)
        b.add(ellipsoid(0.38, 0.36, 0.03), band, at=(0.45, 0, 0.02))
        b.add(ellipsoid(0.05, 0.05, 0.03), band, at=(0, 0, 0.46))
    else:
        b.add(cylinder(0.4, 0.9, 0.02, 36), paint, at=(0, 0, 0.45))
        b.add(ellipsoid(0.12, 0.12, 0.12), band, at=(0, 0, 0.92))
        b.add(torus(0.4, 0.06), band)


def tool(b: Builder, rng: Rng) -> None:
    """Hammer, axe, screwdriver, brush, dumb-bell or key; standing."""
    grip, steel, kind = surface(rng), metal(rng), rng.integers(5)
    h = rng.uniform(0.9, 1.3)
    if kind == 0:
        b.add(capsule((0, 0, 0), (0, 0, h), 0.06, 0.045), grip)
        b.add(box(0.5, 0.16, 0.16, 0.03), steel, at=(0.04, 0, h))
        b.add(cylinder(0.11, 0.1, bevel=0.02), steel, at=(0.3, 0, h), turn=(0, 90, 0))
    elif kind == 1:
        b.add(cylinder(0.11, 0.45, 0.09, 8, 0.03), grip, at=(0, 0, h))
        b.add(cylinder(0.04, h * 0.8), steel, at=(0, 0, h * 0.4))
        b.add(box(0.03, 0.13, 0.12, 0.01), steel, at=(0, 0, 0.02))
    elif kind == 2:
        b.add(capsule((0, 0, 0), (0, 0, h * 0.6), 0.05, 0.07), grip)
        b.add(box(0.14, 0.42, 0.16, 0.03), steel, at=(0, 0, h * 0.68))
        b.add(box(0.11, 0.4, 0.3, 0.05), fabric(rng, 0.3), at=(0, 0, h * 0.87))
    elif kind == 3:
        b.add(capsule((0, -0.4, 0), (0, 0.4, 0), 0.05), steel)
        for y, r in ((0.38, 0.3), (0.5, 0.24)):
            b.add(cylinder(r, 0.11, bevel=0.03), grip, at=(0, y, 0), turn=(90, 0, 0), mirror=True)
    else:
        b.add(torus(0.22, 0.06), grip, at=(0, 0, h), turn=(0, 90, 0))
        b.add(cylinder(0.06, h * 0.8), grip, at=(0, 0, h * 0.42))
        for z in (0.08, 0.2, 0.3):
            b.add(box(0.06, rng.uniform(0.12, 0.26), 0.07, 0.01), grip, at=(0, 0.12, z))


VESSELS = (mug, vase, bottle, teapot, bowl)
FOODS = (burger, cupcake, ice_cream, fruit, cake)
OTHERS = (hat, tool)
