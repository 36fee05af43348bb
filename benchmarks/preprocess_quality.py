"""Mask IoU of the offline cut-out on composites of known mask, and how well its confidence stops bad ones.

Run: python benchmarks/preprocess_quality.py [--objects 40] [--gray] [--sheet sheet.png]

--gray: photos in which hue does not separate, of rendered objects (seeds from 1000 on, on which nothing was tuned).
"""

import argparse
import io

import cv2
import numpy as np
from PIL import Image

from zero123s.images.io import LoadedImage, composite, unpremultiply, write_png_atomic
from zero123s.ops.cameras import orbit_cameras
from zero123s.preprocess.segment import THRESHOLD, segment
from zero123s.scenes.procedural import KINDS as OBJECTS
from zero123s.scenes.procedural import named
from zero123s.scenes.render import render_views

SIZE = 320
GRAY_KINDS = ("gray on gray", "plaster", "white on white", "black on black", "black and white", "hard shadow")
FIRST_GRAY_SEED = 1000
KINDS = ("plain", "gradient", "vignetted", "noisy", "shadow", "cast shadow", "room", "busy")
GOOD_IOU = 0.9


def draw_object(rng: np.random.Generator) -> np.ndarray:
    """Return two to four shaded ellipses of random colours, antialiased, straight alpha."""
    fine = 3 * SIZE
    mask, colours = np.zeros((fine, fine), np.uint8), np.zeros((fine, fine, 3), np.float32)
    shade = (np.linspace(0.6, 1.1, fine))[:, None, None]
    for _ in range(rng.integers(2, 5)):
        centre, axes = rng.uniform(0.35, 0.65, 2) * fine, rng.uniform(0.06, 0.2, 2) * fine
        angle = float(rng.uniform(0, 180))
        part = np.zeros_like(mask)
        cv2.ellipse(part, tuple(map(int, centre)), tuple(map(int, axes)), angle, 0, 360, 1, -1)
        colours = np.where(part[..., None] > 0, np.clip(rng.uniform(0, 1, 3) * shade, 0, 1), colours)
        mask |= part
    pre = np.concatenate([colours * mask[..., None], mask[..., None]], -1).astype(np.float32)
    return unpremultiply(cv2.resize(pre, (SIZE, SIZE), interpolation=cv2.INTER_AREA))


