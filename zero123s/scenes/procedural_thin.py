"""Thin things: chairs on thin legs, lamps, umbrellas, cages and frames."""

import numpy as np

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.primitives import Builder, box, capsule, cylinder, ellipsoid, extrude, lathe, sheet, torus, tube
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
from zero123s.scenes.procedural_images import any_image, wood_grain

Rng = np.random.Generator


def _leg_paint(rng: Rng) -> Paint:
    kind = rng.integers(4)
    if kind < 2:
        return (metal, wood)[kind](rng)
    return plain(jitter(rng, (WHITE, DARK)[kind - 2], 0.02))


def thin_chair(b: Builder, rng: Rng) -> None:
    """A chair or stool on thin legs: shell, wire, slatted or round."""
    leg = _leg_paint(rng)
    seat = plain(jitter(rng, WHITE, 0.02)) if rng.uniform() < 0.3 else surface(rng, 0.5)
    w, h, back, thin = rng.uniform(0.22, 0.3), rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.65), rng.uniform(0.012, 0.025)
    splay, kind = rng.uniform(0.0, 0.12), rng.integers(4)
    for x in (-1, 1):
        b.add(capsule((x * (w + splay), w + splay, 0), (x * w * 0.85, w * 0.85, h), thin * 0.8, thin), leg, mirror=True)
    if rng.uniform() < 0.5:
        ring = [(-w, -w), (w, -w), (w, w), (-w, w), (-w, -w)]
        b.add(tube([(x, y, h * 0.4) for x, y in ring], thin * 0.7, 8), leg)
    if kind == 0:  # a bent shell
        b.add(box(2 * w, 2 * w, 0.03, 0.015), seat, at=(0, 0, h))
        b.add(sheet(2.1 * w, back, 70), seat, at=(0.72 * w, 0, h + back / 2 + 0.02), turn=(0, -8, 180))
        b.add(capsule((-w * 0.9, w * 0.3, h), (-w * 1.05, w * 0.3, h + back * 0.5), thin), leg, mirror=True)
    elif kind == 1:
        _wire_seat(b, leg, w, h, back, thin * 0.6)
    elif kind == 2:  # slats
        for x in np.linspace(-w, w, 5):
            b.add(box(w * 0.32, 2 * w, 0.025, 0.005), seat, at=(x, 0, h))
        b.add(capsule((-w, w * 0.9, h), (-w - 0.12, w * 0.9, h + back), thin), leg, mirror=True)
        for k in range(3):
            at = (-w - 0.04 - 0.03 * k, 0, h + back * (0.4 + 0.25 * k))
            b.add(box(0.02, 1.9 * w, 0.09, 0.005), seat, at=at, turn=(0, -12, 0))
    else:
        b.add(cylinder(w * 1.15, 0.05, segments=32, bevel=0.02), seat, at=(0, 0, h))
        a = np.linspace(np.pi * 0.55, np.pi * 1.45, 13)
        c, s = w * np.cos(a), w * np.sin(a)
        if rng.uniform() < 0.6:
            b.add(tube(np.stack([1.05 * c, 1.05 * s, 0 * a + h + back], -1), thin * 1.2, 8), leg)
            for x, y in zip(c[::3], s[::3], strict=True):
                b.add(capsule((x, y, h), (1.05 * x, 1.05 * y, h + back), thin * 0.7), leg)


def _wire_seat(b: Builder, paint: Paint, w: float, h: float, back: float, thin: float) -> None:
    """Place a seat and a back of bent wires."""
    for y in np.linspace(0, w, 4):
        b.add(tube([(w, y, h), (-w, y, h), (-w - 0.1, y * 0.9, h + back)], thin, 8), paint, mirror=y > 0)
    for x in np.linspace(-w, w, 6):
        b.add(capsule((x, -w, h), (x, w, h), thin), paint)
    for k in range(1, 5):
        z, x = h + back * k / 4, -w - 0.1 * k / 4
        b.add(capsule((x, -w * 0.95, z), (x, w * 0.95, z), thin), paint)


