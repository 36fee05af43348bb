"""Score a run or a mesh against what is known of it: its input images, a true mesh, posed images, and itself."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zero123s.data.multi_view import MultiViewData
from zero123s.diffusion.checkpoint.efficientnet_files import find_efficientnet, load_efficientnet
from zero123s.diffusion.checkpoint.lpips_files import find_lpips_files, load_lpips
from zero123s.errors import ConfigError, MeshError, UserError
from zero123s.evaluate.report import write_report
from zero123s.evaluate.scores import (
    Scores,
    embedding_similarity,
    health_scores,
    surface_scores,
    texture_scores,
    view_scores,
)
from zero123s.images.io import load_reference_rgba
from zero123s.mesh.readers import read_mesh
from zero123s.ops.cameras import orbit_cameras
from zero123s.ops.efficientnet import PerceptualNetwork
from zero123s.run.plan import plan_of_finished_run
from zero123s.runtime.files import write_text
from zero123s.structures import Mesh, ReferenceView


def find_mesh(target: Path) -> Path:
    """Find the mesh file of a target.

    Args:
        target: a mesh file, or a run folder.

    Returns:
        The file itself, or the first that the run exported (glb, gltf, obj, ply, stl).

    Raises:
        MeshError: there is neither.
    """
    if target.is_file():
        return target
    found = [target / "export" / f"model.{kind}" for kind in ("glb", "gltf", "obj", "ply", "stl")]
    match = next((path for path in found if path.is_file()), None)
    if match is None:
        raise MeshError(f"{target}: neither a mesh file nor a run folder with export/model.glb; export it first.")
    return match


def run_reference(run: Path) -> ReferenceView | None:
    """Read a run's input images at their own resolution, as its config.yaml names them.

    Args:
        run: the run folder.

    Returns:
        The posed images; None without config.yaml.

    Raises:
        UserError: the images or the settings are missing or no longer fit.
    """
    if not (run / "config.yaml").is_file():
        return None
    plan = plan_of_finished_run(run / "config.yaml")
    data = plan.data_class(plan.experiment.data, plan.experiment.seed)
    data.prepare()
    return data.photos()


def image_reference(path: Path, elevation_deg: float) -> ReferenceView:
    """Read an RGBA image as the reference view at azimuth 0, with the default distance and field of view.

    Args:
        path: of the image.
        elevation_deg: of its camera.

    Returns:
        One posed image.

    Raises:
        ImageError: the image cannot be read or has no transparency.
    """
    rgba = torch.from_numpy(load_reference_rgba(str(path)).rgba)[None]
    cameras = orbit_cameras(elevation_deg, 0.0, height=rgba.shape[1], width=rgba.shape[2])
    return ReferenceView(cameras, rgba[..., :3], rgba[..., 3:])


def posed_images(transforms: Path) -> ReferenceView:
    """Read all images of a NeRF-synthetic transforms.json at the first one's size.

    Args:
        transforms: the JSON file.

    Returns:
        The posed images.

    Raises:
        UserError: a file is missing or damaged.
    """
    # The checker takes the decorated class for its base.
    data: Any = MultiViewData(MultiViewData.Config(transforms_path=str(transforms)))  # type: ignore[call-arg]
    data.prepare()
    height, width = data.images[0].shape[:2]
    return data.views(height, width)


def choose_network(folder: Path | None, net: str | None) -> PerceptualNetwork | None:
    """Load the network that compares images: LPIPS if selected or found, else EfficientNet-lite0 if installed.

    Args:
        folder: of the weights of LPIPS; None = the default places.
        net: LPIPS's "alex" or "vgg"; None = alex.

    Returns:
        The network; with neither argument, None where no weights are found or they are damaged.

    Raises:
        CheckpointError: an argument is given and a file is missing or unusable.
    """
    if folder is not None or net is not None:
        return load_lpips(net or "alex", folder)
    try:
        if find_lpips_files("alex").are_complete:
            return load_lpips()
        return load_efficientnet() if find_efficientnet() else None
    except UserError as error:  # a damaged file that was not requested
        print(f"note: the perceptual distance is left out: {error}", file=sys.stderr)
        return None


def evaluate(
    mesh: Mesh,
    reference: ReferenceView | None = None,
    truths: Sequence[Path] = (),
    align: bool = False,
    network: PerceptualNetwork | None = None,
) -> dict[str, Scores]:
    """Compute all scores for which there is ground truth.

    Args:
        mesh: the mesh, z up.
        reference: the images the mesh was made from.
        truths: mesh files and transforms.json files.
        align: fit the mesh to a true mesh first; not for views, whose poses are given.
        network: adds its perceptual distance to the scores of views.

    Returns:
        Scores by section: input_view, novel_views, surface, health, texture.

    Raises:
        UserError: a file of `truths` cannot be read.
    """
    sections: dict[str, Scores] = {}
    if reference is not None:
        sections["input_view"] = view_scores(mesh, reference, network)
    for path in truths:
        if path.suffix == ".json":
            sections["novel_views"] = view_scores(mesh, posed_images(path), network)
        else:
            sections["surface"] = surface_scores(mesh, read_mesh(path), align)
    sections["health"] = health_scores(mesh)
    sections["texture"] = texture_scores(mesh)
    return sections


def evaluate_target(
    target: Path,
    image: Path | None = None,
    elevation_deg: float = 5.0,
    truths: Sequence[Path] = (),
    align: bool = False,
    network: PerceptualNetwork | None = None,
    embed: str | None = None,
    out: Path | None = None,
) -> tuple[dict[str, Scores], Path]:
    """Score a run folder or a mesh file and write metrics.json and report.html.

    Args:
        target: a run folder, or a mesh file.
        image: RGBA image to compare with; None = what the run was made from.
        elevation_deg: from which `image` was taken, in degrees.
        truths, align, network: see `evaluate`.
        embed: a Zero123 checkpoint whose image embeddings are compared as well.
        out: folder of the two files; None = the run folder, or the mesh file's.

    Returns:
        The scores by section, and the folder.

    Raises:
        ConfigError: a file of `truths` does not exist.
        UserError: another file is missing or cannot be read.
    """
    path = find_mesh(target)
    missing = next((p for p in truths if not p.is_file()), None)
    if missing is not None:
        raise ConfigError(f"--gt {missing}: is not a file; give a mesh or a transforms.json.")
    run = target if target.is_dir() else None
    mesh = read_mesh(path)
    reference = None
    if image is not None:
        reference = image_reference(image, elevation_deg)
    elif run is not None:
        try:
            reference = run_reference(run)
        except UserError as error:  # images that have moved, or a config of another version: the mesh still counts
            print(f"note: the input view is left out: {error}", file=sys.stderr)
    sections = evaluate(mesh, reference, truths, align, network)
    if embed and reference is not None:
        sections["embedding"] = embedding_similarity(mesh, reference, embed)
    folder = out or run or path.parent
    write_text(folder / "metrics.json", json.dumps({"mesh": path.name, **sections}, indent=2) + "\n")
    write_report(folder / "report.html", path, mesh, sections, reference, run)
    return sections, folder
