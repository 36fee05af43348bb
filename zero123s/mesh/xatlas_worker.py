"""xatlas in a process of its own: a pickled mesh and options on stdin, pickled texture coordinates on stdout."""

import pickle
import sys
from typing import Any

import xatlas


def _with(target: Any, options: dict[str, Any]) -> Any:
    for name, value in options.items():
        setattr(target, name, value)
    return target


def main() -> None:
    """Unwrap one mesh."""
    vertices, faces, chart, pack = pickle.load(sys.stdin.buffer)
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices, faces)
    atlas.generate(_with(xatlas.ChartOptions(), chart), _with(xatlas.PackOptions(), pack))
    pickle.dump(atlas[0], sys.stdout.buffer)


if __name__ == "__main__":
    main()
