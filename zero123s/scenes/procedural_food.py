"""Food: sandwiches, cakes, breads, fruit and vegetables, sweets, drinks."""

import numpy as np

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.blends import Bone, add_blend, ball
from zero123s.scenes.primitives import (
    Builder,
    Solid,
    box,
    capsule,
    cylinder,
    ellipsoid,
    extrude,
    lathe,
    sheet,
    torus,
    tube,
    wrapped,
)
from zero123s.scenes.procedural_color import WHITE, WHITE_PAINT, Color, any_color, fabric, jitter, plain, soft, vivid
from zero123s.scenes.procedural_images import label, speckles, stripes

Rng = np.random.Generator


def _near(rng: Rng, color: Color, amount: float = 0.04) -> Paint:
    return plain(jitter(rng, color, amount))


def _crust(rng: Rng) -> Paint:
    color = jitter(rng, (0.82, 0.55, 0.26), 0.05)
    return Paint(color, (color[0] * 0.8, color[1] * 0.72, color[2] * 0.6), "noise", float(rng.uniform(4, 9)))


def _plate(b: Builder, rng: Rng, r: float) -> None:
    paint = plain(WHITE) if rng.uniform() < 0.6 else fabric(rng, 0.4)
    b.add(
        lathe([(0, -0.07), (r * 0.6, -0.07), (r, 0.0), (r - 0.02, 0.02), (r * 0.6, -0.03), (0, -0.03)], 40, 60), paint
    )


def wedge(r: float, height: float, angle_deg: float) -> Solid:
    """Return a wedge of a cylinder that points towards +x, its bottom at z = 0."""
    t = np.deg2rad(np.linspace(-angle_deg / 2, angle_deg / 2, 14)) + np.pi
    outline = np.concatenate([[[0.0, 0.0]], np.stack([r * np.cos(t), r * np.sin(t)], -1)])
    outline[:, 0] += r / 2
    prism = extrude(outline, height)  # along y: turned so that it stands on its outline
    v = prism.vertices @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    n = prism.normals @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    v[:, 2] += height / 2
    return prism._replace(vertices=v, normals=n)


def stacked_burger(b: Builder, rng: Rng) -> None:
    """A hamburger or sandwich with layers in random order; round or square."""
    square, r, z = rng.uniform() < 0.25, rng.uniform(0.45, 0.6), 0.0
    bun = _crust(rng)

    def slab(radius: float, h: float, paint: Paint, bevel: float) -> None:
        nonlocal z
        solid = box(2 * radius, 2 * radius, h, bevel) if square else cylinder(radius, h, segments=36, bevel=bevel)
        b.add(solid, paint, at=(0, 0, z + h / 2))
        z += h * 0.92

    slab(r, rng.uniform(0.1, 0.18), bun, 0.05)
    for _ in range(rng.integers(2, 6)):
        kind = rng.integers(5)
        if kind == 0:
            slab(r * 0.98, 0.14, Paint((0.36, 0.2, 0.12), (0.24, 0.12, 0.07), "noise", 9.0), 0.05)
        elif kind == 1:
            b.add(box(r * 1.5, r * 1.5, 0.03, 0.01), plain((0.98, 0.76, 0.18)), at=(0, 0, z + 0.01), turn=(0, 0, 45))
            z += 0.025
        elif kind == 2:
            slab(r * 0.92, 0.06, _near(rng, (0.85, 0.2, 0.14)), 0.02)
        elif kind == 3:
            for k in range(14):
                a = 2 * np.pi * k / 14
                at = (r * 0.93 * np.cos(a), r * 0.93 * np.sin(a), z + 0.03 + 0.015 * (-1) ** k)
                b.add(
                    ellipsoid(0.16, 0.13, 0.03, 8, 12), Paint((0.42, 0.7, 0.22), (0.3, 0.56, 0.15), "noise", 8.0), at=at
                )
            z += 0.05
        else:
            slab(r * 0.9, 0.035, _near(rng, (0.93, 0.88, 0.9)), 0.01)
    if square:
        slab(r, 0.14, bun, 0.05)
        return
    t, dome = np.linspace(0.02, np.pi / 2, 12), rng.uniform(0.25, 0.45)
    b.add(
        lathe([(0, z), (r * 0.96, z), *zip(r * 1.03 * np.cos(t), z + 0.04 + dome * np.sin(t), strict=True)], 40, 60),
        bun,
    )
    if rng.uniform() < 0.7:
        for i in range(24):
            a, s = 2.39996 * i, np.sqrt((i + 0.5) / 24) * 0.8
            at = (r * 1.03 * s * np.cos(a), r * 1.03 * s * np.sin(a), z + 0.045 + dome * np.sqrt(1 - s * s))
            b.add(ellipsoid(0.034, 0.02, 0.014, 6, 8), plain((0.98, 0.92, 0.74)), at=at, turn=(0, 0, 57 * i))


