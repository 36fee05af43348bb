"""Buildings, plants, musical instruments, electronics and random assemblies of primitives."""

import numpy as np

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.primitives import Builder, Solid, box, capsule, cylinder, ellipsoid, extrude, lathe, torus, tube
from zero123s.scenes.procedural_color import (
    DARK,
    WHITE,
    any_color,
    fabric,
    jitter,
    metal,
    plain,
    soft,
    surface,
    vivid,
    wood,
)

Rng = np.random.Generator
LEAF = (0.25, 0.5, 0.2)


def house(b: Builder, rng: Rng) -> None:
    """Walls, gable or hip roof, door, windows, chimney."""
    wall, roof = fabric(rng, 0.8) if rng.uniform() < 0.4 else plain(soft(rng)), fabric(rng, 0.6)
    x, y, h, tall = rng.uniform(0.6, 1.0), rng.uniform(0.7, 1.2), rng.uniform(0.4, 0.8), rng.uniform(0.25, 0.6)
    b.add(box(x, y, h, 0.01), wall, at=(0, 0, h / 2))
    if rng.uniform() < 0.6:
        gable = [(-y / 2 - 0.08, 0), (y / 2 + 0.08, 0), (0, tall)]
        b.add(extrude(gable, x + 0.12), roof, at=(0, 0, h), turn=(0, 0, 90))
    else:
        cone = cylinder(1, tall, 0.02, 4)
        v = cone.vertices @ np.array([[np.sqrt(0.5), np.sqrt(0.5), 0], [-np.sqrt(0.5), np.sqrt(0.5), 0], [0, 0, 1]])
        v = v * [x / 1.3, y / 1.3, 1]
        flat = v[cone.faces].reshape(-1, 3)
        normals = np.cross(flat[1::3] - flat[::3], flat[2::3] - flat[::3])
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
        b.add(Solid(flat, np.arange(len(flat)).reshape(-1, 3), normals.repeat(3, 0)), roof, at=(0, 0, h + tall / 2))
    b.add(box(0.03, 0.16, h * 0.55, 0.01), plain(any_color(rng)), at=(x / 2, 0, h * 0.28))
    glass = plain((0.5, 0.65, 0.78))
    b.add(box(0.03, 0.16, h * 0.3, 0.01), glass, at=(x / 2, y * 0.3, h * 0.6), mirror=True)
    b.add(box(x * 0.25, 0.03, h * 0.3, 0.01), glass, at=(0, y / 2, h * 0.6), mirror=True)
    if rng.uniform() < 0.6:
        b.add(box(0.12, 0.12, tall + 0.15, 0.01), Paint((0.65, 0.3, 0.22)), at=(-x * 0.2, y * 0.25, h + tall * 0.6))
    b.add(box(x + 0.3, y + 0.3, 0.05, 0.02), plain(jitter(rng, (0.5, 0.62, 0.4), 0.08)))


def tower(b: Builder, rng: Rng) -> None:
    """A castle tower, lighthouse, skyscraper or church."""
    wall, roof, kind = fabric(rng, 0.6), plain(vivid(rng)), rng.integers(4)
    h = rng.uniform(0.9, 1.4)
    if kind == 0:
        r = rng.uniform(0.22, 0.35)
        b.add(cylinder(r, h, r * 0.9, 28), wall, at=(0, 0, h / 2))
        for i in range(8):
            a = np.pi * i / 4
            b.add(
                box(0.12, 0.1, 0.14, 0.01),
                wall,
                at=(r * 0.95 * np.cos(a), r * 0.95 * np.sin(a), h + 0.05),
                turn=(0, 0, 45 * i),
            )
        if rng.uniform() < 0.6:
            b.add(cylinder(r, 0.5, 0.01, 28), roof, at=(0, 0, h + 0.25))
        b.add(box(0.05, 0.16, 0.3, 0.02), plain(DARK), at=(r * 0.98, 0, 0.15))
    elif kind == 1:
        b.add(cylinder(0.3, h, 0.18, 32), Paint((0.9, 0.9, 0.88), roof.color, "stripes", 2.2), at=(0, 0, h / 2))
        b.add(cylinder(0.26, 0.05), plain(DARK), at=(0, 0, h))
        b.add(cylinder(0.13, 0.2), plain((1.0, 0.93, 0.6)), at=(0, 0, h + 0.1))
        b.add(cylinder(0.2, 0.18, 0.01), roof, at=(0, 0, h + 0.28))
    elif kind == 2:
        w = rng.uniform(0.3, 0.5)
        for i in range(rng.integers(1, 4)):
            k = 1 - 0.25 * i
            paint = Paint(wall.color, (0.55, 0.68, 0.8), "checks", 9.0)
            b.add(box(w * k, w * k, h * (0.6 + 0.3 * i), 0.01), paint, at=(0, 0, h * (0.6 + 0.3 * i) / 2))
        b.add(cylinder(0.015, 0.4), metal(rng), at=(0, 0, h * 1.1))
    else:
        b.add(box(0.35, 0.35, h, 0.01), wall, at=(0.3, 0, h / 2))
        b.add(cylinder(0.28, 0.5, 0.01, 4), roof, at=(0.3, 0, h + 0.25), turn=(0, 0, 45))
        b.add(box(0.8, 0.5, h * 0.45, 0.01), wall, at=(-0.15, 0, h * 0.22))
        b.add(extrude([(-0.3, 0), (0.3, 0), (0, 0.3)], 0.8), roof, at=(-0.15, 0, h * 0.45), turn=(0, 0, 90))
        b.add(box(0.03, 0.14, 0.28, 0.02), plain(DARK), at=(0.48, 0, 0.14))


