"""Four-legged animals, birds, fish, people and robots."""

import numpy as np

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.primitives import Builder, box, capsule, cylinder, ellipsoid, extrude, lathe, torus, tube
from zero123s.scenes.procedural_color import DARK, WHITE, any_color, fabric, jitter, metal, plain, vivid

Rng = np.random.Generator
FURS = (
    (0.55, 0.38, 0.22),
    (0.8, 0.65, 0.45),
    (0.3, 0.22, 0.18),
    (0.9, 0.88, 0.84),
    (0.5, 0.5, 0.52),
    (0.75, 0.4, 0.2),
    (0.2, 0.2, 0.22),
    (0.85, 0.6, 0.65),
)
SKINS = ((0.95, 0.8, 0.68), (0.8, 0.58, 0.42), (0.5, 0.34, 0.24), (0.36, 0.24, 0.17))


def _fur(rng: Rng) -> Paint:
    color = jitter(rng, FURS[rng.integers(len(FURS))], 0.04) if rng.uniform() < 0.8 else vivid(rng)
    second = jitter(rng, FURS[rng.integers(len(FURS))], 0.04)
    pattern = str(rng.choice(["plain", "noise", "stripes", "dots"], p=[0.55, 0.2, 0.13, 0.12]))
    return Paint(color, second, pattern, rng.uniform(4, 8), (1.0, 0.0, 0.0))


def _eyes(b: Builder, x: float, y: float, z: float, r: float) -> None:
    b.add(ellipsoid(r, r, r, 8, 12), plain(WHITE), at=(x, y, z), mirror=True)
    b.add(ellipsoid(r * 0.6, r * 0.6, r * 0.6, 8, 12), plain(DARK), at=(x + r * 0.6, y * 1.08, z), mirror=True)


def quadruped(b: Builder, rng: Rng) -> None:
    """Dog, cat, horse, elephant and what lies between."""
    fur, other = _fur(rng), _fur(rng)
    long, fat, leg, neck = rng.uniform(0.35, 0.6), rng.uniform(0.17, 0.32), rng.uniform(0.2, 0.55), rng.uniform(0, 0.5)
    head, thick, z = rng.uniform(0.14, 0.26), rng.uniform(0.04, 0.085), leg + fat * 0.8
    b.add(ellipsoid(long, fat, fat * rng.uniform(0.9, 1.1)), fur, at=(0, 0, z))
    for x in (-long * 0.65, long * 0.65):
        b.add(capsule((x, fat * 0.6, 0.05), (x, fat * 0.55, z), thick, thick * 1.4), fur, mirror=True)
        b.add(ellipsoid(thick * 1.5, thick * 1.15, 0.05), other, at=(x + 0.02, fat * 0.6, 0.04), mirror=True)
    hx, hz = long * 0.85 + neck * 0.45 + head * 0.4, z + fat * 0.5 + neck * 0.9 + head * 0.3
    b.add(capsule((long * 0.65, 0, z + fat * 0.2), (hx - head * 0.2, 0, hz), fat * 0.6, head * 0.6), fur)
    b.add(ellipsoid(head * 1.1, head * 0.9, head), fur, at=(hx, 0, hz))
    snout, sx = rng.uniform(0.35, 0.65) * head, hx + head * rng.uniform(0.8, 1.3)
    b.add(
        capsule((hx, 0, hz - head * 0.2), (sx, 0, hz - head * 0.35), snout * 1.2, snout),
        other if rng.uniform() < 0.5 else fur,
    )
    b.add(ellipsoid(0.04, 0.045, 0.03), plain(DARK), at=(sx + snout, 0, hz - head * 0.2))
    _eyes(b, hx + head * 0.75, head * 0.5, hz + head * 0.35, head * 0.2)
    kind = rng.integers(4)
    if kind == 0:
        b.add(
            cylinder(head * 0.35, head * 0.8, 0.01),
            fur,
            at=(hx - head * 0.1, head * 0.55, hz + head),
            turn=(-15, 0, 0),
            mirror=True,
        )
    elif kind == 1:
        b.add(
            ellipsoid(head * 0.3, head * 0.12, head * 0.6),
            other,
            at=(hx - head * 0.1, head * 0.95, hz),
            turn=(12, 0, 0),
            mirror=True,
        )
    elif kind == 2:
        b.add(
            ellipsoid(head * 0.16, head * 0.28, head * 0.95),
            fur,
            at=(hx - head * 0.2, head * 0.4, hz + head * 1.4),
            turn=(-10, -8, 0),
            mirror=True,
        )
    else:
        b.add(
            ellipsoid(head * 0.15, head * 0.42, head * 0.42),
            other,
            at=(hx - head * 0.2, head * 0.75, hz + head * 0.7),
            mirror=True,
        )
    if rng.uniform() < 0.2:
        horn = [
            (hx, head * 0.4, hz + head * 0.7),
            (hx, head * 1.1, hz + head * 1.1),
            (hx + 0.06, head * 1.2, hz + head * 1.8),
        ]
        b.add(tube(horn, [0.05, 0.04, 0.012]), plain((0.85, 0.8, 0.7)), mirror=True)
    up, tail = rng.uniform(-0.3, 0.5), rng.uniform(0.15, 0.5)
    path = [(-long * 0.9, 0, z + 0.05), (-long - tail * 0.5, 0, z + up * 0.3), (-long - tail * 0.7, 0, z + up)]
    b.add(tube(path, [0.05, 0.04, rng.uniform(0.015, 0.08)]), fur)