def hot_dog(b: Builder, rng: Rng) -> None:
    """A sausage in a bun along y, a zigzag of sauce on top; or a long sandwich."""
    bun, long = _crust(rng), rng.uniform(0.45, 0.6)
    b.add(capsule((0.14, -long, 0.14), (0.14, long, 0.14), 0.15), bun)
    b.add(capsule((-0.14, -long, 0.14), (-0.14, long, 0.14), 0.15), bun)
    b.add(capsule((0, -long - 0.1, 0.26), (0, long + 0.1, 0.26), 0.12), _near(rng, (0.72, 0.28, 0.18), 0.06))
    y = np.linspace(-long, long, 33)
    sauce = np.stack([0.06 * np.sin(16 * y / long), y, 0.385 - 0.02 * np.abs(np.sin(16 * y / long))], -1)
    b.add(tube(sauce, 0.025, 8), _near(rng, (0.95, 0.75, 0.12) if rng.uniform() < 0.6 else (0.8, 0.1, 0.08)))


def slice_of_cake(b: Builder, rng: Rng) -> None:
    """A wedge of cake, pie, pizza, cheese or watermelon."""
    kind, r, angle = rng.integers(5), rng.uniform(0.8, 1.0), rng.uniform(35, 70)
    if kind == 0:  # layers and icing
        sponge, cream, z = _near(rng, (0.9, 0.75, 0.48), 0.08), plain(soft(rng)), 0.0
        for _ in range(rng.integers(2, 4)):
            b.add(wedge(r, 0.14, angle), sponge, at=(0, 0, z))
            b.add(wedge(r * 1.01, 0.05, angle * 1.02), cream, at=(0, 0, z + 0.14))
            z += 0.19
        b.add(ellipsoid(0.1, 0.1, 0.1), _near(rng, (0.85, 0.1, 0.15)), at=(-r * 0.25, 0, z + 0.07))
    elif kind == 1:
        b.add(wedge(r, 0.05, angle), _near(rng, (0.97, 0.78, 0.3)))
        t = np.deg2rad(np.linspace(-angle / 2, angle / 2, 9)) + np.pi
        b.add(tube(np.stack([r * np.cos(t) + r / 2, r * np.sin(t), 0 * t + 0.05], -1), 0.07), _crust(rng))
        for k in range(6):
            at = (r * (0.25 - 0.11 * k), (0.03 * k + 0.03) * (-1) ** k, 0.06)
            b.add(cylinder(0.07, 0.03), _near(rng, (0.75, 0.16, 0.1) if k % 3 else (0.3, 0.5, 0.2)), at=at)
    elif kind == 2:
        b.add(
            wedge(r, rng.uniform(0.25, 0.4), angle),
            Paint(jitter(rng, (0.97, 0.8, 0.3), 0.04), (0.85, 0.62, 0.15), "dots", 4.5),
        )
    elif kind == 3:
        flesh = Paint(jitter(rng, (0.9, 0.25, 0.27), 0.04), (0.15, 0.06, 0.06), "dots", 6.5)
        half = np.linspace(0, np.pi, 24)
        for scale, paint, depth in (
            (1.0, plain((0.15, 0.42, 0.16)), 0.2),
            (0.93, plain((0.85, 0.93, 0.75)), 0.205),
            (0.87, flesh, 0.21),
        ):
            b.add(
                extrude(np.stack([0.6 * scale * np.cos(half), -0.6 * scale * np.sin(half)], -1), depth),
                paint,
                turn=(0, 0, 90),
            )
    else:
        b.add(wedge(r, 0.22, angle), _near(rng, (0.78, 0.36, 0.14), 0.12))
        b.add(wedge(r * 1.03, 0.05, angle * 1.03), _crust(rng), at=(0, 0, 0.2))


