"""Whether the framed image depends on where the object was, and whether cut-outs carry a halo of their background.

    python benchmarks/framing_and_edges.py [--objects 20] [--places 5]

Framing: each object is drawn at several places and sizes of a photo; in the framed images, all edge points (alpha 0.5) of
one are compared with those of the other, at 256 pixels: once for objects that are at least as large as the
frame will (200 pixels and more), once for smaller ones, whose narrow gaps a photo does not resolve. Edges: photos over plain and graded backgrounds (JPEG quality 60
to 95) are cut out; in the band of partly transparent pixels the cut-out over white, black and green is compared with the
object itself over the same colour, compared with the mask alone.
"""

import argparse

import cv2
import numpy as np
from preprocess_quality import as_jpeg, draw_background, draw_object
from scipy.spatial import cKDTree
from skimage.measure import find_contours

from zero123s.images.io import LoadedImage, composite
from zero123s.preprocess.framing import Framing, apply_framing, frame_object
from zero123s.preprocess.segment import segment

SIZE = 256
COLOURS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0)}


def edge_points(rgba: np.ndarray) -> np.ndarray:
    """Return the points at which alpha is 0.5, N 2, in pixels, finer than a pixel."""
    return np.concatenate(find_contours(np.pad(rgba[..., 3], 1), 0.5))


def framing_distances(objects: int, places: int, sides: tuple[float, float]) -> np.ndarray:
    """Return, per pair of placements, the largest distance of an edge point of one from the other's edge, pixels.

    `sides`: range of the longer side of the object's box in the photo, pixels.
    """
    found = []
    for seed in range(objects):
        rng = np.random.default_rng(seed)
        fine = draw_object(rng)
        y, x = np.nonzero(fine[..., 3] > 0.5)
        corner, side = np.array([x.min(), y.min()]), max(np.ptp(x), np.ptp(y))
        points = None
        for _ in range(places):
            scale = float(rng.uniform(*sides)) / side
            room = 640 - scale * side - 8
            offset = tuple(4 + rng.uniform(0.0, room, 2) - scale * corner)
            photo = apply_framing(fine, Framing(scale, offset, 640))
            other = edge_points(frame_object(photo, SIZE)[0])
            if points is not None:
                pair = (cKDTree(points).query(other)[0].max(), cKDTree(other).query(points)[0].max())
                found.append(max(pair))
            points = other
    return np.array(found)


def edge_errors(objects: int) -> dict[str, tuple[float, float]]:
    """Return colour -> mean absolute difference from the truth along the edge, of the cut-out and of the mask alone."""
    errors: dict[str, list[tuple[float, float]]] = {name: [] for name in COLOURS}
    for kind in ("plain", "gradient"):
        for seed in range(objects):
            rng = np.random.default_rng(seed)
            truth = draw_object(rng)
            photo = as_jpeg(composite(truth, draw_background(kind, rng, truth[..., 3])), int(rng.integers(60, 96)))
            opaque = np.concatenate([photo, np.ones_like(photo[..., :1])], -1).astype(np.float32)
            found = segment(LoadedImage(opaque, False)).rgba
            partly = ((truth[..., 3] > 0.02) & (truth[..., 3] < 0.98)).astype(np.uint8)
            band = cv2.dilate(partly, np.ones((3, 3), np.uint8)) > 0
            hard = np.concatenate([photo, (found[..., 3:] > 0.5).astype(np.float32)], -1)
            for name, colour in COLOURS.items():
                expected = composite(truth, colour)[band]
                pair = [float(np.abs(composite(x, colour)[band] - expected).mean()) for x in (found, hard)]
                errors[name].append((pair[0], pair[1]))
    return {name: (float(np.mean(e, axis=0)[0]), float(np.mean(e, axis=0)[1])) for name, e in errors.items()}


def main() -> None:
    """Print both results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--places", type=int, default=5)
    args = parser.parse_args()
    for sides in ((200.0, 600.0), (60.0, 200.0)):
        distances = framing_distances(args.objects, args.places, sides)
        print(
            f"framing of objects of {sides[0]:g} to {sides[1]:g} pixels: {len(distances)} pairs; the farthest edge point "
            f"lies {np.median(distances):.2f} pixels off in the median, {distances.max():.2f} at worst; "
            f"{np.mean(distances <= 1):.0%} of the pairs within one pixel"
        )
    print("| edge over | cut-out | mask alone |\n|---|---|---|")
    for name, (found, hard) in edge_errors(args.objects).items():
        print(f"| {name} | {255 * found:.1f} | {255 * hard:.1f} |")


if __name__ == "__main__":
    main()
