"""Fish, whales, turtles, frogs, snails, insects, dinosaurs, snakes, octopuses."""

import numpy as np

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.blends import Bone, add_blend, ball
from zero123s.scenes.primitives import Builder, cylinder, ellipsoid, extrude, torus, tube
from zero123s.scenes.procedural_animals import Coat, coat
from zero123s.scenes.procedural_color import DARK, WHITE, any_color, fabric, jitter, plain, soft, vivid
from zero123s.scenes.procedural_faces import eyes, mouth

Rng = np.random.Generator


def sea_fish(b: Builder, rng: Rng) -> None:
    """A flat fish with fins and stripes, belly paler than the back."""
    main = Paint(
        any_color(rng),
        any_color(rng),
        str(rng.choice(["plain", "stripes", "noise"])),
        rng.uniform(2, 5),
        (1.0, 0.0, 0.0),
    )
    belly = plain(jitter(rng, WHITE, 0.03)) if rng.uniform() < 0.6 else plain(soft(rng))
    fin = plain(vivid(rng)) if rng.uniform() < 0.7 else plain(main.color)
    long, tall, thin = rng.uniform(0.35, 0.55), rng.uniform(0.2, 0.4), rng.uniform(0.4, 0.7)
    bones = [
        Bone((-long * 0.5, 0, 0), (long * 0.35, 0, 0), tall * 0.5, tall, main),
        Bone((-long * 0.5, 0, 0), (-long * 1.15, 0, 0), tall * 0.45, 0.06, main),
        Bone((-long * 0.3, 0, -tall * 0.35), (long * 0.4, 0, -tall * 0.3), tall * 0.4, tall * 0.68, belly),
        Bone((long * 0.5, 0, 0), (long * 0.5 + tall * 0.6, 0, -0.02), tall * 0.7, tall * 0.25, main),
    ]
    add_blend(b, bones, smooth=0.08, scale=(1.0, thin, 1.0))
    spread = tall * rng.uniform(0.7, 1.2)
    tail = [(0.06, 0), (-0.25, spread), (-0.3, spread * 0.8), (-0.16, 0), (-0.3, -spread * 0.8), (-0.25, -spread)]
    b.add(extrude(tail, 0.03), fin, at=(-long * 1.2, 0, 0))
    b.add(extrude([(-0.3, 0), (0.2, 0), (0.0, 0.2), (-0.32, 0.16)], 0.03), fin, at=(0, 0, tall * 0.86))
    b.add(extrude([(-0.15, 0), (0.1, 0), (-0.18, -0.15)], 0.03), fin, at=(0, 0, -tall * 0.82))
    b.add(
        extrude([(0.1, 0.04), (-0.2, 0.1), (-0.2, -0.08)], 0.025),
        fin,
        at=(long * 0.2, tall * thin, -tall * 0.2),
        turn=(0, 0, -35),
        mirror=True,
    )
    b.add(
        ellipsoid(0.06, 0.03, 0.06, 8, 12),
        plain(WHITE),
        at=(long * 0.55 + tall * 0.2, tall * thin * 0.62, tall * 0.18),
        mirror=True,
    )
    b.add(
        ellipsoid(0.035, 0.03, 0.035, 8, 12),
        plain(DARK),
        at=(long * 0.56 + tall * 0.22, tall * thin * 0.7, tall * 0.18),
        mirror=True,
    )


def whale(b: Builder, rng: Rng) -> None:
    """A whale, dolphin or shark: dark above, white below."""
    back = plain(jitter(rng, ((0.25, 0.38, 0.55), (0.13, 0.13, 0.15), (0.5, 0.54, 0.58))[rng.integers(3)], 0.04))
    belly = plain(jitter(rng, WHITE, 0.03))
    long, fat = rng.uniform(0.5, 0.7), rng.uniform(0.18, 0.32)
    up = rng.uniform(-0.05, 0.3)
    bones = [
        Bone((-long * 0.3, 0, 0), (long * 0.6, 0, 0), fat * 0.8, fat, back),
        Bone((-long * 0.3, 0, 0), (-long * 1.2, 0, up), fat * 0.75, 0.05, back),
        Bone((-long * 0.4, 0, -fat * 0.35), (long * 0.62, 0, -fat * 0.3), fat * 0.55, fat * 0.78, belly),
        Bone(
            (long * 0.7, 0, -0.02),
            (long * 0.7 + fat * rng.uniform(0.5, 1.4), 0, -fat * 0.2),
            fat * 0.8,
            fat * 0.3,
            back,
        ),
        Bone((0.1, fat * 0.8, -fat * 0.3), (-0.15, fat + 0.25, -fat * 0.7), 0.07, 0.03, back, True),
        Bone((-long * 1.15, 0.02, up), (-long * 1.4, 0.26, up + 0.06), 0.05, 0.025, back, True),
        Bone((-0.05, 0, fat * 0.7), (-0.2, 0, fat + 0.18), 0.09, 0.02, back),
    ]
    add_blend(b, bones, smooth=0.06)
    eyes(b, rng, (long * 0.6, 0.0, 0.0), (fat,) * 3, aside=62, up=8, size=0.14)