def layered_cake(b: Builder, rng: Rng) -> None:
    """A cake with dripping icing, berries or cream puffs on a plate; at times one piece is missing."""
    r, h = rng.uniform(0.42, 0.56), rng.uniform(0.25, 0.45)
    body = (plain(soft(rng)), _near(rng, (0.36, 0.2, 0.12)), plain(WHITE))[rng.integers(3)]
    side = speckles(rng, body.color) if rng.uniform() < 0.3 else stripes(rng) if rng.uniform() < 0.3 else None
    if side is None:
        b.add(cylinder(r, h, segments=40, bevel=0.03), body, at=(0, 0, h / 2))
    else:
        b.add(wrapped(cylinder(r, h, segments=40, bevel=0.03)), WHITE_PAINT, at=(0, 0, h / 2), texture=side)
    icing = (plain(soft(rng)), _near(rng, (0.3, 0.16, 0.1)), plain(WHITE), plain(vivid(rng)))[rng.integers(4)]
    b.add(cylinder(r * 1.03, 0.07, segments=40, bevel=0.03), icing, at=(0, 0, h + 0.01))
    n = int(rng.integers(8, 15))
    for k in range(n):
        a, drop = 2 * np.pi * (k + 0.5) / n, rng.uniform(0.08, h * 0.6)
        x, y = r * 1.01 * np.cos(a), r * 1.01 * np.sin(a)
        b.add(capsule((x, y, h), (x, y, h - drop), 0.05, 0.04), icing)
    top = plain(vivid(rng)) if rng.uniform() < 0.6 else plain(WHITE)
    for k in range(n):
        a = 2 * np.pi * k / n
        at = (r * 0.8 * np.cos(a), r * 0.8 * np.sin(a), h + 0.07)
        b.add(ellipsoid(0.075, 0.075, 0.085, 8, 12), top, at=at)
    if rng.uniform() < 0.5:
        b.add(ellipsoid(0.12, 0.12, 0.12), _near(rng, (0.85, 0.1, 0.15)), at=(0, 0, h + 0.12))
    _plate(b, rng, r * 1.4)


def doughnut(b: Builder, rng: Rng) -> None:
    """A ring with icing and sprinkles; lying or leaning; or a pretzel-like ring."""
    r, thick = rng.uniform(0.38, 0.46), rng.uniform(0.15, 0.2)
    turn = (0, 75, 0) if rng.uniform() < 0.4 else (0, 0, 0)
    b.add(torus(r, thick, 40, 16, 0.85), _crust(rng), turn=turn)
    icing = wrapped(torus(r, thick * 1.06, 40, 16, 0.7))
    color = (vivid(rng), soft(rng), (0.32, 0.18, 0.1))[rng.integers(3)]
    upper = icing._replace(
        vertices=np.column_stack([icing.vertices[:, :2], np.maximum(icing.vertices[:, 2] + 0.05, 0.01)])
    )
    if rng.uniform() < 0.6:
        b.add(upper._replace(uv=upper.vertices[:, :2]), WHITE_PAINT, turn=turn, texture=speckles(rng, color))
    else:
        b.add(upper, plain(color), turn=turn)


def bread(b: Builder, rng: Rng) -> None:
    """A loaf, a croissant, a baguette, a slice of toast or an egg."""
    kind, crust = rng.integers(5), _crust(rng)
    if kind == 0:
        bones = [Bone((0, -0.35, 0.22), (0, 0.35, 0.22), 0.24, 0.24, crust)]
        bones = [ball((0, 0.05 + 0.14 * k, 0.22), 0.26 - 0.015 * k, crust, True) for k in range(4)]
        add_blend(b, bones, smooth=0.1, scale=(0.9, 1.0, 1.0))
    elif kind == 1:
        bones = []
        for k in range(5):
            a = np.deg2rad(14 + 24 * k)
            at = (0.42 * np.cos(a) - 0.2, 0.42 * np.sin(a), 0.15)
            bones.append(ball(at, 0.19 - 0.028 * k, crust, True))
        add_blend(b, bones, smooth=0.04)
    elif kind == 2:
        b.add(tube([(0, -0.7, 0.1), (0, -0.5, 0.12), (0, 0.5, 0.12), (0, 0.7, 0.1)], [0.06, 0.13, 0.13, 0.06]), crust)
        for y in np.linspace(-0.45, 0.45, 5):
            b.add(ellipsoid(0.09, 0.05, 0.03, 8, 14), plain((0.95, 0.83, 0.6)), at=(0, y, 0.235), turn=(0, 0, 35))
    elif kind == 3:
        t = np.linspace(0, np.pi, 12)
        outline = [
            (-0.4, 0),
            (0.4, 0),
            (0.4, 0.5),
            *zip(0.42 * np.cos(t), 0.52 + 0.24 * np.sin(t), strict=True),
            (-0.4, 0.5),
        ]
        b.add(extrude(outline, 0.16), crust, turn=(0, 0, 90))
        inner = np.asarray(outline) * 0.88 + [0, 0.03]
        b.add(extrude(inner, 0.17), Paint((0.97, 0.9, 0.74), (0.93, 0.82, 0.6), "noise", 9.0), turn=(0, 0, 90))
        if rng.uniform() < 0.5:
            b.add(ellipsoid(0.03, 0.24, 0.24), plain(WHITE), at=(0.09, 0, 0.36))
            b.add(ellipsoid(0.06, 0.1, 0.1), plain((0.98, 0.76, 0.1)), at=(0.1, 0, 0.36))
    else:
        t = np.linspace(-np.pi / 2, np.pi / 2, 20)
        egg = np.stack([0.34 * np.cos(t) * (1 - 0.16 * np.sin(t)), 0.46 * np.sin(t) + 0.46], -1)
        shell = (
            plain(jitter(rng, WHITE if rng.uniform() < 0.5 else (0.87, 0.68, 0.5), 0.03))
            if rng.uniform() < 0.6
            else fabric(rng, 0.4)
        )
        b.add(lathe(egg, 32, 180), shell)
        if rng.uniform() < 0.4:
            b.add(
                lathe([(0, 0), (0.25, 0), (0.15, 0.12), (0.3, 0.3), (0.27, 0.3), (0.1, 0.14)], 32, 60),
                fabric(rng, 0.3),
                at=(0, 0, -0.14),
            )


