"""Tables, chairs, sofas, shelves, lamps, beds."""

import numpy as np

from zero123s.scenes.primitives import Builder, box, capsule, cylinder, ellipsoid, lathe, torus
from zero123s.scenes.procedural_color import WHITE, fabric, metal, plain, soft, surface, vivid, wood

Rng = np.random.Generator


def _legs(b: Builder, rng: Rng, paint, x: float, y: float, top: float, size: float) -> None:
    """Place four legs from the ground to `top` at (+-x, +-y)."""
    kind, splay = rng.integers(3), rng.uniform(0, 0.08)
    for sign in (-1, 1):
        if kind == 0:
            b.add(box(size, size, top, 0.01), paint, at=(sign * x, y, top / 2), mirror=True)
        elif kind == 1:
            b.add(cylinder(size * 0.35, top, size * 0.6), paint, at=(sign * x, y, top / 2), mirror=True)
        else:
            foot = (sign * (x + splay), y + splay, 0.0)
            b.add(capsule(foot, (sign * x, y, top), size * 0.4, size * 0.55), paint, mirror=True)


def table(b: Builder, rng: Rng) -> None:
    """Round or rectangular, four legs or one foot, at times with things on it."""
    paint, leg = surface(rng), wood(rng) if rng.uniform() < 0.6 else metal(rng)
    x, y, z, t = rng.uniform(0.5, 0.9), rng.uniform(0.6, 1.4), rng.uniform(0.4, 0.9), rng.uniform(0.04, 0.1)
    if rng.uniform() < 0.4:
        b.add(cylinder(x / 1.3, t, segments=40, bevel=0.015), paint, at=(0, 0, z))
        if rng.uniform() < 0.6:
            b.add(lathe([(0, 0), (x * 0.45, 0), (x * 0.4, 0.05), (0.06, 0.1), (0.05, z)]), leg)
        else:
            _legs(b, rng, leg, x * 0.42, x * 0.42, z, 0.08)
    else:
        b.add(box(x, y, t, 0.02), paint, at=(0, 0, z))
        _legs(b, rng, leg, x / 2 - 0.07, y / 2 - 0.07, z, rng.uniform(0.05, 0.12))
        if rng.uniform() < 0.4:
            b.add(box(x * 0.85, y * 0.85, 0.04), leg, at=(0, 0, z * rng.uniform(0.2, 0.6)))
    if rng.uniform() < 0.4:
        b.add(
            lathe([(0, 0), (0.1, 0), (0.13, 0.1), (0.05, 0.22), (0.08, 0.28)]), fabric(rng, 0.3), at=(0, 0, z + t / 2)
        )


def chair(b: Builder, rng: Rng) -> None:
    """Seat, legs, back of slats, panel or round; at times arms."""
    frame, seat = surface(rng), fabric(rng, 0.6)
    w, h, back = rng.uniform(0.5, 0.7), rng.uniform(0.35, 0.55), rng.uniform(0.45, 0.75)
    b.add(box(w, w, rng.uniform(0.05, 0.14), 0.03), seat, at=(0, 0, h))
    if rng.uniform() < 0.75:
        _legs(b, rng, frame, w / 2 - 0.05, w / 2 - 0.05, h, rng.uniform(0.05, 0.08))
    else:
        b.add(cylinder(0.04, h), frame, at=(0, 0, h / 2))
        for angle in range(0, 360, 72):
            a = np.deg2rad(angle)
            b.add(capsule((0, 0, 0.06), (0.3 * np.cos(a), 0.3 * np.sin(a), 0.03), 0.03), frame)
    tilt, x = rng.uniform(-12, -2), -w / 2 + 0.03
    kind = rng.integers(4)
    center = (x - 0.04, 0, h + back / 2 + 0.03)
    if kind == 0:
        b.add(box(0.06, w * 0.95, back, 0.03), seat if rng.uniform() < 0.5 else frame, at=center, turn=(0, tilt, 0))
    elif kind == 1:
        for z in np.linspace(0.35, 1, rng.integers(2, 5)):
            b.add(box(0.04, w * 0.9, 0.09, 0.02), frame, at=(x - 0.06 * z, 0, h + back * z))
        b.add(capsule((x, w / 2 - 0.04, h), (x - 0.07, w / 2 - 0.04, h + back + 0.04), 0.03), frame, mirror=True)
    elif kind == 2:
        for y in np.linspace(0, w / 2 - 0.04, 4):
            b.add(capsule((x, y, h), (x - 0.06, y, h + back), 0.02), frame, mirror=True)
        b.add(box(0.06, w, 0.1, 0.03), frame, at=(x - 0.06, 0, h + back))
    else:
        b.add(ellipsoid(0.05, w * 0.48, back * 0.5), seat, at=center, turn=(0, tilt, 0))
    if rng.uniform() < 0.3:
        b.add(box(w * 0.9, 0.06, 0.05), frame, at=(0, w / 2, h + 0.25), mirror=True)
        b.add(box(0.05, 0.05, 0.27), frame, at=(w * 0.4, w / 2, h + 0.12), mirror=True)


