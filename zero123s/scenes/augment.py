"""Random variants of objects, to enlarge a small collection."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zero123s.mesh.scene_mesh import Paint, SceneMesh, Texture, normalize
from zero123s.scenes.procedural_color import surface

MAX_STRETCH = 0.15
"""Largest relative change of the size along one axis."""
TURN_JITTER_DEG = 20.0
"""How far a variant's turn is off a multiple of 90 degrees."""
FEW_COLOURS = 0.12
"""Mean chroma below which an object counts as grey; its variants are then mostly recoloured."""

TONES = {"white": 0.95, "grey": 0.55, "black": 0.1}
"""Mean sRGB levels of recoloured objects."""

Colors = NDArray[np.float64]
"""K 3, sRGB in [0, 1]."""


def augmented(scene: SceneMesh, rng: np.random.Generator, palette: Colors | None = None) -> SceneMesh:
    """Return a random variant: mirrored, rotated, stretched and recoloured, normalised again."""
    scene = reshaped(scene, rng)
    grey = mean_chroma(scene) < FEW_COLOURS
    kind = rng.choice(5, p=[0.33, 0.0, 0.37, 0.2, 0.1] if grey else [0.3, 0.3, 0.2, 0.1, 0.1])
    if kind == 1:
        scene = hue_shifted(scene, rng.uniform(0, 1), rng.uniform(0.7, 1.3), rng.uniform(0.85, 1.15))
    elif kind == 2 and palette is not None:
        scene = with_palette(scene, palette[rng.permutation(len(palette))])
    elif kind in (2, 3):
        scene = with_procedural_paint(scene, rng)
    elif kind == 4:
        scene = neutral(scene, rng)
    return normalize(scene, fill=float(rng.uniform(0.8, 0.92)))


def reshaped(scene: SceneMesh, rng: np.random.Generator) -> SceneMesh:
    """Mirror the scene (half of the time), rotate it about the vertical and stretch it along each axis."""
    scale = rng.uniform(1 - MAX_STRETCH, 1 + MAX_STRETCH, 3)
    scale[1] *= rng.choice([-1, 1])
    turn = np.deg2rad(90 * rng.integers(4) + rng.uniform(-TURN_JITTER_DEG, TURN_JITTER_DEG))
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    return transformed(scene, rotation @ np.diag(scale))


def transformed(scene: SceneMesh, matrix: NDArray) -> SceneMesh:
    """Apply an invertible linear map (3 3) to the scene; faces keep their outward orientation if it mirrors."""
    normals = scene.normals @ np.linalg.inv(matrix)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    faces = scene.faces[:, ::-1] if np.linalg.det(matrix) < 0 else scene.faces
    return replace(
        scene,
        vertices=(scene.vertices @ matrix.T).astype(np.float32),
        normals=normals.astype(np.float32),
        faces=np.ascontiguousarray(faces),
    )


def _textured(scene: SceneMesh) -> NDArray[np.bool_]:
    """Return which faces have an image, F."""
    if scene.texture_of_face is None or scene.uv is None:
        return np.zeros(len(scene.faces), bool)
    return scene.texture_of_face >= 0


def _areas(scene: SceneMesh) -> NDArray:
    a, b, c = (scene.vertices[scene.faces[:, i]] for i in range(3))
    return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=-1)


def colors_by_area(scene: SceneMesh) -> tuple[Colors, NDArray]:
    """Return the mean colour of every surface (its paints, then its textures), K 3, and its share of the surface, K."""
    area, textured = _areas(scene), _textured(scene)
    colors = [np.array(p.color) for p in scene.paints]
    shares = list(np.bincount(scene.paint_of_face[~textured], area[~textured], len(scene.paints)))
    if textured.any() and scene.texture_of_face is not None:
        colors += [texture.image.reshape(-1, 3).mean(0) / 255 for texture in scene.textures]
        shares += list(np.bincount(scene.texture_of_face[textured], area[textured], len(scene.textures)))
    return np.array(colors), np.array(shares) / max(sum(shares), 1e-12)


def palette_of(scene: SceneMesh) -> Colors:
    """Return the main colours: those with at least 1 % of the surface, largest first."""
    colors, shares = colors_by_area(scene)
    order = np.argsort(-shares, kind="stable")
    large = [i for i in order if shares[i] >= 0.01] or [order[0]]
    return colors[large]


def mean_chroma(scene: SceneMesh) -> float:
    """Return the difference between the largest and the smallest of red, green and blue, averaged by area."""
    colors, _ = colors_by_area(scene)
    index = scene.paint_of_face
    if scene.texture_of_face is not None:
        index = np.where(_textured(scene), len(scene.paints) + scene.texture_of_face, index)
    of_face = colors[index] * scene.vertex_colors[scene.faces].mean(axis=1)
    return float(np.average(np.ptp(of_face, axis=1), weights=_areas(scene)))


