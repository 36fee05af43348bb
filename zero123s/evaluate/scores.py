"""The scores, by section; each is a plain float, int or bool whose name states its unit."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float

from zero123s.images.image_metrics import mask_iou, psnr, relative_roughness, roughness, ssim
from zero123s.mesh.metrics import (
    align_similarity,
    chamfer,
    common_cube,
    f_score,
    normal_consistency,
    sample_surface,
    silhouette_iou,
    uv_health,
    volume_iou,
    voxelize,
)
from zero123s.mesh.processing import mesh_health
from zero123s.mesh.self_intersection import self_intersecting
from zero123s.ops.cameras import orbit_cameras, project, sphere_fit_distance
from zero123s.ops.efficientnet import PerceptualNetwork
from zero123s.ops.rasterization.software import on_white, render_mesh, view_fragments
from zero123s.structures import Cameras, Mesh, ReferenceView

Scores = dict[str, float | int | bool]
F_SCORE_SHARES = (0.01, 0.02, 0.05)
"""Distances of the F-scores, as shares of the truth's longest side."""


def rendered_views(mesh: Mesh, cameras: Cameras) -> list[np.ndarray]:
    """Render unlit views of a mesh.

    Args:
        mesh: the mesh.
        cameras: B cameras.

    Returns:
        B images H W 4 in [0, 1], straight alpha.
    """
    return [render_mesh(mesh, cameras.select(slice(i, i + 1))) for i in range(len(cameras))]


def reference_images(reference: ReferenceView) -> list[np.ndarray]:
    """Return the images of a reference with its masks as alpha.

    Args:
        reference: B posed images.

    Returns:
        B images H W 4 in [0, 1], straight alpha.
    """
    return list(torch.cat([reference.rgb, reference.mask], dim=-1).numpy())


def perceptual_distance(
    a: Float[np.ndarray, "H W 3"], b: Float[np.ndarray, "H W 3"], network: PerceptualNetwork
) -> float:
    """Compute the perceptual distance of two images.

    Args:
        a, b: H W 3 in [0, 1].
        network: LPIPS or EfficientNet-lite0.

    Returns:
        >= 0; 0 = the same.
    """
    x, y = (torch.from_numpy(np.ascontiguousarray(p.transpose(2, 0, 1))).float()[None] for p in (a, b))
    return float(network(x, y))


def view_scores(mesh: Mesh, reference: ReferenceView, network: PerceptualNetwork | None = None) -> Scores:
    """Compare unlit renders with posed images, composited on white.

    Args:
        mesh: the mesh.
        reference: B posed images.
        network: adds a perceptual distance under its key: `lpips`, `lpips_vgg` or `efficientnet`.

    Returns:
        Means over the views of psnr_db, ssim and mask_iou, the lowest PSNR, the roughness relative to the images', and
        the number of views.
    """
    per_view: list[Scores] = []
    rough: list[tuple[float, float]] = []
    for rendered, expected in zip(rendered_views(mesh, reference.cameras), reference_images(reference), strict=True):
        a, b = on_white(rendered), on_white(expected)
        per_view.append(
            {"psnr_db": psnr(a, b), "ssim": ssim(a, b), "mask_iou": mask_iou(rendered[..., 3], expected[..., 3])}
        )
        rough.append((roughness(a, rendered[..., 3]), roughness(b, expected[..., 3])))
        if network is not None:
            per_view[-1][network.key] = perceptual_distance(a, b, network)
    means: Scores = {key: float(np.mean([s[key] for s in per_view])) for key in per_view[0]}
    worst = min(float(s["psnr_db"]) for s in per_view)
    ratio = relative_roughness(*zip(*rough, strict=True))
    return {**means, "worst_psnr_db": worst, "relative_roughness": ratio, "views": len(per_view)}


def surrounding_cameras(mesh: Mesh, n: int, size: int, elevations: tuple[float, ...] = (15.0,)) -> Cameras:
    """Place cameras around a mesh, each with the whole mesh in its frame.

    Args:
        mesh: the mesh, about the origin.
        n: cameras per elevation, evenly spaced in azimuth.
        size: width and height in pixels.
        elevations: in degrees.

    Returns:
        n cameras for each elevation, fovy 20 degrees.

    Example:
        >>> import numpy as np
        >>> from zero123s.evaluate.scores import surrounding_cameras
        >>> from zero123s.structures import Mesh
        >>> cameras = surrounding_cameras(Mesh(np.eye(3), np.array([[0, 1, 2]])), 8, 64, (0.0, 30.0))
        >>> len(cameras), cameras.height
        (16, 64)
    """
    radius = float(np.linalg.norm(mesh.vertices, axis=1).max())
    azimuth = torch.arange(n * len(elevations)) * (360.0 / n)
    elevation = torch.tensor(elevations).repeat_interleave(n)
    return orbit_cameras(elevation, azimuth, sphere_fit_distance(1.05 * radius, 20.0), 20.0, size, size)


