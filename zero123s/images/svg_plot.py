"""Line plots as SVG."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np

from zero123s.images.encode import write_atomically


def curve(
    title: str, x: list[float], y: list[float], width: int = 300, height: int = 140, mark: float | None = None
) -> str:
    """Draw a small line plot as SVG.

    Args:
        title: text above the plot, followed by the range of y.
        x, y: coordinates of equal length; points that are not finite are left out.
        width, height: in pixels.
        mark: x of a vertical line.

    Returns:
        The <svg> element; empty for fewer than two points.

    Example:
        >>> from zero123s.images.svg_plot import curve
        >>> curve("loss", [0, 1, 2], [3.0, 2.0, 1.5])[:4]
        '<svg'
    """
    points = [(a, b) for a, b in zip(x, y, strict=True) if np.isfinite(a) and np.isfinite(b)]
    if len(points) < 2:
        return ""
    (x0, x1), (y0, y1) = ((min(v), max(v)) for v in zip(*points, strict=True))
    span_x, span_y = (x1 - x0) or 1.0, (y1 - y0) or 1.0
    path = " ".join(
        f"{5 + (width - 10) * (a - x0) / span_x:.1f},{height - 20 - (height - 45) * (b - y0) / span_y:.1f}"
        for a, b in points
    )
    line = ""
    if mark is not None and x0 <= mark <= x1:
        at = 5 + (width - 10) * (mark - x0) / span_x
        line = f'<line x1="{at:.1f}" x2="{at:.1f}" y1="25" y2="{height - 20}" stroke="#dc2626"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-size="12"><text x="5" y="12">{escape(title)}: {y0:.4g} to {y1:.4g}</text>'
        f'<polyline fill="none" stroke="#2563eb" stroke-width="1.5" points="{path}"/>{line}'
        f'<text x="5" y="{height - 4}">{x0:.4g}</text>'
        f'<text x="{width - 5}" y="{height - 4}" text-anchor="end">{x1:.4g}</text></svg>'
    )


def threshold_curve(known: Mapping[str, list[float]], chosen: float) -> str:
    """Plot the silhouette IoU over the surface's threshold, the chosen one marked.

    Args:
        known: "levels" and "silhouette_iou", as `run.json` has them under `export.threshold_curve`.
        chosen: the threshold of the mesh.

    Returns:
        The <svg> element.
    """
    title = f"silhouette IoU over the threshold, {chosen:.4g} chosen"
    return curve(title, known["levels"], known["silhouette_iou"], 420, 160, chosen)


def write_threshold_plot(path: Path, known: Mapping[str, list[float]], chosen: float) -> Path:
    """Write the plot of `threshold_curve` to a file.

    Args:
        path: of the .svg file.
        known: "levels" and "silhouette_iou".
        chosen: the threshold of the mesh.

    Returns:
        `path`.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomically(path, threshold_curve(known, chosen).encode())
    return path
