"""The interface of exporters: from a radiance field to files for other programs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zero123s.registry import Registry
from zero123s.structures import Mesh, Provenance, RadianceField, ReferenceView

Progress = Callable[[str, float], None]
"""Called with the name of the current stage and the completed share of the whole, in [0, 1]."""


@dataclass
class ExportResult:
    """The files of an export and statistics."""

    mesh: Mesh
    files: dict[str, Path]
    """Format ("glb", "obj", "mtl", "texture"...) -> file."""
    stats: dict[str, Any] = field(default_factory=dict)
    """JSON-ready: threshold, counts, seconds per stage, mesh health, warnings."""


class BaseExporter:
    """Base class of `exporter_type`.

    Args:
        cfg: the parsed `Config` of the subclass.
    """

    @dataclass
    class Config:
        """Settings common to all exporters."""

        save_name: str = "model"
        """File name without extension."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg

    def __call__(
        self,
        field: RadianceField,
        out_dir: Path,
        *,
        threshold: float | str = "auto",
        reference: ReferenceView | None = None,
        extras: Provenance | None = None,
        progress: Progress | None = None,
    ) -> ExportResult:
        """Write the field's surface to files.

        Args:
            field: the radiance field.
            out_dir: folder of the files.
            threshold: the geometry's own level of `field.surface_level`, or "auto".
            reference: images whose silhouette and colours the surface should match.
            extras: provenance for the files: generator, model, licence.
            progress: called at every stage.

        Returns:
            The mesh, its files and statistics.

        Raises:
            MeshError: there is no surface, or a file cannot be written.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__().")


EXPORTERS: Registry[BaseExporter] = Registry("exporter", BaseExporter)
