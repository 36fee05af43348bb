"""Mask IoU of the offline cut-out on composites of known mask, and how well its confidence stops bad ones.

Run: python benchmarks/preprocess_quality.py [--objects 40] [--sheet sheet.png]
"""

import argparse
import io

import cv2
import numpy as np
from PIL import Image

from zero123s.images.io import LoadedImage, composite, unpremultiply, write_png_atomic
from zero123s.preprocess.segment import THRESHOLD, segment

SIZE = 320
KINDS = ("plain", "gradient", "vignetted", "noisy", "shadow", "room", "busy")
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
    elif kind == "room":  # a wall and a table that meet at a soft line, vignetted and noisy
        table = 1 / (1 + np.exp(-(y - 0.6) * 60))
        plain = plain * (1 - table) + rng.uniform(0.3, 1, 3) * table + rng.normal(0, 0.01, plain.shape)
        plain = plain * (1 - 0.3 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))
    elif kind == "busy":
        spots = cv2.resize(rng.random((12, 12, 3)).astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        plain = 0.6 * plain + 0.4 * spots
    return np.clip(plain, 0, 1)


def as_jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    """Return `rgb` as it comes back from a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(rgb * 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer), np.float32) / 255


def main() -> None:
    """Print one row per kind of background and the precision of the stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--sheet", help="PNG with two cut-outs of each kind")
    args = parser.parse_args()
    scores, sheet = [], []
    print("| background | mean IoU | worst | kept | mean IoU of kept |\n|---|---|---|---|---|")
    for kind in KINDS:
        rows = []
        for seed in range(args.objects):
            rng = np.random.default_rng(seed)
            truth = draw_object(rng)
            rgb = as_jpeg(composite(truth, draw_background(kind, rng, truth[..., 3])), int(rng.integers(60, 96)))
            result = segment(LoadedImage(np.concatenate([rgb, np.ones_like(rgb[..., :1])], -1), False))
            a, b = result.rgba[..., 3] > 0.5, truth[..., 3] > 0.5
            rows.append(((a & b).sum() / (a | b).sum(), result.confidence))
            if seed < 2:
                sheet.append(
                    np.concatenate([rgb, composite(result.rgba, (1, 1, 1)), composite(result.rgba, (0, 1, 0))], 1)
                )
        iou, confidence = np.array(rows).T
        kept = confidence >= THRESHOLD
        mean_kept = f"{iou[kept].mean():.3f}" if kept.any() else "-"
        print(f"| {kind} | {iou.mean():.3f} | {iou.min():.3f} | {kept.sum()}/{len(iou)} | {mean_kept} |")
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