def tree(b: Builder, rng: Rng) -> None:
    """Fir, leafy tree, palm, cactus or a potted plant."""
    leaf, kind = Paint(jitter(rng, LEAF, 0.09), jitter(rng, (0.4, 0.6, 0.2), 0.08), "noise", 5.0), rng.integers(4)
    trunk, h = wood(rng), rng.uniform(0.4, 0.8)
    if kind == 0:
        b.add(cylinder(0.08, 0.5), trunk, at=(0, 0, 0.25))
        for i in range(rng.integers(2, 5)):
            b.add(cylinder(0.45 - 0.09 * i, 0.42, 0.02, 24), leaf, at=(0, 0, 0.5 + 0.27 * i))
    elif kind == 1:
        b.add(capsule((0, 0, 0), (0, 0, h), 0.1, 0.07), trunk)
        for _ in range(rng.integers(1, 6)):
            r = rng.uniform(0.22, 0.4)
            b.add(ellipsoid(r, r, r * 0.85), leaf, at=(*rng.uniform(-0.25, 0.25, 2), h + rng.uniform(0.1, 0.45)))
        for _ in range(rng.integers(0, 6)):
            b.add(
                ellipsoid(0.06, 0.06, 0.06),
                plain((0.85, 0.15, 0.12)),
                at=(*rng.uniform(-0.4, 0.4, 2), h + rng.uniform(0, 0.5)),
            )
    elif kind == 2:
        green = plain(jitter(rng, (0.3, 0.55, 0.3), 0.06))
        b.add(capsule((0, 0, 0), (0, 0, 1), 0.17, 0.14), green)
        arm, z = rng.uniform(0.3, 0.4), rng.uniform(0.3, 0.55)
        b.add(tube([(0, 0, z), (0, arm, z + 0.03), (0, arm + 0.03, z + 0.35)], 0.08), green)
        b.add(tube([(0, 0, z + 0.15), (0, -arm, z + 0.18), (0, -arm - 0.03, z + 0.45)], 0.08), green)
        b.add(cylinder(0.24, 0.3, 0.32), fabric(rng, 0.3), at=(0, 0, -0.05))
    else:
        b.add(cylinder(0.22, 0.35, 0.32, 28), fabric(rng, 0.4), at=(0, 0, 0.17))
        for i in range(rng.integers(6, 12)):
            a, out = 2.4 * i, rng.uniform(0.25, 0.5)
            top = rng.uniform(0.6, 1.1)
            path = [
                (0, 0, 0.3),
                (out * 0.5 * np.cos(a), out * 0.5 * np.sin(a), top),
                (out * np.cos(a), out * np.sin(a), top - 0.1),
            ]
            b.add(tube(path, [0.03, 0.06, 0.012], 8), leaf)


def guitar(b: Builder, rng: Rng) -> None:
    """A guitar that stands upright and faces the front."""
    body, dark = wood(rng) if rng.uniform() < 0.5 else plain(vivid(rng)), plain(DARK)
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waist = rng.uniform(0.1, 0.25)
    r = 0.36 * (1 - waist * np.exp(-((np.abs(np.sin(t)) < 0.5) * 1.0)) * np.abs(np.cos(t)) ** 3)
    outline = np.stack([r * np.cos(t), 0.46 * np.sin(t) + 0.46], -1)
    b.add(extrude(outline, 0.15), body, turn=(0, 0, 90))
    b.add(cylinder(0.1, 0.02), dark, at=(0.075, 0, 0.55), turn=(0, 90, 0))
    b.add(box(0.05, 0.08, 0.8, 0.01), wood(rng), at=(0.06, 0, 1.2))
    b.add(box(0.05, 0.13, 0.2, 0.02), body, at=(0.05, 0, 1.66))
    b.add(box(0.03, 0.2, 0.05, 0.01), dark, at=(0.08, 0, 0.28))
    for z in (1.6, 1.66, 1.72):
        b.add(ellipsoid(0.02, 0.04, 0.02, 6, 8), metal(rng), at=(0.05, 0.09, z), mirror=True)


