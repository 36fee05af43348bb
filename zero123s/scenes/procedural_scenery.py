"""Buildings with windows and masonry, trees, flowers and pots."""

import numpy as np

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.blends import Bone, add_blend
from zero123s.scenes.primitives import Builder, box, capsule, cylinder, ellipsoid, extrude, lathe, sheet, torus, tube
from zero123s.scenes.procedural_color import (
    DARK,
    WHITE,
    WHITE_PAINT,
    any_color,
    fabric,
    jitter,
    plain,
    soft,
    vivid,
    wood,
)
from zero123s.scenes.procedural_images import bricks, label, windows, wood_grain

Rng = np.random.Generator


def _facades(b: Builder, rng: Rng, x: float, y: float, h: float, color, at=(0.0, 0.0, 0.0), floors: int = 4) -> None:
    """Place a block with an image of windows, bricks or boards on its four walls."""
    cx, cy, cz = at
    b.add(box(x, y, h, 0.005), plain(color), at=(cx, cy, cz + h / 2))
    kind = rng.uniform()
    for turn, wide, off in ((0, y, x / 2), (90, x, y / 2), (180, y, x / 2), (270, x, y / 2)):
        t = np.deg2rad(turn)
        if kind < 0.75:
            image = windows(rng, color, max(1, int(floors * wide / h + 0.5)), floors)
        else:
            image = bricks(rng, color) if kind < 0.9 else wood_grain(rng, color)
        place = (cx + (off + 0.004) * np.cos(t), cy + (off + 0.004) * np.sin(t), cz + h / 2)
        b.add(sheet(wide * 0.99, h * 0.99), WHITE_PAINT, at=place, turn=(0, 0, turn), texture=image)


def _pyramid_roof(b: Builder, paint: Paint, width: float, height: float, at) -> None:
    b.add(cylinder(width * 0.72, height, 0.02, 4), paint, at=(at[0], at[1], at[2] + height / 2), turn=(0, 0, 45))


def _wall_color(rng: Rng):
    kind = rng.integers(4)
    if kind == 0:
        return jitter(rng, WHITE, 0.03)
    return (
        soft(rng)
        if kind == 1
        else jitter(rng, ((0.62, 0.32, 0.24), (0.8, 0.72, 0.58), (0.6, 0.6, 0.62))[rng.integers(3)], 0.05)
    )


def town_house(b: Builder, rng: Rng) -> None:
    """A house with windows, a gable roof, a door and at times a wing, a porch or a shop sign."""
    x, y, h = rng.uniform(0.5, 0.8), rng.uniform(0.5, 1.0), rng.uniform(0.45, 0.9)
    color, roof = (
        _wall_color(rng),
        plain(jitter(rng, ((0.6, 0.25, 0.18), (0.3, 0.3, 0.33), (0.45, 0.3, 0.2))[rng.integers(3)], 0.05)),
    )
    _facades(b, rng, x, y, h, color, floors=int(rng.integers(2, 4)))
    tall = rng.uniform(0.2, 0.5)
    gable = [(-y / 2 - 0.06, -0.02), (y / 2 + 0.06, -0.02), (0, tall)]
    b.add(extrude(gable, x + 0.12), roof, at=(0, 0, h), turn=(0, 0, 90))
    inner = [(-y / 2 + 0.02, 0), (y / 2 - 0.02, 0), (0, tall * 0.85)]
    b.add(extrude(inner, x + 0.125), plain(color), at=(0, 0, h - 0.02), turn=(0, 0, 90))
    b.add(box(0.04, 0.16, 0.3, 0.01), plain(any_color(rng)), at=(x / 2 + 0.01, 0, 0.15))
    if rng.uniform() < 0.6:
        b.add(box(0.12, 0.12, 0.35, 0.01), plain((0.6, 0.3, 0.22)), at=(-x * 0.2, y * 0.25, h + tall * 0.6))
    if rng.uniform() < 0.35:
        _facades(b, rng, x * 0.7, 0.35, h * 0.6, color, at=(0.0, y / 2 + 0.16, 0.0), floors=1)
        _pyramid_roof(b, roof, 0.42, 0.2, (0.0, y / 2 + 0.16, h * 0.6))
    if rng.uniform() < 0.3:
        b.add(box(0.05, y * 0.8, 0.16, 0.01), plain(color), at=(x / 2 + 0.04, 0, h * 0.5))
        b.add(sheet(y * 0.78, 0.15), WHITE_PAINT, at=(x / 2 + 0.07, 0, h * 0.5), texture=label(rng, vivid(rng), 3.0))


