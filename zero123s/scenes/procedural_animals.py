"""Walking and sitting animals with smooth bodies, two-tone coats among them."""

from typing import NamedTuple

import numpy as np

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.blends import Bone, Point, add_blend, ball
from zero123s.scenes.primitives import Builder, cylinder, ellipsoid, tube
from zero123s.scenes.procedural_color import DARK, WHITE, jitter, plain, vivid
from zero123s.scenes.procedural_faces import eyes

Rng = np.random.Generator
FURS = (
    (0.55, 0.38, 0.22),
    (0.82, 0.66, 0.45),
    (0.32, 0.23, 0.18),
    (0.5, 0.5, 0.52),
    (0.86, 0.5, 0.2),
    (0.93, 0.86, 0.74),
    (0.62, 0.3, 0.16),
)
PINK = (0.93, 0.66, 0.68)


class Coat(NamedTuple):
    """The paints of an animal."""

    main: Paint
    limbs: Paint
    belly: Paint
    muzzle: Paint
    ears: Paint


def coat(rng: Rng) -> Coat:
    """Return natural furs, white, grey and black ones, black and white ones, and a few of toys."""
    kind = rng.choice(6, p=[0.42, 0.12, 0.12, 0.1, 0.14, 0.1])
    white, black = plain(jitter(rng, WHITE, 0.02)), plain(jitter(rng, DARK, 0.03))
    if kind == 1:  # panda, magpie: limbs and ears of the other tone
        light, dark = (white, black) if rng.uniform() < 0.75 else (black, white)
        return Coat(light, dark, light, light if rng.uniform() < 0.6 else dark, dark)
    if kind == 2:
        return Coat(white, white, white, white, white if rng.uniform() < 0.5 else plain(PINK))
    if kind == 3:
        grey = plain(jitter(rng, (tone := float(rng.uniform(0.2, 0.75)), tone, tone), 0.01))
        return Coat(grey, grey, white if rng.uniform() < 0.5 else grey, grey, black if rng.uniform() < 0.3 else grey)
    color = FURS[rng.integers(len(FURS))] if kind < 5 else vivid(rng)
    color = jitter(rng, color, 0.04)
    pattern = str(rng.choice(["plain", "noise", "stripes", "dots"], p=[0.6, 0.16, 0.12, 0.12]))
    second = white.color if rng.uniform() < 0.35 else jitter(rng, FURS[rng.integers(len(FURS))], 0.04)
    main = Paint(color, second if kind == 4 else black.color, pattern, float(rng.uniform(3.5, 7)), (1.0, 0.0, 0.2))
    pale = plain(jitter(rng, (0.93, 0.85, 0.72), 0.04)) if rng.uniform() < 0.5 else white
    limbs = (plain(color), pale, black)[rng.choice(3, p=[0.6, 0.2, 0.2])]
    return Coat(
        main, limbs, pale if rng.uniform() < 0.6 else plain(color), pale if rng.uniform() < 0.5 else plain(color), limbs
    )


class Shape(NamedTuple):
    """Measures of a walking animal; lengths relative to a body of about 1."""

    long: float
    fat: float
    leg: float
    thick: float
    neck: tuple[float, float]
    """How far the head is in front of and above the shoulders."""
    head: float
    snout: tuple[float, float]
    """Length and radius."""
    ears: str
    tail: str


SHAPES = {
    "cat": Shape(0.62, 0.15, 0.3, 0.05, (0.12, 0.16), 0.16, (0.1, 0.07), "pointed", "long"),
    "dog": Shape(0.66, 0.17, 0.34, 0.055, (0.14, 0.22), 0.15, (0.2, 0.075), "hanging", "up"),
    "fox": Shape(0.62, 0.14, 0.3, 0.045, (0.16, 0.14), 0.14, (0.2, 0.045), "pointed", "bushy"),
    "horse": Shape(0.85, 0.2, 0.6, 0.06, (0.3, 0.42), 0.13, (0.26, 0.085), "small", "hair"),
    "cow": Shape(0.85, 0.25, 0.4, 0.065, (0.2, 0.12), 0.16, (0.2, 0.1), "side", "thin"),
    "pig": Shape(0.7, 0.25, 0.2, 0.065, (0.16, 0.04), 0.18, (0.17, 0.09), "hanging", "thin"),
    "sheep": Shape(0.6, 0.27, 0.28, 0.05, (0.16, 0.12), 0.13, (0.14, 0.08), "side", "stub"),
    "bear": Shape(0.7, 0.25, 0.3, 0.095, (0.18, 0.1), 0.18, (0.15, 0.085), "round", "stub"),
    "elephant": Shape(0.75, 0.3, 0.42, 0.1, (0.22, 0.15), 0.22, (0.1, 0.1), "fans", "thin"),
    "giraffe": Shape(0.6, 0.18, 0.65, 0.05, (0.3, 0.85), 0.11, (0.18, 0.06), "side", "thin"),
    "mouse": Shape(0.45, 0.18, 0.1, 0.04, (0.14, 0.02), 0.14, (0.15, 0.04), "round", "thin"),
    "hippo": Shape(0.75, 0.3, 0.2, 0.09, (0.22, 0.02), 0.2, (0.25, 0.15), "small", "stub"),
}


