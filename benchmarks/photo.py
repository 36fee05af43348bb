"""What projecting the photo is worth: `python benchmarks/photo.py RUN...`

Exports finished single-image runs with and without `project_photo` (1024 texels, the run's own settings otherwise) and
compares the written glb with the image at the image's own size.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from zero123s.evaluate.scores import view_scores
from zero123s.exporter.mesh_exporter import MeshExporter
from zero123s.mesh.readers import read_mesh
from zero123s.run.plan import read_first_stage
from zero123s.run.starting_weights import load_weights


def main(runs: list[str]) -> None:
    """Print a line per run and the means."""
    gains = []
    for run in runs:
        system, checkpoint = read_first_stage(run)
        load_weights(system, checkpoint)
        system.eval()
        system.data_source.prepare()
        photos = system.data_source.photos()
        scores = {}
        for on in (False, True):
            cfg = replace(system.cfg.exporter, formats=["glb"], project_photo=on, poster=False)
            with tempfile.TemporaryDirectory() as folder:
                threshold = system.geometry.cfg.isosurface_threshold
                result = MeshExporter(cfg)(system.field(), Path(folder), threshold=threshold, reference=photos)
                scores[on] = view_scores(read_mesh(result.files["glb"]), photos)
        psnr, ssim = ([float(scores[on][key]) for on in (False, True)] for key in ("psnr_db", "ssim"))
        gains.append(psnr)
        size = photos.cameras.width
        print(
            f"{Path(run).name:<16}{size} px  field {psnr[0]:.2f} dB {ssim[0]:.3f}  photo {psnr[1]:.2f} dB {ssim[1]:.3f}",
            flush=True,
        )
    means = np.mean(gains, axis=0)
    print(f"mean: field {means[0]:.2f} dB, photo {means[1]:.2f} dB, gain {means[1] - means[0]:.2f} dB")


if __name__ == "__main__":
    main(sys.argv[1:])
