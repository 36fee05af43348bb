"""People, dolls and mascots with faces, hair and clothes; busts, masks and ghosts."""

import numpy as np

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.blends import Bone, Point, add_blend, ball
from zero123s.scenes.primitives import Builder, box, capsule, cylinder, ellipsoid, extrude, lathe, sheet, torus, tube
from zero123s.scenes.procedural_animals import coat
from zero123s.scenes.procedural_color import (
    DARK,
    METALS,
    WHITE,
    WHITE_PAINT,
    any_color,
    fabric,
    jitter,
    plain,
    soft,
    vivid,
)
from zero123s.scenes.procedural_faces import brows, eyes, mouth, on_head
from zero123s.scenes.procedural_images import letter

Rng = np.random.Generator
SKINS = ((0.96, 0.82, 0.7), (0.87, 0.66, 0.5), (0.62, 0.43, 0.3), (0.4, 0.27, 0.19))
HAIRS = ((0.12, 0.1, 0.1), (0.32, 0.2, 0.12), (0.6, 0.4, 0.2), (0.9, 0.76, 0.45), (0.7, 0.3, 0.14), (0.85, 0.85, 0.85))


def _cloth(rng: Rng) -> Paint:
    kind = rng.uniform()
    if kind < 0.2:
        return plain(jitter(rng, WHITE, 0.02))
    if kind < 0.35:
        return plain(jitter(rng, DARK, 0.03))
    return fabric(rng, 0.5) if kind < 0.6 else plain(vivid(rng))


def _hair(b: Builder, rng: Rng, at: Point, r: float, paint: Paint) -> None:
    """Place hair or a hat on a head of radius r."""
    x, _, z = at
    kind = rng.integers(8)
    if kind < 6:
        b.add(ellipsoid(r * 1.04, r * 1.06, r * 0.98, 14, 24), paint, at=(x - r * 0.2, 0, z + r * 0.24))
    if kind == 0:  # long
        b.add(ellipsoid(r * 0.55, r * 1.02, r * 1.35, 14, 24), paint, at=(x - r * 0.55, 0, z - r * 0.4))
    elif kind == 1:  # bunches
        b.add(
            ellipsoid(r * 0.35, r * 0.35, r * 0.62),
            paint,
            at=(x - r * 0.2, r * 1.25, z - r * 0.1),
            turn=(-18, 0, 0),
            mirror=True,
        )
    elif kind == 2:
        b.add(ellipsoid(r * 0.42, r * 0.42, r * 0.42), paint, at=(x - r * 0.4, 0, z + r * 1.3))
    elif kind == 3:  # spikes
        for a in (-50, -25, 0, 25, 50, 75):
            at2 = on_head(at, (r, r, r), 180 if a > 40 else 0, 90 - abs(a) if a <= 40 else 30, 1.15)
            b.add(
                cylinder(r * 0.3, r * 0.6, 0.01, 12),
                paint,
                at=(at2[0] - r * 0.15, 0, at2[2] + r * 0.1),
                turn=(0, -a * 0.8, 0),
            )
    elif kind == 6:  # a hat
        b.add(cylinder(r * rng.uniform(1.3, 1.9), r * 0.1, segments=32), paint, at=(x, 0, z + r * 0.55))
        b.add(cylinder(r * 0.95, r * 0.9, r * rng.uniform(0.05, 0.95), 28), paint, at=(x, 0, z + r * 1.0))
    elif kind == 7 and rng.uniform() < 0.6:  # a cap or helmet
        b.add(ellipsoid(r * 1.12, r * 1.12, r * 1.05, 14, 24), paint, at=(x - r * 0.12, 0, z + r * 0.3))
        b.add(ellipsoid(r * 0.7, r * 0.75, r * 0.08, 8, 20), paint, at=(x + r * 0.85, 0, z + r * 0.55), turn=(0, 8, 0))