def sundae(b: Builder, rng: Rng) -> None:
    """Scoops in a glass or paper cup, a lolly on a stick, or a soft ice in a cone."""
    kind = rng.integers(3)
    if kind == 0:
        r, h = rng.uniform(0.3, 0.42), rng.uniform(0.25, 0.45)
        cup = wrapped(lathe([(0, 0), (r * 0.7, 0), (r, h), (r * 0.95, h), (r * 0.65, 0.05), (0, 0.05)], 36, 60))
        if rng.uniform() < 0.6:
            b.add(cup, WHITE_PAINT, texture=stripes(rng) if rng.uniform() < 0.5 else label(rng, soft(rng), 3.0))
        else:
            b.add(cup, fabric(rng, 0.4))
        for k in range(3):
            a = 2 * np.pi * k / 3
            b.add(
                ellipsoid(r * 0.55, r * 0.55, r * 0.52),
                plain(soft(rng)),
                at=(r * 0.42 * np.cos(a), r * 0.42 * np.sin(a), h + 0.06),
            )
        b.add(ellipsoid(r * 0.5, r * 0.5, r * 0.48), plain(soft(rng)), at=(0, 0, h + r * 0.65))
        b.add(ellipsoid(0.07, 0.07, 0.07), _near(rng, (0.8, 0.08, 0.12)), at=(0, 0, h + r * 1.2))
        b.add(capsule((-0.1, 0.1, h), (-0.2, 0.25, h + 0.7), 0.035), _near(rng, (0.86, 0.65, 0.36)))
    elif kind == 1:
        paint, w = (
            Paint(vivid(rng), soft(rng), str(rng.choice(["plain", "stripes", "gradient"])), 1.5),
            rng.uniform(0.2, 0.3),
        )
        b.add(box(0.2, 2 * w, 0.75, 0.09), paint, at=(0, 0, 0.75))
        b.add(box(0.05, 0.11, 0.5, 0.02), plain((0.86, 0.7, 0.46)), at=(0, 0, 0.2))
    else:
        b.add(
            cylinder(0.05, 0.6, 0.26, 30), Paint((0.87, 0.65, 0.36), (0.72, 0.5, 0.22), "checks", 9.0), at=(0, 0, 0.3)
        )
        cream = _near(rng, (0.97, 0.94, 0.86), 0.03) if rng.uniform() < 0.6 else plain(soft(rng))
        t = np.linspace(0, 8 * np.pi, 90)
        r = 0.2 * (1 - t / t[-1]) + 0.01
        b.add(
            tube(
                np.stack([r * np.cos(t), r * np.sin(t), 0.64 + 0.5 * t / t[-1]], -1), 0.1 * (1 - 0.75 * t / t[-1]), 10
            ),
            cream,
        )
        b.add(ellipsoid(0.22, 0.22, 0.12), cream, at=(0, 0, 0.62))


