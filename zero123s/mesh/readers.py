"""Reads mesh files (glb, gltf, obj + mtl, ply, stl) with textures, vertex colours and base-colour factors.

Files are untrusted: nothing outside the mesh's own folder is opened, and whatever is wrong with a file ends in
one MeshError that names it.
"""

import io
import json
import struct
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from zero123s.errors import MeshError
from zero123s.mesh.scene_mesh import Paint, SceneMesh, Texture, normalize, vertex_normals
from zero123s.structures import Mesh

MAX_BYTES = 1_000_000_000
MAX_FACES = 5_000_000
"""Above this the mesh is refused; embree and the arrays here would take more than about 2 GB."""
MAX_TEXTURE_PIXELS = 64_000_000
"""A packed file may hold an image of any size; 8000 x 8000 is 192 MB when unpacked."""
MAX_COUNT = 50_000_000
"""Largest element count a file's header may claim."""
Y_UP = (".glb", ".gltf", ".obj")
SUFFIXES = (*Y_UP, ".ply", ".stl")
CREASE_COS = float(np.cos(np.deg2rad(40)))


class _Folder(trimesh.resolvers.Resolver):
    """Gives trimesh access to the files that a mesh refers to, if they lie in the mesh's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.refused: list[str] = []
        self.used_bytes = 0

    def get(self, name: str) -> bytes:
        relative = unquote(str(name).strip()).replace("\\", "/")
        path = (self.folder / relative).resolve()
        if not path.is_relative_to(self.folder):
            self.refused.append(str(name))
            raise MeshError(f"'{name}' lies outside the mesh's folder")
        self.used_bytes += path.stat().st_size
        if self.used_bytes > MAX_BYTES:
            raise MeshError(f"'{name}' makes the mesh larger than {MAX_BYTES} bytes")
        return path.read_bytes()

    def keys(self) -> list[str]:
        return []

    def namespaced(self, namespace: str) -> "_Folder":
        self.refused.append(namespace)
        raise MeshError(f"'{namespace}': nested archives are not read")

    def write(self, name: str, data: Any) -> None:
        raise MeshError(f"'{name}': reading a mesh writes nothing")


class _Piece(NamedTuple):
    vertices: NDArray
    faces: NDArray
    colors: NDArray
    paint: Paint
    uv: NDArray | None
    texture: Texture | None


def load_mesh(path: str | Path, up: str = "auto") -> SceneMesh:
    """Read a mesh file for rendering: normalised, z up, front towards +x.

    Vertex colours are taken as sRGB, as most writers mean them; glTF's base-colour factors are linear.

    Args:
        path: glb, gltf, obj, ply or stl.
        up: axis that points up in the file: `y`, `z`, or `auto` (y for glb, gltf and obj, z for ply and stl). With y
            up the front is +z, as in glTF.

    Returns:
        The mesh, centred, its bounding sphere inside the frame of the default camera; see `normalize`.

    Raises:
        MeshError: missing, of an unknown kind, damaged, empty, with coordinates that are not finite, too large, or
            referring to files outside its folder.
    """
    path = Path(path)
    return normalize(_scene(path, _read(path, up)))


def read_mesh(path: str | Path, up: str = "auto") -> Mesh:
    """Read a mesh file in its own units and place, z up, front towards +x.

    Vertex colours of glTF files are taken as sRGB, as in `load_mesh`, but as linear where zero123s wrote them.

    Args:
        path: glb, gltf, obj, ply or stl.
        up: as in `load_mesh`; with `auto`, an obj that names zero123s in its first line has z up.

    Returns:
        The mesh with smooth normals. A single texture that covers all faces is kept; several, or a partial one, become
        vertex colours.

    Raises:
        MeshError: as `load_mesh`.
    """
    path = Path(path)
    is_own_export = _is_own_export(path)
    joined = _read(path, "z" if up == "auto" and is_own_export and path.suffix.lower() == ".obj" else up)
    vertices, faces = joined.vertices.astype(np.float64), joined.faces
    _, first, place = np.unique(vertices.astype(np.float32), axis=0, return_index=True, return_inverse=True)
    normals = vertex_normals(vertices[first], place.reshape(-1)[faces])[place.reshape(-1)].astype(np.float64)
    paint = np.ones((len(vertices), 3))
    for i, surface_paint in enumerate(joined.paints):
        paint[np.unique(faces[joined.paint_of_face == i])] = surface_paint.color
    colors = joined.colors * paint
    if joined.uv is None:
        if is_own_export and path.suffix.lower() in (".glb", ".gltf"):
            colors = _linear_to_srgb(colors)
        return Mesh(vertices, faces, normals, vertex_colors=colors)
    plain = bool(np.allclose(colors, 1.0))
    if plain and len(joined.textures) == 1 and (joined.texture_of_face == 0).all():
        texture = joined.textures[0].image.astype(np.float64) / 255
        return Mesh(vertices, faces, normals, uvs=joined.uv.astype(np.float64), texture=texture)
    for i, texture in enumerate(joined.textures):
        used = np.unique(faces[joined.texture_of_face == i])
        height, width = texture.image.shape[:2]
        column = (joined.uv[used, 0] % 1 * width).astype(int).clip(0, width - 1)
        row = ((1 - joined.uv[used, 1]) % 1 * height).astype(int).clip(0, height - 1)
        colors[used] *= texture.image[row, column] / 255
    return Mesh(vertices, faces, normals, vertex_colors=colors)


def _is_own_export(path: Path) -> bool:
    """Tell whether the header of an obj or glTF file names zero123s as its writer."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return b"zero123s" in file.read(200)