def high_rise(b: Builder, rng: Rng) -> None:
    """One to three blocks on each other, with windows."""
    w, z, color = rng.uniform(0.4, 0.6), 0.0, _wall_color(rng)
    for _ in range(rng.integers(1, 4)):
        h = rng.uniform(0.4, 0.9)
        _facades(b, rng, w, w * rng.uniform(0.8, 1.2), h, color, at=(0.0, 0.0, z), floors=max(3, int(h * 8)))
        z, w = z + h, w * rng.uniform(0.6, 0.85)
    if rng.uniform() < 0.5:
        b.add(cylinder(0.012, 0.4), plain(DARK), at=(0, 0, z + 0.15))
    else:
        _pyramid_roof(b, plain(any_color(rng)), w, rng.uniform(0.15, 0.5), (0.0, 0.0, z))


def castle(b: Builder, rng: Rng) -> None:
    """A keep, walls and towers at the corners, with battlements or cones."""
    stone = jitter(rng, ((0.66, 0.64, 0.6), (0.8, 0.74, 0.62), WHITE)[rng.integers(3)], 0.03)
    wall = Paint(
        stone, (stone[0] * 0.82, stone[1] * 0.82, stone[2] * 0.82), "checks" if rng.uniform() < 0.5 else "noise", 7.0
    )
    roof, w, h = plain(vivid(rng)), rng.uniform(0.4, 0.55), rng.uniform(0.35, 0.6)
    r, tall = rng.uniform(0.11, 0.17), h * rng.uniform(1.1, 1.6)
    cones = rng.uniform() < 0.6
    for x in (-w, w):
        b.add(cylinder(r, tall, r * 0.95, 24), wall, at=(x, w, tall / 2), mirror=True)
        if cones:
            b.add(cylinder(r * 1.25, rng.uniform(0.25, 0.32), 0.01, 24), roof, at=(x, w, tall + 0.14), mirror=True)
        else:
            for k in range(6):
                a = np.pi * k / 3
                b.add(
                    box(0.08, 0.08, 0.1, 0.01),
                    wall,
                    at=(x + r * 0.9 * np.cos(a), w + r * 0.9 * np.sin(a), tall + 0.03),
                    mirror=True,
                )
    b.add(box(2 * w, 0.09, h, 0.01), wall, at=(0, w, h / 2), mirror=True)
    for x in (-w, w):
        b.add(box(0.09, 2 * w, h, 0.01), wall, at=(x, 0, h / 2))
        for y in np.linspace(0.07, w - 0.12, 3):
            b.add(box(0.09, 0.08, 0.09, 0.01), wall, at=(x, y, h + 0.04), mirror=True)
    b.add(box(0.1, 0.22, h * 0.55, 0.02), plain((0.35, 0.22, 0.12)), at=(w + 0.02, 0, h * 0.27))
    keep = h * rng.uniform(1.5, 2.2)
    b.add(box(w * 0.8, w * 0.8, keep, 0.01), wall, at=(0, 0, keep / 2))
    _pyramid_roof(b, roof, w * 0.85, 0.3, (0.0, 0.0, keep))
    b.add(box(0.02, 0.08, 0.14, 0.01), plain(DARK), at=(w * 0.4, 0.1, keep * 0.75), mirror=True)