def visible_from_outside(
    points: Float[np.ndarray, "N 3"], mesh: Mesh, cameras: Cameras, tolerance: float
) -> Bool[np.ndarray, "N"]:
    """Find the points that are visible to at least one camera; inner walls of overlapping parts, for example, are not.

    Args:
        points: N 3.
        mesh: what hides them.
        cameras: B cameras.
        tolerance: depth by which a point may lie behind the mesh, in scene units.

    Returns:
        N.
    """
    visible = np.zeros(len(points), bool)
    places = torch.from_numpy(np.asarray(points, np.float32))
    for i in range(len(cameras)):
        camera, left = cameras.select(slice(i, i + 1)), np.flatnonzero(~visible)
        depth = view_fragments(mesh, camera).depth
        x, y, z = project(places[left], camera)[0].numpy().T
        column, row = x.astype(int).clip(0, camera.width - 1), y.astype(int).clip(0, camera.height - 1)
        visible[left[z < depth[row, column] + tolerance]] = True
    return visible


def sample_outer_surface(
    mesh: Mesh, n: int, extent: float, seed: int = 0
) -> tuple[Float[np.ndarray, "M 3"], Float[np.ndarray, "M 3"]]:
    """Sample points uniformly by area on the visible surface of a mesh.

    Args:
        mesh: the mesh.
        n: number of points.
        extent: longest side of the object in scene units; 1 % of it is the tolerance of the visibility test.
        seed: of the random numbers.

    Returns:
        M 3, points, and M 3, unit normals of their faces; M = n unless hardly any of the surface is visible.
    """
    rng = np.random.default_rng(seed)
    cameras = surrounding_cameras(mesh, 8, 256, (-60.0, -20.0, 20.0, 60.0))

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        both = np.concatenate(sample_surface(mesh.vertices, mesh.faces, count, rng), axis=1)
        return both, both[visible_from_outside(both[:, :3], mesh, cameras, 0.01 * extent)]

    drawn, visible = draw(n)
    if not len(visible):
        return drawn[:, :3], drawn[:, 3:]
    # Where most of the surface is hidden, few of the first draw are left: distances to few points are too long.
    if n_more := min(math.ceil(1.1 * n * (n / len(visible) - 1)), 20 * n):
        visible = np.concatenate([visible, draw(n_more)[1]])
    return visible[:n, :3], visible[:n, 3:]


def seen_volume_iou(mesh: Mesh, truth: Mesh, resolution: int = 128) -> float:
    """Compute the volume IoU of two meshes with space that is invisible from 80 views all around taken as solid.

    No image shows the air between the layers of a hamburger; a cavity that is visible must be there.

    Args:
        mesh: the mesh.
        truth: the ground truth.
        resolution: voxels per edge of their common cube.

    Returns:
        0 to 1.
    """
    lower, size = common_cube((mesh.vertices, mesh.faces), (truth.vertices, truth.faces))
    cameras = surrounding_cameras(truth, 16, 256, (-60.0, -20.0, 0.0, 20.0, 60.0))
    solids = []
    for one in (mesh, truth):
        solid = voxelize(one.vertices, one.faces, lower, size, resolution)
        free = np.argwhere(~solid)
        visible = visible_from_outside(lower + (free + 0.5) * (size / resolution), one, cameras, 0.0)
        solid[tuple(free[~visible].T)] = True
        solids.append(solid)
    return mask_iou(*solids)


