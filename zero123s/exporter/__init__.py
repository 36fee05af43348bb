"""Exporters by name."""

from zero123s.exporter import mesh_exporter  # noqa: F401
from zero123s.exporter.base import EXPORTERS, BaseExporter, ExportResult

__all__ = ["EXPORTERS", "BaseExporter", "ExportResult"]
