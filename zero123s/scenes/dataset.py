"""Renders many objects into shards: parallel, resumable, the same result whatever the number of processes."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zero123s.errors import ConfigError, MeshError, OutputError
from zero123s.mesh.readers import Y_UP, load_mesh
from zero123s.mesh.scene_mesh import SceneMesh, normalize
from zero123s.ops.cameras import orbit_cameras
from zero123s.scenes.augment import FEW_COLOURS, TONES, augmented, mean_chroma, palette_of, toned, transformed
from zero123s.scenes.procedural import generate
from zero123s.scenes.procedural_extended import generate_extended
from zero123s.scenes.render import random_light, render_views
from zero123s.scenes.shards import Shard, read_shard, shard_path, write_shard
from zero123s.scenes.workers import WorkerKilledError, map_processes
from zero123s.structures import Cameras


@dataclass(frozen=True)
class SceneObject:
    """An object to render."""

    object_id: str
    source: str
    """`procedural:<seed>`, `extended:<seed>` or the path of a mesh file."""
    licence: str = "unknown"
    creator: str = ""
    title: str = ""
    library: str = ""
    """The collection that it comes from."""
    rotation: tuple[float, ...] = ()
    """Nine numbers, row by row, applied in the file's own axes; empty = none."""
    variant: int = 0
    """Which random variant of the object (`scenes.augment`); 0 = the object itself."""
    palette_from: str = ""
    """Mesh file whose colours a variant may be given."""
    tone: str = ""
    """`white`, `grey` or `black` recolours the object (`scenes.augment.TONES`); empty = as it is."""


@dataclass(frozen=True)
class RenderSettings:
    """Views, resolution and renderer of every object."""

    views: int = 12
    size: int = 64
    supersample: int = 3
    """Squared rays per pixel."""
    elevation_range: tuple[float, float] = (-10.0, 80.0)
    """Degrees; every second view is drawn from here."""
    condition_elevation_range: tuple[float, float] = (-10.0, 45.0)
    """Degrees; the other views are drawn from here, the range of ordinary photographs."""
    distance: float = 3.8
    fovy_deg: float = 20.0
    shard_size: int = 200
    seed: int = 0
    renderer: str = "embree"
    """`embree`, or `blender` (path-traced; needs bpy)."""


GENERATORS: dict[str, Callable[[int], SceneMesh]] = {"procedural": generate, "extended": generate_extended}


def procedural_objects(first: int, count: int, generator: str = "procedural") -> list[SceneObject]:
    """Return objects that a generator (`procedural` or `extended`) returns for the seeds first .. first + count - 1."""
    seeds = range(first, first + count)
    return [SceneObject(f"{generator}-{seed:07d}", f"{generator}:{seed}", "CC0-1.0") for seed in seeds]


def load_object(item: SceneObject) -> SceneMesh:
    """Return the normalised mesh of an object; raises MeshError.

    A fifth of a collection may be plain grey or white: of these only every second variant is used.
    """
    scene = _load_coloured(item)
    return toned(scene, TONES[item.tone]) if item.tone else scene


def with_tone(item: SceneObject, tone: str) -> SceneObject:
    """Return the object in white, grey or black, under an id of its own."""
    return replace(item, object_id=f"{item.object_id}-{tone}", tone=tone)


def _load_coloured(item: SceneObject) -> SceneMesh:
    kind, _, value = item.source.partition(":")
    if kind in GENERATORS:
        return GENERATORS[kind](int(value))
    scene = _mesh_of_file(item.source)
    if item.rotation:
        matrix = np.array(item.rotation).reshape(3, 3)
        if Path(item.source).suffix.lower() in Y_UP:  # the reader has turned y up into z up
            matrix = np.roll(matrix, (1, 1), axis=(0, 1))
        scene = normalize(transformed(scene, matrix))
    if not item.variant:
        return scene
    if item.variant % 2 == 0 and mean_chroma(scene) < FEW_COLOURS:
        raise MeshError(f"{item.object_id}: of few colours, so every second variant is left out.")
    palette = palette_of(_mesh_of_file(item.palette_from)) if item.palette_from else None
    return augmented(scene, object_generator(0, f"variant {item.object_id}"), palette)


@lru_cache(maxsize=12)
def _mesh_of_file(path: str) -> SceneMesh:
    """Read a mesh file; cached, since the variants of an object follow each other."""
    return load_mesh(Path(path))