def sofa(b: Builder, rng: Rng) -> None:
    """One to three seats with arms, cushions and pillows."""
    body, cushion = fabric(rng, 0.8), fabric(rng, 0.5)
    seats = rng.integers(1, 4)
    w, d, h, arm = 0.5 * seats + 0.2, rng.uniform(0.55, 0.75), rng.uniform(0.25, 0.36), rng.uniform(0.1, 0.2)
    b.add(box(d, w, h * 0.7, 0.05), body, at=(0, 0, 0.08 + h * 0.35))
    b.add(box(0.18, w, rng.uniform(0.5, 0.75), 0.08), body, at=(-d / 2, 0, 0.4), turn=(0, -8, 0))
    if rng.uniform() < 0.5:
        b.add(box(d, arm, h * 1.7, 0.06), body, at=(0, w / 2 + arm / 2, h * 0.93), mirror=True)
    else:
        b.add(cylinder(arm * 0.8, d, bevel=0.03), body, at=(0, w / 2 + arm / 2, h * 1.5), turn=(0, 90, 0), mirror=True)
        b.add(box(d, arm, h * 1.4), body, at=(0, w / 2 + arm / 2, h * 0.75), mirror=True)
    for i in range(seats):
        y = (i - (seats - 1) / 2) * w / seats
        b.add(box(d * 0.85, w / seats - 0.02, 0.14, 0.06), cushion, at=(0.07, y, h + 0.06))
    if rng.uniform() < 0.5:
        b.add(
            box(0.1, 0.28, 0.28, 0.05),
            fabric(rng, 0.3),
            at=(-d / 2 + 0.2, w / 2 - 0.17, h + 0.27),
            turn=(0, -20, 0),
            mirror=True,
        )
    b.add(cylinder(0.035, 0.1), wood(rng), at=(d / 2 - 0.08, w / 2, 0.05), mirror=True)
    b.add(cylinder(0.035, 0.1), wood(rng), at=(-d / 2 + 0.08, w / 2, 0.05), mirror=True)


def shelf(b: Builder, rng: Rng) -> None:
    """Open shelves with books and boxes, or a chest of drawers."""
    paint, w, d, h = surface(rng), rng.uniform(0.6, 1.2), rng.uniform(0.3, 0.5), rng.uniform(0.7, 1.5)
    rows, t = rng.integers(2, 5), 0.04
    if rng.uniform() < 0.4:
        b.add(box(d, w, h, 0.02), paint, at=(0, 0, h / 2 + 0.08))
        front, knob = surface(rng, 0.5), metal(rng)
        for i in range(rows):
            z = 0.08 + h * (i + 0.5) / rows
            b.add(box(0.04, w * 0.92, h / rows * 0.86, 0.015), front, at=(d / 2, 0, z))
            b.add(ellipsoid(0.03, 0.03, 0.03), knob, at=(d / 2 + 0.04, w * 0.22, z), mirror=True)
        b.add(cylinder(0.03, 0.1), wood(rng), at=(d / 2 - 0.05, w / 2 - 0.05, 0.05), mirror=True)
        b.add(cylinder(0.03, 0.1), wood(rng), at=(-d / 2 + 0.05, w / 2 - 0.05, 0.05), mirror=True)
        return
    b.add(box(d, t, h, 0.01), paint, at=(0, w / 2, h / 2), mirror=True)
    b.add(box(0.02, w, h, 0.005), paint, at=(-d / 2 + 0.01, 0, h / 2))
    for i in range(rows + 1):
        b.add(box(d, w, t, 0.01), paint, at=(0, 0, t / 2 + (h - t) * i / rows))
    for i in range(rows):
        y = -w / 2 + 0.06
        while y < w / 2 - 0.12:
            bw, bh = rng.uniform(0.04, 0.1), h / rows * rng.uniform(0.5, 0.85)
            if rng.uniform() < 0.75:
                b.add(
                    box(d * 0.7, bw, bh, 0.006), plain(vivid(rng)), at=(0, y + bw / 2, t + (h - t) * i / rows + bh / 2)
                )
            y += bw + 0.008