def figure(b: Builder, rng: Rng) -> None:
    """A person or doll with a smooth body, clothes and a face; big or small headed, at times in a skirt or armour."""
    skin = plain(jitter(rng, SKINS[rng.integers(4)], 0.02))
    shirt, trousers, shoes = _cloth(rng), _cloth(rng), plain(any_color(rng))
    if rng.uniform() < 0.15:  # a knight or an astronaut
        shirt = trousers = shoes = plain(METALS[rng.integers(2)] if rng.uniform() < 0.5 else WHITE)
    head = rng.uniform(0.13, 0.3)
    leg, torso, wide = rng.uniform(0.25, 0.6) * (1.2 - head), rng.uniform(0.3, 0.42), rng.uniform(0.13, 0.2)
    hip, shoulder = leg, leg + torso
    hz = shoulder + head * 1.05
    limb, lift, bend = rng.uniform(0.05, 0.075), rng.uniform(-80, 70), rng.uniform(0, 0.2)
    a, stride = np.deg2rad(lift), rng.uniform(0, 0.06)
    arm = rng.uniform(0.14, 0.2)
    elbow = (0.02, wide + arm * np.cos(a) * 0.8, shoulder - 0.06 + arm * np.sin(a))
    hand = (bend, elbow[1] + arm * np.cos(a) * 0.5, elbow[2] + arm * np.sin(a) + bend * 0.3)
    sleeve = skin if rng.uniform() < 0.4 else shirt
    legs = skin if rng.uniform() < 0.2 else trousers
    bones = [
        Bone((0, 0, hip + 0.05), (0, 0, shoulder - 0.1), wide * 0.82, wide * 0.9, shirt),
        Bone((0, wide * 0.7, shoulder - 0.06), elbow, limb * 1.2, limb, shirt, True),
        Bone(elbow, hand, limb, limb * 0.85, sleeve, True),
        ball(hand, limb * 1.1, skin, True),
        Bone((0, wide * 0.4, hip + 0.02), (stride, wide * 0.55, hip * 0.5), limb * 1.5, limb * 1.25, trousers, True),
        Bone((stride, wide * 0.55, hip * 0.5), (0, wide * 0.6, 0.07), limb * 1.2, limb, legs, True),
        Bone((0, wide * 0.6, 0.05), (0.1, wide * 0.62, 0.04), 0.055, 0.05, shoes, True),
        Bone((0, 0, shoulder), (0, 0, hz), 0.055, 0.06, skin),
    ]
    add_blend(b, bones, smooth=0.035, scale=(0.9, 1.0, 1.0))
    if rng.uniform() < 0.25:
        top = hip + torso * 0.35
        b.add(lathe([(0, 0.1), (wide * rng.uniform(1.4, 2.2), 0.1), (wide * 0.9, top), (0, top)], 32), trousers)
    if rng.uniform() < 0.25:  # a number on the chest
        b.add(
            sheet(wide * 1.1, wide * 1.1, 70),
            WHITE_PAINT,
            at=(0, 0, hip + torso * 0.6),
            texture=letter(rng, shirt.color),
        )
    radii = (head, head * rng.uniform(0.88, 1.0), head * rng.uniform(1.0, 1.12))
    centre = (0.0, 0.0, hz)
    b.add(ellipsoid(*radii, 18, 28), skin, at=centre)
    _face(b, rng, centre, radii, skin)
    _hair(
        b,
        rng,
        centre,
        head,
        plain(jitter(rng, HAIRS[rng.integers(6)], 0.03)) if rng.uniform() < 0.8 else plain(vivid(rng)),
    )
    if rng.uniform() < 0.15:  # a cape
        b.add(
            sheet(wide * 3.2, torso + leg * 0.6, 120),
            plain(vivid(rng)),
            at=(0.12, 0, hip + torso * 0.4),
            turn=(0, 0, 180),
        )


