from dataclasses import replace

import numpy as np
import pytest

from zero123s.mesh.scene_mesh import FRUSTUM_RADIUS, Paint, SceneMesh, Texture
from zero123s.ops.cameras import orbit_cameras
from zero123s.scenes.augment import (
    augmented,
    colors_by_area,
    hue_shifted,
    mean_chroma,
    neutral,
    palette_of,
    reshaped,
    toned,
    transformed,
    with_palette,
    with_procedural_paint,
)
from zero123s.scenes.procedural import named
from zero123s.scenes.render import Light, render_views

FLAT = Light(ambient=1.0, sky=0.0, diffuse=0.0)


def quads(textured=False):
    """Two squares across x at heights 0 and 1: the lower twice as large and red, the upper green or with an image."""
    square = np.array([[0, -1, 0], [0, 1, 0], [0, 1, 2], [0, -1, 2]], np.float32)
    vertices = np.concatenate([2 * square - [0, 0, 4], square]).astype(np.float32)
    scene = SceneMesh(
        vertices=vertices,
        faces=np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32),
        normals=np.tile(np.array([1, 0, 0], np.float32), (8, 1)),
        paint_of_face=np.array([0, 0, 1, 1], np.int32),
        paints=(Paint((0.8, 0.1, 0.1)), Paint((0.1, 0.7, 0.1) if not textured else (1.0, 1.0, 1.0))),
        pattern_coords=vertices,
        vertex_colors=np.ones_like(vertices),
    )
    if not textured:
        return scene
    image = np.full((4, 4, 3), 100, np.uint8)
    image[:2] += 20
    uv = np.tile(np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32), (2, 1))
    return replace(scene, uv=uv, texture_of_face=np.array([-1, -1, 0, 0], np.int32), textures=(Texture(image),))


def signed_volume(scene):
    a, b, c = (scene.vertices[scene.faces[:, i]].astype(float) for i in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize(
    "matrix", [np.diag([1, -1, 1]), np.diag([1.1, 0.9, 1]), np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])]
)
def test_faces_and_normals_stay_outside(matrix):
    scene = named("burger")
    moved = transformed(scene, np.asarray(matrix, float))
    assert signed_volume(moved) == pytest.approx(signed_volume(scene) * abs(np.linalg.det(matrix)), rel=1e-3)
    corners = moved.vertices[moved.faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    before = scene.vertices[scene.faces]
    across_before = np.cross(before[:, 1] - before[:, 0], before[:, 2] - before[:, 0])
    agree = lambda n, a: ((n * a).sum(-1) > 0).mean()  # noqa: E731
    assert agree(moved.normals[moved.faces[:, 0]], across) == pytest.approx(
        agree(scene.normals[scene.faces[:, 0]], across_before), abs=0.01
    )


def test_turns_and_stretches_stay_in_their_range():
    scene = named("burger")
    heights = [np.ptp(reshaped(scene, np.random.default_rng(i)).vertices[:, 2]) for i in range(20)]
    change = np.array(heights) / np.ptp(scene.vertices[:, 2])
    assert 0.85 <= change.min() < 0.95
    assert 1.05 < change.max() <= 1.15


def test_a_palette_is_taken_over_by_area():
    assert np.allclose(palette_of(quads()), [[0.8, 0.1, 0.1], [0.1, 0.7, 0.1]])
    new = np.array([[0.2, 0.2, 0.9], [0.9, 0.9, 0.1]])
    assert np.allclose(palette_of(with_palette(quads(), new)), new)


def test_a_recoloured_texture_keeps_its_contrast():
    new = np.array([[0.2, 0.2, 0.9], [0.6, 0.5, 0.3]])
    scene = with_palette(quads(textured=True), new)
    image = scene.textures[0].image.astype(float)
    assert np.allclose(image.mean((0, 1)) / 255, new[1], atol=0.003)
    assert np.allclose(image[0, 0] - image[3, 0], 20, atol=1)
    rgb = render_views(scene, orbit_cameras(0.0, 0.0, 12.0, 60.0, 16, 16), FLAT).rgba[0]
    assert np.allclose(rgb[5, 8, :3], new[1], atol=0.06)
    assert np.allclose(rgb[11, 8, :3], new[0], atol=0.01)


def test_hues_turn_and_greys_stay():
    scene = hue_shifted(quads(), 1 / 3, 1.0, 1.0)
    assert np.allclose(scene.paints[0].color, (0.1, 0.8, 0.1), atol=1e-6)
    grey = replace(quads(), paints=(Paint((0.5, 0.5, 0.5)), Paint((0.2, 0.2, 0.2))))
    assert np.allclose(hue_shifted(grey, 0.4, 1.0, 1.0).paints[0].color, 0.5)


@pytest.mark.parametrize("textured", [False, True])
def test_a_neutral_variant_has_no_colour(textured):
    scene = quads(textured)
    assert mean_chroma(scene) > 0.4
    for seed in range(6):
        assert mean_chroma(neutral(scene, np.random.default_rng(seed))) < 0.06


@pytest.mark.parametrize("textured", [False, True])
def test_a_toned_scene_has_the_mean_requested(textured):
    colors, shares = colors_by_area(toned(quads(textured), 0.55))
    assert colors.mean(1) @ shares == pytest.approx(0.55, abs=0.01)
    assert np.ptp(colors[shares > 0], axis=1).max() < 0.01


def test_procedural_paint_replaces_images():
    scene = with_procedural_paint(quads(textured=True), np.random.default_rng(0))
    assert scene.textures == ()
    assert set(scene.paint_of_face) == {0, 2}
    assert render_views(scene, orbit_cameras(0.0, 0.0, 12.0, 60.0, 16, 16), FLAT).rgba[0, ..., 3].max() == 1


def test_a_variant_is_a_function_of_its_generator():
    scene, palette = named("car"), np.array([[0.2, 0.2, 0.9]])
    a, b, c = (augmented(scene, np.random.default_rng(seed), palette) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.vertices, b.vertices)
    assert a.paints == b.paints
    assert not np.array_equal(a.vertices, c.vertices)
    assert np.linalg.norm(a.vertices, axis=1).max() <= 0.93 * FRUSTUM_RADIUS
