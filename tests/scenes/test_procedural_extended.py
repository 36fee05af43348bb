import json

import numpy as np
import pytest
import torch

from zero123s.commands.render import main
from zero123s.mesh.scene_mesh import FRUSTUM_RADIUS, Paint, Texture, normalize
from zero123s.ops.cameras import orbit_cameras
from zero123s.scenes import procedural_animals, procedural_birds, procedural_characters
from zero123s.scenes.augment import mean_chroma
from zero123s.scenes.inspect_renders import broken_reason
from zero123s.scenes.primitives import Builder, cylinder, sheet, wrapped
from zero123s.scenes.procedural import generate
from zero123s.scenes.procedural_extended import FAMILIES, generate_extended
from zero123s.scenes.render import Light, render_views

WHITE_LIGHT = Light(ambient=1.0, sky=0.0, diffuse=0.0)
WHITE_PAINT = Paint((1.0, 1.0, 1.0))
RED_LEFT_BLUE_RIGHT = Texture(np.repeat(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8), 8, axis=1))
KINDS = {kind.__name__: kind for _, kinds in FAMILIES[:-1] for kind in kinds}


def made(kind, seed):
    builder = Builder()
    kind(builder, np.random.default_rng(seed))
    return normalize(builder.build(kind.__name__))


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_renders_soundly_within_the_frame(name):
    for seed in range(6):
        scene = made(KINDS[name], seed)
        assert np.isfinite(scene.vertices).all()
        assert np.linalg.norm(scene.normals, axis=-1) == pytest.approx(1, abs=1e-3)
        assert np.linalg.norm(scene.vertices[scene.faces].reshape(-1, 3), axis=-1).max() < FRUSTUM_RADIUS
        rgba = render_views(scene, orbit_cameras(10.0, torch.tensor([30.0, 200.0]), height=48, width=48)).rgba
        assert [broken_reason(view) for view in rgba] == [None, None], (name, seed)


@pytest.mark.parametrize("family", [procedural_animals, procedural_birds, procedural_characters])
def test_animals_and_people_are_mirror_symmetric(family):
    for kind in dict.fromkeys(family.KINDS):
        alpha = render_views(made(kind, 3), orbit_cameras(10.0, torch.tensor([40.0, -40.0]))).rgba[..., 3]
        overlap = np.minimum(alpha[0], alpha[1, :, ::-1]).sum() / np.maximum(alpha[0], alpha[1, :, ::-1]).sum()
        assert overlap > 0.9, f"{kind.__name__}: mirror views overlap only {overlap:.2f}"


def test_objects_are_many_repeatable_and_partly_without_colour():
    scenes = [generate_extended(seed) for seed in range(120)]
    assert len({scene.name for scene in scenes}) > 40
    assert 0.15 < np.mean([mean_chroma(scene) < 0.06 for scene in scenes]) < 0.45
    assert np.array_equal(scenes[5].vertices, generate_extended(5).vertices)


@pytest.mark.parametrize(
    ("seed", "name", "vertices"),
    [
        (0, "tree", 456),
        (9000000, "person", 3096),
        (9000007, "fish", 812),
        (9100003, "assembly", 624),
        (9100150, "burger", 3892),
        (9200010, "car", 2020),
    ],
)
def test_held_out_seeds_keep_their_objects(seed, name, vertices):
    scene = generate(seed)
    assert (scene.name, len(scene.vertices)) == (name, vertices)


@pytest.mark.parametrize("solid", [sheet(0.8, 0.8), sheet(0.8, 0.8, 90), wrapped(cylinder(0.4, 0.8))])
def test_images_read_from_left_to_right_in_front(solid):
    builder = Builder()
    builder.add(solid, WHITE_PAINT, texture=RED_LEFT_BLUE_RIGHT)
    scene = normalize(builder.build("picture"))
    rgb = render_views(scene, orbit_cameras(0.0, 0.0, height=32, width=32), WHITE_LIGHT).rgba[0, 16, :, :3]
    assert rgb[11] == pytest.approx([1, 0, 0], abs=0.02)
    assert rgb[20] == pytest.approx([0, 0, 1], abs=0.02)


def test_a_wrapped_image_has_no_reversed_seam():
    stripes = Texture(np.tile(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8).repeat(16, axis=1), (1, 4, 1)))
    builder = Builder()
    builder.add(wrapped(cylinder(0.4, 0.8, segments=22)), WHITE_PAINT, texture=stripes)
    scene = normalize(builder.build("tin"))
    rgb = render_views(scene, orbit_cameras(0.0, 180.0, height=64, width=64), WHITE_LIGHT, 1).rgba[0, 32, 24:40, :3]
    assert (np.abs(np.diff(rgb[:, 0])) > 0.5).sum() == 1  # one edge between two stripes: the seam itself


def test_command_renders_the_extended_kinds(tmp_path):
    overrides = ["--procedural", "0:3", "--kinds", "extended", "--views", "2", "--size", "24", "--supersample", "1"]
    assert main([str(tmp_path), *overrides]) == 0
    records = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert [record["source"] for record in records] == ["extended:0", "extended:1", "extended:2"]
    assert records[0]["object_id"] == "extended-0000000"