def lamp(b: Builder, rng: Rng) -> None:
    """A standing or table lamp with a shade."""
    h, r = rng.uniform(0.5, 1.4), rng.uniform(0.2, 0.35)
    stem = metal(rng) if rng.uniform() < 0.6 else surface(rng)
    b.add(lathe([(0, 0), (r * 0.8, 0), (r * 0.8, 0.04), (0.03, 0.07), (0.025, h)]), stem)
    if rng.uniform() < 0.5:
        body = [(0.02, 0.05), (rng.uniform(0.06, 0.2), h * 0.25), (rng.uniform(0.05, 0.12), h * 0.5), (0.02, h * 0.7)]
        b.add(lathe(body, crease_deg=180), fabric(rng, 0.3))
    shade, top, tall = fabric(rng, 0.4), r * rng.uniform(0.3, 1), rng.uniform(0.2, 0.45)
    if rng.uniform() < 0.75:
        b.add(
            lathe([(r, h - 0.02), (top, h - 0.02 + tall), (top - 0.01, h - 0.02 + tall), (r - 0.01, h - 0.02)], 36),
            shade,
        )
        b.add(ellipsoid(0.07, 0.07, 0.09), plain((1.0, 0.95, 0.75)), at=(0, 0, h + tall * 0.3))
    else:
        b.add(ellipsoid(r, r, r), shade, at=(0, 0, h + r * 0.8))


def bed(b: Builder, rng: Rng) -> None:
    """Frame, mattress, blanket and pillows."""
    frame, w, d = wood(rng), rng.uniform(0.7, 1.2), rng.uniform(1.3, 1.6)
    b.add(box(d, w, 0.16, 0.03), frame, at=(0, 0, 0.2))
    b.add(box(d * 0.97, w * 0.96, 0.18, 0.06), plain(WHITE), at=(0, 0, 0.36))
    b.add(box(d * 0.68, w * 1.01, 0.2, 0.06), fabric(rng, 1), at=(d * 0.15, 0, 0.37))
    b.add(box(0.07, w * 1.05, rng.uniform(0.5, 0.9), 0.03), frame, at=(-d / 2, 0, 0.4))
    if rng.uniform() < 0.5:
        b.add(box(0.07, w * 1.05, 0.45, 0.03), frame, at=(d / 2, 0, 0.25))
    b.add(ellipsoid(0.16, w * 0.2, 0.08), plain(soft(rng)), at=(-d * 0.37, w * 0.23, 0.49), mirror=True)
    _legs(b, rng, frame, d / 2 - 0.06, w / 2 - 0.06, 0.2, 0.08)


def stool(b: Builder, rng: Rng) -> None:
    """A round seat on legs or a drum, with a foot ring."""
    r, h = rng.uniform(0.2, 0.32), rng.uniform(0.3, 0.85)
    b.add(cylinder(r, rng.uniform(0.05, 0.15), bevel=0.03, segments=32), fabric(rng, 0.4), at=(0, 0, h))
    if rng.uniform() < 0.3:
        b.add(cylinder(r * 0.9, h), fabric(rng, 0.5), at=(0, 0, h / 2))
        return
    leg = surface(rng)
    for angle in range(45, 405, 90):
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        b.add(capsule((c * r * 1.1, s * r * 1.1, 0.02), (c * r * 0.7, s * r * 0.7, h), 0.03), leg)
    b.add(torus(r * 0.95, 0.018), metal(rng), at=(0, 0, h * 0.35))


BUILDERS = (table, chair, sofa, shelf, lamp, bed, stool)
