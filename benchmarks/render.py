"""Views per second of one core: `python benchmarks/render.py [objects]` (process CPU time, 64x64, 12 views each)."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import sys
import time
from dataclasses import replace

from zero123s.scenes.dataset import (
    RenderSettings,
    draw_cameras,
    load_object,
    object_generator,
    procedural_objects,
    render_object,
)
from zero123s.scenes.render import render_views


def main(count: int) -> None:
    """Print whole-object and render-only rates for 4 and 9 rays a pixel."""
    objects = procedural_objects(0, count)
    render_object(objects[0], RenderSettings())  # compiles
    for supersample in (2, 3):
        settings = replace(RenderSettings(), supersample=supersample)
        start = time.process_time()
        for item in objects:
            render_object(item, settings)
        whole = time.process_time() - start
        scenes = [(load_object(o), draw_cameras(settings, object_generator(0, o.object_id))) for o in objects]
        start = time.process_time()
        for scene, cameras in scenes:
            render_views(scene, cameras, supersample=supersample)
        only = time.process_time() - start
        views = count * settings.views
        print(f"{supersample**2} rays/pixel: {views / only:.0f} views/s rendering, {views / whole:.0f} with generation")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