def _read(path: Path, up: str) -> "_Joined":
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise MeshError(f"{path}: '{suffix}' is not a mesh format that is read here; use one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise MeshError(f"{path}: is not a file.")
    if path.stat().st_size > MAX_BYTES:
        raise MeshError(f"{path}: {path.stat().st_size} bytes; at most {MAX_BYTES} are read.")
    if up not in ("auto", "y", "z"):
        raise MeshError(f"{path}: up axis '{up}' is unknown; use auto, y or z.")
    pieces = _pieces(path, _open(path, suffix))
    mesh = _join(path, pieces)
    if up == "y" or (up == "auto" and suffix in Y_UP):
        mesh = mesh._replace(vertices=mesh.vertices[:, [2, 0, 1]])
    return mesh


def _open(path: Path, suffix: str) -> trimesh.Scene:
    content = path.read_bytes()
    _check_header(path, suffix, content)
    folder = _Folder(path.parent)
    try:
        scene = trimesh.load_scene(
            io.BytesIO(content), file_type=suffix[1:], resolver=folder, process=False, allow_remote=False
        )
    except Exception as error:  # on untrusted input a parser may raise anything; all of it means a damaged file
        if folder.refused:
            raise _outside(path, folder) from error
        raise MeshError(f"{path}: cannot be read as {suffix[1:]} ({type(error).__name__}: {error}).") from error
    if folder.refused:
        raise _outside(path, folder)
    return scene


def _outside(path: Path, folder: _Folder) -> MeshError:
    return MeshError(f"{path}: refers to '{folder.refused[0]}' outside its own folder; refused.")


def _check_header(path: Path, suffix: str, content: bytes) -> None:
    """Refuse element counts that would make the parser allocate absurd arrays."""
    counts: list[int] = []
    try:
        if suffix == ".ply":
            head = content[: content.index(b"end_header")].decode("ascii", "replace")
            counts = [int(line.split()[2]) for line in head.splitlines() if line.startswith("element ")]
        elif suffix in (".glb", ".gltf"):
            if suffix == ".glb":
                (length,) = struct.unpack_from("<I", content, 12)
                content = content[20 : 20 + length]
            tree = json.loads(content)
            counts = [int(accessor.get("count", 0)) for accessor in tree.get("accessors", [])]
            _check_nodes(path, tree)
    except (ValueError, struct.error, AttributeError, TypeError, IndexError, RecursionError) as error:
        raise MeshError(f"{path}: its header cannot be read ({type(error).__name__}: {error}).") from error
    if counts and (max(counts) > MAX_COUNT or min(counts) < 0):
        raise MeshError(f"{path}: claims {max(counts)} elements; at most {MAX_COUNT} are read.")


def _check_nodes(path: Path, tree: dict) -> None:
    """Refuse node graphs that are not forests: a cycle would never end, a shared child may multiply without bound."""
    children = [child for node in tree.get("nodes", []) for child in node.get("children", [])]
    if len(set(children)) != len(children) or len(children) >= max(len(tree.get("nodes", [])), 1):
        raise MeshError(f"{path}: its nodes form no tree (a cycle, or a node with two parents).")


def _pieces(path: Path, scene: trimesh.Scene) -> list[_Piece]:
    nodes = [scene.graph[name] for name in scene.graph.nodes_geometry]
    total = sum(len(getattr(scene.geometry[name], "faces", ())) for _, name in nodes)
    if total > MAX_FACES:
        raise MeshError(f"{path}: {total} faces; at most {MAX_FACES} are rendered.")
    if total == 0:
        raise MeshError(f"{path}: has no faces (a point cloud, lines, or an empty file).")
    textures: dict[int, Texture] = {}
    pieces = []
    for transform, name in nodes:
        mesh = scene.geometry[name]
        if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces):
            try:
                with np.errstate(all="ignore"):  # what is not finite is refused below
                    pieces += _piece(mesh, np.asarray(transform), textures, path.suffix.lower() in (".glb", ".gltf"))
            except Exception as error:  # the parser trusts the shapes that a damaged file declares
                raise MeshError(f"{path}: its arrays do not fit together ({error}).") from error
    for piece in pieces:
        if len(piece.vertices) == 0 or piece.faces.min() < 0 or piece.faces.max() >= len(piece.vertices):
            raise MeshError(f"{path}: a face refers to a vertex that does not exist.")
        if not np.isfinite(piece.vertices[piece.faces]).all():
            raise MeshError(f"{path}: has vertices that are not finite numbers.")
    return pieces