def turtle(b: Builder, rng: Rng) -> None:
    """A turtle or ladybird: a domed shell over a small body."""
    skin = plain(jitter(rng, (0.42, 0.6, 0.3), 0.08)) if rng.uniform() < 0.7 else plain(any_color(rng))
    shell = (
        fabric(rng, 0.6)
        if rng.uniform() < 0.5
        else Paint(jitter(rng, (0.45, 0.32, 0.16), 0.05), (0.3, 0.22, 0.12), "checks", 5.0)
    )
    r, tall = rng.uniform(0.4, 0.5), rng.uniform(0.28, 0.42)
    b.add(ellipsoid(r, r * 0.88, tall, 16, 28), shell, at=(0, 0, 0.16))
    b.add(ellipsoid(r * 1.08, r * 0.96, 0.07, 8, 28), skin, at=(0, 0, 0.16))
    hx, hz = r + 0.2, 0.24 + rng.uniform(0, 0.15)
    bones = [Bone((r * 0.5, 0, 0.14), (hx, 0, hz), 0.09, 0.09, skin), ball((hx + 0.03, 0, hz), 0.13, skin)]
    bones += [
        Bone((x * r * 0.6, r * 0.5, 0.12), (x * r * 0.85, r * 0.85, 0.06), 0.09, 0.08, skin, True) for x in (-1, 1)
    ]
    bones += [Bone((-r * 0.8, 0, 0.12), (-r - 0.16, 0, 0.06), 0.07, 0.015, skin)]
    add_blend(b, bones, smooth=0.05)
    eyes(b, rng, (hx + 0.03, 0.0, hz), (0.13,) * 3, aside=42, up=20, size=0.26)


def frog(b: Builder, rng: Rng) -> None:
    """A sitting frog with bulging eyes."""
    green = Paint(
        jitter(rng, (0.36, 0.65, 0.22), 0.1),
        jitter(rng, (0.2, 0.42, 0.14), 0.05),
        str(rng.choice(["plain", "dots", "noise"])),
        6.0,
    )
    belly = plain(jitter(rng, (0.92, 0.92, 0.72), 0.04))
    r = rng.uniform(0.26, 0.34)
    bones = [
        Bone((-r * 0.5, 0, r * 0.9), (r * 0.5, 0, r * 1.35), r * 0.9, r * 0.85, green),
        Bone((r * 0.1, 0, r * 0.7), (r * 0.75, 0, r * 1.15), r * 0.7, r * 0.62, belly),
        Bone((-r * 0.6, r * 0.7, r * 0.5), (r * 0.25, r * 1.35, r * 0.55), r * 0.42, r * 0.22, green, True),
        Bone((r * 0.25, r * 1.35, r * 0.5), (-r * 0.4, r * 1.35, 0.05), r * 0.2, r * 0.14, green, True),
        Bone((-r * 0.4, r * 1.35, 0.05), (r * 0.2, r * 1.5, 0.04), r * 0.15, r * 0.12, green, True),
        Bone((r * 0.55, r * 0.6, r * 0.9), (r * 0.9, r * 0.75, 0.05), r * 0.2, r * 0.14, green, True),
        ball((r * 0.5, r * 0.52, r * 2.1), r * 0.34, green, True),
    ]
    add_blend(b, bones, smooth=0.06)
    b.add(ellipsoid(r * 0.24, r * 0.24, r * 0.26, 8, 14), plain(WHITE), at=(r * 0.68, r * 0.56, r * 2.14), mirror=True)
    b.add(ellipsoid(r * 0.13, r * 0.13, r * 0.17, 8, 12), plain(DARK), at=(r * 0.84, r * 0.58, r * 2.14), mirror=True)
    mouth(b, rng, (r * 0.5, 0.0, r * 1.35), (r * 0.88,) * 3, down=4)


