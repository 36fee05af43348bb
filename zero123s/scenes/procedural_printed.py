"""Things with letters, labels and images: blocks, books, boxes, tins, balls, signs, clocks, clothes, bags."""

import numpy as np

from zero123s.mesh.scene_mesh import Paint, Texture, vertex_normals
from zero123s.scenes.primitives import (
    Builder,
    Solid,
    box,
    capsule,
    cylinder,
    ellipsoid,
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
    wood,
)
from zero123s.scenes.procedural_images import (
    GLYPHS,
    any_image,
    glyph_mask,
    label,
    letter,
    speckles,
    stripes,
    wood_grain,
)

Rng = np.random.Generator


def printed_box(b: Builder, size, at, images: list[Texture], paint: Paint, turn: float = 0.0) -> None:
    """Place a box (x, y, z) with an image on its four walls, and on its top if there are five images."""
    x, y, z = size
    r = np.deg2rad(turn)
    b.add(box(x, y, z, 0.01), paint, at=at, turn=(0, 0, turn))
    for k, (wide, off) in enumerate(((y, x / 2), (x, y / 2), (y, x / 2), (x, y / 2))):
        t = r + np.pi / 2 * k
        place = (at[0] + (off + 0.004) * np.cos(t), at[1] + (off + 0.004) * np.sin(t), at[2])
        b.add(
            sheet(wide * 0.97, z * 0.97),
            WHITE_PAINT,
            at=place,
            turn=(0, 0, np.rad2deg(t)),
            texture=images[k % len(images)],
        )
    if len(images) > 4:
        b.add(
            sheet(y * 0.97, x * 0.97),
            WHITE_PAINT,
            at=(at[0], at[1], at[2] + z / 2 + 0.004),
            turn=(0, -90, turn),
            texture=images[4],
        )


def blocks(b: Builder, rng: Rng) -> None:
    """Cubes with letters, stacked; dice."""
    n = int(rng.choice([1, 2, 3, 4]))
    places = {
        1: [(0, 0)],
        2: [(0, 0), (0, 1)],
        3: [(-0.52, 0), (0.52, 0), (0, 1)],
        4: [(-1, 0), (0, 0), (1, 0), (-0.4, 1)],
    }[n]
    for y, level in places:
        color = (vivid(rng), jitter(rng, (0.85, 0.68, 0.46), 0.03), WHITE)[rng.integers(3)]
        images = [letter(rng, color) for _ in range(5)]
        printed_box(b, (0.5, 0.5, 0.5), (0.0, 0.5 * y, 0.25 + 0.5 * level), images, plain(color), rng.uniform(-20, 20))


def die(b: Builder, rng: Rng) -> None:
    """A die: a rounded cube with pips."""
    light = rng.uniform() < 0.6
    b.add(box(0.6, 0.6, 0.6, 0.09), plain(jitter(rng, WHITE, 0.02)) if light else plain(any_color(rng)))
    pip = plain(DARK) if light else plain(WHITE)
    spots = {1: [(0, 0)], 2: [(-1, -1), (1, 1)], 3: [(-1, -1), (0, 0), (1, 1)], 4: [(-1, -1), (-1, 1), (1, -1), (1, 1)]}
    spots |= {5: [*spots[4], (0, 0)], 6: [*spots[4], (0, -1), (0, 1)]}
    for number, axis, sign in ((1, 0, 1), (6, 0, -1), (2, 1, 1), (5, 1, -1), (3, 2, 1), (4, 2, -1)):
        for u, v in spots[number]:
            at = np.insert(0.16 * np.array([u, v], float), axis, 0.3 * sign)
            x, y, z = (0.012 if i == axis else 0.055 for i in range(3))
            b.add(ellipsoid(x, y, z, 8, 14), pip, at=at)