def windmill(b: Builder, rng: Rng) -> None:
    """A windmill, a water tower or a pagoda."""
    kind, roof = rng.integers(3), plain(vivid(rng))
    if kind == 0:
        body = plain(_wall_color(rng))
        b.add(cylinder(0.32, 0.9, 0.2, 28), body, at=(0, 0, 0.45))
        b.add(cylinder(0.24, 0.25, 0.02, 28), roof, at=(0, 0, 1.0))
        b.add(box(0.04, 0.16, 0.3, 0.01), wood(rng), at=(0.31, 0, 0.15))
        sail, turn = plain(WHITE) if rng.uniform() < 0.6 else fabric(rng, 0.3), rng.uniform(0, 90)
        for k in range(4):
            a = np.deg2rad(turn + 90 * k)
            b.add(
                box(0.02, 0.13, 0.5, 0.005),
                sail,
                at=(0.3, 0.38 * np.sin(a), 0.86 + 0.38 * np.cos(a)),
                turn=(-np.rad2deg(a), 0, 0),
            )
        b.add(cylinder(0.05, 0.2), plain(DARK), at=(0.24, 0, 0.86), turn=(0, 90, 0))
    elif kind == 1:
        b.add(
            cylinder(0.32, 0.4, segments=32, bevel=0.02),
            wood(rng) if rng.uniform() < 0.5 else plain(any_color(rng)),
            at=(0, 0, 0.85),
        )
        b.add(cylinder(0.35, 0.22, 0.01, 32), roof, at=(0, 0, 1.15))
        for x in (-0.22, 0.22):
            b.add(capsule((x * 1.4, 0.32, 0), (x, 0.2, 0.7), 0.03), plain(DARK), mirror=True)
        b.add(box(0.5, 0.03, 0.03), plain(DARK), at=(0, 0.26, 0.35), mirror=True)
    else:
        w, z, wall = 0.6, 0.0, plain(_wall_color(rng))
        for _ in range(rng.integers(2, 6)):
            b.add(box(w, w, 0.22, 0.01), wall, at=(0, 0, z + 0.11))
            b.add(box(0.02, w * 0.3, 0.16, 0.005), plain(DARK), at=(w / 2, 0, z + 0.09))
            b.add(cylinder(w * 1.05, 0.13, w * 0.6, 4), roof, at=(0, 0, z + 0.27), turn=(0, 0, 45))
            z, w = z + 0.3, w * 0.84
        b.add(cylinder(0.04, 0.3, 0.005), plain((0.85, 0.7, 0.3)), at=(0, 0, z + 0.15))


def monument(b: Builder, rng: Rng) -> None:
    """A temple with pillars, a domed building, a bridge or a gate."""
    kind, stone = rng.integers(3), plain(jitter(rng, WHITE if rng.uniform() < 0.5 else (0.8, 0.74, 0.62), 0.03))
    if kind == 0:
        x, y, h = 0.9, 0.7, rng.uniform(0.35, 0.55)
        b.add(box(x + 0.12, y + 0.12, 0.08, 0.01), stone, at=(0, 0, 0.04))
        for px in np.linspace(-x / 2, x / 2, 5):
            b.add(cylinder(0.045, h, 0.04, 16), stone, at=(px, y / 2, 0.08 + h / 2), mirror=True)
        for py in (0.0, y / 4):
            for px in (-x / 2, x / 2):
                b.add(cylinder(0.045, h, 0.04, 16), stone, at=(px, py, 0.08 + h / 2), mirror=py > 0)
        b.add(box(x + 0.1, y + 0.1, 0.07, 0.01), stone, at=(0, 0, h + 0.11))
        b.add(
            extrude([(-y / 2 - 0.06, 0), (y / 2 + 0.06, 0), (0, 0.22)], x + 0.1),
            plain(soft(rng)) if rng.uniform() < 0.5 else stone,
            at=(0, 0, h + 0.14),
            turn=(0, 0, 90),
        )
        b.add(box(x * 0.7, y * 0.6, h, 0.01), plain(soft(rng)), at=(0, 0, 0.08 + h / 2))
    elif kind == 1:
        dome = plain(any_color(rng)) if rng.uniform() < 0.7 else plain((0.85, 0.7, 0.3))
        _facades(b, rng, 0.7, 0.9, 0.4, jitter(rng, stone.color, 0.02), floors=2)
        b.add(cylinder(0.28, 0.2, segments=32), stone, at=(0, 0, 0.5))
        b.add(ellipsoid(0.29, 0.29, 0.3), dome, at=(0, 0, 0.6))
        b.add(cylinder(0.03, 0.25, 0.005), dome, at=(0, 0, 0.98))
        for x in (-0.32, 0.32):
            b.add(cylinder(0.07, 0.8, 0.06, 16), stone, at=(x, 0.45, 0.4), mirror=True)
            b.add(ellipsoid(0.08, 0.08, 0.1, 10, 14), dome, at=(x, 0.45, 0.84), mirror=True)
    else:
        t, brick = np.linspace(-0.15, np.pi + 0.15, 17), Paint(stone.color, (0.6, 0.52, 0.45), "checks", 6.0)
        for a in t:
            b.add(
                box(0.3, 0.16, 0.22, 0.01),
                brick,
                at=(0, 0.5 * np.cos(a), 0.35 + 0.5 * np.sin(a)),
                turn=(np.rad2deg(a), 0, 0),
            )
        b.add(box(0.36, 1.5, 0.1, 0.01), plain(soft(rng)), at=(0, 0, 0.98))
        b.add(box(0.3, 0.3, 0.98, 0.01), brick, at=(0, 0.62, 0.46), mirror=True)
        for y in np.linspace(0.1, 0.7, 4):
            b.add(box(0.03, 0.03, 0.14, 0.005), stone, at=(0.16, y, 1.1), mirror=True)
            b.add(box(0.03, 0.03, 0.14, 0.005), stone, at=(-0.16, y, 1.1), mirror=True)