def standing_lamp(b: Builder, rng: Rng) -> None:
    """A floor, desk, oil or street lamp, or a lantern."""
    kind, stand, shade = (
        rng.integers(4),
        metal(rng) if rng.uniform() < 0.6 else surface(rng),
        fabric(rng, 0.4) if rng.uniform() < 0.5 else plain((0.95, 0.92, 0.82)),
    )
    if kind == 0:
        h, r = rng.uniform(0.6, 1.3), rng.uniform(0.2, 0.35)
        b.add(lathe([(0, 0), (0.22, 0), (0.2, 0.03), (0.02, 0.05), (0.02, h), (0, h)], 30), stand)
        b.add(lathe([(r, h - 0.1), (r * rng.uniform(0.5, 1.0), h + 0.28)], 36), shade)
        b.add(ellipsoid(0.07, 0.07, 0.1), plain((1.0, 0.97, 0.8)), at=(0, 0, h + 0.08))
    elif kind == 1:  # desk lamp with two arms
        elbow, tip = (-0.25, 0, 0.45), (0.15, 0, 0.8)
        b.add(cylinder(0.2, 0.05, segments=30, bevel=0.02), stand, at=(0, 0, 0.025))
        b.add(tube([(0, 0, 0.05), elbow], 0.022, 8), stand)
        b.add(tube([elbow, tip], 0.022, 8), stand)
        b.add(ellipsoid(0.04, 0.04, 0.04), stand, at=elbow)
        b.add(
            lathe([(0.19, 0), (0.06, 0.22), (0, 0.24)], 30), plain(any_color(rng)), at=(0.22, 0, 0.6), turn=(0, -25, 0)
        )
        b.add(ellipsoid(0.07, 0.07, 0.07), plain((1.0, 0.97, 0.8)), at=(0.22, 0, 0.63))
    elif kind == 2:  # lantern
        w, h = rng.uniform(0.2, 0.28), rng.uniform(0.45, 0.65)
        b.add(box(2.2 * w, 2.2 * w, 0.06, 0.01), stand, at=(0, 0, 0.03))
        for x in (-w, w):
            b.add(box(0.03, 0.03, h, 0.005), stand, at=(x, w, h / 2 + 0.05), mirror=True)
        b.add(cylinder(w * 1.6, 0.2, 0.05, 4), stand, at=(0, 0, h + 0.14), turn=(0, 0, 45))
        b.add(cylinder(0.09, h * 0.5), plain((0.98, 0.93, 0.8)), at=(0, 0, h * 0.25 + 0.05))
        b.add(ellipsoid(0.03, 0.03, 0.06), plain((1.0, 0.7, 0.2)), at=(0, 0, h * 0.5 + 0.1))
        b.add(torus(0.09, 0.015), stand, at=(0, 0, h + 0.31), turn=(90, 0, 0))
    else:
        h = rng.uniform(0.9, 1.2)
        b.add(lathe([(0, 0), (0.12, 0), (0.1, 0.1), (0.035, 0.14), (0.03, h), (0, h)], 24), stand)
        b.add(tube([(0, 0, h), (0, 0.1, h + 0.1), (0, 0.22, h + 0.08), (0, 0.25, h)], 0.018, 8), stand, mirror=True)
        b.add(ellipsoid(0.09, 0.09, 0.1), plain((1.0, 0.96, 0.82)), at=(0, 0.25, h - 0.08), mirror=True)
        b.add(cylinder(0.12, 0.05, 0.03), stand, at=(0, 0.25, h + 0.02), mirror=True)


def umbrella(b: Builder, rng: Rng) -> None:
    """An umbrella, parasol, tent or parachute: a thin canopy over struts."""
    panels, kind = fabric(rng, 0.5) if rng.uniform() < 0.6 else plain(vivid(rng)), rng.integers(3)
    if kind < 2:
        t = np.linspace(0, 1.25, 9)
        canopy = lathe(np.stack([0.6 * np.sin(t[::-1]), 0.55 * np.cos(t[::-1]) + 0.5], -1), 8, 180)
        b.add(canopy, panels)
        b.add(cylinder(0.018, 1.1), metal(rng), at=(0, 0, 0.5))
        for k in range(8):
            a = 2 * np.pi * k / 8
            b.add(capsule((0, 0, 0.75), (0.5 * np.cos(a), 0.5 * np.sin(a), 0.76), 0.008), metal(rng))
        if kind == 0:
            a = np.linspace(0, np.pi, 9)
            b.add(tube(np.stack([0 * a, 0.08 - 0.08 * np.cos(a), -0.05 - 0.08 * np.sin(a)], -1), 0.025, 8), wood(rng))
        else:
            b.add(cylinder(0.25, 0.06, 0.2, 28), plain(DARK), at=(0, 0, -0.05))
    else:
        x, h = rng.uniform(0.8, 1.1), rng.uniform(0.5, 0.7)
        b.add(extrude([(-0.5, 0), (0.5, 0), (0, h)], x), panels, turn=(0, 0, 90))
        b.add(
            extrude([(-0.18, 0), (0.18, 0), (0, h * 0.75)], x + 0.01),
            plain((0.15, 0.14, 0.14)),
            at=(0.01, 0, 0),
            turn=(0, 0, 90),
        )
        b.add(capsule((-x / 2, 0, h), (x / 2, 0, h), 0.02), wood(rng))