def _piece(mesh: trimesh.Trimesh, transform: NDArray, textures: dict[int, Texture], linear: bool) -> list[_Piece]:
    vertices = np.asarray(mesh.vertices, np.float64) @ transform[:3, :3].T + transform[:3, 3]
    faces = np.asarray(mesh.faces, np.int64)
    if np.linalg.det(transform[:3, :3]) < 0:
        faces = faces[:, ::-1]
    visual = mesh.visual
    if isinstance(visual, trimesh.visual.ColorVisuals):
        if visual.kind == "face":
            colors = np.repeat(visual.face_colors[:, :3], 3, axis=0) / 255
            corners = np.arange(3 * len(faces)).reshape(-1, 3)
            return [_Piece(vertices[faces].reshape(-1, 3), corners, colors, Paint((1, 1, 1)), None, None)]
        if visual.kind == "vertex":
            return [_Piece(vertices, faces, visual.vertex_colors[:, :3] / 255, Paint((1, 1, 1)), None, None)]
        return [_Piece(vertices, faces, np.ones_like(vertices), Paint((0.75, 0.75, 0.75)), None, None)]
    base, image = _material(visual.material, linear)
    colors = np.ones_like(vertices)
    painted = visual.vertex_attributes.get("color")
    if painted is not None and len(painted) == len(vertices):
        colors = np.asarray(painted, np.float64)[:, :3]
        colors = colors / 255 if np.asarray(painted).dtype.kind in "ui" else colors
    uv, texture = visual.uv, None
    fits = uv is not None and np.ndim(uv) == 2 and uv.shape[1] >= 2 and len(uv) == len(vertices)
    if image is not None and uv is not None and fits and np.isfinite(uv).all():
        texture = textures.setdefault(id(image), Texture(np.asarray(image.convert("RGB"))))
    return [_Piece(vertices, faces, colors, Paint(base), None if texture is None else np.asarray(uv), texture)]


def _material(material: Any, linear: bool) -> tuple[tuple[float, float, float], Any]:
    """Return base colour (sRGB) and image of a material; `linear` says that factors are linear, as in glTF."""
    if isinstance(material, trimesh.visual.material.PBRMaterial):
        factor, image = material.baseColorFactor, material.baseColorTexture
    else:
        factor, image = getattr(material, "diffuse", None), getattr(material, "image", None)
    if factor is None:
        color = np.ones(3)
    else:
        factor = np.asarray(factor)
        color = factor[:3] / 255.0 if factor.dtype.kind in "ui" else factor[:3].astype(np.float64)
        color = _linear_to_srgb(color) if linear else color
    if image is not None and not linear:
        color = np.ones(3)  # obj writers leave any Kd with an image, often black or grey; the image replaces it
    if image is not None and image.width * image.height > MAX_TEXTURE_PIXELS:
        raise MeshError(f"a texture has {image.width}x{image.height} pixels; at most {MAX_TEXTURE_PIXELS} are read")
    r, g, b = np.clip(np.nan_to_num(color), 0, 1).tolist()
    return (r, g, b), image


def _linear_to_srgb(color: NDArray) -> NDArray:
    c = np.clip(color, 0, 1)
    return np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055)