def solid_letter(b: Builder, rng: Rng) -> None:
    """One to three characters as solids, in a row."""
    from skimage.measure import marching_cubes

    n = int(rng.choice([1, 1, 2, 3]))
    paint = surface(rng, 0.5) if rng.uniform() < 0.6 else plain(jitter(rng, WHITE, 0.02))
    depth = rng.uniform(0.12, 0.3)
    for k in range(n):
        mask = glyph_mask(GLYPHS[rng.integers(len(GLYPHS))], 28)
        volume = np.zeros((5, *mask.shape), np.float32)
        volume[1:4] = mask
        v, faces, normals, _ = marching_cubes(volume, 0.5)
        v = (v - [2, 14, 14]) * [depth / 3, 1 / 28, 1 / 28]
        place = np.stack([v[:, 0], v[:, 2], -v[:, 1]], -1)  # row 0 of the mask is the top
        turned = np.stack([normals[:, 0] / depth * 3 / 28, normals[:, 2], -normals[:, 1]], -1)
        turned /= np.maximum(np.linalg.norm(turned, axis=-1, keepdims=True), 1e-12)
        corners = place[faces]
        outward = (np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) * turned[faces].sum(1)).sum()
        faces = np.ascontiguousarray(faces if outward > 0 else faces[:, ::-1])
        color = paint if rng.uniform() < 0.6 else plain(vivid(rng))
        b.add(Solid(place, faces, turned), color, at=(0, (k - (n - 1) / 2) * 0.75, 0))
    if rng.uniform() < 0.3:
        b.add(box(depth * 1.6, 0.8 * n, 0.08, 0.01), wood(rng), at=(0, 0, -0.5))


def book(b: Builder, rng: Rng) -> None:
    """A book with a title, standing or lying, or a pile of books."""
    n = int(rng.choice([1, 1, 3, 4]))
    z = 0.0
    for _ in range(n):
        w, h, thick = rng.uniform(0.4, 0.6), rng.uniform(0.6, 0.8), rng.uniform(0.07, 0.2)
        color = any_color(rng)
        image, turn = label(rng, color, w / h), 0.0 if n == 1 else rng.uniform(-25, 25)
        page = plain((0.95, 0.93, 0.87))
        if n == 1 and rng.uniform() < 0.7:  # standing, the cover to the front
            b.add(box(thick, w, h, 0.01), plain(color), at=(0, 0, h / 2))
            b.add(box(thick * 0.8, w * 0.97, h * 1.005, 0.003), page, at=(0, 0.02 * w, h / 2))
            b.add(sheet(w * 0.98, h * 0.98), WHITE_PAINT, at=(thick / 2 + 0.004, 0, h / 2), texture=image)
            continue
        b.add(box(h, w, thick, 0.01), plain(color), at=(0, 0, z + thick / 2), turn=(0, 0, turn))
        b.add(box(h * 0.97, w * 1.003, thick * 0.75, 0.003), page, at=(0, 0, z + thick / 2), turn=(0, 0, turn))
        b.add(sheet(w * 0.97, h * 0.97), WHITE_PAINT, at=(0, 0, z + thick + 0.004), turn=(0, -90, turn), texture=image)
        z += thick


def packet(b: Builder, rng: Rng) -> None:
    """A box of cereals, tea or washing powder; a parcel; a present with a ribbon."""
    kind, x, y, z = rng.integers(3), rng.uniform(0.18, 0.5), rng.uniform(0.4, 0.7), rng.uniform(0.4, 0.9)
    if kind == 0:
        color = any_color(rng)
        images = [label(rng, color, y / z), label(rng, color, x / z)]
        printed_box(b, (x, y, z), (0.0, 0.0, z / 2), images, plain(color))
    elif kind == 1:
        paint = fabric(rng, 0.4) if rng.uniform() < 0.7 else plain(vivid(rng))
        ribbon, w = plain(vivid(rng)) if rng.uniform() < 0.7 else plain(WHITE), 0.09
        b.add(box(y, y, z * 0.8, 0.01), paint, at=(0, 0, z * 0.4))
        b.add(box(y + 0.015, w, z * 0.8 + 0.015, 0.005), ribbon, at=(0, 0, z * 0.4))
        b.add(box(w, y + 0.015, z * 0.8 + 0.015, 0.005), ribbon, at=(0, 0, z * 0.4))
        b.add(torus(0.1, 0.03, squash=2), ribbon, at=(0, 0.11, z * 0.8 + 0.09), turn=(55, 0, 0), mirror=True)
    else:
        color = jitter(rng, (0.75, 0.58, 0.38), 0.04)
        printed_box(
            b,
            (y, y * 1.2, z * 0.7),
            (0.0, 0.0, z * 0.35),
            [wood_grain(rng, color), label(rng, color, 1.6)],
            plain(color),
        )
        b.add(box(y + 0.012, 0.08, z * 0.7 + 0.012, 0.004), plain((0.85, 0.75, 0.55)), at=(0, 0, z * 0.35))
        if rng.uniform() < 0.4:  # open flaps
            b.add(box(y * 0.5, y * 1.2, 0.015, 0.004), plain(color), at=(y * 0.68, 0, z * 0.8), turn=(0, -50, 0))
            b.add(box(y * 0.5, y * 1.2, 0.015, 0.004), plain(color), at=(-y * 0.68, 0, z * 0.8), turn=(0, 50, 0))