def surface_scores(mesh: Mesh, truth: Mesh, align: bool = False, n_points: int = 100_000) -> Scores:
    """Compare a mesh with the ground truth, both z up and in the same units.

    Args:
        mesh: the mesh.
        truth: the ground truth.
        align: first move, rotate about z and scale the mesh to its best fit; the scale is reported.
        n_points: surface samples for distances, on the part visible from outside; two draws from one surface are about
            0.003 of its extent apart.

    Returns:
        Chamfer distance (absolute and relative to the extent), normal consistency, F-scores, volume and silhouette IoU.
    """
    extent = float(np.ptp(truth.vertices[np.unique(truth.faces)], axis=0).max())
    expected, expected_normals = sample_outer_surface(truth, n_points, extent)
    scores: Scores = {}
    if align:
        fit = align_similarity(sample_outer_surface(mesh, 4000, extent)[0], expected[:4000])
        mesh = replace(mesh, vertices=fit(mesh.vertices))
        scores["alignment_scale"] = fit.scale
    rendered, normals = sample_outer_surface(mesh, n_points, extent, seed=1)
    distance = chamfer(rendered, expected)
    scores |= {"chamfer": distance, "chamfer_of_extent": distance / extent}
    scores["normal_consistency"] = normal_consistency(rendered, normals, expected, expected_normals)
    for share in F_SCORE_SHARES:
        scores[f"f_score_at_{share:g}_of_extent"] = f_score(rendered, expected, share * extent)
    scores["volume_iou"] = volume_iou((mesh.vertices, mesh.faces), (truth.vertices, truth.faces))
    scores["seen_volume_iou"] = seen_volume_iou(mesh, truth)
    scores["silhouette_iou"] = silhouette_iou(mesh, truth, surrounding_cameras(truth, 8, 192, (0.0, 30.0)))
    return scores


def texture_scores(mesh: Mesh) -> Scores:
    """Measure the texture layout.

    Args:
        mesh: the mesh.

    Returns:
        Size in texels, coverage, stretch and overlap of the charts; empty for a mesh without a texture.
    """
    if mesh.uvs is None or mesh.texture is None:
        return {}
    health = uv_health(mesh.vertices, mesh.faces, mesh.uvs, mesh.texture.shape[0])
    return {
        "size": int(mesh.texture.shape[0]),
        "uv_coverage": health.coverage,
        "uv_stretch": health.stretch,
        "uv_overlap": health.overlap,
    }


def health_scores(mesh: Mesh) -> Scores:
    """Measure the mesh as a solid.

    Args:
        mesh: the mesh.

    Returns:
        The fields of `MeshHealth`, and the number of self-intersecting faces.
    """
    crossing = int(self_intersecting(mesh.vertices, mesh.faces).sum())
    return {**mesh_health(mesh.vertices, mesh.faces).as_dict(), "self_intersecting_faces": crossing}


def embedding_similarity(mesh: Mesh, reference: ReferenceView, checkpoint: str, n_views: int = 8) -> Scores:
    """Compare image embeddings (CLIP, if the checkpoint has it) of the first input image and of rendered views.

    Args:
        mesh: the mesh.
        reference: posed images.
        checkpoint: a Zero123 checkpoint, whose image encoder is used.
        n_views: rendered views around the mesh.

    Returns:
        Cosine similarity to the render from the same camera, `same_view`, and the mean over the views, `around`.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
    """
    from zero123s.diffusion.checkpoint.load_zero123 import load_zero123

    model = load_zero123(checkpoint)
    cameras = surrounding_cameras(mesh, n_views, 256)
    views = [on_white(v) for v in rendered_views(mesh, cameras)]
    images = [on_white(reference_images(reference)[0]), on_white(rendered_views(mesh, reference.cameras)[0]), *views]
    vectors = []
    for image in images:
        rgb = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()[None]
        with torch.no_grad():
            vectors.append(model.embed_image(rgb).reshape(-1).float())
    similarity = torch.nn.functional.cosine_similarity(torch.stack(vectors[1:]), vectors[0][None])
    return {"same_view": float(similarity[0]), "around": float(similarity[1:].mean())}


def table(sections: Mapping[str, Scores]) -> str:
    """Format the scores as aligned lines, by section.

    Args:
        sections: scores by section.

    Returns:
        The text without a final newline.

    Example:
        >>> from zero123s.evaluate.scores import table
        >>> print(table({"input_view": {"psnr_db": 24.0}}))
        input view
          psnr db                                   24
    """
    lines = []
    for title, scores in sections.items():
        if scores:
            lines.append(title.replace("_", " "))
        for key, value in scores.items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            lines.append(f"  {key.replace('_', ' '):<32}{shown:>12}")
    return "\n".join(lines)