def with_palette(scene: SceneMesh, palette: Colors) -> SceneMesh:
    """Recolour the scene: its colours, largest first, are replaced by those of `palette` in turn."""
    colors, shares = colors_by_area(scene)
    new = colors.copy()
    for rank, index in enumerate(np.argsort(-shares, kind="stable")):
        new[index] = palette[rank % len(palette)]
    n = len(scene.paints)
    paints = tuple(
        replace(paint, color=_triple(color), second=_triple(np.array(paint.second) + color - old))
        for paint, color, old in zip(scene.paints, new[:n], colors[:n], strict=True)
    )
    textures = tuple(
        Texture(_bytes(texture.image / 255 + color - old))
        for texture, color, old in zip(scene.textures, new[n:], colors[n:], strict=False)
    )
    return _with_appearance(scene, paints, textures)


def with_procedural_paint(scene: SceneMesh, rng: np.random.Generator) -> SceneMesh:
    """Replace the scene's colours and textures by procedural wood, metal and fabric patterns."""
    paints = [surface(rng, scale=float(rng.uniform(0.3, 0.8))) for _ in range(len(scene.paints) + len(scene.textures))]
    paint_of_face = scene.paint_of_face.copy()
    if scene.texture_of_face is not None:
        textured = _textured(scene)
        paint_of_face[textured] = len(scene.paints) + scene.texture_of_face[textured]
    return replace(
        scene,
        paints=tuple(paints),
        paint_of_face=paint_of_face,
        pattern_coords=scene.vertices,
        vertex_colors=np.ones_like(scene.vertices),
        texture_of_face=None,
        textures=(),
        uv=None,
    )


def hue_shifted(scene: SceneMesh, turn: float, saturation: float, value: float) -> SceneMesh:
    """Shift all hues by `turn` of the circle and multiply chroma and brightness."""
    return _recolored(scene, lambda rgb: _hue_shift(rgb, turn, saturation, value))


def neutral(scene: SceneMesh, rng: np.random.Generator) -> SceneMesh:
    """Recolour the scene in white, greys or near black, with a third of its contrast."""
    level = (TONES["white"], float(rng.uniform(0.3, 0.8)), TONES["black"])[rng.integers(3)]
    return toned(scene, level + rng.normal(0, 0.012, 3))


def toned(scene: SceneMesh, level: float | NDArray) -> SceneMesh:
    """Recolour the scene with a mean colour of `level` (grey, or sRGB) and a third of its contrast, without hues."""
    middle = float((colors_by_area(scene)[0].mean(1) * colors_by_area(scene)[1]).sum())
    return _recolored(scene, lambda rgb: np.broadcast_to(level, 3) + 0.33 * (rgb.mean(-1, keepdims=True) - middle))


def _recolored(scene: SceneMesh, change) -> SceneMesh:
    """Apply `change` (N 3 -> N 3) to all colours of paints, textures and vertices."""
    paints = tuple(
        replace(
            paint,
            color=_triple(change(np.array([paint.color]))[0]),
            second=_triple(change(np.array([paint.second]))[0]),
        )
        for paint in scene.paints
    )
    textures = tuple(
        Texture(_bytes(change(t.image.reshape(-1, 3) / 255).reshape(t.image.shape))) for t in scene.textures
    )
    scene = _with_appearance(scene, paints, textures)
    if np.ptp(scene.vertex_colors) < 1e-6:
        return scene
    return replace(scene, vertex_colors=np.clip(change(scene.vertex_colors), 0, 1).astype(np.float32))


def _with_appearance(scene: SceneMesh, paints: tuple[Paint, ...], textures: tuple[Texture, ...]) -> SceneMesh:
    """Replace colours and textures of the scene; textured faces keep their paint, which multiplies the texture."""
    textured = _textured(scene)
    if not textured.any():
        return replace(scene, paints=paints)
    paint_of_face = scene.paint_of_face.copy()
    paint_of_face[textured] += len(paints)
    return replace(scene, paints=(*paints, *scene.paints), paint_of_face=paint_of_face, textures=textures)


def _hue_shift(rgb: NDArray, turn: float, saturation: float, value: float) -> NDArray:
    """Rotate colours about the grey axis (Rodrigues' formula), scale their chroma and brightness."""
    axis = np.full(3, 1 / np.sqrt(3))
    angle = 2 * np.pi * turn
    grey = rgb.mean(-1, keepdims=True)
    off = rgb - grey
    turned = off * np.cos(angle) + np.cross(axis, off) * np.sin(angle)
    return np.clip(value * (grey + saturation * turned), 0, 1)


def _triple(color: NDArray) -> tuple[float, float, float]:
    r, g, b = np.clip(color, 0.0, 1.0).tolist()
    return r, g, b


def _bytes(image: NDArray) -> NDArray[np.uint8]:
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
