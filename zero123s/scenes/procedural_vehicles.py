"""Cars, trucks, aeroplanes, boats, rockets, locomotives."""

import numpy as np

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.primitives import Builder, Solid, box, capsule, cylinder, ellipsoid, extrude, lathe, tube
from zero123s.scenes.procedural_color import DARK, WHITE, any_color, fabric, jitter, metal, plain, vivid, wood

Rng = np.random.Generator
GLASS = Paint((0.35, 0.47, 0.58))


def _wheels(b: Builder, rng: Rng, xs: tuple[float, ...], y: float, r: float, wide: float) -> None:
    hub = metal(rng) if rng.uniform() < 0.7 else plain(vivid(rng))
    for x in xs:
        b.add(cylinder(r, wide, bevel=0.02, segments=24), plain(DARK), at=(x, y, r), turn=(90, 0, 0), mirror=True)
        b.add(cylinder(r * 0.55, wide + 0.02, segments=16), hub, at=(x, y, r), turn=(90, 0, 0), mirror=True)


def _lights(b: Builder, x: float, back: float, y: float, z: float) -> None:
    b.add(ellipsoid(0.03, 0.05, 0.045, 8, 12), plain((1.0, 0.95, 0.7)), at=(x, y, z), mirror=True)
    b.add(box(0.03, 0.1, 0.05, 0.01), plain((0.8, 0.1, 0.1)), at=(back, y, z), mirror=True)


def car(b: Builder, rng: Rng) -> None:
    """Saloon, van, beetle or pick-up from one extruded side view."""
    body = plain(any_color(rng)) if rng.uniform() < 0.75 else fabric(rng, 0.8)
    long, w, r = rng.uniform(0.7, 0.95), rng.uniform(0.55, 0.75), rng.uniform(0.13, 0.19)
    low, belt, roof = r * 0.8, r + rng.uniform(0.18, 0.26), rng.uniform(0.55, 0.8)
    b.add(box(2 * long, w, belt - low, 0.07), body, at=(0, 0, (belt + low) / 2))
    rear, front, slope = rng.uniform(-0.95, -0.4) * long, rng.uniform(0.2, 0.6) * long, rng.uniform(0.05, 0.3)
    cabin = [
        (rear, belt - 0.02),
        (front, belt - 0.02),
        (front - slope, roof),
        (rear + slope * rng.uniform(0.1, 1), roof),
    ]
    b.add(extrude(cabin, w * 0.86), body)
    inner = np.array(cabin)
    center = inner.mean(axis=0)
    b.add(extrude(center + (inner - center) * [0.84, 0.7], w * 0.87), GLASS)
    angle = np.rad2deg(np.arctan2(slope, roof - belt))
    length = float(np.hypot(slope, roof - belt))
    b.add(
        box(0.02, w * 0.74, length * 0.75, 0.005),
        GLASS,
        at=(front - slope / 2 + 0.003, 0, (belt + roof) / 2),
        turn=(0, -angle, 0),
    )
    _wheels(b, rng, (-long * 0.62, long * 0.62), w / 2 - 0.02, r, 0.13)
    _lights(b, long, -long, w * 0.34, belt - 0.09)
    b.add(box(0.06, w * 1.02, 0.06, 0.02), metal(rng), at=(long, 0, low + 0.04))
    if rng.uniform() < 0.3:
        b.add(box(2 * long * 0.99, 0.09, 0.01, 0.003), plain(any_color(rng)), at=(0, 0.1, belt + 0.003), mirror=True)
    if rng.uniform() < 0.2:
        b.add(box(0.1, 0.26, 0.08, 0.02), plain(vivid(rng)), at=((rear + front) / 2, 0, roof + 0.03))