def machine(b: Builder, rng: Rng) -> None:
    """Television, computer, camera, radio, clock or telephone."""
    case, kind = plain(any_color(rng)) if rng.uniform() < 0.6 else surface(rng, 0.5), rng.integers(4)
    w, h, d = rng.uniform(0.7, 1.1), rng.uniform(0.5, 0.8), rng.uniform(0.1, 0.5)
    screen = Paint((0.2, 0.32, 0.5), any_color(rng), str(rng.choice(["gradient", "plain", "noise"])), 1.5)
    if kind == 0:
        b.add(box(d, w, h, 0.04), case, at=(0, 0, h / 2 + 0.15))
        b.add(box(0.03, w * 0.85, h * 0.78, 0.02), screen, at=(d / 2, 0, h / 2 + 0.16))
        b.add(box(0.3, w * 0.5, 0.04, 0.01), case, at=(0, 0, 0.02))
        b.add(box(0.06, 0.12, 0.2), case, at=(0, 0, 0.1))
        if rng.uniform() < 0.4:
            b.add(capsule((0, 0.05, h + 0.13), (0, 0.35, h + 0.5), 0.012), metal(rng), mirror=True)
    elif kind == 1:
        b.add(box(d + 0.1, w, h * 0.8, 0.06), case, at=(0, 0, 0))
        r = h * 0.3
        b.add(cylinder(r, 0.3, r * 0.9, 32), plain(DARK), at=(d / 2 + 0.12, 0, 0), turn=(0, 90, 0))
        b.add(cylinder(r * 0.7, 0.02), Paint((0.3, 0.4, 0.6)), at=(d / 2 + 0.28, 0, 0), turn=(0, 90, 0))
        b.add(box(d * 0.8, w * 0.3, 0.12, 0.03), case, at=(0, 0, h * 0.42))
        b.add(cylinder(0.05, 0.06), plain((0.8, 0.15, 0.15)), at=(0, w * 0.36, h * 0.42))
    elif kind == 2:
        b.add(box(d + 0.1, w, h, 0.05), case, at=(0, 0, h / 2))
        b.add(
            cylinder(h * 0.3, 0.03, segments=32),
            Paint((0.3, 0.28, 0.25), (0.2, 0.2, 0.2), "dots", 16),
            at=(d / 2 + 0.05, -w * 0.2, h * 0.5),
            turn=(0, 90, 0),
        )
        for z in (0.3, 0.6):
            b.add(cylinder(0.06, 0.08), metal(rng), at=(d / 2 + 0.07, w * 0.3, h * z), turn=(0, 90, 0))
        b.add(
            tube([(0, -w * 0.4, h), (0, -w * 0.35, h + 0.2), (0, w * 0.35, h + 0.2), (0, w * 0.4, h)], 0.03),
            plain(DARK),
        )
    else:
        r = rng.uniform(0.4, 0.5)
        b.add(cylinder(r, 0.2, bevel=0.04, segments=36), case, turn=(0, 90, 0))
        b.add(cylinder(r * 0.86, 0.21, segments=36), plain(WHITE), turn=(0, 90, 0))
        b.add(box(0.03, 0.04, r * 0.6, 0.01), plain(DARK), at=(0.11, 0, r * 0.28))
        b.add(box(0.03, r * 0.5, 0.04, 0.01), plain(DARK), at=(0.11, r * 0.22, 0))
        b.add(capsule((0, r * 0.5, -r * 0.8), (0, r * 0.65, -r * 1.1), 0.05), case, mirror=True)
        b.add(ellipsoid(0.12, 0.16, 0.16), metal(rng), at=(0, r * 0.5, r * 0.95), mirror=True)


