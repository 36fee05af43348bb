"""USDZ: one text layer and its texture in an uncompressed zip; y up, metres, as phones expect."""

import struct
import zlib
from pathlib import Path

import numpy as np

from zero123s.images.encode import encode_image, write_atomically
from zero123s.mesh.gltf import Z_UP_TO_Y_UP
from zero123s.structures import Mesh

NORMAL_FILE = "normal.png"
HEADER = """#usda 1.0
(
    defaultPrim = "Model"
    metersPerUnit = 1
    upAxis = "Y"
    doc = "{doc}"
)

def Xform "Model" (
    kind = "component"
)
{{
"""

MATERIAL = """
    def Material "Material"
    {{
        token outputs:surface.connect = </Model/Material/Surface.outputs:surface>

        def Shader "Surface"
        {{
            uniform token info:id = "UsdPreviewSurface"
            color3f inputs:diffuseColor.connect = </Model/Material/{source}>
            float inputs:metallic = 0
            float inputs:roughness = 1
{normal}            token outputs:surface
        }}
{reader}    }}
}}
"""

TEXTURE = """
        def Shader "Uv"
        {{
            uniform token info:id = "UsdPrimvarReader_float2"
            string inputs:varname = "st"
            float2 outputs:result
        }}

        def Shader "Texture"
        {{
            uniform token info:id = "UsdUVTexture"
            asset inputs:file = @{texture_file}@
            token inputs:sourceColorSpace = "sRGB"
            float2 inputs:st.connect = </Model/Material/Uv.outputs:result>
            token inputs:wrapS = "clamp"
            token inputs:wrapT = "clamp"
            float3 outputs:rgb
        }}
"""

NORMAL = "            normal3f inputs:normal.connect = </Model/Material/NormalMap.outputs:rgb>\n"
NORMAL_MAP = """
        def Shader "NormalMap"
        {{
            uniform token info:id = "UsdUVTexture"
            asset inputs:file = @{texture_file}@
            token inputs:sourceColorSpace = "raw"
            float4 inputs:scale = (2, 2, 2, 1)
            float4 inputs:bias = (-1, -1, -1, 0)
            float2 inputs:st.connect = </Model/Material/Uv.outputs:result>
            token inputs:wrapS = "clamp"
            token inputs:wrapT = "clamp"
            float3 outputs:rgb
        }}
"""

VERTEX_COLOR = """
        def Shader "Color"
        {{
            uniform token info:id = "UsdPrimvarReader_float3"
            string inputs:varname = "displayColor"
            float3 outputs:result
        }}
"""


def _tuples(array: np.ndarray) -> str:
    pattern = "(" + ", ".join(["%.7g"] * array.shape[1]) + ")"
    return ", ".join([pattern] * len(array)) % tuple(array.reshape(-1).tolist())


def _layer(mesh: Mesh, texture_file: str | None) -> str:
    """Return the text layer."""
    doc = "; ".join(f"{k}: {v}" for k, v in mesh.extras.as_dict().items()).replace('"', "'").replace("\n", " ")
    points = mesh.vertices @ Z_UP_TO_Y_UP.T
    lines = [
        f"int[] faceVertexCounts = [{', '.join(['3'] * len(mesh.faces))}]",
        f"int[] faceVertexIndices = [{', '.join(map(str, np.asarray(mesh.faces).reshape(-1).tolist()))}]",
        f"point3f[] points = [{_tuples(points)}]",
        f"float3[] extent = [{_tuples(np.stack([points.min(0), points.max(0)]))}]",
        'uniform token subdivisionScheme = "none"',
        "rel material:binding = </Model/Material>",
    ]
    normal = ""
    if mesh.normals is not None:
        lines.append(f'normal3f[] normals = [{_tuples(mesh.normals @ Z_UP_TO_Y_UP.T)}] (\n interpolation = "vertex"\n)')
    if texture_file is not None:
        assert mesh.uvs is not None
        lines.append(f'texCoord2f[] primvars:st = [{_tuples(mesh.uvs)}] (\n interpolation = "vertex"\n)')
        source, reader = "Texture.outputs:rgb", TEXTURE.format(texture_file=texture_file)
        if mesh.normal_map is not None:
            normal, reader = NORMAL, reader + NORMAL_MAP.format(texture_file=NORMAL_FILE)
    else:
        colors = np.full_like(points, 0.7) if mesh.vertex_colors is None else mesh.vertex_colors
        # Linear, as everything in USD that is not a texture.
        linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
        lines.append(f'color3f[] primvars:displayColor = [{_tuples(linear)}] (\n interpolation = "vertex"\n)')
        source, reader = "Color.outputs:result", VERTEX_COLOR.format()
    body = "\n".join(f"        {line}" for line in lines)
    mesh_prim = (
        '    def Mesh "Mesh" (\n        prepend apiSchemas = ["MaterialBindingAPI"]\n    )\n    {\n'
        + body
        + "\n    }\n"
    )
    return HEADER.format(doc=doc) + mesh_prim + MATERIAL.format(source=source, reader=reader, normal=normal)


def _stored_zip(entries: list[tuple[str, bytes]]) -> bytes:
    """Return a zip without compression whose file contents begin at multiples of 64 bytes, as USDZ demands."""
    out, directory = bytearray(), bytearray()
    for name, data in entries:
        encoded, offset = name.encode(), len(out)
        # An extra field of id 0x1986 pads the header; it needs at least its own 4 bytes.
        padding = -(offset + 30 + len(encoded) + 4) % 64
        extra = struct.pack("<HH", 0x1986, padding) + b"\0" * padding
        common = struct.pack(
            "<HHHHHIIIHH", 10, 0, 0, 0, 33, zlib.crc32(data), len(data), len(data), len(encoded), len(extra)
        )
        out += b"PK\3\4" + common + encoded + extra + data
        directory += b"PK\1\2" + struct.pack("<H", 10) + common[:-2] + struct.pack("<HHHHII", 0, 0, 0, 0, 0, offset)
        directory += encoded
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(entries), len(entries), len(directory), len(out), 0)
    return bytes(out + directory + end)


def write_usdz(mesh: Mesh, out_dir: Path, name: str, texture_format: str) -> dict[str, Path]:
    """Write a mesh as name.usdz, with its texture if it has one, else with vertex colours.

    Args:
        mesh: z up.
        out_dir: folder of the file.
        name: file name without extension.
        texture_format: of the base colour, "png" or "jpg".

    Returns:
        {"usdz": path}.

    Raises:
        OutputError: the file cannot be written.
    """
    texture_file = None if mesh.texture is None or mesh.uvs is None else f"texture.{texture_format}"
    entries = [("model.usda", _layer(mesh, texture_file).encode())]
    if texture_file is not None:
        assert mesh.texture is not None
        entries.append((texture_file, encode_image(mesh.texture, texture_format)))
        if mesh.normal_map is not None:
            entries.append((NORMAL_FILE, encode_image(mesh.normal_map, "png")))
    path = out_dir / f"{name}.usdz"
    write_atomically(path, _stored_zip(entries))
    return {"usdz": path}