def _face(b: Builder, rng: Rng, centre: Point, radii: Point, skin: Paint) -> None:
    eyes(b, rng, centre, radii, aside=rng.uniform(22, 32), up=rng.uniform(4, 14), size=rng.uniform(0.13, 0.24))
    mouth(b, rng, centre, radii, down=rng.uniform(-36, -24))
    r = float(np.mean(radii))
    b.add(ellipsoid(r * 0.14, r * 0.11, r * 0.12, 8, 12), skin, at=on_head(centre, radii, 0, -8, 1.02))
    b.add(
        ellipsoid(r * 0.12, r * 0.1, r * 0.2, 8, 12),
        skin,
        at=(centre[0] - r * 0.05, radii[1] * 0.99, centre[2]),
        mirror=True,
    )
    if rng.uniform() < 0.5:
        brows(b, rng, centre, radii, plain((0.2, 0.14, 0.1)))
    if rng.uniform() < 0.12:  # glasses
        at = on_head(centre, radii, 26, 9, 1.12)
        b.add(torus(r * 0.24, r * 0.035, 24, 8), plain(DARK), at=at, turn=(0, 90, 8), mirror=True)
        b.add(capsule((at[0], -at[1] * 0.4, at[2]), (at[0], at[1] * 0.4, at[2]), r * 0.03), plain(DARK))
    if rng.uniform() < 0.12:
        beard = plain(jitter(rng, HAIRS[rng.integers(6)], 0.03))
        b.add(ellipsoid(r * 0.6, r * 0.75, r * 0.6, 12, 20), beard, at=(centre[0] + r * 0.22, 0, centre[2] - r * 0.62))


def bust(b: Builder, rng: Rng) -> None:
    """A head with neck and shoulders; often of white or grey stone."""
    stone = rng.uniform() < 0.35
    color = (
        jitter(rng, (WHITE, (0.6, 0.6, 0.6), (0.45, 0.32, 0.2))[rng.integers(3)], 0.02)
        if stone
        else jitter(rng, SKINS[rng.integers(4)], 0.02)
    )
    skin, shirt = plain(color), plain(color) if stone else _cloth(rng)
    r = 0.32
    bones = [
        Bone((0, 0, 0.1), (0, 0, 0.45), 0.14, 0.12, skin),
        Bone((-0.02, 0, 0), (-0.02, 0.3, -0.02), 0.18, 0.13, shirt, True),
        ball((0.0, 0, 0.72), r, skin),
        ball((0.06, 0, 0.52), r * 0.68, skin),
        Bone((r * 0.95, 0, 0.74), (r * 1.12, 0, 0.62), 0.035, 0.055, skin),
    ]
    add_blend(b, bones, smooth=0.07, scale=(1.0, 0.92, 1.05))
    centre, radii = (0.0, 0.0, 0.75), (r, r * 0.92, r * 1.05)
    if stone:
        b.add(ellipsoid(r * 0.12, r * 0.16, r * 0.11, 8, 12), skin, at=on_head(centre, radii, 28, 8, 0.98), mirror=True)
    else:
        eyes(b, rng, centre, radii, aside=27, up=8, size=0.15)
        mouth(b, rng, (0.05, 0.0, 0.58), (r * 0.95, r * 0.7, r * 0.85), down=-8)
        brows(b, rng, centre, radii, plain((0.2, 0.14, 0.1)))
    _hair(b, rng, centre, r, skin if stone else plain(jitter(rng, HAIRS[rng.integers(6)], 0.03)))
    b.add(cylinder(0.2, 0.16, 0.15, 28, 0.02), plain(DARK) if rng.uniform() < 0.5 else skin, at=(0, 0, -0.22))