def bird(b: Builder, rng: Rng) -> None:
    """A standing bird: songbird, duck, penguin, owl."""
    body, wing = fabric(rng, 0.8), fabric(rng, 0.5)
    r, tall, tilt = rng.uniform(0.22, 0.3), rng.uniform(0.3, 0.45), rng.uniform(-75, -5)
    leg, head = rng.uniform(0.05, 0.4), rng.uniform(0.14, 0.22)
    z = leg + tall * (0.6 + 0.3 * (tilt < -45) * -1 + 0.25)
    b.add(ellipsoid(r, r * 0.95, tall), body, at=(0, 0, z), turn=(0, -tilt, 0))
    t = np.deg2rad(-tilt)
    neck = rng.uniform(0.0, 0.25)
    hx, hz = np.sin(t) * tall * 0.9 + 0.03, z + np.cos(t) * tall * 0.8 + head * 0.5 + neck
    b.add(capsule((np.sin(t) * tall * 0.5, 0, z + np.cos(t) * tall * 0.5), (hx, 0, hz), r * 0.5, head * 0.6), body)
    b.add(ellipsoid(head, head * 0.92, head), body if rng.uniform() < 0.6 else plain(any_color(rng)), at=(hx, 0, hz))
    orange = plain(jitter(rng, (0.95, 0.62, 0.12), 0.06))
    long = rng.uniform(0.12, 0.3)
    b.add(
        cylinder(rng.uniform(0.05, 0.09), long, 0.012),
        orange,
        at=(hx + head * 0.8 + long * 0.4, 0, hz - 0.02),
        turn=(0, 95, 0),
    )
    _eyes(b, hx + head * 0.7, head * 0.55, hz + head * 0.3, head * 0.22)
    b.add(
        ellipsoid(r * 0.45, 0.06, tall * 0.75),
        wing,
        at=(-0.04, r * 0.95, z),
        turn=(rng.uniform(-5, 25), -tilt, 0),
        mirror=True,
    )
    end = (-np.sin(t) * tall * 1.2 - 0.08, 0, z - np.cos(t) * tall * 0.9)
    b.add(box(0.3, 0.16, 0.04, 0.02), wing, at=end, turn=(0, rng.uniform(-10, 30) + 90 * (tilt > -20), 0))
    b.add(capsule((0, r * 0.4, 0.03), (0, r * 0.4, z), 0.025), orange, mirror=True)
    b.add(ellipsoid(0.11, 0.07, 0.025), orange, at=(0.05, r * 0.4, 0.02), mirror=True)


