"""Data sources by name."""

from zero123s.data import multi_view, random_cameras, rendered_views, single_image  # noqa: F401
from zero123s.data.base import DATA, BaseData

__all__ = ["DATA", "BaseData"]