def object_generator(seed: int, object_id: str) -> np.random.Generator:
    """Return the generator of an object's cameras and light: the same in every process and order."""
    digest = hashlib.sha256(f"{seed}/{object_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def draw_cameras(settings: RenderSettings, rng: np.random.Generator) -> Cameras:
    """Return random orbit cameras: uniform azimuth, elevations alternating between the two ranges."""
    n = settings.views
    elevation = rng.uniform(*settings.elevation_range, n)
    elevation[::2] = rng.uniform(*settings.condition_elevation_range, len(elevation[::2]))
    azimuth = rng.uniform(0, 360, n)
    angles = torch.from_numpy(np.stack([elevation, azimuth])).float()
    return orbit_cameras(angles[0], angles[1], settings.distance, settings.fovy_deg, settings.size, settings.size)


def render_object(item: SceneObject, settings: RenderSettings) -> tuple[np.ndarray, Cameras, dict[str, Any]]:
    """Return pixels (V S S 4 uint8), cameras and the manifest record of an object; raises MeshError."""
    scene = load_object(item)
    rng = object_generator(settings.seed, item.object_id)
    cameras = draw_cameras(settings, rng)
    light = random_light(rng)
    if settings.renderer == "blender":
        from zero123s.scenes.blender import render_views_blender

        rgba = render_views_blender(scene, cameras, light).rgba
    else:
        rgba = render_views(scene, cameras, light, settings.supersample).rgba
    pixels = np.round(rgba * 255).astype(np.uint8)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return pixels, cameras, {**asdict(item), "kind": scene.name, "sha256": digest}


def render_shard(items: Sequence[SceneObject], settings: RenderSettings, path: Path) -> int:
    """Render a group of objects into one file and return how many could be rendered.

    An object whose mesh cannot be used is listed in the shard's failures with its reason.
    """
    torch.set_num_threads(1)
    done, failures = [], []
    for item in items:
        try:
            done.append(render_object(item, settings))
        except MeshError as error:
            failures.append({"object_id": item.object_id, "source": item.source, "error": str(error)})
    shape = (0, settings.views, settings.size, settings.size, 4)

    def stacked(name: str) -> np.ndarray:
        values = [getattr(cameras, name).numpy() for _, cameras, _ in done]
        return np.stack(values) if values else np.zeros(shape[:2], np.float32)

    write_shard(
        path,
        Shard(
            images=np.stack([pixels for pixels, _, _ in done]) if done else np.zeros(shape, np.uint8),
            **{name: stacked(name) for name in ("elevation_deg", "azimuth_deg", "distance", "fovy_deg")},
            object_ids=tuple(record["object_id"] for _, _, record in done),
            records=tuple(record for _, _, record in done),
            failures=tuple(failures),
        ),
    )
    return len(done)


def render_dataset(
    objects: Sequence[SceneObject],
    out_dir: str | Path,
    settings: RenderSettings | None = None,
    processes: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Render all objects into `out_dir`/shard_XXXXX.safetensors and return the path of manifest.jsonl.

    Shards already there are kept, so a killed run resumes with the missing shards. `progress` is called with the number of
    objects of every finished shard.

    Raises:
        ConfigError: `out_dir` holds renders of other objects or settings.
        OutputError: a worker process was killed; the shards that are whole stay.
    """
    settings, folder = settings or RenderSettings(), Path(out_dir)
    identifiers = [item.object_id for item in objects]
    if len(set(identifiers)) != len(identifiers):
        raise ConfigError("render: some object ids come twice; give every object an id of its own.")
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, objects, settings)
    size = settings.shard_size
    groups = [(i // size, objects[i : i + size]) for i in range(0, len(objects), size)]
    report = progress or (lambda count: None)
    waiting = []
    for index, items in groups:
        if shard_path(folder, index).exists():
            report(len(items))
        else:
            waiting.append((index, items))
    if processes <= 1:
        for index, items in waiting:
            render_shard(items, settings, shard_path(folder, index))
            report(len(items))
    else:
        jobs = [(items, settings, shard_path(folder, index)) for index, items in waiting]
        try:
            for done in map_processes(render_shard, jobs, processes):
                report(len(waiting[done][1]))
        except WorkerKilledError as error:
            raise OutputError(
                f"A rendering process was killed (out of memory?); finished shards are kept in '{folder}': give "
                f"the same command again, with fewer than {processes} processes if it was memory."
            ) from error
    return write_manifest(folder, [index for index, _ in groups])


def _claim(folder: Path, objects: Sequence[SceneObject], settings: RenderSettings) -> None:
    """Record the settings of `folder`, or check that they are the same; more objects may be appended."""
    for stale in folder.glob("*.partial"):
        stale.unlink()  # left by a killed run; never a finished shard
    path = folder / "plan.json"
    ids = [f"{item.object_id}\t{item.source}" for item in objects]
    plan = {"settings": asdict(settings), "objects": len(ids)}
    plan = json.loads(json.dumps(plan))
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        defaults = json.loads(json.dumps(asdict(RenderSettings())))
        if {**defaults, **old["settings"]} != plan["settings"]:  # a plan of before a setting existed had its default
            raise ConfigError(
                f"{folder}: holds renders with other settings; choose another folder or the same settings."
            )
        count = min(old["objects"], len(ids))
        if count % settings.shard_size and len(ids) != old["objects"] and list(folder.glob("shard_*")):
            raise ConfigError(
                f"{folder}: was planned for {old['objects']} objects; a dataset can only grow by whole shards of "
                f"{settings.shard_size}. Choose another folder."
            )
        if old["sha256"].get(str(count)) not in (None, _digest(ids[:count])):
            raise ConfigError(f"{folder}: holds renders of other objects; choose another folder.")
        plan["sha256"] = old["sha256"]
        plan["objects"] = max(old["objects"], len(ids))
    plan.setdefault("sha256", {})[str(len(ids))] = _digest(ids)
    _write_text(path, json.dumps(plan, indent=1))


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _write_text(path: Path, text: str) -> None:
    partial = path.with_suffix(f"{path.suffix}.{os.getpid()}.tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_manifest(folder: Path, indices: Sequence[int]) -> Path:
    """Write manifest.jsonl from the shards: one line per object with source, licence, cameras and checksum."""
    lines = []
    for index in indices:
        path = shard_path(folder, index)
        shard = read_shard(path)
        for i, record in enumerate(shard.records):
            angles = np.stack([shard.elevation_deg[i], shard.azimuth_deg[i]], -1).round(4).tolist()
            lens = {"distance": float(shard.distance[i, 0]), "fovy_deg": float(shard.fovy_deg[i, 0])}
            lines.append(json.dumps({**record, "shard": path.name, "row": i, "elevation_azimuth_deg": angles, **lens}))
        lines += [json.dumps({**failure, "shard": path.name, "row": None}) for failure in shard.failures]
    _write_text(folder / "manifest.jsonl", "\n".join(lines) + "\n")
    return folder / "manifest.jsonl"