def mascot(b: Builder, rng: Rng) -> None:
    """A rounded creature with short limbs and a face: monster, alien, mushroom man, walking egg."""
    c, kind = coat(rng), rng.integers(4)
    main = c.main if rng.uniform() < 0.5 else plain(vivid(rng))
    r, tall = rng.uniform(0.26, 0.36), rng.uniform(0.1, 0.5)
    foot, z = c.limbs if rng.uniform() < 0.5 else main, 0.16 + r
    lift = rng.uniform(-0.2, 0.35)
    bones = [
        Bone((0, 0, z), (0, 0, z + tall), r, r * rng.uniform(0.75, 1.1), main),
        Bone(
            (r * 0.3, 0, z - 0.03),
            (r * 0.35, 0, z + tall * 0.4),
            r * 0.75,
            r * 0.6,
            c.belly if rng.uniform() < 0.6 else main,
        ),
        Bone((0, r * 0.9, z + tall * 0.5), (0.08, r + 0.2, z + tall * 0.5 + lift), 0.08, 0.075, main, True),
        Bone((0, r * 0.5, 0.25), (0, r * 0.55, 0.08), 0.1, 0.09, foot, True),
        Bone((0, r * 0.55, 0.07), (0.14, r * 0.6, 0.06), 0.08, 0.07, foot, True),
    ]
    top = z + tall + r * 0.9
    if kind == 0:
        bones.append(Bone((0, r * 0.5, top - 0.05), (0, r * 0.8, top + 0.2), 0.07, 0.02, c.ears, True))
    elif kind == 1:
        bones += [
            Bone((0, 0.06, top - 0.05), (0.03, 0.16, top + 0.25), 0.03, 0.02, main, True),
            ball((0.03, 0.17, top + 0.28), 0.06, c.ears, True),
        ]
    elif kind == 2:
        bones.append(Bone((0, r * 0.75, top - 0.12), (0, r * 1.05, top + 0.02), 0.1, 0.06, c.ears, True))
    add_blend(b, bones, smooth=0.06)
    centre, radii = (0.0, 0.0, z + tall), (r * 1.0, r * 1.0, r * 1.0)
    if rng.uniform() < 0.2:
        at = on_head(centre, radii, 0, 12, 0.95)
        b.add(ellipsoid(0.09, 0.13, 0.14, 12, 18), plain(WHITE), at=at)
        b.add(ellipsoid(0.05, 0.06, 0.07, 10, 14), plain(DARK), at=(at[0] + 0.07, 0, at[2]))
    else:
        eyes(b, rng, centre, radii, aside=rng.uniform(18, 32), up=10, size=rng.uniform(0.16, 0.3))
    mouth(b, rng, centre, radii, down=-18)
    if kind == 3:
        t = np.linspace(0, np.pi / 2, 10)
        b.add(
            lathe([(0, 0), (r * 1.5, -0.03), *zip(r * 1.55 * np.cos(t), r * np.sin(t), strict=True)], 32, 60),
            fabric(rng, 0.4),
            at=(0, 0, top - r * 0.35),
        )


def ghost(b: Builder, rng: Rng) -> None:
    """A ghost, a matryoshka, a gnome or a bell-shaped figure, often white."""
    main = plain(jitter(rng, WHITE, 0.02)) if rng.uniform() < 0.45 else plain(any_color(rng))
    kind, r = rng.integers(3), rng.uniform(0.24, 0.32)
    if kind == 0:
        t = np.linspace(0, np.pi / 2, 10)
        body = lathe([(r * 1.25, 0), (r * 1.05, 0.3), *zip(r * np.cos(t), 0.6 + r * np.sin(t), strict=True)], 48, 90)
        v = body.vertices.copy()
        v[:, 2] += 0.05 * np.cos(8 * np.arctan2(v[:, 1], v[:, 0])) * (v[:, 2] < 0.1)
        b.add(body._replace(vertices=v), main)
        b.add(capsule((0.05, r * 0.9, 0.5), (0.25, r + 0.12, 0.55), 0.08, 0.06), main, mirror=True)
        centre, radii = (0.0, 0.0, 0.6), (r, r, r)
    elif kind == 1:
        profile = [
            (0, 0),
            (r * 0.95, 0),
            (r * 1.25, 0.3),
            (r * 0.95, 0.55),
            (r * 0.72, 0.66),
            (r * 0.8, 0.85),
            (r * 0.5, 1.0),
            (0, 1.04),
        ]
        z = np.linspace(0, 1, 40)
        knots = np.array(profile)
        dense = np.stack([np.interp(z, np.linspace(0, 1, 8), knots[:, i]) for i in (0, 1)], -1)
        padded = np.pad(dense, ((3, 3), (0, 0)), "edge")
        rounded = np.stack([np.convolve(padded[:, i], np.ones(7) / 7, "valid") for i in (0, 1)], -1)
        b.add(lathe([(0, 0), *rounded, (0, 1.04)], 36, 60), main)
        b.add(ellipsoid(0.1, r * 0.55, 0.15), plain(jitter(rng, SKINS[0], 0.02)), at=(r * 0.72, 0, 0.82))
        b.add(ellipsoid(0.1, r * 0.8, 0.2), fabric(rng, 0.3), at=(r * 1.15, 0, 0.3))
        centre, radii = (0.05, 0.0, 0.82), (r * 0.98, r * 0.7, r * 0.6)
    else:
        b.add(lathe([(0, 0), (r * 1.1, 0), (r * 1.15, 0.2), (r * 0.8, 0.5), (0, 0.55)], 32, 60), main)
        b.add(
            ellipsoid(r * 0.75, r * 0.75, r * 0.75), plain(jitter(rng, SKINS[rng.integers(4)], 0.02)), at=(0, 0, 0.62)
        )
        b.add(cylinder(r * 0.85, rng.uniform(0.45, 0.7), 0.02, 28), fabric(rng, 0.4), at=(0, 0, 1.0))
        b.add(
            extrude([(-r * 0.6, 0.05), (r * 0.6, 0.05), (0, -0.4)], 0.12),
            plain(WHITE),
            at=(r * 0.68, 0, 0.56),
            turn=(0, 0, 90),
        )
        b.add(box(0.14, 0.12, 0.08, 0.04), plain(DARK), at=(r, r * 0.5, 0.04), mirror=True)
        centre, radii = (0.0, 0.0, 0.64), (r * 0.78, r * 0.78, r * 0.78)
    eyes(b, rng, centre, radii, aside=24, up=8, size=0.2)
    if kind < 2:
        mouth(b, rng, centre, radii, down=-22)