def truck(b: Builder, rng: Rng) -> None:
    """A cab and a box, tank, open bed or bus body."""
    cab, load, r, w = plain(vivid(rng)), fabric(rng, 0.9), rng.uniform(0.12, 0.16), rng.uniform(0.45, 0.6)
    long, tall, base = rng.uniform(0.8, 1.3), rng.uniform(0.4, 0.65), r * 1.4
    b.add(box(long + 0.5, w * 0.8, 0.08), plain(DARK), at=(-0.05, 0, base))
    front = long / 2 - 0.05
    b.add(box(0.36, w, tall * 0.85, 0.05), cab, at=(front + 0.2, 0, base + tall * 0.43))
    b.add(box(0.02, w * 0.85, tall * 0.3, 0.01), GLASS, at=(front + 0.385, 0, base + tall * 0.6))
    b.add(box(0.2, w * 1.01, tall * 0.28, 0.01), GLASS, at=(front + 0.22, 0, base + tall * 0.6))
    kind, x = rng.integers(4), -0.15
    if kind == 0:
        b.add(box(long, w * 1.05, tall, 0.03), load, at=(x, 0, base + tall / 2 + 0.03))
    elif kind == 1:
        b.add(cylinder(w * 0.5, long, bevel=0.08, segments=28), load, at=(x, 0, base + w * 0.5), turn=(0, 90, 0))
    elif kind == 2:
        b.add(box(long, 0.05, tall * 0.45), load, at=(x, w / 2, base + tall * 0.22), mirror=True)
        b.add(box(0.05, w, tall * 0.45), load, at=(x - long / 2, 0, base + tall * 0.22))
        b.add(
            ellipsoid(long * 0.42, w * 0.4, tall * 0.5),
            Paint((0.5, 0.4, 0.3), (0.35, 0.27, 0.2), "noise", 8),
            at=(x, 0, base + 0.15),
        )
    else:
        b.add(box(long + 0.15, w, tall * 1.15, 0.06), cab, at=(x + 0.08, 0, base + tall * 0.6))
        for i in range(4):
            b.add(
                box(long / 6, w * 1.02, tall * 0.35, 0.02), GLASS, at=(x + (i - 1.5) * long / 4.2, 0, base + tall * 0.8)
            )
    _wheels(b, rng, (-long * 0.5, -long * 0.22, long * 0.5), w / 2, r, 0.1)
    _lights(b, front + 0.39, -long / 2 - 0.16, w * 0.36, base + 0.08)


def plane(b: Builder, rng: Rng) -> None:
    """Fuselage, wings, tail, and jets or a propeller."""
    body, wing, accent = (
        fabric(rng, 0.8) if rng.uniform() < 0.5 else plain(WHITE),
        plain(any_color(rng)),
        plain(vivid(rng)),
    )
    r, long = rng.uniform(0.1, 0.18), rng.uniform(0.7, 0.95)
    b.add(tube_x(long, r), body)
    span, chord, sweep = rng.uniform(0.6, 0.95), rng.uniform(0.2, 0.35), rng.uniform(-0.02, 0.45)
    high = rng.uniform(-0.6, 0.8) * r
    outline = [(chord / 2, 0), (-chord / 2, 0), (-sweep - chord * 0.35, span), (-sweep, span)]
    b.add(
        extrude(outline, 0.035),
        wing,
        at=(rng.uniform(0, 0.2), 0, high),
        turn=(-90 + rng.uniform(0, 8), 0, 0),
        mirror=True,
    )
    tail = [(0.12, 0), (-0.14, 0), (-0.24, 0.3), (-0.1, 0.3)]
    b.add(extrude(tail, 0.03), accent, at=(-long * 0.82, 0, r * 0.4))
    b.add(extrude(tail, 0.025), wing, at=(-long * 0.82, 0, r * 0.3), turn=(-90, 0, 0), mirror=True)
    if rng.uniform() < 0.6:
        y = span * rng.uniform(0.3, 0.45)
        b.add(cylinder(0.06, 0.24, 0.05), accent, at=(0.08 - sweep * 0.3, y, high - 0.08), turn=(0, 90, 0), mirror=True)
    else:
        b.add(box(0.02, 0.07, 0.6, 0.01), plain(DARK), at=(long + 0.03, 0, 0), turn=(rng.uniform(0, 180), 0, 0))
        b.add(ellipsoid(0.06, 0.05, 0.05), accent, at=(long + 0.03, 0, 0))
    b.add(ellipsoid(0.16, r * 0.7, r * 0.6), GLASS, at=(long * 0.55, 0, r * 0.55))
    if rng.uniform() < 0.5:
        b.add(cylinder(0.07, 0.05), plain(DARK), at=(0.1, r, -r - 0.12), turn=(90, 0, 0), mirror=True)
        b.add(capsule((0.1, r, -r - 0.12), (0.1, r * 0.4, 0), 0.02), plain(DARK), mirror=True)


def tube_x(half: float, r: float) -> Solid:
    """Return a fuselage along x with a round nose and a slim tail."""
    x = np.linspace(-half, half * 0.9, 9)
    size = r * np.interp(x / half, [-1, -0.4, 0.5, 0.9], [0.25, 0.95, 1, 0.7])
    return tube(np.stack([x, 0 * x, 0.3 * r * (x < -0.5 * half)], -1), size, 20)