def tin(b: Builder, rng: Rng) -> None:
    """A tin, jar, drinks can, bottle, tube or candle with a printed wall."""
    kind, r, h = rng.integers(4), rng.uniform(0.2, 0.34), rng.uniform(0.45, 0.85)
    color = any_color(rng)
    image = label(rng, color, 3.0) if rng.uniform() < 0.7 else any_image(rng)
    lid = metal(rng) if rng.uniform() < 0.6 else plain(any_color(rng))
    b.add(wrapped(lathe([(r, 0), (r, h)], 36)), WHITE_PAINT, texture=image)
    if kind == 0:
        for z in (0.0, h):
            b.add(torus(r, 0.02, 36, 8), lid, at=(0, 0, z))
            b.add(cylinder(r * 0.99, 0.01, segments=36), lid, at=(0, 0, z))
    elif kind == 1:
        b.add(cylinder(r * 0.85, 0.06, r, 36), lid, at=(0, 0, -0.03))
        b.add(cylinder(r, 0.08, r * 0.75, 36), lid, at=(0, 0, h + 0.04))
        b.add(cylinder(r * 0.72, 0.01, segments=30), lid, at=(0, 0, h + 0.08))
    elif kind == 2:
        glass = plain(
            jitter(rng, ((0.2, 0.4, 0.22), (0.45, 0.25, 0.12), (0.8, 0.86, 0.88), WHITE)[rng.integers(4)], 0.04)
        )
        neck, up = r * rng.uniform(0.3, 0.5), rng.uniform(0.1, 0.3)
        b.add(
            lathe(
                [
                    (0, -0.1),
                    (r * 0.98, -0.1),
                    (r * 0.99, h + 0.03),
                    (neck, h + 0.03 + up),
                    (neck, h + up + 0.25),
                    (0, h + up + 0.25),
                ],
                36,
                50,
            ),
            glass,
        )
        b.add(cylinder(neck * 1.2, 0.1, bevel=0.02), lid, at=(0, 0, h + up + 0.25))
    else:
        b.add(lathe([(0, -0.02), (r, -0.02), (r, 0.0)], 36), plain(color))
        b.add(cylinder(r * 1.05, rng.uniform(0.1, 0.2), segments=36, bevel=0.02), lid, at=(0, 0, h + 0.04))


def ball(b: Builder, rng: Rng) -> None:
    """A beach ball, football, globe, marble, bauble or balloon."""
    kind = rng.integers(5)
    sphere = wrapped(ellipsoid(0.45, 0.45, 0.45, 20, 36))
    if kind == 0:
        n = int(rng.integers(3, 7))
        colors = [np.round(255 * np.array(vivid(rng) if i % 2 else (1, 1, 1))).astype(np.uint8) for i in range(2 * n)]
        image = np.tile(np.repeat(np.stack(colors), 32, axis=0)[None], (8, 1, 1))
        b.add(sphere, WHITE_PAINT, texture=Texture(image))
        b.add(ellipsoid(0.1, 0.1, 0.02), plain(WHITE), at=(0, 0, 0.44))
    elif kind == 1:
        b.add(ellipsoid(0.45, 0.45, 0.45, 20, 36), plain(WHITE) if rng.uniform() < 0.7 else plain(vivid(rng)))
        g = (1 + 5**0.5) / 2
        patch = plain(DARK)
        for p in ((0, 1, g), (0, -1, g), (1, g, 0), (-1, g, 0), (g, 0, 1), (-g, 0, 1)):
            for s in (1, -1):
                d = s * np.array(p) / np.linalg.norm(p)
                tilt, turn = np.rad2deg(np.arccos(d[2])), np.rad2deg(np.arctan2(d[1], d[0]))
                b.add(ellipsoid(0.145, 0.145, 0.035, 8, 5), patch, at=0.43 * d, turn=(0, tilt, turn))
    elif kind == 2:
        sea, land = np.array([0.2, 0.42, 0.7]), np.array([0.35, 0.58, 0.3])
        noise = np.random.default_rng(rng.integers(2**31)).normal(size=(6, 12))
        x, y = np.linspace(0, 12, 96, endpoint=False), np.linspace(0, 5, 48)
        fx, ix = np.modf(x)
        wide = noise[:, ix.astype(int) % 12] * (1 - fx) + noise[:, (ix.astype(int) + 1) % 12] * fx
        field = np.stack([np.interp(y, np.arange(6), wide[:, i]) for i in range(96)], 1)
        b.add(
            sphere,
            WHITE_PAINT,
            texture=Texture(np.round(255 * np.where(field[..., None] > 0.25, land, sea)).astype(np.uint8)),
        )
        b.add(torus(0.5, 0.02), metal(rng), turn=(90, 0, 20))
        b.add(lathe([(0, -0.75), (0.28, -0.75), (0.06, -0.65), (0.04, -0.48), (0, -0.48)], 28), wood(rng))
    elif kind == 3:
        b.add(sphere, WHITE_PAINT, texture=stripes(rng) if rng.uniform() < 0.5 else speckles(rng, any_color(rng)))
        b.add(cylinder(0.09, 0.09), plain((0.85, 0.7, 0.3)), at=(0, 0, 0.46))
        b.add(torus(0.06, 0.012), plain((0.85, 0.7, 0.3)), at=(0, 0, 0.55), turn=(90, 0, 0))
    else:
        orange = plain(jitter(rng, (0.85, 0.42, 0.16), 0.04)) if rng.uniform() < 0.6 else fabric(rng, 0.4)
        b.add(ellipsoid(0.45, 0.45, 0.45, 20, 36), orange)
        for turn in ((0, 0, 0), (90, 0, 0), (90, 0, 90)):
            b.add(torus(0.448, 0.012, 48, 6), plain(DARK), turn=turn)