def walking(b: Builder, rng: Rng) -> None:
    """Cat, dog, fox, horse, cow, pig, sheep, bear, elephant, giraffe, mouse or hippopotamus."""
    kind = list(SHAPES)[rng.integers(len(SHAPES))]
    s, c = SHAPES[kind], coat(rng)
    if kind == "sheep" and rng.uniform() < 0.7:
        c = c._replace(
            main=Paint(WHITE, (0.82, 0.8, 0.76), "noise", 9.0), belly=Paint(WHITE, (0.82, 0.8, 0.76), "noise", 9.0)
        )
    if kind == "pig" and rng.uniform() < 0.5:
        pink = plain(jitter(rng, PINK, 0.03))
        c = Coat(pink, pink, pink, pink, pink)
    long, fat, leg, thick, head = (v * rng.uniform(0.88, 1.14) for v in (s.long, s.fat, s.leg, s.thick, s.head))
    z, x = leg + 0.75 * fat, 0.42 * long
    hx, hz = x + s.neck[0] * rng.uniform(0.8, 1.2), z + s.neck[1] * rng.uniform(0.8, 1.2) + 0.3 * fat
    sx, sr = hx + head * 0.5 + s.snout[0], s.snout[1]
    bones = [
        Bone((-x, 0, z), (x, 0, z), fat * 0.95, fat, c.main),
        Bone((-x * 0.6, 0, z - fat * 0.25), (x * 0.6, 0, z - fat * 0.25), fat * 0.83, fat * 0.83, c.belly),
        Bone((x * 0.9, 0, z + fat * 0.1), (hx, 0, hz), fat * 0.72, head * 0.62, c.main),
        ball((hx, 0, hz), head, c.main),
        Bone((hx, 0, hz - head * 0.15), (sx, 0, hz - head * 0.3), sr * 1.35, sr, c.muzzle),
    ]
    for side, swing in ((1, rng.uniform(-0.06, 0.08)), (-1, rng.uniform(-0.08, 0.06))):
        hip = (side * x * 0.85, fat * 0.55, z - fat * 0.2)
        knee = (side * x * 0.85 + swing, fat * 0.6, leg * 0.5)
        foot = (side * x * 0.85 + 0.5 * swing, fat * 0.6, thick * 0.8)
        bones += [Bone(hip, knee, thick * 1.7, thick, c.limbs if rng.uniform() < 0.3 else c.main, True)]
        bones += [Bone(knee, foot, thick, thick * 0.85, c.limbs, True)]
        bones += [Bone(foot, (foot[0] + thick * 0.6, foot[1], thick * 0.7), thick * 0.95, thick * 0.8, c.limbs, True)]
    add_blend(b, bones, smooth=0.07)
    centre, radii = (hx, 0.0, hz), (head, head, head)
    eyes(b, rng, centre, radii, aside=40, up=20, size=0.19)
    b.add(
        ellipsoid(sr * 0.35, sr * 0.55, sr * 0.4, 8, 12),
        plain(DARK),
        at=(sx + sr * 0.85, 0, hz - head * 0.3 + sr * 0.3),
    )
    _ears(b, s.ears, centre, head, c)
    _tail(b, rng, s.tail, (-x - fat * 0.8, 0.0, z + fat * 0.3), c)
    _extras(b, rng, kind, centre, head, (sx, sr), c)
    if kind == "horse":
        mane = c.ears if c.ears != c.main else plain(jitter(rng, (0.2, 0.14, 0.1), 0.03))
        b.add(
            tube(
                [
                    (x * 0.8, 0, z + fat * 1.1),
                    ((x + hx) / 2 - 0.1, 0, (z + hz) / 2 + 0.2),
                    (hx - head * 0.4, 0, hz + head * 1.1),
                ],
                [0.04, 0.06, 0.04],
            ),
            mane,
        )


