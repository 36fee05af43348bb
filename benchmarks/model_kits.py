"""Write a manifest of unpacked kits of 3D models, for `zero123s render --manifest`: whole single objects, each once.

    python benchmarks/model_kits.py KITS --out kits.csv
    zero123s render data/kits --manifest kits.csv --root KITS --variants 3

KITS holds a folder per kit that is named after it, maker first, such as `Kenney Food Kit`, `KayKit Furniture Bits` or
`Quaternius Animals Pack`: these three makers publish their kits under CC0 1.0 (kenney.nl, kaylousberg.com, quaternius.com). Of a
model in several formats one is taken. Left out are pieces that belong side by side
(walls, floors, roads, cliffs...), flat and stick-like ones, and copies of one shape within a kit.
"""

import argparse
import csv
import re
import sys
from pathlib import Path

import numpy as np
import trimesh

MAKERS = {"Kenney": "Kenney", "KayKit": "Kay Lousberg", "Quaternius": "Quaternius"}
"""First word of a kit's name to the maker's name."""
SUFFIXES = (".glb", ".gltf", ".obj")
"""The first of them that a model comes in is taken."""
PIECE = re.compile(
    "road|tile|floor|ground|wall|cliff|path|river|coast|hex_|rug|track|ramp|rail|corner|stair|doorway|window|fence|banner|border"
    "|grass|water_|gate|ceiling|roof|platform_|scaffold|plaque|bridge_side|bridge_center",
    re.IGNORECASE,
)
FLATTEST, THINNEST = 0.04, 0.12
"""Least shares of the longest edge of the bounding box that its shortest and its middle edge have."""


def models(kit: Path) -> list[Path]:
    """Return the model files of a kit, one format of each, without pieces that belong side by side."""
    chosen: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for path in sorted(kit.rglob("*")):
            if path.suffix.lower() == suffix and not PIECE.search(path.stem):
                chosen.setdefault(path.stem, path)
    return sorted(chosen.values())


def shape(path: Path) -> tuple[float, ...] | None:
    """Return number of faces and proportions of a model, alike for copies; None if it is flat, a stick or empty."""
    scene = trimesh.load_scene(path)
    edges = np.sort(scene.extents) if scene.geometry else np.zeros(3)
    if edges[0] <= FLATTEST * edges[2] or edges[1] < THINNEST * edges[2]:
        return None
    return (float(sum(len(part.faces) for part in scene.geometry.values())), *np.round(edges / edges[2], 2).tolist())


def main() -> int:
    """Write the manifest; return 0, or 2 where a folder is not of a known maker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kits", type=Path)
    parser.add_argument("--out", type=Path, default=Path("kits.csv"), help="the manifest (kits.csv)")
    args = parser.parse_args()
    folders = sorted(path for path in args.kits.iterdir() if path.is_dir())
    if unknown := [path.name for path in folders if path.name.split()[0] not in MAKERS]:
        print(f"{unknown[0]}: a kit's name begins with its maker, one of {', '.join(MAKERS)}.", file=sys.stderr)
        return 2
    rows: list[tuple[str, ...]] = []
    for kit in folders:
        taken: set[tuple[float, ...] | None] = {None}
        found = models(kit)
        for path in found:
            if (key := shape(path)) not in taken:
                taken.add(key)
                maker = MAKERS[kit.name.split()[0]]
                rows.append((str(path.relative_to(args.kits)), "CC0-1.0", maker, path.stem, kit.name))
        print(f"{kit.name}: {len(taken) - 1} of {len(found)} models", flush=True)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "licence", "creator", "name", "library"), *rows])
    print(f"{args.out}: {len(rows)} objects of {len(folders)} kits")
    return 0


if __name__ == "__main__":
    sys.exit(main())