def fish(b: Builder, rng: Rng) -> None:
    """A fish with fins, swimming towards +x."""
    paint, fin = fabric(rng, 0.6), plain(vivid(rng))
    long, fat, tall = rng.uniform(0.5, 0.75), rng.uniform(0.15, 0.3), rng.uniform(0.2, 0.42)
    b.add(ellipsoid(long, fat, tall), paint)
    tail = [(0.1, 0), (-0.3, tall * rng.uniform(0.6, 1.1)), (-0.2, 0), (-0.3, -tall * rng.uniform(0.6, 1.1))]
    b.add(extrude(tail, 0.04), fin, at=(-long, 0, 0))
    b.add(extrude([(-0.3, 0), (0.25, 0), (-0.1, 0.25), (-0.32, 0.22)], 0.035), fin, at=(0, 0, tall * 0.85))
    b.add(
        extrude([(0.1, 0.05), (-0.25, 0.12), (-0.25, -0.12)], 0.03),
        fin,
        at=(0.15, fat, -0.05),
        turn=(0, 0, -35),
        mirror=True,
    )
    _eyes(b, long * 0.68, fat * 0.68, tall * 0.25, 0.06)


def person(b: Builder, rng: Rng) -> None:
    """A toy-like figure with clothes, hair and at times a hat."""
    skin, shirt, trousers = plain(jitter(rng, SKINS[rng.integers(4)], 0.03)), fabric(rng, 0.5), fabric(rng, 0.6)
    leg, torso, wide, head = (
        rng.uniform(0.3, 0.6),
        rng.uniform(0.35, 0.5),
        rng.uniform(0.16, 0.26),
        rng.uniform(0.13, 0.26),
    )
    shoulder = leg + torso
    if rng.uniform() < 0.25:
        b.add(lathe([(0, 0.08), (wide * 1.7, 0.08), (wide * 0.7, leg + 0.1)]), trousers)
    b.add(capsule((0, wide * 0.5, 0.06), (0, wide * 0.45, leg), 0.075, 0.095), trousers, mirror=True)
    b.add(box(0.22, 0.13, 0.09, 0.04), plain(any_color(rng)), at=(0.04, wide * 0.5, 0.045), mirror=True)
    if rng.uniform() < 0.5:
        b.add(box(0.24, wide * 2, torso, 0.08), shirt, at=(0, 0, leg + torso / 2))
    else:
        b.add(ellipsoid(0.16, wide, torso * 0.62), shirt, at=(0, 0, leg + torso / 2))
    lift, reach = rng.uniform(-80, 60), rng.uniform(0.32, 0.45)
    a = np.deg2rad(lift)
    hand = (rng.uniform(0, 0.25), wide + reach * np.cos(a) * 0.8, shoulder - 0.06 + reach * np.sin(a))
    b.add(capsule((0, wide * 0.95, shoulder - 0.06), hand, 0.07, 0.055), shirt, mirror=True)
    b.add(ellipsoid(0.07, 0.07, 0.07), skin, at=hand, mirror=True)
    hz = shoulder + head * 0.95
    b.add(cylinder(0.06, 0.14), skin, at=(0, 0, shoulder + 0.02))
    b.add(ellipsoid(head, head * 0.95, head * 1.08), skin, at=(0, 0, hz))
    _eyes(b, head * 0.85, head * 0.36, hz + head * 0.12, head * 0.14)
    b.add(ellipsoid(0.03, 0.03, 0.03), skin, at=(head, 0, hz - 0.03))
    top = plain(jitter(rng, FURS[rng.integers(6)], 0.05)) if rng.uniform() < 0.7 else plain(vivid(rng))
    b.add(ellipsoid(head * 1.03, head * 1.06, head), top, at=(-head * 0.16, 0, hz + head * 0.28))
    if rng.uniform() < 0.35:
        hat = fabric(rng, 0.3)
        b.add(cylinder(head * rng.uniform(1.2, 1.8), 0.03), hat, at=(0, 0, hz + head * 0.7))
        b.add(cylinder(head * 0.95, head, head * rng.uniform(0.05, 0.9)), hat, at=(0, 0, hz + head * 1.2))


