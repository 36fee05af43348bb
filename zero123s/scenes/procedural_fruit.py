"""Fruit and vegetables."""

import numpy as np

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.blends import Bone, add_blend
from zero123s.scenes.primitives import Builder, capsule, cylinder, ellipsoid, lathe, tube
from zero123s.scenes.procedural_color import jitter, plain

Rng = np.random.Generator


def orchard_fruit(b: Builder, rng: Rng) -> None:
    """Bananas, a strawberry, grapes, cherries, an avocado or melon."""
    kind, green = rng.integers(5), plain(jitter(rng, (0.28, 0.52, 0.2), 0.06))
    if kind == 0:
        t = np.linspace(-1.1, 1.1, 14)
        yellow = plain(jitter(rng, (0.97, 0.84, 0.22), 0.03))
        for k in range(int(rng.integers(1, 4))):
            path = np.stack([0.13 * k + 0.0 * t, 0.6 * np.sin(t), 0.75 - 0.6 * np.cos(t)], -1)
            b.add(tube(path, np.concatenate([[0.03, 0.05], np.full(10, 0.1), [0.07, 0.03]]), 7), yellow)
        b.add(capsule((0, 0.53, 0.48), (0, 0.58, 0.62), 0.03), plain((0.4, 0.32, 0.12)))
    elif kind == 1:
        profile = [(0, 0), (0.12, 0.04), (0.28, 0.3), (0.33, 0.5), (0.25, 0.62), (0, 0.64)]
        red = lathe(profile, 32, 180)
        b.add(red, Paint(jitter(rng, (0.86, 0.12, 0.14), 0.03), (0.97, 0.85, 0.45), "dots", 9.0))
        for k in range(7):
            a = 2 * np.pi * k / 7
            b.add(
                ellipsoid(0.14, 0.05, 0.02, 8, 12),
                green,
                at=(0.13 * np.cos(a), 0.13 * np.sin(a), 0.66),
                turn=(0, 12, np.rad2deg(a)),
            )
    elif kind == 2:
        paint = plain(jitter(rng, ((0.4, 0.16, 0.42), (0.6, 0.75, 0.3))[rng.integers(2)], 0.04))
        for k in range(22):
            level, a = k // 5, 2.4 * k
            s = 0.24 * (1 - level / 6)
            b.add(ellipsoid(0.12, 0.12, 0.13, 8, 14), paint, at=(s * np.cos(a), s * np.sin(a), 0.75 - 0.16 * level))
        b.add(tube([(0, 0, 0.8), (0.02, 0, 1.0), (0.1, 0, 1.08)], 0.025, 8), plain((0.42, 0.3, 0.15)))
    elif kind == 3:
        red = plain(jitter(rng, (0.75, 0.08, 0.12), 0.04))
        b.add(ellipsoid(0.2, 0.2, 0.19), red, at=(0, 0.24, 0.2), mirror=True)
        b.add(tube([(0, 0.24, 0.36), (0.03, 0.16, 0.6), (0, 0, 0.85)], 0.02, 8), green, mirror=True)
        b.add(ellipsoid(0.2, 0.1, 0.02, 8, 14), green, at=(0.14, 0, 0.86), turn=(0, -20, 0))
    else:
        outer, inner = (
            ((0.2, 0.3, 0.12), (0.86, 0.86, 0.5))
            if rng.uniform() < 0.5
            else (jitter(rng, (0.9, 0.6, 0.15)), (0.98, 0.86, 0.5))
        )
        b.add(ellipsoid(0.3, 0.38, 0.5), plain(outer), at=(-0.02, 0, 0.5))
        b.add(ellipsoid(0.28, 0.33, 0.45), plain(inner), at=(0.06, 0, 0.5))
        b.add(ellipsoid(0.16, 0.17, 0.17), plain((0.45, 0.26, 0.12)), at=(0.24, 0, 0.42))


def vegetable(b: Builder, rng: Rng) -> None:
    """A carrot, aubergine or courgette, pepper or corn cob."""
    kind, green = rng.integers(4), plain(jitter(rng, (0.28, 0.52, 0.2), 0.06))
    (_carrot, _aubergine, _pepper, _corn)[kind](b, rng, green)


def _carrot(b: Builder, rng: Rng, green: Paint) -> None:
    b.add(
        lathe([(0, 0), (0.03, 0.05), (0.12, 0.6), (0.14, 0.8), (0, 0.88)], 24, 180),
        Paint(jitter(rng, (0.95, 0.5, 0.12), 0.04), (0.85, 0.4, 0.08), "stripes", 5),
    )
    for k in range(6):
        a = 2.4 * k
        b.add(
            tube(
                [
                    (0, 0, 0.85),
                    (0.06 * np.cos(a), 0.06 * np.sin(a), 1.0),
                    (0.16 * np.cos(a), 0.16 * np.sin(a), 1.2),
                ],
                [0.02, 0.04, 0.015],
                8,
            ),
            green,
        )


def _aubergine(b: Builder, rng: Rng, green: Paint) -> None:
    """An aubergine, or a courgette, green or yellow."""
    color = jitter(rng, ((0.28, 0.12, 0.32), (0.35, 0.62, 0.25), (0.85, 0.7, 0.2))[rng.integers(3)], 0.04)
    add_blend(
        b,
        [
            Bone((0, 0, 0.25), (0.04, 0, 0.65), 0.25, 0.15, plain(color)),
            Bone((0.04, 0, 0.65), (0.1, 0, 0.85), 0.14, 0.1, plain(color)),
        ],
        smooth=0.1,
    )
    b.add(cylinder(0.12, 0.07, 0.05), green, at=(0.12, 0, 0.94), turn=(0, 20, 0))
    b.add(tube([(0.12, 0, 0.95), (0.16, 0, 1.06), (0.22, 0, 1.1)], 0.03, 8), green)


def _pepper(b: Builder, rng: Rng, green: Paint) -> None:
    skin = plain(jitter(rng, ((0.85, 0.15, 0.1), (0.95, 0.75, 0.12), (0.25, 0.55, 0.15))[rng.integers(3)], 0.04))
    bones = [
        Bone(
            (0.15 * np.cos(a), abs(0.15 * np.sin(a)), 0.2),
            (0.17 * np.cos(a), abs(0.17 * np.sin(a)), 0.55),
            0.14,
            0.17,
            skin,
            True,
        )
        for a in np.deg2rad([45, 135])
    ]
    add_blend(b, bones, smooth=0.08)
    b.add(tube([(0, 0, 0.62), (0.01, 0, 0.75), (0.06, 0, 0.85)], 0.04, 8), green)


def _corn(b: Builder, rng: Rng, green: Paint) -> None:
    b.add(
        lathe([(0, 0), (0.14, 0.1), (0.17, 0.4), (0.13, 0.75), (0, 0.95)], 28, 180),
        Paint((0.97, 0.82, 0.25), (0.9, 0.68, 0.12), "checks", 13.0),
    )
    for a in range(0, 360, 90):
        t = np.deg2rad(a + 45)
        b.add(
            ellipsoid(0.04, 0.14, 0.42, 10, 14),
            green,
            at=(0.15 * np.cos(t), 0.15 * np.sin(t), 0.3),
            turn=(0, 12, a + 45),
        )


KINDS = (orchard_fruit, vegetable)