def turned(b: Builder, rng: Rng) -> None:
    """Chess pieces, spinning tops, pillars: a random stack of lathe sections, tori and balls."""
    main, z = surface(rng, 0.5), 0.0
    accent = surface(rng, 0.4)
    for _ in range(rng.integers(3, 7)):
        r, h = rng.uniform(0.1, 0.42), rng.uniform(0.08, 0.35)
        paint = main if rng.uniform() < 0.65 else accent
        kind = rng.integers(4)
        if kind == 0:
            b.add(cylinder(r, h, rng.uniform(0.1, 0.42), 32, 0.02), paint, at=(0, 0, z + h / 2))
        elif kind == 1:
            b.add(torus(r, h * 0.5), paint, at=(0, 0, z + h / 2))
            b.add(cylinder(r, h), paint, at=(0, 0, z + h / 2))
        elif kind == 2:
            b.add(ellipsoid(r, r, h / 2 + 0.05), paint, at=(0, 0, z + h / 2))
        else:
            b.add(lathe([(0, 0), (r, 0), (r * 0.4, h / 2), (r * 0.9, h), (0, h)], 32), paint, at=(0, 0, z))
        z += h * 0.95


def assembly(b: Builder, rng: Rng) -> None:
    """Random primitives around one core; mostly mirrored."""
    symmetric = rng.uniform() < 0.65
    for i in range(rng.integers(3, 10)):
        size = rng.uniform(0.12, 0.5, 3) * (1.2 if i == 0 else 0.8)
        solids = (
            box(2 * size[0], 2 * size[1], 2 * size[2], rng.uniform(0.01, 0.1)),
            ellipsoid(size[0], size[1], size[2]),
            cylinder(size[0], 2 * size[2], size[1] if rng.uniform() < 0.4 else None, bevel=0.03),
            torus(size[0] + 0.1, 0.05 + 0.3 * size[1] * 0.5),
            capsule((0, 0, -size[2]), (0, 0, size[2]), size[0] * 0.5),
        )
        at = np.zeros(3) if i == 0 else rng.uniform(-0.55, 0.55, 3)
        mirror = bool(symmetric and i > 0 and rng.uniform() < 0.7)
        if symmetric and not mirror:
            at[1] = 0
        angle = rng.choice([0, 0, 90, 45, rng.uniform(0, 180)], 3)
        turn = angle if mirror or not symmetric else (0, angle[1], 0)
        b.add(solids[rng.integers(5)], surface(rng, 0.6), at=at, turn=turn, mirror=mirror)


def toy_ring(b: Builder, rng: Rng) -> None:
    """Stacking rings, a snowman, or building bricks."""
    kind = rng.integers(3)
    if kind == 0:
        b.add(cylinder(0.45, 0.08, bevel=0.02), wood(rng), at=(0, 0, 0.04))
        for i in range(rng.integers(3, 6)):
            b.add(torus(0.3 - 0.035 * i, 0.13 - 0.012 * i), plain(vivid(rng)), at=(0, 0, 0.2 + 0.2 * i))
        b.add(ellipsoid(0.14, 0.14, 0.14), plain(vivid(rng)), at=(0, 0, 1.15))
        b.add(cylinder(0.06, 1.1), wood(rng), at=(0, 0, 0.55))
    elif kind == 1:
        for r, z in ((0.42, 0.4), (0.3, 0.95), (0.2, 1.35)):
            b.add(ellipsoid(r, r, r), plain(WHITE), at=(0, 0, z))
        b.add(cylinder(0.05, 0.25, 0.005), plain((0.95, 0.5, 0.1)), at=(0.3, 0, 1.35), turn=(0, 90, 0))
        b.add(ellipsoid(0.03, 0.03, 0.03), plain(DARK), at=(0.18, 0.08, 1.42), mirror=True)
        b.add(torus(0.2, 0.06), fabric(rng, 0.3), at=(0, 0, 1.17))
        b.add(cylinder(0.3, 0.03), plain(DARK), at=(0, 0, 1.5))
        b.add(cylinder(0.18, 0.25), plain(any_color(rng)), at=(0, 0, 1.62))
        b.add(capsule((0, 0.25, 1.0), (0.05, 0.65, 1.2), 0.03, 0.015), wood(rng), mirror=True)
    else:
        for i in range(rng.integers(2, 6)):
            paint, n = plain(vivid(rng)), rng.integers(1, 4)
            y = rng.choice([-0.2, 0, 0.2])
            b.add(box(0.4, 0.2 * n + 0.2, 0.24, 0.01), paint, at=(0, y, 0.12 + 0.24 * i))
            for k in range(n + 1):
                b.add(cylinder(0.06, 0.06), paint, at=(0.1, y + (k - n / 2) * 0.2, 0.26 + 0.24 * i))
                b.add(cylinder(0.06, 0.06), paint, at=(-0.1, y + (k - n / 2) * 0.2, 0.26 + 0.24 * i))


BUILDINGS = (house, tower)
OTHERS = (tree, guitar, machine, turned, assembly, assembly, toy_ring)