class _Joined(NamedTuple):
    vertices: NDArray
    faces: NDArray
    colors: NDArray
    uv: NDArray | None
    paints: tuple[Paint, ...]
    paint_of_face: NDArray
    textures: tuple[Texture, ...]
    texture_of_face: NDArray


def _join(path: Path, pieces: list[_Piece]) -> _Joined:
    textures = list({id(p.texture): p.texture for p in pieces if p.texture is not None}.values())
    index = {id(texture): i for i, texture in enumerate(textures)}
    starts = np.cumsum([0, *[len(p.vertices) for p in pieces]])
    sizes = [len(p.faces) for p in pieces]
    uv = [np.zeros((len(p.vertices), 2)) if p.uv is None else p.uv[:, :2] for p in pieces]
    faces = np.concatenate([p.faces + s for p, s in zip(pieces, starts, strict=False)])
    vertices = np.concatenate([p.vertices for p in pieces])
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    real = area > 0
    if not real.any():
        raise MeshError(f"{path}: none of its {len(faces)} faces has an area.")
    paint_of_face = np.repeat(np.arange(len(pieces)), sizes)
    texture_of_face = np.repeat([index.get(id(p.texture), -1) for p in pieces], sizes)
    return _Joined(
        vertices,
        faces[real],
        np.concatenate([p.colors for p in pieces]),
        np.concatenate(uv) if textures else None,
        tuple(p.paint for p in pieces),
        paint_of_face[real],
        tuple(textures),
        texture_of_face[real],
    )


def _scene(path: Path, mesh: _Joined) -> SceneMesh:
    """Return the mesh with three vertices of its own per face, smooth across edges flatter than 40 degrees."""
    vertices = mesh.vertices - mesh.vertices[mesh.faces].reshape(-1, 3).mean(axis=0)  # float32 keeps small objects
    extent = max(float(np.abs(vertices[mesh.faces]).max()), 1e-30)
    vertices = vertices / extent
    corners = vertices[mesh.faces]
    normals = _crease_normals(vertices, mesh.faces)
    count = 3 * len(mesh.faces)
    return SceneMesh(
        vertices=corners.reshape(-1, 3).astype(np.float32),
        faces=np.arange(count, dtype=np.int32).reshape(-1, 3),
        normals=normals.astype(np.float32),
        paint_of_face=mesh.paint_of_face.astype(np.int32),
        paints=mesh.paints,
        pattern_coords=np.zeros((count, 3), np.float32),
        vertex_colors=mesh.colors[mesh.faces].reshape(-1, 3).astype(np.float32),
        name=path.stem,
        uv=None if mesh.uv is None else mesh.uv[mesh.faces].reshape(-1, 2).astype(np.float32),
        texture_of_face=None if mesh.uv is None else mesh.texture_of_face.astype(np.int32),
        textures=mesh.textures,
    )


def _crease_normals(vertices: NDArray, faces: NDArray) -> NDArray[np.float64]:
    """Return a normal per corner, 3F 3: the mean over the faces at that place that flat edges join to the corner's.

    Places are vertices merged by position, so seams of texture coordinates do not show.
    """
    _, place = np.unique(np.round(vertices, 6), axis=0, return_inverse=True)
    at = place.reshape(-1)[faces]
    corners = vertices[faces]
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = weighted / np.maximum(np.linalg.norm(weighted, axis=-1, keepdims=True), 1e-30)
    edges = np.sort(np.stack([at, np.roll(at, -1, axis=1)], axis=-1).reshape(-1, 2), axis=1)
    owner = np.repeat(np.arange(len(faces)), 3)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    edges, owner = edges[order], owner[order]
    same = (edges[1:] == edges[:-1]).all(axis=1)
    left, right = owner[:-1][same], owner[1:][same]
    soft = (flat[left] * flat[right]).sum(-1) > CREASE_COS
    graph = coo_matrix((np.ones(soft.sum(), bool), (left[soft], right[soft])), shape=(len(faces), len(faces)))
    _, group = connected_components(graph, directed=False)
    key = at.astype(np.int64) * (int(group.max()) + 1) + group[:, None]
    _, shared = np.unique(key, return_inverse=True)
    shared = shared.reshape(-1)
    total = np.stack([np.bincount(shared, np.repeat(weighted[:, i], 3)) for i in range(3)], axis=-1)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    return np.where(length[shared] > 1e-20, total[shared] / np.maximum(length[shared], 1e-20), np.repeat(flat, 3, 0))