def robot(b: Builder, rng: Rng) -> None:
    """Boxes and cylinders with a face, antennas, and wheels or legs."""
    main, second, glow = metal(rng) if rng.uniform() < 0.5 else plain(vivid(rng)), fabric(rng, 0.5), plain(vivid(rng))
    w, h, d, leg = rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.65), rng.uniform(0.3, 0.45), rng.uniform(0.2, 0.45)
    b.add(box(d, w, h, 0.05), main, at=(0, 0, leg + h / 2))
    b.add(box(0.04, w * 0.6, h * 0.4, 0.02), second, at=(d / 2, 0, leg + h * 0.55))
    for y in (0.0, 0.12):
        b.add(cylinder(0.035, 0.04), glow, at=(d / 2 + 0.02, y, leg + h * 0.55), turn=(0, 90, 0), mirror=y > 0)
    s, hz = rng.uniform(0.26, 0.42), leg + h + 0.08
    if rng.uniform() < 0.5:
        b.add(box(s * 0.9, s * 1.1, s * 0.85, 0.04), second if rng.uniform() < 0.4 else main, at=(0, 0, hz + s * 0.42))
    else:
        b.add(ellipsoid(s * 0.5, s * 0.58, s * 0.5), main, at=(0, 0, hz + s * 0.42))
    b.add(cylinder(0.07, 0.12), second, at=(0, 0, hz - 0.03))
    b.add(cylinder(s * 0.16, 0.05), glow, at=(s * 0.46, s * 0.25, hz + s * 0.5), turn=(0, 90, 0), mirror=True)
    b.add(box(0.04, s * 0.55, 0.035, 0.01), plain(DARK), at=(s * 0.44, 0, hz + s * 0.2))
    if rng.uniform() < 0.7:
        b.add(capsule((0, s * 0.3, hz + s * 0.8), (0, s * 0.45, hz + s * 1.3), 0.015), main, mirror=True)
        b.add(ellipsoid(0.04, 0.04, 0.04), glow, at=(0, s * 0.45, hz + s * 1.32), mirror=True)
    reach = rng.uniform(-0.3, 0.25)
    b.add(ellipsoid(0.1, 0.1, 0.1), second, at=(0, w / 2 + 0.05, leg + h * 0.85), mirror=True)
    hand = (0.22, w / 2 + 0.16, leg + h * 0.5 + reach)
    b.add(tube([(0, w / 2 + 0.06, leg + h * 0.85), (0, w / 2 + 0.2, leg + h * 0.55), hand], 0.055), main, mirror=True)
    b.add(box(0.14, 0.1, 0.12, 0.03), second, at=hand, mirror=True)
    if rng.uniform() < 0.3:
        b.add(
            cylinder(leg * 0.55, 0.12, bevel=0.03), plain(DARK), at=(0, w / 2, leg * 0.55), turn=(90, 0, 0), mirror=True
        )
        b.add(torus(leg * 0.3, 0.03), second, at=(0, w / 2 + 0.06, leg * 0.55), turn=(90, 0, 0), mirror=True)
    else:
        b.add(cylinder(0.08, leg), main, at=(0, w * 0.28, leg / 2), mirror=True)
        b.add(box(0.3, 0.2, 0.1, 0.04), second, at=(0.05, w * 0.28, 0.05), mirror=True)


BUILDERS = (quadruped, bird, fish, person, robot)