def draw_background(kind: str, rng: np.random.Generator, alpha: np.ndarray) -> np.ndarray:
    """Return a background of one kind; a shadow falls below and to the right of `alpha`."""
    y, x = np.mgrid[:SIZE, :SIZE, :1][:2] / SIZE
    plain = np.ones((SIZE, SIZE, 3)) * (rng.uniform(0.75, 1) if kind == "shadow" else rng.uniform(0.3, 1, 3))
    if kind == "gradient":
        plain = plain * (1 - 0.4 * y) + 0.1 * x
    elif kind == "vignetted":
        plain = plain * (1 - 0.5 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))
    elif kind == "noisy":
        plain = plain + rng.normal(0, 0.03, plain.shape)
    elif kind == "shadow":
        moved = np.roll(alpha, (int(0.06 * SIZE), int(0.03 * SIZE)), (0, 1))
        plain = plain * (1 - 0.35 * cv2.GaussianBlur(moved, (0, 0), 0.03 * SIZE)[..., None])
    elif kind == "cast shadow":  # of a small light: its edge is hard
        moved = cv2.GaussianBlur(np.roll(alpha, (int(0.06 * SIZE), int(0.05 * SIZE)), (0, 1)), (0, 0), 0.004 * SIZE)
        plain = plain * (1 - 0.1 * y - 0.05 * x) * (1 - 0.3 * moved[..., None])
    elif kind == "room":  # a wall and a table that meet at a soft line, vignetted and noisy
        table = 1 / (1 + np.exp(-(y - 0.6) * 60))
        plain = plain * (1 - table) + rng.uniform(0.3, 1, 3) * table + rng.normal(0, 0.01, plain.shape)
        plain = plain * (1 - 0.3 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))
    elif kind == "busy":
        spots = cv2.resize(rng.random((12, 12, 3)).astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        plain = 0.6 * plain + 0.4 * spots
    return np.clip(plain, 0, 1)


def draw_gray(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a hueless photo with a soft or hard shadow, light falloff and grain, and the object with its alpha."""
    rng = np.random.default_rng([seed, GRAY_KINDS.index(kind)])
    mesh = named(OBJECTS[seed % len(OBJECTS)].__name__, seed)
    cameras = orbit_cameras(float(rng.uniform(5, 30)), float(rng.uniform(0, 360)), height=SIZE, width=SIZE)
    truth = np.asarray(render_views(mesh, cameras, supersample=3).rgba[0], np.float32)
    gray = truth[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    low, high = np.percentile(gray[truth[..., 3] > 0.5], [2, 98])
    relief = np.clip((gray - low) / max(high - low, 1e-3), 0, 1)  # the light on it, 0 to 1
    body, span, wall = {
        "gray on gray": (rng.uniform(0.45, 0.65), 0.15, rng.uniform(0.75, 0.85)),
        "plaster": (rng.uniform(0.68, 0.75), 0.12, rng.uniform(0.88, 0.95)),
        "white on white": (rng.uniform(0.8, 0.85), 0.13, rng.uniform(0.96, 1.0)),
        "black on black": (rng.uniform(0.1, 0.16), 0.1, rng.uniform(0.02, 0.06)),
        "black and white": (0.0, 0.0, rng.uniform(0.7, 0.95)),
        "hard shadow": (0.0, 0.0, rng.uniform(0.7, 0.95)),
    }[kind]
    shade = gray if span == 0 else body + span * relief
    alpha, width = truth[..., 3], (0.004 if kind == "hard shadow" else 0.03) * SIZE
    shadow = cv2.GaussianBlur(np.roll(alpha, (int(0.06 * SIZE), int(0.05 * SIZE)), (0, 1)), (0, 0), width)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    ground = wall * (1 - 0.25 * shadow) * (1 - 0.1 * y - 0.05 * x)
    photo = ground * (1 - alpha) + shade * alpha + rng.normal(0, 0.008, alpha.shape)
    return np.clip(np.repeat(photo[..., None], 3, -1), 0, 1), truth


def draw_photo(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the photo of one object as a JPEG gives it back, and the object with its alpha."""
    if kind in GRAY_KINDS:
        rgb, truth = draw_gray(kind, FIRST_GRAY_SEED + seed)
        return as_jpeg(rgb, 85), truth
    rng = np.random.default_rng(seed)
    truth = draw_object(rng)
    return as_jpeg(composite(truth, draw_background(kind, rng, truth[..., 3])), int(rng.integers(60, 96))), truth


def as_jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    """Return `rgb` as it comes back from a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(rgb * 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer), np.float32) / 255


def main() -> None:
    """Print one row per kind of background and the precision of the stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--gray", action="store_true", help="photos without hue in place of coloured ones")
    parser.add_argument("--sheet", help="PNG with two cut-outs of each kind")
    args = parser.parse_args()
    scores, sheet = [], []
    print(
        "| photos | mean IoU | mean confidence | kept | mean IoU of kept | worst kept | kept below 0.9 | good ones stopped |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for kind in GRAY_KINDS if args.gray else KINDS:
        rows = []
        for seed in range(args.objects):
            rgb, truth = draw_photo(kind, seed)
            result = segment(LoadedImage(np.concatenate([rgb, np.ones_like(rgb[..., :1])], -1), False))
            a, b = result.rgba[..., 3] > 0.5, truth[..., 3] > 0.5
            rows.append(((a & b).sum() / (a | b).sum(), result.confidence))
            if seed < 2:
                sheet.append(
                    np.concatenate([rgb, composite(result.rgba, (1, 1, 1)), composite(result.rgba, (0, 1, 0))], 1)
                )
        iou, confidence = np.array(rows).T
        kept = confidence >= THRESHOLD
        mean_kept, worst = (f"{f(iou[kept]):.3f}" if kept.any() else "-" for f in (np.mean, np.min))
        n_bad, n_good = (kept & (iou < GOOD_IOU)).sum(), (~kept & (iou >= GOOD_IOU)).sum()
        means = f"{iou.mean():.3f} | {confidence.mean():.2f}"
        print(
            f"| {kind} | {means} | {kept.sum()}/{len(iou)} | {mean_kept} | {worst} | {n_bad} | {n_good} |", flush=True
        )
        scores += rows
    iou, confidence = np.array(scores).T
    stopped, bad = confidence < THRESHOLD, iou < GOOD_IOU
    print(f"\nStopped {stopped.sum()} of {len(iou)}; of these {(stopped & bad).sum()} were bad (IoU < {GOOD_IOU});")
    print(f"of {bad.sum()} bad ones {(stopped & bad).sum()} were stopped.")
    if args.sheet:
        pairs = [np.concatenate(sheet[i : i + 2], 1) for i in range(0, len(sheet), 2)]
        whole = np.concatenate(pairs).astype(np.float32)
        write_png_atomic(args.sheet, cv2.resize(whole, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


if __name__ == "__main__":
    main()
