"""The names that people build on (docs/architecture.md) are importable from their package."""

import importlib
import subprocess
import sys

import pytest

SEAMS = [
    ("zero123s", ["image_to_mesh", "novel_views", "prepare", "read_result", "Result"]),
    ("zero123s.diffusion", ["load_zero123", "save_zero123", "Zero123Model"]),
    ("zero123s.ops.hash_grid", ["HashGrid", "encode"]),
    ("zero123s.data", ["DATA", "BaseData"]),
    ("zero123s.geometry", ["GEOMETRIES", "BaseGeometry"]),
    ("zero123s.material", ["MATERIALS", "BaseMaterial"]),
    ("zero123s.background", ["BACKGROUNDS", "BaseBackground"]),
    ("zero123s.renderer", ["RENDERERS", "BaseRenderer"]),
    ("zero123s.guidance", ["GUIDANCES", "BaseGuidance"]),
    ("zero123s.exporter", ["EXPORTERS", "BaseExporter"]),
    ("zero123s.errors", ["UserError", "ConfigError", "ImageError", "CheckpointError", "MeshError"]),
]


@pytest.mark.parametrize(("package", "names"), SEAMS, ids=[package for package, _ in SEAMS])
def test_a_seam_is_importable_from_its_package(package, names):
    module = importlib.import_module(package)
    for name in names:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing_of_this_name'"):
        module.nothing_of_this_name


@pytest.mark.parametrize("package", ["zero123s", "zero123s.diffusion", "zero123s.commands.launch"])
def test_a_package_imports_without_torch(package):
    code = f"import sys, {package}; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)