def head_only(b: Builder, rng: Rng) -> None:
    """A smiling ball, a pumpkin lantern, a mask or a balloon with a face."""
    kind, r = rng.integers(3), 0.45
    paint = plain(jitter(rng, (0.98, 0.83, 0.2), 0.03)) if rng.uniform() < 0.4 else plain(any_color(rng))
    radii = (r, r * rng.uniform(0.9, 1.15), r * rng.uniform(0.85, 1.15))
    if kind == 1:
        paint = plain(jitter(rng, (0.93, 0.5, 0.12), 0.04))
        for k in range(10):
            a = 36 * k
            t = np.deg2rad(a)
            b.add(
                ellipsoid(r * 0.6, r * 0.38, r * 0.8, 14, 18),
                paint,
                at=(r * 0.5 * np.cos(t), r * 0.5 * np.sin(t), 0),
                turn=(0, 0, a),
            )
        b.add(tube([(0, 0, r * 0.7), (0.02, 0, r * 0.9), (0.1, 0, r * 1.05)], 0.05, 8), plain((0.3, 0.42, 0.16)))
        radii = (r * 1.12, r * 1.12, r * 0.82)
        b.add(ellipsoid(0.05, 0.09, 0.08, 8, 3), plain(DARK), at=on_head((0, 0, 0), radii, 30, 16, 0.97), mirror=True)
    else:
        b.add(ellipsoid(*radii, 20, 32), paint)
        eyes(b, rng, (0.0, 0.0, 0.0), radii, aside=25, up=14, size=rng.uniform(0.14, 0.22))
        if kind == 2:
            b.add(cylinder(0.06, 0.08, 0.02), paint, at=(0, 0, -radii[2] - 0.02))
            b.add(
                tube([(0, 0, -radii[2]), (0.03, 0.02, -radii[2] - 0.25), (-0.02, 0, -radii[2] - 0.5)], 0.012, 6),
                plain(DARK),
            )
        elif rng.uniform() < 0.5:
            b.add(
                ellipsoid(0.03, 0.08, 0.05, 8, 12),
                plain((0.95, 0.55, 0.5)),
                at=on_head((0, 0, 0), radii, 45, -12, 0.99),
                mirror=True,
            )
    mouth(b, rng, (0.0, 0.0, 0.0), radii, down=-22)
    if rng.uniform() < 0.25:
        b.add(cylinder(r * 0.8, 0.04, segments=28), plain(soft(rng)), at=(0, 0, radii[2] * 0.9))
        b.add(cylinder(r * 0.5, 0.4, segments=28), plain(any_color(rng)), at=(0, 0, radii[2] * 0.9 + 0.2))


KINDS = (figure, figure, figure, bust, mascot, mascot, ghost, head_only)