def sign(b: Builder, rng: Rng) -> None:
    """A road sign, notice board, clock face, flag, easel or screen with an image."""
    kind, pole = rng.integers(4), metal(rng) if rng.uniform() < 0.5 else wood(rng)
    h = rng.uniform(0.6, 1.0)
    color = WHITE if rng.uniform() < 0.4 else vivid(rng)
    if kind == 0:
        w, tall = rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.5)
        b.add(box(0.04, w, tall, 0.01), plain(color), at=(0.03, 0, h))
        b.add(sheet(w * 0.97, tall * 0.97), WHITE_PAINT, at=(0.055, 0, h), texture=label(rng, color, w / tall))
        b.add(cylinder(0.03, h), pole, at=(-0.02, 0, h / 2))
    elif kind == 1:
        rim = plain(vivid(rng))
        sides = int(rng.choice([3, 4, 8, 36]))
        b.add(cylinder(0.34, 0.04, segments=sides), rim, at=(0.03, 0, h), turn=(0, 90, 0))
        b.add(cylinder(0.28, 0.05, segments=sides), plain(color), at=(0.035, 0, h), turn=(0, 90, 0))
        b.add(sheet(0.3, 0.3), WHITE_PAINT, at=(0.065, 0, h), texture=letter(rng, color))
        b.add(cylinder(0.028, h), pole, at=(-0.02, 0, h / 2))
    elif kind == 2:
        t = np.linspace(0, 1, 15)
        wave = np.stack([0.05 * np.sin(7 * t), 0.7 * t], -1)
        v = np.concatenate([np.column_stack([wave, np.full(15, z)]) for z in (0.0, 0.45)])
        i = np.arange(14)
        faces = np.concatenate([np.stack([i, i + 1, i + 16], -1), np.stack([i, i + 16, i + 15], -1)])
        n = np.tile(np.stack([np.ones(15), -0.35 * np.cos(7 * t), 0 * t], -1), (2, 1))
        uv = np.stack([np.tile(t, 2), np.repeat([0.0, 1.0], 15)], -1)
        cloth = Solid(v, faces, n / np.linalg.norm(n, axis=-1, keepdims=True), uv)
        b.add(cloth, WHITE_PAINT, at=(0, 0.02, 0.7), texture=stripes(rng) if rng.uniform() < 0.6 else any_image(rng))
        b.add(cylinder(0.02, 1.2), pole, at=(0, 0, 0.6))
        b.add(ellipsoid(0.04, 0.04, 0.04), plain((0.85, 0.7, 0.3)), at=(0, 0, 1.2))
    else:
        b.add(box(0.04, 0.7, 0.5, 0.01), wood(rng), at=(0.05, 0, 0.75), turn=(0, -10, 0))
        b.add(sheet(0.62, 0.42), WHITE_PAINT, at=(0.08, 0, 0.755), turn=(0, -10, 0), texture=any_image(rng))
        b.add(capsule((0.12, 0.3, 0), (-0.02, 0.06, 1.15), 0.02), pole, mirror=True)
        b.add(capsule((-0.35, 0, 0), (-0.02, 0, 1.1), 0.02), pole)


