"""Ducks, geese and swans; penguins, owls, chicks and hens."""

import numpy as np

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.blends import Bone, add_blend, ball
from zero123s.scenes.primitives import Builder, cylinder, ellipsoid, extrude, tube
from zero123s.scenes.procedural_animals import FURS
from zero123s.scenes.procedural_color import DARK, WHITE, any_color, jitter, plain, vivid
from zero123s.scenes.procedural_faces import eyes

Rng = np.random.Generator
BEAK = (0.96, 0.62, 0.14)


def waterfowl(b: Builder, rng: Rng) -> None:
    """A duck, goose, swan or rubber duck with a tail that points up."""
    yellow = plain(jitter(rng, (0.98, 0.82, 0.16), 0.03))
    white = plain(jitter(rng, WHITE, 0.02))
    brown = Paint(jitter(rng, (0.5, 0.38, 0.26), 0.05), (0.36, 0.27, 0.2), "noise", 7.0)
    body = (yellow, white, brown, plain(any_color(rng)))[rng.choice(4, p=[0.35, 0.3, 0.2, 0.15])]
    head_paint = plain((0.1, 0.38, 0.24)) if body is brown and rng.uniform() < 0.7 else body
    wing = body if rng.uniform() < 0.5 else plain(jitter(rng, body.color, 0.08))
    long, fat, neck, head = (
        rng.uniform(0.3, 0.42),
        rng.uniform(0.22, 0.28),
        rng.uniform(0.05, 0.45),
        rng.uniform(0.14, 0.2),
    )
    z = fat + (0.22 if rng.uniform() < 0.35 else 0.0)
    hx, hz = long * 0.75, z + fat * 0.75 + neck + head * 0.6
    bones = [
        Bone((-long * 0.7, 0, z), (long * 0.6, 0, z - 0.02), fat * 0.72, fat, body),
        Bone((-long * 0.8, 0, z + 0.05), (-long * 1.35, 0, z + rng.uniform(0.15, 0.28)), fat * 0.5, 0.035, body),
        Bone((long * 0.6, 0, z + fat * 0.3), (hx, 0, hz), fat * 0.5, head * 0.6, body if neck < 0.2 else head_paint),
        ball((hx, 0, hz), head, head_paint),
        Bone(
            (-long * 0.75, fat * 0.78, z + fat * 0.3),
            (long * 0.25, fat * 0.8, z + fat * 0.15),
            0.04,
            fat * 0.38,
            wing,
            True,
        ),
    ]
    add_blend(b, bones, smooth=0.06)
    beak = plain(jitter(rng, BEAK, 0.04))
    b.add(
        ellipsoid(head * 0.62, head * 0.45, head * 0.15, 8, 16),
        beak,
        at=(hx + head * 1.25, 0, hz - head * 0.12),
        turn=(0, -6, 0),
    )
    b.add(
        ellipsoid(head * 0.5, head * 0.38, head * 0.1, 8, 16),
        beak,
        at=(hx + head * 1.15, 0, hz - head * 0.28),
        turn=(0, 10, 0),
    )
    eyes(b, rng, (hx, 0.0, hz), (head,) * 3, aside=48, up=22, size=0.2)
    if z > fat:
        b.add(tube([(0, fat * 0.4, z - fat * 0.8), (0, fat * 0.4, 0.03)], 0.03), beak, mirror=True)
        b.add(
            extrude([(-0.05, 0), (0.16, -0.09), (0.19, 0), (0.16, 0.09)], 0.03),
            beak,
            at=(0.02, fat * 0.4, 0.015),
            turn=(90, 0, 0),
            mirror=True,
        )


def upright_bird(b: Builder, rng: Rng) -> None:
    """A penguin, owl, chick, parrot or hen: back and wings of one tone, belly of another."""
    kind = rng.integers(4)
    back = (
        plain(jitter(rng, DARK, 0.03))
        if kind == 0
        else plain(jitter(rng, FURS[rng.integers(6)], 0.04))
        if kind == 1
        else plain(vivid(rng))
    )
    belly = (
        plain(WHITE)
        if kind == 0
        else Paint(jitter(rng, (0.9, 0.8, 0.62), 0.04), back.color, "dots" if rng.uniform() < 0.5 else "plain", 9.0)
    )
    if kind == 2:
        back = belly = plain(jitter(rng, (0.98, 0.85, 0.3), 0.04) if rng.uniform() < 0.6 else WHITE)
    fat, tall, head = rng.uniform(0.2, 0.27), rng.uniform(0.28, 0.5), rng.uniform(0.17, 0.22)
    hz = 0.05 + fat + tall + head * 0.4
    lift = rng.uniform(0, 0.25)
    bones = [
        Bone((-0.03, 0, fat + 0.04), (0, 0, fat + tall * 0.75), fat, fat * 0.8, back),
        Bone((fat * 0.3, 0, fat + 0.06), (fat * 0.32, 0, fat + tall * 0.65), fat * 0.8, fat * 0.6, belly),
        ball((0.03, 0, hz), head, back),
        Bone(
            (0, fat * 0.85, fat + tall * 0.75),
            (-0.03, fat * 1.05 + lift, fat * 0.6 + lift * 0.6),
            0.08,
            0.035,
            back,
            True,
        ),
        Bone((-fat * 0.8, 0, fat * 0.7), (-fat - 0.12, 0, 0.1), 0.09, 0.03, back),
    ]
    if kind < 2:
        bones.append(ball((head * 0.5, head * 0.4, hz), head * 0.6, belly, True))
    add_blend(b, bones, smooth=0.05)
    beak = plain(jitter(rng, BEAK, 0.05))
    b.add(
        cylinder(head * 0.3, head * rng.uniform(0.5, 1), 0.01, 14),
        beak,
        at=(head * 1.2, 0, hz - head * 0.1),
        turn=(0, 100, 0),
    )
    eyes(b, rng, (0.03, 0.0, hz), (head,) * 3, aside=34, up=14, size=0.3 if kind == 1 else 0.18)
    b.add(ellipsoid(0.13, 0.08, 0.04, 8, 12), beak, at=(0.12, fat * 0.5, 0.035), mirror=True)
    if kind == 1:
        b.add(
            cylinder(0.05, 0.13, 0.005, 10), back, at=(0.03, head * 0.6, hz + head * 0.9), turn=(-22, 0, 0), mirror=True
        )
    if kind == 3:
        for i in range(3):
            b.add(
                ellipsoid(0.06, 0.025, 0.06, 8, 10), plain((0.86, 0.14, 0.14)), at=(0.08 - 0.07 * i, 0, hz + head * 1.0)
            )


KINDS = (waterfowl, upright_bird)