def takeaway(b: Builder, rng: Rng) -> None:
    """A cup with a straw, a box of chips or a carton of milk, all with labels."""
    kind = rng.integers(3)
    if kind == 0:
        r, h = rng.uniform(0.2, 0.28), rng.uniform(0.6, 0.8)
        image = label(rng, soft(rng) if rng.uniform() < 0.6 else WHITE, 2.2)
        b.add(wrapped(cylinder(r * 0.75, h, r, 36)), WHITE_PAINT, at=(0, 0, h / 2), texture=image)
        b.add(
            cylinder(r * 1.06, 0.06, r, 36, 0.01),
            plain(WHITE) if rng.uniform() < 0.6 else plain(any_color(rng)),
            at=(0, 0, h + 0.02),
        )
        if rng.uniform() < 0.6:
            b.add(tube([(0, 0, h), (0, 0.04, h + 0.25), (0, 0.16, h + 0.34)], 0.025, 8), plain(vivid(rng)))
    elif kind == 1:
        color = vivid(rng)
        b.add(box(0.26, 0.5, 0.5, 0.02), plain(color), at=(0, 0, 0.25))
        b.add(sheet(0.42, 0.4), WHITE_PAINT, at=(0.136, 0, 0.25), texture=label(rng, color, 1.0))
        for k in range(16):
            x, y = 0.16 * ((k % 4) / 3 - 0.5), 0.42 * ((k // 4) / 3 - 0.5)
            top = 0.62 + 0.2 * rng.uniform()
            b.add(box(0.06, 0.06, top, 0.01), plain((0.96, 0.8, 0.36)), at=(x, y, top / 2), turn=(-15 * y, 20 * x, 0))
    else:
        w, h = 0.36, rng.uniform(0.55, 0.75)
        b.add(box(w, w, h, 0.01), plain(WHITE), at=(0, 0, h / 2))
        image = label(rng, soft(rng), w / h)
        for turn in (0, 90, 180, 270):
            t = np.deg2rad(turn)
            b.add(
                sheet(w * 0.98, h * 0.98),
                WHITE_PAINT,
                at=(w * 0.505 * np.cos(t), w * 0.505 * np.sin(t), h / 2),
                turn=(0, 0, turn),
                texture=image,
            )
        b.add(extrude([(-w / 2, 0), (w / 2, 0), (0, 0.16)], w), plain(WHITE), at=(0, 0, h))
        b.add(box(0.02, w, 0.1, 0.005), plain(vivid(rng)), at=(0, 0, h + 0.19))


def small_meal(b: Builder, rng: Rng) -> None:
    """Sushi, pancakes on a plate or a lollipop."""
    kind = rng.integers(3)
    if kind == 0:
        for k in range(int(rng.integers(1, 4))):
            x = -0.4 * k
            b.add(box(0.3, 0.5, 0.2, 0.09), Paint(WHITE, (0.85, 0.85, 0.82), "noise", 16.0), at=(x, 0, 0.12))
            b.add(
                ellipsoid(0.17, 0.33, 0.07, 10, 20),
                Paint(jitter(rng, (0.95, 0.5, 0.32), 0.06), (1.0, 0.75, 0.6), "stripes", 9, (0.5, 1.0, 0.0)),
                at=(x, 0, 0.25),
            )
            if rng.uniform() < 0.5:
                b.add(box(0.37, 0.14, 0.31, 0.03), plain((0.12, 0.16, 0.12)), at=(x, 0, 0.17))
    elif kind == 1:
        n = int(rng.integers(3, 7))
        for k in range(n):
            b.add(
                cylinder(rng.uniform(0.42, 0.47), 0.08, segments=36, bevel=0.035),
                Paint((0.83, 0.58, 0.3), (0.93, 0.76, 0.48), "noise", 4.0),
                at=(0, 0, 0.05 + 0.08 * k),
            )
        b.add(box(0.18, 0.18, 0.07, 0.02), plain((0.98, 0.9, 0.5)), at=(0, 0, 0.05 + 0.08 * n), turn=(0, 0, 20))
        _plate(b, rng, 0.65)
    else:
        disc = ellipsoid(0.36, 0.36, 0.13, 18, 36) if rng.uniform() < 0.5 else ellipsoid(0.28, 0.28, 0.28, 18, 32)
        b.add(
            disc,
            Paint(vivid(rng), WHITE, "stripes", rng.uniform(2, 5), (1.0, 0.6, 0.0)),
            at=(0, 0, 1.0),
            turn=(0, 90, 0),
        )
        b.add(cylinder(0.03, 0.8), plain(WHITE), at=(0, 0, 0.4))


KINDS = (
    stacked_burger,
    hot_dog,
    slice_of_cake,
    layered_cake,
    doughnut,
    bread,
    sundae,
    takeaway,
    small_meal,
)
