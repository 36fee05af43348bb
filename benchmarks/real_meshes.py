"""Collect 23 meshes of real things from three wheels, standing upright, as .glb files that zero123s can read.

    pip download --no-deps -d wheels pybullet==3.2.7 robosuite==1.5.2 pyvista==0.49.1
    python benchmarks/real_meshes.py wheels meshes
    python benchmarks/novel_views.py --meshes meshes

They are in no training set. The files keep the licences of their packages (zlib, MIT, MIT; models by several authors).
"""

import argparse
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import trimesh

OBJECTS = "robosuite/models/assets/objects/meshes"
Y_UP = (
    "pybullet_data/bunny.obj", "pybullet_data/duck.obj", "pybullet_data/teddy2_VHACD_CHs.obj",
    "pybullet_data/soccerball.obj", "pybullet_data/lego/lego.obj", "pybullet_data/toys/shape_sorter.obj",
    "pybullet_data/racecar/meshes/left_front_wheel.obj",
)  # fmt: skip
Z_UP = (
    "pybullet_data/objects/mug.obj", "pybullet_data/racecar/meshes/cone.obj", "pybullet_data/racecar/meshes/hokuyo.obj",
    "pybullet_data/torus/torus_textured.obj", "pybullet_data/tray/tray_textured.obj", "pybullet_data/domino/domino.obj",
    *(f"{OBJECTS}/{name}.obj" for name in ("bottle", "bread", "can", "cereal", "lemon", "milk")),
    "robosuite/models/assets/bases/meshes/rethink_minimal_mount/pedestal_vis.obj",
    *(f"pyvista/examples/{name}.ply" for name in ("airplane", "ant", "nut")),
)  # fmt: skip


def main() -> None:
    """Unpack, turn and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    upright = trimesh.transformations.rotation_matrix(-np.pi / 2, (1, 0, 0))  # z up to glTF's y up
    with tempfile.TemporaryDirectory() as folder:
        for wheel in args.wheels.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                members = [n for n in archive.namelist() if n.endswith((".obj", ".mtl", ".png", ".jpg", ".ply"))]
                archive.extractall(folder, [n for n in members if "random_urdfs" not in n])
        for name in (*Y_UP, *Z_UP):
            scene = trimesh.load_scene(Path(folder) / name)
            if name in Z_UP:
                scene.apply_transform(upright)
            scene.export(args.out / f"{Path(name).stem}.glb")
    print(f"{len(Y_UP) + len(Z_UP)} meshes in {args.out}")


if __name__ == "__main__":
    main()
