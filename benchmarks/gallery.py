"""Draw the README's images: of each finished run its input and its textured mesh from several sides.

    python benchmarks/gallery.py docs/images/gallery.png RUN=IMAGE RUN=IMAGE ...
    python benchmarks/gallery.py docs/images/hamburger.png RUN=IMAGE --azimuths 0 60 120 180 270

Runs are folders of `launch.py --train`; two stand in each row, in the order given, a single one alone.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from zero123s import read_result
from zero123s.images.io import read_image, write_png_atomic
from zero123s.ops.cameras import orbit_cameras
from zero123s.ops.rasterization.software import on_white, render_mesh

AZIMUTHS = [20.0, 110.0, 200.0, 290.0]
SIZE = 200


def input_image(run_dir: Path, rgba: Path) -> np.ndarray:
    """Return the run's input on white, SIZE pixels wide and high."""
    pixels = read_image(rgba).rgba
    image = Image.fromarray((255 * on_white(pixels) + 0.5).astype(np.uint8))
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)) / 255


def strip(run_dir: Path, rgba: Path, azimuths: list[float]) -> np.ndarray:
    """Return input and the sides of the run's mesh, each SIZE x SIZE pixels."""
    mesh = read_result(run_dir).mesh
    if mesh is None:
        raise SystemExit(f"{run_dir} has no exported mesh.")
    sides = [on_white(render_mesh(mesh, orbit_cameras(10.0, azimuth, 3.8, 20.0, SIZE, SIZE))) for azimuth in azimuths]
    return np.concatenate([input_image(run_dir, rgba), *sides], axis=1)


def main() -> None:
    """Read the runs and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", nargs="+", help="RUN=IMAGE: a run folder and the RGBA image to show next to it")
    parser.add_argument("--azimuths", type=float, nargs="+", default=AZIMUTHS, metavar="DEGREES")
    args = parser.parse_args()
    strips = [strip(*(Path(part) for part in run.split("=", 1)), args.azimuths) for run in args.runs]
    if len(strips) == 1:
        write_png_atomic(args.out, strips[0].astype(np.float32))
        return
    if len(strips) % 2:
        strips.append(np.ones_like(strips[0]))
    gap = np.ones((SIZE, SIZE // 4, 3))
    rows = [np.concatenate([a, gap, b], axis=1) for a, b in zip(strips[::2], strips[1::2], strict=True)]
    write_png_atomic(args.out, np.concatenate(rows, axis=0).astype(np.float32))


if __name__ == "__main__":
    main()
