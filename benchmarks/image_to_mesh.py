"""The whole job on objects that no training saw: one view in, a mesh out, scored against the true mesh.

    python benchmarks/image_to_mesh.py OUT [--count 10] [--first 9000000] [--config CONFIG] [--blind] [--refine [CONFIG]] [OVERRIDES...]
    python benchmarks/image_to_mesh.py OUT --manifest CSV --root MODELS [--split val] ...    (real objects)
    python benchmarks/image_to_mesh.py OUT --samples --tones coloured,white,grey,black ...   (recoloured ones as well)

Scores: volume IoU, by the winding number, and with what no outside view sees counted as solid (the one that means something
for open or hollow shells); normal consistency (1 = every normal is parallel to the truth's); over a ring of 14 novel views mask IoU and PSNR; mask IoU at the input view; roughness of the unseen
sides over the truth's (1 = as detailed, more = mottled); and their perceptual distance, where LPIPS or EfficientNet is installed (docs/meshes.md).
cpu_s is the CPU time of the job, unwrapping included. `--config dreamgaussian.yaml` measures that recipe instead of
stable-zero123.yaml. Beside the mesh stand a ball, the extruded silhouette and the lathe of the silhouette, made from the same image.
`--blind` also runs the job with the input's own pose in place of every target: what is gained without knowing the pose.
`--again` exports the finished runs of OUT anew, with other settings of the exporter, instead of training.
`--refine` also trains a second stage on each result: configs/stable-zero123-refine.yaml, or CONFIG of that folder, which
can be named several times.
Writes OUT/results.json, one strip of views per object (truth, result, refined result below each other), and OUT/sheet.png: the
input of each object, then truth and result from four sides; with `--compare BEFORE`, the folder of a finished run on the same
objects, that run's result between the two.
"""

import argparse
import json
import os
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import trimesh
from held_out import COLOURED, HeldOut, add_arguments, held_out_objects
from skimage.measure import marching_cubes

from zero123s.commands.launch import main as launch
from zero123s.diffusion.model import Zero123Model
from zero123s.evaluate.evaluation import choose_network
from zero123s.evaluate.scores import perceptual_distance, sample_outer_surface, seen_volume_iou
from zero123s.images.image_metrics import mask_iou, psnr, relative_roughness, roughness
from zero123s.images.io import write_png_atomic
from zero123s.mesh.metrics import normal_consistency, volume_iou
from zero123s.ops.cameras import orbit_cameras, project
from zero123s.ops.efficientnet import PerceptualNetwork
from zero123s.ops.rasterization.software import on_white, render_mesh, view_fragments
from zero123s.scenes.render import render_views
from zero123s.structures import Cameras, Mesh

ELEVATION = 10.0
BACK = 90.0
"""Views at least this far off the input's azimuth, in degrees, show unseen sides."""
RING = [(elevation, azimuth) for elevation in (0.0, 30.0) for azimuth in range(45, 360, 45)]
SHEET_VIEWS = (1, 3, 5, 10)
"""Of the ring: left, behind, right, and from above."""
BOUND, CELLS = 0.7, 96


def novel_views(azimuth: float, size: int = 96) -> Cameras:
    """Return a ring of views that leaves out the input's azimuth."""
    angles = torch.tensor(RING)
    return orbit_cameras(angles[:, 0], angles[:, 1] + azimuth, 3.8, 20.0, size, size)


def baselines(rgba: np.ndarray, azimuth: float) -> dict[str, Mesh]:
    """Return solids made from the image alone: ball, extrusion and lathe of its silhouette, painted from the front."""
    camera = orbit_cameras(ELEVATION, azimuth, 3.8, 20.0, *rgba.shape[:2])
    axis = (np.arange(CELLS) + 0.5) / CELLS * 2 * BOUND - BOUND
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    mask = rgba[..., 3] > 0.5
    xy = project(torch.from_numpy(points).float(), camera)[0].numpy()
    row, column = (np.floor(xy[:, i]).astype(int) for i in (1, 0))
    inside = (row >= 0) & (column >= 0) & (row < mask.shape[0]) & (column < mask.shape[1])
    hit = np.zeros(len(points), bool)
    hit[inside] = mask[row[inside], column[inside]]
    pixel = 2 * 3.8 * np.tan(np.deg2rad(10)) / mask.shape[0]
    widths = mask.sum(1) * pixel
    depth = points @ np.array([np.cos(np.deg2rad(azimuth)), np.sin(np.deg2rad(azimuth)), 0])
    rows, columns = np.nonzero(mask)
    middle = (columns.mean() - mask.shape[1] / 2 + 0.5) * pixel
    side = np.array([-np.sin(np.deg2rad(azimuth)), np.cos(np.deg2rad(azimuth)), 0])
    centre = side * middle + [0, 0, -(rows.mean() - mask.shape[0] / 2 + 0.5) * pixel]
    radius = np.sqrt(mask.sum() * pixel**2 / np.pi)
    level = np.clip(np.round(mask.shape[0] / 2 - 0.5 - points[:, 2] / pixel).astype(int), 0, mask.shape[0] - 1)
    around = np.hypot(*(points - side * middle)[:, :2].T)
    solids = {
        "ball": np.linalg.norm(points - centre, axis=1) < radius,
        "extrusion": hit & (np.abs(depth) < widths[widths > 0].mean() / 2),
        "lathe": (around < widths[level] / 2),
    }
    return {name: _solid(solid.reshape(3 * (CELLS,)), rgba, camera) for name, solid in solids.items()}


