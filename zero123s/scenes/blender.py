"""Path-traced renders of a SceneMesh with Blender's Cycles (`pip install bpy`), the slow and soft alternative to embree.

Colours and patterns are baked into one image with a tile per triangle, so Blender needs neither.
"""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zero123s.errors import MissingDependencyError
from zero123s.mesh.scene_mesh import SceneMesh
from zero123s.scenes.render import Light, Renders, surface_colors
from zero123s.structures import Cameras

ATLAS_SIDE = 4096
"""Pixels per edge of the baked image; the tile of each triangle shrinks with their number."""


def import_bpy() -> Any:
    """Return the module bpy; raises MissingDependencyError saying how to install it."""
    try:
        import bpy
    except ImportError as error:
        raise MissingDependencyError(
            "Blender renders need the package bpy, which is not here: pip install bpy (one Python version per release), "
            "or render with embree, which needs nothing more."
        ) from error
    return bpy


def render_views_blender(
    scene: SceneMesh, cameras: Cameras, light: Light | None = None, samples: int = 32, seed: int = 0
) -> Renders:
    """Return path-traced views of a scene, straight alpha, on the CPU; `samples` paths a pixel, not denoised.

    `light`: ambient becomes a uniform world, diffuse a soft sun. Raises MissingDependencyError without bpy.
    """
    bpy = import_bpy()
    light = light or Light()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    world = bpy.context.scene
    _settings(world, cameras, samples, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _place_object(bpy, scene, folder / "atlas.png")
        _place_light(bpy, light)
        camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
        camera.data.sensor_fit = "VERTICAL"
        world.collection.objects.link(camera)
        world.camera = camera
        images = []
        for i in range(len(cameras)):
            camera.data.angle = math.radians(float(cameras.fovy_deg[i]))
            camera.matrix_world = cameras.c2w[i].T.tolist()  # bpy takes the matrix by columns
            world.render.filepath = str(folder / f"{i}.png")
            bpy.ops.render.render(write_still=True)
            with Image.open(folder / f"{i}.png") as image:
                images.append(np.asarray(image.convert("RGBA"), np.float32) / 255)
    return Renders(np.stack(images))


def _settings(world: Any, cameras: Cameras, samples: int, seed: int) -> None:
    world.render.engine = "CYCLES"
    world.cycles.device = "CPU"
    world.cycles.samples = samples
    world.cycles.seed = seed
    world.cycles.max_bounces = 2
    world.cycles.use_denoising = False
    world.render.film_transparent = True
    world.render.resolution_x, world.render.resolution_y = cameras.width, cameras.height
    world.render.resolution_percentage = 100
    world.render.image_settings.file_format = "PNG"
    world.render.image_settings.color_mode = "RGBA"
    world.view_settings.view_transform = "Standard"  # the default, AgX, would change the object's colours


def bake_atlas(scene: SceneMesh, side: int = ATLAS_SIDE) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return an image with a tile per triangle (side side 3) and the texture coordinates of the corners, F 3 2."""
    count = len(scene.faces)
    columns = math.ceil(math.sqrt(count))
    tile = side // columns
    assert tile >= 2, "more triangles than tiles of two pixels"
    steps = np.arange(tile) / (tile - 1)
    v, u = np.meshgrid(steps, steps, indexing="ij")
    image = np.zeros((side, side, 3), np.uint8)
    for row in range(math.ceil(count / columns)):
        faces = np.arange(row * columns, min((row + 1) * columns, count), dtype=np.int32)
        over = np.maximum(u + v, 1)  # beyond the diagonal the tile repeats the edge
        shape = (len(faces), tile, tile)
        rgb = surface_colors(
            scene,
            np.broadcast_to(faces[:, None, None], shape).ravel(),
            np.broadcast_to((u / over).astype(np.float32), shape).ravel(),
            np.broadcast_to((v / over).astype(np.float32), shape).ravel(),
        )
        strip = np.rint(rgb.clip(0, 1) * 255).astype(np.uint8).reshape(*shape, 3)
        line = strip.transpose(1, 0, 2, 3).reshape(tile, -1, 3)
        image[row * tile : (row + 1) * tile, : line.shape[1]] = line
    index = np.arange(count)
    x, y = index % columns * tile, index // columns * tile
    corner = np.array([[0, 0], [1, 0], [0, 1]]) * (tile - 1) + 0.5
    uv = (np.stack([x, y], -1)[:, None] + corner) / side
    uv[..., 1] = 1 - uv[..., 1]
    return image, uv.astype(np.float32)


def _place_object(bpy: Any, scene: SceneMesh, atlas: Path) -> None:
    image, uv = bake_atlas(scene)
    Image.fromarray(image).save(atlas)
    mesh = bpy.data.meshes.new(scene.name or "object")
    mesh.from_pydata(scene.vertices.tolist(), [], scene.faces.tolist())
    layer = mesh.uv_layers.new(name="atlas")
    layer.data.foreach_set("uv", uv.reshape(-1))
    mesh.normals_split_custom_set_from_vertices(scene.normals.tolist())
    material = bpy.data.materials.new("paint")
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    image, shader, output = (
        nodes.new(kind) for kind in ("ShaderNodeTexImage", "ShaderNodeBsdfDiffuse", "ShaderNodeOutputMaterial")
    )
    image.image = bpy.data.images.load(str(atlas))
    links.new(image.outputs["Color"], shader.inputs["Color"])
    links.new(shader.outputs["BSDF"], output.inputs["Surface"])
    mesh.materials.append(material)
    bpy.context.scene.collection.objects.link(bpy.data.objects.new(mesh.name, mesh))


def _place_light(bpy: Any, light: Light) -> None:
    from mathutils import Vector  # comes with bpy

    world = bpy.data.worlds.new("ambient")
    world.use_nodes = True
    background = world.node_tree.nodes.get("Background")
    background.inputs["Color"].default_value = (1, 1, 1, 1)
    background.inputs["Strength"].default_value = light.ambient
    bpy.context.scene.world = world
    lamp = bpy.data.lights.new("sun", "SUN")
    lamp.energy = math.pi * light.diffuse  # a sun of strength pi lights a white facing surface to 1
    lamp.angle = math.radians(30)
    sun = bpy.data.objects.new("sun", lamp)
    sun.rotation_euler = Vector(light.direction).to_track_quat("Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(sun)