def leafy_tree(b: Builder, rng: Rng) -> None:
    """A broad-leaved tree with branches, in leaf, in blossom or bare, or a bush."""
    bark, h = wood(rng), rng.uniform(0.35, 0.6)
    color = jitter(
        rng,
        ((0.25, 0.5, 0.2), (0.45, 0.6, 0.2), (0.8, 0.5, 0.15), (0.95, 0.72, 0.8), (0.7, 0.2, 0.12))[
            rng.choice(5, p=[0.4, 0.25, 0.12, 0.13, 0.1])
        ],
        0.05,
    )
    leaf = Paint(color, (color[0] * 0.72, color[1] * 0.78, color[2] * 0.7), "noise", 5.0)
    bare = rng.uniform() < 0.15
    b.add(tube([(0, 0, 0), (0.02, 0, h * 0.6), (0, 0, h)], [0.1, 0.07, 0.06]), bark)
    tips = []
    for k in range(int(rng.integers(4, 8))):
        a, out, up = 2.4 * k + rng.uniform(-0.3, 0.3), rng.uniform(0.15, 0.35), rng.uniform(0.1, 0.5)
        tip = (out * np.cos(a), out * np.sin(a), h + up)
        tips.append(tip)
        b.add(tube([(0, 0, h * 0.85), (0.5 * tip[0], 0.5 * tip[1], h + 0.4 * up), tip], [0.05, 0.035, 0.015], 8), bark)
        if bare:
            for turn in (0.6, -0.7):
                end = (tip[0] + 0.15 * np.cos(a + turn), tip[1] + 0.15 * np.sin(a + turn), tip[2] + 0.14)
                b.add(capsule((0.6 * tip[0], 0.6 * tip[1], h + 0.5 * up), end, 0.018, 0.008), bark)
    if not bare:
        for tip in tips:
            r = rng.uniform(0.17, 0.28)
            b.add(ellipsoid(r, r, r * 0.85), leaf, at=tip)
        b.add(ellipsoid(0.28, 0.28, 0.25), leaf, at=(0, 0, h + 0.35))