def _ears(b: Builder, kind: str, at: Point, r: float, c: Coat) -> None:
    x, _, z = at
    if kind == "pointed":
        b.add(
            cylinder(r * 0.38, r * 0.85, 0.01, 12),
            c.ears,
            at=(x - r * 0.1, r * 0.55, z + r * 1.05),
            turn=(-14, 0, 0),
            mirror=True,
        )
    elif kind == "hanging":
        b.add(
            ellipsoid(r * 0.32, r * 0.14, r * 0.65),
            c.ears,
            at=(x - r * 0.1, r * 0.98, z - r * 0.05),
            turn=(10, 0, 0),
            mirror=True,
        )
    elif kind == "small":
        b.add(
            cylinder(r * 0.22, r * 0.6, 0.01, 12),
            c.main,
            at=(x - r * 0.3, r * 0.5, z + r * 1.05),
            turn=(-10, 0, 0),
            mirror=True,
        )
    elif kind == "side":
        b.add(
            ellipsoid(r * 0.16, r * 0.5, r * 0.24),
            c.ears,
            at=(x - r * 0.3, r * 1.25, z + r * 0.4),
            turn=(20, 0, 0),
            mirror=True,
        )
    elif kind == "round":
        b.add(ellipsoid(r * 0.2, r * 0.42, r * 0.42), c.ears, at=(x - r * 0.15, r * 0.75, z + r * 0.72), mirror=True)
    elif kind == "fans":
        b.add(
            ellipsoid(r * 0.12, r * 0.75, r * 0.9), c.ears, at=(x - r * 0.35, r * 1.4, z), turn=(0, 0, 25), mirror=True
        )
    else:  # long
        b.add(
            ellipsoid(r * 0.16, r * 0.26, r * 1.0),
            c.ears,
            at=(x - r * 0.15, r * 0.4, z + r * 1.5),
            turn=(-10, -8, 0),
            mirror=True,
        )


def _tail(b: Builder, rng: Rng, kind: str, at: Point, c: Coat) -> None:
    x, _, z = at
    lift = rng.uniform(-0.1, 0.25)
    if kind == "long":
        b.add(tube([at, (x - 0.18, 0, z + lift), (x - 0.22, 0, z + 0.25 + lift)], [0.035, 0.035, 0.028]), c.limbs)
    elif kind == "up":
        b.add(tube([at, (x - 0.1, 0, z + 0.1), (x - 0.12, 0, z + 0.25)], [0.04, 0.035, 0.02]), c.main)
    elif kind == "bushy":
        add_blend(
            b,
            [
                Bone((x, 0, z), (x - 0.2, 0, z - 0.02), 0.04, 0.09, c.main),
                Bone((x - 0.25, 0, z - 0.02), (x - 0.38, 0, z + 0.05), 0.085, 0.03, c.belly),
            ],
            cells=24,
        )
    elif kind == "hair":
        hair = plain(jitter(rng, (0.2, 0.14, 0.1), 0.03)) if c.ears == c.main else c.ears
        b.add(tube([at, (x - 0.1, 0, z - 0.05), (x - 0.14, 0, z - 0.4)], [0.03, 0.06, 0.03]), hair)
    elif kind == "thin":
        b.add(tube([at, (x - 0.06, 0, z - 0.12), (x - 0.07, 0, z - 0.3)], [0.022, 0.016, 0.022]), c.main)
    else:
        b.add(ellipsoid(0.06, 0.06, 0.06, 8, 12), c.ears, at=at)