def boat(b: Builder, rng: Rng) -> None:
    """Hull of stacked sections with a cabin, a mast and sails, or funnels."""
    hull, deck = fabric(rng, 0.6) if rng.uniform() < 0.4 else plain(any_color(rng)), wood(rng)
    long, w, h = rng.uniform(0.7, 0.95), rng.uniform(0.2, 0.32), rng.uniform(0.2, 0.32)
    outline = [(long, 0.0), (long * 0.55, 0.75), (0.0, 1.0), (-long * 0.8, 0.9), (-long, 0.7)]
    top = [(x, y * w) for x, y in outline] + [(x, -y * w) for x, y in outline[::-1] if y > 0]
    for i in range(4):
        k = 0.72 + 0.28 * np.sqrt((i + 1) / 4)
        b.add(
            extrude(np.array(top) * [0.8 + 0.05 * (i + 1), k], h / 4 + 0.001),
            hull,
            at=(0, 0, h * (i + 0.5) / 4),
            turn=(90, 0, 0),
        )
    b.add(extrude(np.array(top) * 0.9, 0.02), deck, at=(0, 0, h), turn=(90, 0, 0))
    if rng.uniform() < 0.5:
        mast = rng.uniform(0.8, 1.2)
        b.add(cylinder(0.02, mast), deck, at=(0.1, 0, h + mast / 2))
        sail = fabric(rng, 0.6) if rng.uniform() < 0.5 else plain(WHITE)
        b.add(extrude([(0.06, 0.08), (-long * 0.8, 0.1), (0.06, mast * 0.95)], 0.02), sail, at=(0, 0, h))
        b.add(extrude([(0.15, 0.2), (long * 0.85, 0.05), (0.15, mast * 0.8)], 0.02), sail, at=(0, 0, h))
    else:
        cabin = plain(jitter(rng, WHITE, 0.08))
        b.add(box(long * 0.8, w * 1.2, 0.2, 0.03), cabin, at=(-0.1, 0, h + 0.1))
        b.add(box(long * 0.82, w * 1.22, 0.07, 0.01), GLASS, at=(-0.1, 0, h + 0.12))
        b.add(box(long * 0.45, w, 0.18, 0.03), cabin, at=(-0.05, 0, h + 0.28))
        for x in [-0.2, 0.1] if rng.uniform() < 0.5 else [-0.1]:
            b.add(cylinder(0.07, 0.3), plain(vivid(rng)), at=(x, 0, h + 0.5))


def rocket(b: Builder, rng: Rng) -> None:
    """A toy rocket standing on its fins."""
    h, r = rng.uniform(1.0, 1.5), rng.uniform(0.16, 0.28)
    profile = [(0, 0.1), (r * 0.7, 0.1), (r, h * 0.3), (r, h * 0.6), (r * 0.6, h * 0.85), (0.0, h)]
    b.add(lathe(profile, 32, 60), fabric(rng, 0.8))
    fin, fins = plain(vivid(rng)), rng.integers(3, 5)
    for i in range(fins):
        shape = [(r * 0.6, 0.12), (r * 2.1, 0), (r * 1.9, 0.25), (r * 0.9, 0.5)]
        b.add(extrude(shape, 0.04), fin, turn=(0, 0, 360 * i / fins + 180 / fins))
    b.add(cylinder(r * 0.35, 0.05), metal(rng), at=(r * 0.97, 0, h * 0.55), turn=(0, 90, 0))
    b.add(cylinder(r * 0.26, 0.06), GLASS, at=(r * 0.97, 0, h * 0.55), turn=(0, 90, 0))
    b.add(cylinder(r * 0.5, 0.1, r * 0.35), metal(rng), at=(0, 0, 0.08))


def locomotive(b: Builder, rng: Rng) -> None:
    """A toy steam engine."""
    body, cab, brass = plain(vivid(rng)), plain(any_color(rng)), metal(rng)
    r, long = rng.uniform(0.18, 0.25), rng.uniform(0.8, 1.1)
    b.add(box(long + 0.35, 2.2 * r, 0.1), plain(DARK), at=(0, 0, 0.25))
    b.add(cylinder(r, long, bevel=0.03, segments=28), body, at=(0.12, 0, 0.3 + r), turn=(0, 90, 0))
    for x in (-0.1, 0.3):
        b.add(cylinder(r * 1.03, 0.04), brass, at=(x, 0, 0.3 + r), turn=(0, 90, 0))
    b.add(box(0.4, 2.3 * r, 0.6, 0.03), cab, at=(-long / 2, 0, 0.6))
    b.add(box(0.2, 2.34 * r, 0.2, 0.02), GLASS, at=(-long / 2, 0, 0.72))
    b.add(box(0.5, 2.6 * r, 0.05, 0.02), body, at=(-long / 2, 0, 0.92))
    b.add(cylinder(0.06, 0.35, rng.uniform(0.06, 0.13)), plain(DARK), at=(long * 0.42, 0, 0.35 + 2 * r))
    b.add(ellipsoid(0.09, 0.09, 0.12), brass, at=(0.05, 0, 0.32 + 2 * r))
    _wheels(b, rng, (-long * 0.45, -0.05, long * 0.4), r * 1.1, 0.16, 0.07)


BUILDERS = (car, car, truck, plane, boat, rocket, locomotive)
