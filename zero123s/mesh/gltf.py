"""glTF 2.0: y up, front towards +z, metres; `.glb` in one file, `.gltf` with its buffer and images as separate files."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from zero123s.images.encode import encode_image, write_atomically
from zero123s.structures import Mesh

Z_UP_TO_Y_UP = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
"""Rows: world +y is glTF's +x, world +z (up) its +y, world +x (towards the reference camera) its +z."""


class _Buffer:
    """glTF's one binary blob and its views."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict] = []
        self.accessors: list[dict] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        self.data += b"\0" * (-len(self.data) % 4)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        self.views.append(view if target is None else {**view, "target": target})
        self.data += data
        return len(self.views) - 1

    def accessor(self, array: np.ndarray, kind: str, bounds: bool = False) -> int:
        is_index = array.dtype == np.uint32
        item = {
            "bufferView": self.view(array.tobytes(), 34963 if is_index else 34962),
            "componentType": 5125 if is_index else 5126,
            "count": array.size if kind == "SCALAR" else len(array),
            "type": kind,
        }
        if bounds:
            item |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        self.accessors.append(item)
        return len(self.accessors) - 1


def _srgb_to_linear(color: np.ndarray) -> np.ndarray:
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def _texture_files(mesh: Mesh, texture_format: str) -> list[tuple[str, bytes, str]]:
    """Return (suffix, file content, extension) of base colour and normal map, where there are any."""
    if mesh.texture is None or mesh.uvs is None:
        return []
    files = [("", encode_image(mesh.texture, texture_format), texture_format)]
    if mesh.normal_map is not None:
        files.append(("_normal", encode_image(mesh.normal_map, "png"), "png"))
    return files


def _primitive(mesh: Mesh, buffer: _Buffer) -> dict[str, Any]:
    f32 = np.float32
    attributes = {"POSITION": buffer.accessor((mesh.vertices @ Z_UP_TO_Y_UP.T).astype(f32), "VEC3", bounds=True)}
    if mesh.normals is not None:
        attributes["NORMAL"] = buffer.accessor((mesh.normals @ Z_UP_TO_Y_UP.T).astype(f32), "VEC3")
    if mesh.texture is not None and mesh.uvs is not None:
        # glTF counts v from the top.
        uvs = np.stack([mesh.uvs[:, 0], 1 - mesh.uvs[:, 1]], -1)
        attributes["TEXCOORD_0"] = buffer.accessor(uvs.astype(f32), "VEC2")
        if mesh.normal_map is not None and mesh.tangents is not None:
            tangents = np.concatenate([mesh.tangents[:, :3] @ Z_UP_TO_Y_UP.T, mesh.tangents[:, 3:]], axis=1)
            attributes["TANGENT"] = buffer.accessor(tangents.astype(f32), "VEC4")
    elif mesh.vertex_colors is not None:
        attributes["COLOR_0"] = buffer.accessor(_srgb_to_linear(mesh.vertex_colors).astype(f32), "VEC3")
    indices = buffer.accessor(np.ascontiguousarray(mesh.faces, np.uint32).reshape(-1), "SCALAR")
    return {"attributes": attributes, "indices": indices, "material": 0}


def _document(mesh: Mesh, name: str, primitive: dict[str, Any], images: list[dict[str, Any]]) -> dict[str, Any]:
    surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    material: dict[str, Any] = {"name": name, "pbrMetallicRoughness": surface}
    if images:
        surface["baseColorTexture"] = {"index": 0}
    if len(images) > 1:
        material["normalTexture"] = {"index": 1}
    document = {
        "asset": {"version": "2.0", "generator": mesh.extras.generator, "extras": mesh.extras.as_dict()},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"name": name, "primitives": [primitive]}],
        "materials": [material],
    }
    if images:
        document["images"] = images
        document["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
        document["textures"] = [{"source": i, "sampler": 0} for i in range(len(images))]
    return document


def _text(document: dict[str, Any], buffer: _Buffer, uri: str | None = None) -> bytes:
    size = len(buffer.data) + -len(buffer.data) % 4
    whole = {"byteLength": size} if uri is None else {"byteLength": size, "uri": uri}
    document |= {"accessors": buffer.accessors, "bufferViews": buffer.views, "buffers": [whole]}
    return json.dumps(document, separators=(",", ":")).encode()


def _padded(data: bytes | bytearray, fill: bytes) -> bytes:
    return bytes(data) + fill * (-len(data) % 4)


def glb_bytes(mesh: Mesh, name: str, texture_format: str = "png") -> bytes:
    """Encode a mesh as binary glTF 2.0 with embedded textures, y up and the front towards +z.

    Args:
        mesh: z up; its texture and normal map where it has texture coordinates, else its vertex colours.
        name: of the mesh, its node and its material.
        texture_format: of the base colour, "png" or "jpg"; normal maps are always PNG.

    Returns:
        The file's content; `mesh.extras` is in asset.extras.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.gltf import glb_bytes
        >>> from zero123s.structures import Mesh
        >>> triangle = Mesh(np.eye(3), np.array([[0, 1, 2]]))
        >>> glb_bytes(triangle, "triangle")[:4]
        b'glTF'
    """
    buffer = _Buffer()
    primitive = _primitive(mesh, buffer)
    images = [
        {"bufferView": buffer.view(data), "mimeType": f"image/{'jpeg' if kind == 'jpg' else 'png'}"}
        for _, data, kind in _texture_files(mesh, texture_format)
    ]
    text = _padded(_text(_document(mesh, name, primitive, images), buffer), b" ")
    binary = _padded(buffer.data, b"\0")
    header = struct.pack("<III", 0x46546C67, 2, 12 + 8 + len(text) + 8 + len(binary))
    return (
        header + struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    )


def write_glb(mesh: Mesh, out_dir: Path, name: str, texture_format: str) -> dict[str, Path]:
    """Write a mesh as name.glb, see `glb_bytes`.

    Args:
        mesh: z up.
        out_dir: folder of the file.
        name: file name without extension.
        texture_format: of the base colour, "png" or "jpg".

    Returns:
        {"glb": path}.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomically(out_dir / f"{name}.glb", glb_bytes(mesh, name, texture_format))
    return {"glb": out_dir / f"{name}.glb"}


def write_gltf(mesh: Mesh, out_dir: Path, name: str, texture_format: str) -> dict[str, Path]:
    """Write a mesh as name.gltf, name.bin and the images that it refers to.

    Args:
        mesh: z up.
        out_dir: folder of the files.
        name: file name without extension.
        texture_format: of the base colour, "png" or "jpg".

    Returns:
        The path of each file, under "gltf", "bin", "texture" and "texture_normal".

    Raises:
        OutputError: a file cannot be written.
    """
    buffer = _Buffer()
    primitive = _primitive(mesh, buffer)
    files, images = {}, []
    for suffix, data, kind in _texture_files(mesh, texture_format):
        path = out_dir / f"{name}{suffix}.{kind}"
        write_atomically(path, data)
        images.append({"uri": path.name})
        files[f"texture{suffix}"] = path
    text = _text(_document(mesh, name, primitive, images), buffer, f"{name}.bin")
    files |= {"gltf": out_dir / f"{name}.gltf", "bin": out_dir / f"{name}.bin"}
    write_atomically(files["bin"], _padded(buffer.data, b"\0"))
    write_atomically(files["gltf"], text)
    return files