def _extras(b: Builder, rng: Rng, kind: str, at: Point, r: float, snout: tuple[float, float], c: Coat) -> None:
    """Add trunk and tusks, horns, or a mane."""
    x, _, z = at
    if kind == "elephant":
        path = [
            (x + r * 0.8, 0, z - r * 0.2),
            (x + r * 1.5, 0, z - r * 0.9),
            (x + r * 1.6, 0, z - r * 1.9),
            (x + r * 2.0, 0, z - r * 2.3),
        ]
        b.add(tube(path, [r * 0.42, r * 0.3, r * 0.22, r * 0.17]), c.main)
        b.add(
            tube(
                [
                    (x + r * 0.7, r * 0.5, z - r * 0.5),
                    (x + r * 1.3, r * 0.6, z - r * 0.9),
                    (x + r * 1.7, r * 0.6, z - r * 0.7),
                ],
                [r * 0.1, r * 0.09, r * 0.02],
            ),
            plain(WHITE),
            mirror=True,
        )
    elif kind in ("cow", "giraffe") or (kind == "sheep" and rng.uniform() < 0.4):
        horn = plain((0.88, 0.83, 0.72))
        b.add(
            tube(
                [(x - r * 0.2, r * 0.4, z + r * 0.8), (x - r * 0.1, r * 0.9, z + r * 1.2), (x, r * 0.85, z + r * 1.6)],
                [r * 0.16, r * 0.12, r * 0.03],
            ),
            horn,
            mirror=True,
        )
    elif kind == "cat" and rng.uniform() < 0.25:
        b.add(ellipsoid(r * 0.6, r * 1.5, r * 1.5), c.limbs, at=(x - r * 0.45, 0, z))  # a lion's mane
    elif kind == "pig":
        b.add(
            cylinder(snout[1] * 1.1, 0.05),
            plain(jitter(rng, PINK, 0.05)),
            at=(snout[0] + snout[1] * 0.9, 0, z - r * 0.3),
            turn=(0, 90, 0),
        )


def sitting(b: Builder, rng: Rng) -> None:
    """A sitting teddy, panda, rabbit, cat or monkey, legs to the front."""
    c = coat(rng)
    kind = str(rng.choice(["round", "round", "round", "long", "pointed", "hanging"]))
    fat, tall, head = rng.uniform(0.22, 0.3), rng.uniform(0.3, 0.42), rng.uniform(0.2, 0.28)
    hz = fat * 0.7 + tall + head * 0.75
    arm, leg = rng.uniform(0.07, 0.1), rng.uniform(0.09, 0.12)
    lift, out = rng.uniform(-0.2, 0.15), rng.uniform(0.02, 0.25)
    shoulder = (0.02, fat * 0.75, fat * 0.8 + tall * 0.6)
    hand = (out, fat + 0.12, shoulder[2] - 0.15 + lift)
    foot = (fat + 0.22, fat * 0.85, leg)
    bones = [
        Bone((0, 0, fat), (0, 0, fat + tall * 0.55), fat, fat * 0.72, c.main),
        Bone((fat * 0.3, 0, fat), (fat * 0.25, 0, fat + tall * 0.4), fat * 0.78, fat * 0.6, c.belly),
        ball((0.02, 0, hz), head, c.main),
        Bone(shoulder, hand, arm, arm * 1.05, c.limbs, True),
        Bone((0.05, fat * 0.55, leg * 1.1), foot, leg * 1.1, leg, c.limbs, True),
        Bone(foot, (foot[0] + 0.01, foot[1], leg + 0.07), leg, leg * 0.8, c.limbs, True),
        Bone((head * 0.7, 0, hz - head * 0.3), (head * 0.95, 0, hz - head * 0.3), head * 0.42, head * 0.36, c.muzzle),
    ]
    if c.limbs != c.main and rng.uniform() < 0.6:  # patches round the eyes
        bones.append(ball((head * 0.72, head * 0.42, hz + head * 0.2), head * 0.38, c.limbs, True))
    add_blend(b, bones, smooth=0.05)
    centre, radii = (0.02, 0.0, hz), (head * 1.04, head * 1.04, head * 1.04)
    eyes(b, rng, centre, radii, aside=30, up=14, size=0.17)
    b.add(ellipsoid(0.04, head * 0.17, head * 0.12, 8, 12), plain(DARK), at=(head * 1.33, 0, hz - head * 0.15))
    _ears(b, kind, centre, head, c)
    if kind in ("long", "pointed"):
        _tail(b, rng, "long" if kind == "pointed" else "stub", (-fat, 0.0, fat * 0.5), c)
    if rng.uniform() < 0.3:  # a bow
        ribbon = plain(vivid(rng))
        b.add(
            ellipsoid(0.05, 0.11, 0.07, 8, 12),
            ribbon,
            at=(fat * 0.85, 0.1, hz - head * 1.02),
            turn=(20, 0, 0),
            mirror=True,
        )
        b.add(ellipsoid(0.05, 0.05, 0.05, 8, 12), ribbon, at=(fat * 0.9, 0, hz - head * 1.02))


KINDS = (walking, walking, walking, sitting, sitting)