def cage(b: Builder, rng: Rng) -> None:
    """Bars and frames: a bird cage, crate, ladder, rack, fence or image frame."""
    kind, bar = (
        rng.integers(4),
        metal(rng) if rng.uniform() < 0.5 else wood(rng) if rng.uniform() < 0.5 else plain(any_color(rng)),
    )
    if kind == 0:
        r, h = 0.35, rng.uniform(0.5, 0.7)
        b.add(cylinder(r * 1.05, 0.08, segments=32), plain(any_color(rng)), at=(0, 0, 0.04))
        t = np.linspace(0, np.pi / 2, 7)
        for k in range(14):
            a = 2 * np.pi * k / 14
            rr, z = np.concatenate([[r], r * np.cos(t)]), np.concatenate([[0.05], h + r * 0.8 * np.sin(t)])
            b.add(tube(np.stack([rr * np.cos(a), rr * np.sin(a), z], -1), 0.012, 6), bar)
        b.add(torus(r, 0.015), bar, at=(0, 0, h * 0.6))
        b.add(torus(0.06, 0.015), bar, at=(0, 0, h + r * 0.85), turn=(90, 0, 0))
        b.add(ellipsoid(0.12, 0.08, 0.1), plain(vivid(rng)), at=(0, 0, 0.25))
    elif kind == 1:
        w, h, rungs = 0.22, rng.uniform(1.0, 1.5), int(rng.integers(4, 8))
        lean = rng.uniform(0, 0.3)
        b.add(capsule((lean, w * 1.2, 0), (0, w, h), 0.025), bar, mirror=True)
        for z in np.linspace(0.12, 0.95, rungs):
            b.add(capsule((lean * (1 - z), -w * 1.1, z * h), (lean * (1 - z), w * 1.1, z * h), 0.02), bar)
        if lean > 0.15:
            b.add(capsule((-lean, w * 1.2, 0), (0, w, h), 0.022), bar, mirror=True)
    elif kind == 2:
        x, y, h, slats = rng.uniform(0.4, 0.7), rng.uniform(0.5, 0.9), rng.uniform(0.3, 0.5), int(rng.integers(2, 5))
        board = wood_grain(rng, jitter(rng, (0.72, 0.54, 0.34), 0.06))
        for z in (np.arange(slats) + 0.5) / slats * h:
            for turn, wide, off in ((0, y, x / 2), (90, x, y / 2), (180, y, x / 2), (270, x, y / 2)):
                t = np.deg2rad(turn)
                at = (off * np.cos(t), off * np.sin(t), z)
                b.add(box(0.025, wide, 0.7 * h / slats, 0.004), plain((0.66, 0.5, 0.32)), at=at, turn=(0, 0, turn))
                b.add(
                    sheet(wide, 0.66 * h / slats),
                    WHITE_PAINT,
                    at=(at[0] + 0.015 * np.cos(t), at[1] + 0.015 * np.sin(t), z),
                    turn=(0, 0, turn),
                    texture=board,
                )
        for px in (-x / 2, x / 2):
            b.add(box(0.05, 0.05, h, 0.005), plain((0.5, 0.36, 0.22)), at=(px * 0.94, y * 0.47, h / 2), mirror=True)
        b.add(box(x, y, 0.02, 0.004), plain((0.6, 0.44, 0.28)), at=(0, 0, 0.01))
    else:
        w, h, wide = rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.9), rng.uniform(0.05, 0.1)
        for z in (0, h):
            b.add(box(0.07, w + wide, wide, 0.015), bar, at=(0, 0, z))
        b.add(box(0.07, wide, h, 0.015), bar, at=(0, w / 2, h / 2), mirror=True)
        b.add(box(0.02, w, h, 0.002), plain((0.5, 0.42, 0.34)), at=(-0.02, 0, h / 2))
        b.add(sheet(w, h), WHITE_PAINT, at=(0.0, 0, h / 2), texture=any_image(rng))
        b.add(capsule((-0.03, 0, h * 0.6), (-0.3, 0, -wide / 2), 0.02), bar)


KINDS = (thin_chair, thin_chair, standing_lamp, umbrella, cage)