def palm(b: Builder, rng: Rng) -> None:
    """A palm with arching leaves, or a fir with hanging branches."""
    green = plain(jitter(rng, (0.25, 0.5, 0.2), 0.06))
    if rng.uniform() < 0.5:
        lean, h = rng.uniform(-0.2, 0.2), rng.uniform(0.7, 1.0)
        b.add(
            tube([(0, 0, 0), (lean * 0.3, 0, h / 2), (lean, 0, h)], [0.08, 0.06, 0.05]),
            Paint((0.5, 0.38, 0.24), (0.4, 0.3, 0.18), "stripes", 9),
        )
        for k in range(int(rng.integers(7, 11))):
            a = 2 * np.pi * k / 8.3
            d = np.array([np.cos(a), np.sin(a), 0])
            path = np.array([lean, 0, h]) + np.stack(
                [d * r + [0, 0, z] for r, z in ((0, 0), (0.2, 0.14), (0.4, 0.1), (0.55, -0.1))]
            )
            b.add(tube(path, [0.02, 0.07, 0.06, 0.015], 6), green)
        for k in range(3):
            b.add(
                ellipsoid(0.06, 0.06, 0.07, 8, 12),
                plain((0.4, 0.26, 0.14)),
                at=(lean + 0.07 * np.cos(2 * k), 0.07 * np.sin(2 * k), h - 0.05),
            )
        return
    b.add(cylinder(0.06, 0.4), wood(rng), at=(0, 0, 0.1))
    levels, snow = int(rng.integers(3, 7)), plain(WHITE) if rng.uniform() < 0.25 else green
    for k in range(levels):
        r = 0.45 * (1 - k / (levels + 0.5))
        b.add(
            cylinder(r, 0.9 / levels, r * 0.25, 24),
            snow if k == levels - 1 else green,
            at=(0, 0, 0.35 + k * 0.85 / levels),
        )
    if rng.uniform() < 0.4:
        for k in range(14):
            r = 0.42 * (1 - (k / 14))
            b.add(
                ellipsoid(0.04, 0.04, 0.04, 8, 10),
                plain(vivid(rng)),
                at=(r * np.cos(2.4 * k), r * np.sin(2.4 * k), 0.3 + 0.8 * k / 14),
            )
        b.add(ellipsoid(0.03, 0.08, 0.08, 8, 10), plain((0.98, 0.85, 0.2)), at=(0, 0, 1.25))


def flower(b: Builder, rng: Rng) -> None:
    """A flower with petals and leaves, alone or in a pot: daisy, tulip, sunflower, rose."""
    green, petal = plain(jitter(rng, (0.28, 0.52, 0.2), 0.06)), plain(WHITE if rng.uniform() < 0.25 else vivid(rng))
    h, pot = rng.uniform(0.5, 0.9), rng.uniform() < 0.6
    if pot:
        b.add(
            lathe(
                [(0, -0.3), (0.2, -0.3), (0.27, 0.05), (0.3, 0.05), (0.3, 0.12), (0.25, 0.12), (0.24, 0.06), (0, 0.06)],
                30,
            ),
            plain(jitter(rng, (0.75, 0.4, 0.26), 0.05)) if rng.uniform() < 0.5 else fabric(rng, 0.3),
        )
        b.add(cylinder(0.25, 0.03), plain((0.25, 0.17, 0.12)), at=(0, 0, 0.07))
    for k in range(int(rng.integers(1, 5)) if pot else 1):
        x, y = (0.0, 0.0) if k == 0 else (0.16 * np.cos(2.1 * k), 0.16 * np.sin(2.1 * k))
        top = h * rng.uniform(0.8, 1.1)
        b.add(tube([(x * 0.4, y * 0.4, 0), (x, y, top * 0.5), (x * 1.5, y * 1.5, top)], 0.025, 8), green)
        b.add(ellipsoid(0.16, 0.05, 0.02, 8, 14), green, at=(x + 0.12, y, top * 0.45), turn=(0, -35, 40 * k))
        b.add(ellipsoid(0.16, 0.05, 0.02, 8, 14), green, at=(x - 0.12, y, top * 0.35), turn=(0, 35, 40 * k))
        at = (x * 1.5, y * 1.5, top)
        if rng.uniform() < 0.35:
            b.add(
                lathe(
                    [(0.02, 0), (0.11, 0.06), (0.12, 0.16), (0.09, 0.24), (0.05, 0.26), (0.08, 0.16), (0, 0.1)], 14, 180
                ),
                petal,
                at=at,
            )
            continue
        n, long = int(rng.integers(5, 12)), rng.uniform(0.12, 0.2)
        for i in range(n):
            a = 360 * i / n
            t = np.deg2rad(a)
            b.add(
                ellipsoid(long * 0.75, long * 0.38, 0.02, 8, 12),
                petal,
                at=(at[0] + 0.02, at[1] + long * np.cos(t), at[2] + long * np.sin(t)),
                turn=(0, 90, 0) if i % 2 else (0, 90, 1),
            )
        b.add(
            ellipsoid(0.06, 0.11, 0.11, 10, 14),
            Paint((0.95, 0.75, 0.15), (0.5, 0.3, 0.1), "noise", 12),
            at=(at[0] + 0.04, at[1], at[2]),
        )