def snail(b: Builder, rng: Rng) -> None:
    """A snail with a coiled shell."""
    skin, shell = plain(jitter(rng, (0.78, 0.66, 0.48), 0.07)), fabric(rng, 0.4)
    t = np.linspace(0, 5 * np.pi, 46)
    radius = 0.3 * (1 - t / t[-1] * 0.85)
    path = np.stack([-0.05 + radius * np.sin(t), 0.02 * t / np.pi, 0.42 + radius * np.cos(t)], -1)
    b.add(tube(path, 0.15 * (1 - t / t[-1] * 0.8), 12), shell)
    b.add(tube(path * [1, -1, 1], 0.15 * (1 - t / t[-1] * 0.8), 12), shell)
    bones = [
        Bone((-0.6, 0, 0.04), (0.4, 0, 0.08), 0.03, 0.11, skin),
        Bone((0.4, 0, 0.08), (0.58, 0, 0.36), 0.11, 0.1, skin),
        Bone((0.6, 0.05, 0.42), (0.66, 0.12, 0.62), 0.025, 0.02, skin, True),
    ]
    add_blend(b, bones, smooth=0.05)
    b.add(ellipsoid(0.045, 0.045, 0.045, 8, 12), plain(DARK), at=(0.67, 0.12, 0.64), mirror=True)


def insect(b: Builder, rng: Rng) -> None:
    """A butterfly, bee or dragonfly with thin wings."""
    body = (
        Paint((0.96, 0.78, 0.15), DARK, "stripes", 6.0, (1.0, 0.0, 0.0))
        if rng.uniform() < 0.5
        else plain(any_color(rng))
    )
    wing = fabric(rng, 0.3) if rng.uniform() < 0.6 else plain(jitter(rng, (0.85, 0.9, 0.95), 0.03))
    fat = rng.uniform(0.06, 0.18)
    bones = [
        Bone((-0.45, 0, 0), (0.15, 0, 0), fat * 0.6, fat, body),
        ball((0.15 + fat * 1.3, 0, 0.02), fat * 0.85, plain(DARK)),
    ]
    add_blend(b, bones, smooth=0.03)
    raised = rng.uniform(0, 55)
    a = np.deg2rad(raised)
    for x, long, wide in (
        (0.12, rng.uniform(0.45, 0.7), rng.uniform(0.2, 0.3)),
        (-0.15, rng.uniform(0.3, 0.5), rng.uniform(0.15, 0.25)),
    ):
        at = (x, 0.9 * long * np.cos(a) + fat * 0.4, 0.9 * long * np.sin(a) + fat * 0.6)
        b.add(ellipsoid(wide, long, 0.012, 8, 24), wing, at=at, turn=(raised, 0, 0), mirror=True)
    head = 0.15 + fat * 1.3
    b.add(
        tube([(head, 0.03, fat), (head + 0.15, 0.08, fat + 0.16), (head + 0.22, 0.1, fat + 0.16)], 0.012),
        plain(DARK),
        mirror=True,
    )
    for x in (-0.1, 0.03, 0.14):
        b.add(
            tube([(x, fat * 0.6, -fat * 0.5), (x, fat + 0.1, -fat), (x, fat + 0.12, -fat - 0.15)], 0.012),
            plain(DARK),
            mirror=True,
        )


def dinosaur(b: Builder, rng: Rng) -> None:
    """A dinosaur, dragon or crocodile: long tail, plates on the back."""
    c = coat(rng)
    green = Paint(
        vivid(rng), any_color(rng), str(rng.choice(["plain", "stripes", "dots"])), rng.uniform(3, 6), (1.0, 0.0, 0.0)
    )
    c = (
        Coat(green, plain(green.color), plain(soft(rng)), plain(green.color), plain(vivid(rng)))
        if rng.uniform() < 0.8
        else c
    )
    tall = rng.uniform() < 0.5
    z, head = (0.55, 0.17) if tall else (0.35, 0.15)
    neck = rng.uniform(0.1, 0.3) if tall else rng.uniform(0.0, 0.5)
    hx, hz = (0.28, z + 0.3 + neck) if tall else (0.5 + neck * 0.4, z + 0.1 + neck)
    up = rng.uniform(-0.2, 0.2)
    bones = [
        Bone((-0.2, 0, z - 0.08), (0.16, 0, z + (0.12 if tall else 0)), 0.22, 0.2, c.main),
        Bone((-0.08, 0, z - 0.12), (0.2, 0, z + (0.06 if tall else -0.05)), 0.18, 0.17, c.belly),
        Bone((-0.25, 0, z - 0.1), (-0.65, 0, z * 0.5), 0.17, 0.08, c.main),
        Bone((-0.65, 0, z * 0.5), (-1.0, 0, z * 0.5 + up), 0.08, 0.02, c.main),
        Bone((0.16, 0, z + 0.1), (hx, 0, hz), 0.15, 0.1, c.main),
        ball((hx, 0, hz), head, c.main),
        Bone((hx + 0.05, 0, hz - 0.05), (hx + 0.3, 0, hz - 0.08), 0.11, 0.075, c.muzzle),
        Bone((-0.18, 0.14, z - 0.1), (-0.12, 0.2, 0.08), 0.12, 0.07, c.limbs, True),
        Bone((-0.12, 0.2, 0.06), (-0.02, 0.21, 0.05), 0.07, 0.05, c.limbs, True),
    ]
    if tall:
        bones.append(Bone((0.22, 0.14, z + 0.14), (0.4, 0.17, z + 0.02), 0.055, 0.035, c.limbs, True))
    else:
        bones.append(Bone((0.2, 0.14, z - 0.05), (0.24, 0.2, 0.06), 0.1, 0.065, c.limbs, True))
    add_blend(b, bones, smooth=0.07)
    eyes(b, rng, (hx, 0.0, hz), (head,) * 3, aside=48, up=25, size=0.2)
    if rng.uniform() < 0.7:
        path = np.array(
            [
                (hx - 0.08, hz + head * 0.8),
                (0.02, z + 0.28),
                (-0.25, z + 0.12),
                (-0.5, z * 0.7 + 0.1),
                (-0.75, z * 0.5 + 0.1),
            ]
        )
        for x, top in path:
            b.add(extrude([(-0.09, -0.04), (0.09, -0.04), (-0.02, 0.13)], 0.04), c.ears, at=(x, 0, top))


