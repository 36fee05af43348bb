"""Writes Wavefront, PLY, STL and 3MF, besides glTF and USD. Every file is written atomically."""

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from zero123s.images.encode import encode_image, write_atomically
from zero123s.mesh.gltf import write_glb, write_gltf
from zero123s.mesh.usd import write_usdz
from zero123s.structures import Mesh

MILLIMETRES_PER_UNIT = 100.0
"""Scale of 3MF: the usual object, about one world unit high, prints 10 cm high."""


def _rows(prefix: str, array: np.ndarray) -> str:
    pattern = f"{prefix} " + " ".join(["%.7g"] * array.shape[1])
    return "\n".join([pattern] * len(array)) % tuple(array.reshape(-1).tolist()) + "\n"


def _write_obj(mesh: Mesh, out_dir: Path, name: str, texture_format: str) -> dict[str, Path]:
    """Wavefront, z up; colours in the texture, or after the positions where there is none."""
    files = {"obj": out_dir / f"{name}.obj"}
    textured = mesh.texture is not None and mesh.uvs is not None
    columns = [mesh.vertices] if textured or mesh.vertex_colors is None else [mesh.vertices, mesh.vertex_colors]
    text = [f"# {mesh.extras.generator}\n"]
    parts = ["%d"]
    if textured:
        assert mesh.texture is not None
        files |= {"mtl": out_dir / f"{name}.mtl", "texture": out_dir / f"{name}.{texture_format}"}
        write_atomically(files["texture"], encode_image(mesh.texture, texture_format))
        mtl = f"newmtl {name}\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 1\nmap_Kd {name}.{texture_format}\n"
        if mesh.normal_map is not None:
            files["normal_map"] = out_dir / f"{name}_normal.png"
            write_atomically(files["normal_map"], encode_image(mesh.normal_map, "png"))
            mtl += f"norm {name}_normal.png\n"
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
        f"ply\nformat binary_little_endian 1.0\ncomment {mesh.extras.generator}\n"
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
    """3MF for printers: seams joined, MILLIMETRES_PER_UNIT, standing on the bed."""
    unique, inverse = np.unique(np.asarray(mesh.vertices, np.float32), axis=0, return_inverse=True)
    faces = inverse.reshape(-1)[mesh.faces]
    points = (unique - unique.min(0)) * MILLIMETRES_PER_UNIT
    vertex_rows = "".join(f'<vertex x="{x:.5f}" y="{y:.5f}" z="{z:.5f}"/>' for x, y, z in points.tolist())
    face_rows = "".join(f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in faces.tolist())
    metadata = "".join(
        f'<metadata name="{key}">{escape(text)}</metadata>'
        for key, text in (("Application", mesh.extras.generator), ("Title", name))
    )
    if mesh.extras.model_license is not None:
        metadata += f'<metadata name="LicenseTerms">{escape(mesh.extras.model_license)}</metadata>'
    model = (
        '<?xml version="1.0" encoding="UTF-8"?><model unit="millimeter" xml:lang="en-US" '
        'xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02">'
        f"{metadata}<resources>"
        f'<object id="1" type="model" name="{escape(name)}">'
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
    "glb": write_glb,
    "gltf": write_gltf,
    "obj": _write_obj,
    "ply": _write_ply,
    "stl": _write_stl,
    "3mf": _write_3mf,
    "usdz": write_usdz,
}
"""Format -> function(mesh, folder, name without extension, texture format) -> files written."""
