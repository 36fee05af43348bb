"""Mesh files: glTF binary, Wavefront, PLY, STL and 3MF. Every file appears whole or not at all."""

import io
import json
import os
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

from zero123s.errors import MeshError
from zero123s.structures import Mesh

Z_UP_TO_Y_UP = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
"""Rows: world +y is glTF's +x, world +z (up) its +y, world +x (towards the reference camera) its +z."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under another name and rename it; raises MeshError with the operating system's reason."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise MeshError(
            f"Cannot write {path}: {error.strerror or error}; free space or choose another folder."
        ) from error


def encode_image(image: np.ndarray, fmt: str) -> bytes:
    """Return an image in [0, 1], row 0 on top, as PNG or JPEG bytes."""
    stream = io.BytesIO()
    pixels = Image.fromarray((image.clip(0, 1) * 255 + 0.5).astype(np.uint8))
    pixels.save(stream, "JPEG" if fmt == "jpg" else "PNG", **({"quality": 95} if fmt == "jpg" else {}))
    return stream.getvalue()


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


def glb_bytes(mesh: Mesh, name: str, texture_format: str = "png") -> bytes:
    """Return binary glTF 2.0: y up, front towards +z, embedded textures, `mesh.extras` in asset.extras."""
    buffer = _Buffer()
    f32 = np.float32
    attributes = {"POSITION": buffer.accessor((mesh.vertices @ Z_UP_TO_Y_UP.T).astype(f32), "VEC3", bounds=True)}
    if mesh.normals is not None:
        attributes["NORMAL"] = buffer.accessor((mesh.normals @ Z_UP_TO_Y_UP.T).astype(f32), "VEC3")
    material: dict = {"name": name, "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}
    images = []
    if mesh.texture is not None and mesh.uvs is not None:
        # glTF counts v from the top.
        uvs = np.stack([mesh.uvs[:, 0], 1 - mesh.uvs[:, 1]], -1)
        attributes["TEXCOORD_0"] = buffer.accessor(uvs.astype(f32), "VEC2")
        images.append((mesh.texture, texture_format))
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}
        if mesh.normal_map is not None:
            images.append((mesh.normal_map, "png"))
            material["normalTexture"] = {"index": 1}
    elif mesh.vertex_colors is not None:
        attributes["COLOR_0"] = buffer.accessor(_srgb_to_linear(mesh.vertex_colors).astype(f32), "VEC3")
    indices = buffer.accessor(np.ascontiguousarray(mesh.faces, np.uint32).reshape(-1), "SCALAR")
    encoded = [
        {"bufferView": buffer.view(encode_image(i, f)), "mimeType": f"image/{'jpeg' if f == 'jpg' else 'png'}"}
        for i, f in images
    ]
    primitive = {"attributes": attributes, "indices": indices, "material": 0}
    document = {
        "asset": {"version": "2.0", "generator": mesh.extras.get("generator", "zero123s"), "extras": mesh.extras},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"name": name, "primitives": [primitive]}],
        "materials": [material],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data) + -len(buffer.data) % 4}],
    }
    if images:
        document["images"] = encoded
        document["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
        document["textures"] = [{"source": i, "sampler": 0} for i in range(len(images))]
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary = bytes(buffer.data) + b"\0" * (-len(buffer.data) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    header = struct.pack("<III", 0x46546C67, 2, total)
    return (
        header + struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    )


def _rows(prefix: str, array: np.ndarray) -> str:
    pattern = f"{prefix} " + " ".join(["%.7g"] * array.shape[1])
    return "\n".join([pattern] * len(array)) % tuple(array.reshape(-1).tolist()) + "\n"


def _write_glb(mesh: Mesh, out_dir: Path, name: str, texture_format: str) -> dict[str, Path]:
    write_atomically(out_dir / f"{name}.glb", glb_bytes(mesh, name, texture_format))
    return {"glb": out_dir / f"{name}.glb"}


def _write_obj(mesh: Mesh, out_dir: Path, name: str, texture_format: str) -> dict[str, Path]:
    """Wavefront, z up; colours in the texture, or after the positions where there is none."""
    files = {"obj": out_dir / f"{name}.obj"}
    textured = mesh.texture is not None and mesh.uvs is not None
    columns = [mesh.vertices] if textured or mesh.vertex_colors is None else [mesh.vertices, mesh.vertex_colors]
    text = [f"# {mesh.extras.get('generator', 'zero123s')}\n"]
    parts = ["%d"]
    if textured:
        assert mesh.texture is not None
        files |= {"mtl": out_dir / f"{name}.mtl", "texture": out_dir / f"{name}.{texture_format}"}
        write_atomically(files["texture"], encode_image(mesh.texture, texture_format))
        mtl = f"newmtl {name}\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 1\nmap_Kd {name}.{texture_format}\n"
        write_atomically(files["mtl"], mtl.encode())
        text.append(f"mtllib {name}.mtl\nusemtl {name}\n")
    text.append(_rows("v", np.concatenate(columns, axis=1)))
    if textured:
        assert mesh.uvs is not None
        text.append(_rows("vt", mesh.uvs))
    if mesh.normals is not None:
        text.append(_rows("vn", mesh.normals))
        parts = ["%d/%d/%d"] if textured else ["%d//%d"]
    elif textured:
        parts = ["%d/%d"]
    per_corner = parts[0].count("%d")
    pattern = "f " + " ".join(parts * 3)
    indices = np.repeat(np.asarray(mesh.faces).reshape(-1) + 1, per_corner)
    text.append("\n".join([pattern] * len(mesh.faces)) % tuple(indices.tolist()) + "\n")
    write_atomically(files["obj"], "".join(text).encode())
    return files


def _write_ply(mesh: Mesh, out_dir: Path, name: str, texture_format: str) -> dict[str, Path]:
    """Binary PLY with vertex colours, z up."""
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    columns = list(np.asarray(mesh.vertices).T)
    if mesh.normals is not None:
        fields += [("nx", "<f4"), ("ny", "<f4"), ("nz", "<f4")]
        columns += list(np.asarray(mesh.normals).T)
    if mesh.vertex_colors is not None:
        fields += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
        columns += list((mesh.vertex_colors.clip(0, 1) * 255 + 0.5).astype(np.uint8).T)
    rows = np.empty(len(mesh.vertices), fields)
    for (field, _), column in zip(fields, columns, strict=True):
        rows[field] = column
    faces = np.empty(len(mesh.faces), [("n", "u1"), ("i", "<i4", 3)])
    faces["n"], faces["i"] = 3, mesh.faces
    properties = "".join(f"property {'uchar' if t == 'u1' else 'float'} {n}\n" for n, t in fields)
    header = (
        f"ply\nformat binary_little_endian 1.0\ncomment {mesh.extras.get('generator', 'zero123s')}\n"
        f"element vertex {len(rows)}\n{properties}element face {len(faces)}\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    path = out_dir / f"{name}.ply"
    write_atomically(path, header.encode() + rows.tobytes() + faces.tobytes())
    return {"ply": path}


def _write_stl(mesh: Mesh, out_dir: Path, name: str, texture_format: str) -> dict[str, Path]:
    """Binary STL, z up, no colours."""
    corners = np.asarray(mesh.vertices)[mesh.faces].astype("<f4")
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)
    rows = np.zeros(len(corners), [("n", "<f4", 3), ("v", "<f4", (3, 3)), ("a", "<u2")])
    rows["n"], rows["v"] = normal, corners
    path = out_dir / f"{name}.stl"
    write_atomically(path, b"zero123s".ljust(80) + struct.pack("<I", len(rows)) + rows.tobytes())
    return {"stl": path}


def _write_3mf(mesh: Mesh, out_dir: Path, name: str, texture_format: str) -> dict[str, Path]:
    """3MF for printers: seams joined, one world unit is 100 mm, standing on the bed."""
    unique, inverse = np.unique(np.asarray(mesh.vertices, np.float32), axis=0, return_inverse=True)
    faces = inverse.reshape(-1)[mesh.faces]
    points = (unique - unique.min(0)) * 100.0
    vertex_rows = "".join(f'<vertex x="{x:.5f}" y="{y:.5f}" z="{z:.5f}"/>' for x, y, z in points.tolist())
    face_rows = "".join(f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in faces.tolist())
    model = (
        '<?xml version="1.0" encoding="UTF-8"?><model unit="millimeter" xml:lang="en-US" '
        'xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02">'
        f'<metadata name="Application">zero123s</metadata><resources><object id="1" type="model" name="{escape(name)}">'
        f"<mesh><vertices>{vertex_rows}</vertices><triangles>{face_rows}</triangles></mesh></object></resources>"
        '<build><item objectid="1"/></build></model>'
    )
    types = (
        '<?xml version="1.0" encoding="UTF-8"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>'
    )
    relations = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Target="/3D/3dmodel.model" Id="rel0" '
        'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", types)
        archive.writestr("_rels/.rels", relations)
        archive.writestr("3D/3dmodel.model", model)
    path = out_dir / f"{name}.3mf"
    write_atomically(path, stream.getvalue())
    return {"3mf": path}


WRITERS: dict[str, Callable[[Mesh, Path, str, str], dict[str, Path]]] = {
    "glb": _write_glb,
    "obj": _write_obj,
    "ply": _write_ply,
    "stl": _write_stl,
    "3mf": _write_3mf,
}
"""Format -> function(mesh, folder, name without extension, texture format) -> files written."""