def snake(b: Builder, rng: Rng) -> None:
    """A coiled snake, or a worm or caterpillar in a row of balls."""
    paint = fabric(rng, 0.4)
    if rng.uniform() < 0.5:
        t = np.linspace(0, rng.uniform(3.5, 5.5) * np.pi, 60)
        r = 0.42 - 0.02 * t
        path = np.stack([r * np.cos(t), r * np.sin(t), 0.07 + 0.035 * t / np.pi * 2], -1)
        path = np.concatenate([path, path[-1] + [[0.02, 0.02, 0.12], [0.12, 0.0, 0.3], [0.22, 0, 0.38]]])
        b.add(tube(path, np.linspace(0.03, 0.08, len(path)), 12), paint)
        x, y, z = path[-1]
        b.add(ellipsoid(0.15, 0.1, 0.08), paint, at=(x + 0.05, y, z))
        for side in (-1, 1):
            b.add(ellipsoid(0.028, 0.028, 0.028, 8, 10), plain(DARK), at=(x + 0.12, y + side * 0.07, z + 0.05))
        return
    second, n = plain(vivid(rng)), int(rng.integers(4, 7))
    for i in range(n):
        at = (0.55 - 0.26 * i, 0, 0.2 + 0.1 * (i == 0) + 0.05 * np.cos(2.2 * i))
        b.add(ellipsoid(0.18, 0.18, 0.18), paint if i % 2 else second, at=at)
        b.add(cylinder(0.04, 0.12), plain(DARK), at=(at[0], 0.1, 0.05), mirror=True)
    eyes(b, rng, (0.55, 0.0, 0.35), (0.18,) * 3, aside=32, up=15, size=0.22)
    mouth(b, rng, (0.55, 0.0, 0.35), (0.18,) * 3)
    b.add(tube([(0.55, 0.05, 0.5), (0.57, 0.1, 0.68)], 0.015), plain(DARK), mirror=True)


def octopus(b: Builder, rng: Rng) -> None:
    """An octopus, jellyfish or spider: a round body and eight arms."""
    skin = plain(any_color(rng)) if rng.uniform() < 0.7 else fabric(rng, 0.4)
    r, spider = rng.uniform(0.24, 0.32), rng.uniform() < 0.3
    z = 0.35 if not spider else 0.25
    b.add(ellipsoid(r, r, r * rng.uniform(0.9, 1.35)), skin, at=(0, 0, z + r * 0.6))
    bend, reach = rng.uniform(0.05, 0.3), rng.uniform(0.45, 0.7)
    for k in range(4):
        a = np.deg2rad(22.5 + 45 * k)
        direction = np.array([np.cos(a), np.sin(a), 0])
        if spider:
            path = [
                direction * r * 0.6 + [0, 0, z],
                direction * reach * 0.6 + [0, 0, z + 0.3],
                direction * reach + [0, 0, 0],
            ]
            b.add(tube(path, [0.04, 0.03, 0.02]), skin, mirror=True)
        else:
            path = [
                direction * r * 0.5 + [0, 0, z],
                direction * r + [0, 0, 0.12],
                direction * (r + reach * 0.5) + [0, 0, 0.05],
                direction * (r + reach * 0.75) + [0, 0, bend],
            ]
            b.add(tube(path, [0.12, 0.09, 0.06, 0.025]), skin, mirror=True)
    eyes(b, rng, (0.0, 0.0, z + r * 0.6), (r,) * 3, aside=26, up=8, size=0.26)
    mouth(b, rng, (0.0, 0.0, z + r * 0.6), (r,) * 3, down=-25)
    if rng.uniform() < 0.15:
        b.add(torus(r * 0.8, 0.05), plain(vivid(rng)), at=(0, 0, z + r * 1.2))


KINDS = (sea_fish, whale, turtle, frog, snail, insect, dinosaur, snake, octopus)