def bag(b: Builder, rng: Rng) -> None:
    """A rucksack, shopping bag, handbag or suitcase."""
    kind, paint = rng.integers(3), fabric(rng, 0.5) if rng.uniform() < 0.5 else plain(any_color(rng))
    strap = paint if rng.uniform() < 0.4 else plain(jitter(rng, (0.4, 0.27, 0.17), 0.06))
    if kind == 0:
        b.add(box(0.3, 0.55, 0.7, 0.13), paint, at=(0, 0, 0.35))
        b.add(box(0.16, 0.4, 0.3, 0.07), strap, at=(0.17, 0, 0.2))
        b.add(box(0.26, 0.5, 0.16, 0.07), strap, at=(0.04, 0, 0.66))
        b.add(tube([(-0.13, 0.15, 0.66), (-0.24, 0.17, 0.45), (-0.15, 0.18, 0.1)], 0.03, 8), strap, mirror=True)
        a = np.linspace(0, np.pi, 9)
        b.add(tube(np.stack([0 * a - 0.05, 0.1 * np.cos(a), 0.7 + 0.12 * np.sin(a)], -1), 0.02, 8), strap)
    else:
        x, y, z = (0.22, 0.55, 0.6) if kind == 1 else (0.22, 0.8, 0.5)
        b.add(box(x, y, z, 0.02 if kind == 1 else 0.06), paint, at=(0, 0, z / 2))
        image = label(rng, paint.color, y / z) if rng.uniform() < 0.6 else any_image(rng)
        if rng.uniform() < 0.7:
            b.add(sheet(y * 0.6, z * 0.6), WHITE_PAINT, at=(x / 2 + 0.004, 0, z / 2), texture=image)
        a, w = np.linspace(0, np.pi, 11), rng.uniform(0.12, 0.2)
        for side in (-x * 0.4, x * 0.4) if kind == 1 else (0.0,):
            b.add(tube(np.stack([0 * a + side, w * np.cos(a), z - 0.02 + 0.25 * np.sin(a)], -1), 0.018, 8), strap)
        if kind == 2:
            b.add(box(x + 0.01, 0.05, z + 0.01, 0.01), strap, at=(0, y * 0.32, z / 2), mirror=True)
            b.add(box(0.03, 0.06, 0.05, 0.01), metal(rng), at=(x / 2, y * 0.32, z * 0.75), mirror=True)


def shirt(b: Builder, rng: Rng) -> None:
    """A T-shirt, dress or pair of trousers with a print, as if worn; a cushion or a rolled mat."""
    kind, cloth = rng.integers(3), plain(jitter(rng, WHITE, 0.02)) if rng.uniform() < 0.35 else fabric(rng, 0.5)
    if kind == 0:
        flare, h = rng.uniform(0.9, 1.8), rng.uniform(0.5, 0.8)
        b.add(
            scaled(
                lathe([(0.28 * flare, 0), (0.26, h * 0.6), (0.3, h * 0.85), (0.22, h), (0.1, h + 0.04)], 36, 60),
                0.6,
                1.0,
                1.0,
            ),
            cloth,
        )
        b.add(tube([(0, 0.22, h * 0.92), (0.02, 0.45, h * 0.72)], [0.1, 0.11]), cloth, mirror=True)
        b.add(
            sheet(0.3, 0.3, 40),
            WHITE_PAINT,
            at=(-0.25, 0, h * 0.62),
            texture=any_image(rng) if rng.uniform() < 0.5 else letter(rng, cloth.color),
        )
    elif kind == 1:
        b.add(
            scaled(lathe([(0.24, 0.62), (0.22, 0.8), (0.2, 0.8), (0.2, 0.75)], 30), 0.7, 1.0, 1.0),
            plain(any_color(rng)),
        )
        b.add(tube([(0, 0.12, 0.72), (0, 0.15, 0.4), (0, 0.17, 0.02)], [0.13, 0.11, 0.1]), cloth, mirror=True)
    else:
        pillow = ellipsoid(0.5, 0.5, 0.5, 20, 40)
        v = np.sign(pillow.vertices) * np.abs(pillow.vertices * 2) ** 0.55 / 2 * [0.5, 1.0, 1.0]
        v[:, 0] *= 0.35 + 0.65 * (1 - (2 * v[:, 1]) ** 4) * (1 - (2 * v[:, 2]) ** 4)
        b.add(
            Solid(v, pillow.faces, vertex_normals(v, pillow.faces), np.stack([v[:, 1] + 0.5, v[:, 2] + 0.5], -1)),
            WHITE_PAINT,
            turn=(0, -18, 0),
            texture=any_image(rng),
        )


KINDS = (blocks, blocks, die, solid_letter, solid_letter, book, packet, tin, ball, sign, bag, shirt)