def _solid(solid: np.ndarray, rgba: np.ndarray, camera: Cameras) -> Mesh:
    padded = np.pad(solid.astype(np.float32), 1)
    if padded.max() < 0.5:
        padded[CELLS // 2, CELLS // 2, CELLS // 2] = 1
    vertices, faces, _, _ = marching_cubes(padded, 0.5)
    vertices = ((vertices - 0.5) / CELLS * 2 * BOUND - BOUND).astype(np.float32)
    xy = project(torch.from_numpy(vertices), camera)[0].numpy()
    row, column = (np.clip(np.floor(xy[:, i]).astype(int), 0, rgba.shape[0] - 1) for i in (1, 0))
    covered, colors = rgba[row, column, 3] > 0.5, rgba[row, column, :3]
    colors[~covered] = rgba[rgba[..., 3] > 0.5, :3].mean(0)
    return Mesh(vertices, faces[:, ::-1], vertex_colors=colors)


def scores(
    mesh: Mesh, held_out: HeldOut, rgba: np.ndarray, truth: np.ndarray, network: PerceptualNetwork | None
) -> dict[str, float]:
    """Compare a mesh with the true one, the input image `rgba` and the true novel views `truth` (V H W 4)."""
    scene, cameras = held_out.scene, novel_views(held_out.azimuth_deg)
    true_mesh = Mesh(scene.vertices, scene.faces)
    views = [render_mesh(mesh, cameras.select(slice(i, i + 1))) for i in range(len(cameras))]
    pairs = [(on_white(v), on_white(t), v[..., 3], t[..., 3]) for v, t in zip(views, truth, strict=True)]
    unseen = [p for p, (_, off) in zip(pairs, RING, strict=True) if abs((off + 180) % 360 - 180) >= BACK]
    input_view = view_fragments(mesh, orbit_cameras(ELEVATION, held_out.azimuth_deg, 3.8, 20.0, *rgba.shape[:2])).hit
    found = {
        "volume_iou": volume_iou((mesh.vertices, mesh.faces), (scene.vertices, scene.faces), 96),
        "seen_volume_iou": seen_volume_iou(mesh, true_mesh, 96),
        "normals": normal_consistency(
            *sample_outer_surface(mesh, 20_000, 1.0), *sample_outer_surface(true_mesh, 20_000, 1.0, seed=1)
        ),
        "mask_iou": float(np.mean([mask_iou(v, t) for _, _, v, t in pairs])),
        "psnr": float(np.mean([psnr(v, t) for v, t, _, _ in pairs])),
        "input_mask_iou": mask_iou(input_view, rgba[..., 3]),
        "back_roughness": relative_roughness(
            [roughness(v, mask) for v, _, mask, _ in unseen], [roughness(t, mask) for _, t, _, mask in unseen]
        ),
    }
    if network is not None:
        found[f"back_{network.key}"] = float(np.mean([perceptual_distance(v, t, network) for v, t, _, _ in unseen]))
    return found


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def export_again(run: Path, arguments: list[str]) -> Mesh:
    """Export a finished run anew and return the mesh, z up."""
    code = launch(["--config", str(run / "config.yaml"), "--export", f"resume={run}", *arguments])
    if code:
        raise SystemExit(code)
    return _exported(run)


def run_job(config: str, photo: Path, out_dir: Path, azimuth: float, arguments: list[str]) -> Mesh:
    """Run launch.py on one image and return the exported mesh, z up."""
    angles = [f"data.default_elevation_deg={ELEVATION}", f"data.default_azimuth_deg={azimuth}"]
    job = [
        f"data.image_path={photo}",
        *angles,
        "data.cut_out.frame=never",
    ]  # framed anew, it would not be the camera of the truth
    job += ["system.exporter.formats=[obj]", "trainer.val_check_interval=0"]
    return _launched(config, out_dir / "run" / photo.stem, [*job, *arguments])


def run_refinement(photo: Path, out_dir: Path, config: str) -> Mesh:
    """Train a second stage on an image's run and return its mesh; all settings are inherited."""
    first = f"system.geometry_convert_from={out_dir / 'run' / photo.stem}"
    return _launched(config, out_dir / Path(config).stem / photo.stem, [first])


def _launched(config: str, run: Path, arguments: list[str]) -> Mesh:
    path = str(Path(__file__).parents[1] / "configs" / config)
    places = [f"exp_root_dir={run.parents[1]}", f"name={run.parent.name}", f"tag={run.name}", "use_timestamp=false"]
    code = launch(["--config", path, "--train", *places, "trainer.enable_progress_bar=false", *arguments])
    if code:
        raise SystemExit(code)
    return _exported(run)


def _exported(run: Path) -> Mesh:
    read = trimesh.load(run / "export" / "model.obj", force="mesh", process=False)
    texture = np.asarray(read.visual.material.image.convert("RGB")) / 255
    return Mesh(np.asarray(read.vertices), np.asarray(read.faces), uvs=np.asarray(read.visual.uv), texture=texture)


def sheet_row(rgba: np.ndarray, strip: np.ndarray, before: Path | None, size: int = 96) -> np.ndarray:
    """Return the input image, then truth, the result in the strip `before` if given, and result from four sides."""
    strips = [strip, strip[size:]]
    if before:
        strips.insert(1, iio.imread(before)[size:, :, :3] / 255)
    image = torch.from_numpy(on_white(rgba)).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(image, (size, size), mode="area")[0].permute(1, 2, 0).numpy()
    views = [strip[:size, i * size :][:, :size] for i in SHEET_VIEWS for strip in strips]
    return np.concatenate([small, *views], axis=1)


def blind_poses(self: Zero123Model, *angles: object) -> torch.Tensor:
    """Tell the network that every view is the input's own."""
    pose = Zero123Model.seeing_pose_vector(self, *angles)  # type: ignore[attr-defined]
    pose[:, :3] = pose.new_tensor([0.0, 0.0, 1.0])
    return pose


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    add_arguments(parser, first=9_000_000, count=10)
    parser.add_argument("--config", default="stable-zero123.yaml", help="of the folder configs (%(default)s)")
    parser.add_argument("--blind", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--compare", type=Path, metavar="BEFORE", help="show the results of this finished run as well")
    parser.add_argument("--refine", nargs="?", action="append", default=[], const="stable-zero123-refine.yaml")
    args, arguments = parser.parse_known_args()
    if wrong := [config for config in args.refine if not config.endswith(".yaml")]:
        parser.error(f"--refine: {wrong[0]} is not a config; put overrides before --refine.")
    network = choose_network(None, None)
    table: dict[str, list[dict[str, float]]] = {}
    sheet: list[np.ndarray] = []
    Zero123Model.seeing_pose_vector = Zero123Model.pose_vector  # type: ignore[attr-defined]
    for held_out in held_out_objects(args, ELEVATION):
        azimuth = held_out.azimuth_deg
        camera = orbit_cameras(ELEVATION, azimuth, height=256, width=256)
        rgba = render_views(held_out.scene, camera, supersample=3).rgba[0]
        photo = args.out / f"{held_out.name}_rgba.png"
        write_png_atomic(photo, rgba)
        cameras = novel_views(azimuth)
        truth = render_views(held_out.scene, cameras, supersample=3).rgba
        started = cpu_seconds()
        run = args.out / "run" / photo.stem
        result = (
            export_again(run, arguments) if args.again else run_job(args.config, photo, args.out, azimuth, arguments)
        )
        meshes = {"result": result}
        cpu = {"cpu_s": cpu_seconds() - started}
        for config in args.refine:
            meshes[Path(config).stem] = run_refinement(photo, args.out, config)
        if args.blind:
            Zero123Model.pose_vector = blind_poses  # type: ignore[method-assign]
            meshes["pose-blind"] = run_job(args.config, photo, args.out / "blind", azimuth, arguments)
            Zero123Model.pose_vector = Zero123Model.seeing_pose_vector  # type: ignore[attr-defined]
        meshes |= baselines(rgba, azimuth)
        suffix = "" if held_out.tone == COLOURED else f", {held_out.tone}"
        for name, mesh in meshes.items():
            table.setdefault(name + suffix, []).append(scores(mesh, held_out, rgba, truth, network))
        made = [meshes[name] for name in ("result", *(Path(config).stem for config in args.refine))]
        rows = [[on_white(render_mesh(mesh, cameras.select(slice(i, i + 1)))) for i in range(14)] for mesh in made]
        strip = np.concatenate([np.concatenate(row, 1) for row in ([on_white(t) for t in truth], *rows)])
        write_png_atomic(args.out / f"{held_out.name}_views.png", strip.astype(np.float32))
        sheet.append(sheet_row(rgba, strip, args.compare and args.compare / f"{held_out.name}_views.png"))
        write_png_atomic(args.out / "sheet.png", np.concatenate(sheet).astype(np.float32))
        table["result" + suffix][-1] |= cpu
        found = {k: round(v, 3) for k, v in table["result" + suffix][-1].items()}
        print(held_out.name, held_out.scene.name, found, flush=True)
        (args.out / "results.json").write_text(json.dumps(table, indent=1))
    for name, rows in table.items():
        means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        print(f"{name:<26} " + "  ".join(f"{key} {value:.3f}" for key, value in means.items()))


if __name__ == "__main__":
    main()