def cactus(b: Builder, rng: Rng) -> None:
    """A cactus, mushroom or succulent in a pot."""
    pot = plain(jitter(rng, (0.75, 0.4, 0.26), 0.05)) if rng.uniform() < 0.5 else fabric(rng, 0.3)
    green = Paint(
        jitter(rng, (0.3, 0.55, 0.28), 0.05),
        jitter(rng, (0.2, 0.42, 0.2), 0.03),
        str(rng.choice(["plain", "dots", "stripes"])),
        7,
        (0.0, 1.0, 0.0),
    )
    kind = rng.integers(3)
    if kind < 2:
        b.add(cylinder(0.2, 0.3, 0.28, 28), pot, at=(0, 0, 0.15))
        b.add(torus(0.28, 0.035), pot, at=(0, 0, 0.3))
    if kind == 0:
        bones = [Bone((0, 0, 0.3), (0, 0, rng.uniform(0.7, 1.0)), 0.14, 0.12, green)]
        if rng.uniform() < 0.7:
            bones += [
                Bone((0, 0, 0.5), (0, 0.26, 0.55), 0.07, 0.075, green, True),
                Bone((0, 0.26, 0.55), (0, 0.27, 0.8), 0.075, 0.065, green, True),
            ]
        add_blend(b, bones, smooth=0.05)
        b.add(ellipsoid(0.07, 0.07, 0.05, 8, 12), plain(vivid(rng)), at=(0, 0, bones[0].end[2] + 0.13))
    elif kind == 1:
        for ring, (n, tilt) in enumerate(((8, 70), (6, 45), (4, 20))):
            for i in range(n):
                a = 2 * np.pi * i / n + ring * 0.3
                s = np.sin(np.deg2rad(tilt))
                end = (0.36 * s * np.cos(a), 0.36 * s * np.sin(a), 0.32 + 0.36 * np.cos(np.deg2rad(tilt)))
                b.add(
                    tube(
                        [(0, 0, 0.3), (end[0] * 0.6, end[1] * 0.6, 0.3 + (end[2] - 0.3) * 0.5), end],
                        [0.04, 0.065, 0.01],
                        8,
                    ),
                    green,
                )
    else:
        stem, cap = (
            plain(jitter(rng, (0.95, 0.9, 0.8), 0.03)),
            Paint(vivid(rng), WHITE, "dots" if rng.uniform() < 0.7 else "plain", rng.uniform(2.5, 4)),
        )
        for y, size in ((0.0, 1.0), (0.34, 0.55))[: int(rng.integers(1, 3))]:
            b.add(
                lathe(np.array([(0, 0), (0.15, 0), (0.1, 0.3), (0.12, 0.5), (0, 0.5)]) * size, 24, 120),
                stem,
                at=(0, y, 0),
            )
            t = np.linspace(0, np.pi / 2, 12)
            dome = [(0, 0.44), (0.36, 0.4), *zip(0.38 * np.cos(t), 0.42 + 0.3 * np.sin(t), strict=True)]
            b.add(lathe(np.array(dome) * size, 36, 60), cap, at=(0, y, 0))


KINDS = (town_house, town_house, high_rise, castle, windmill, monument, leafy_tree, palm, flower, cactus)
