"""Configuration: what a class declares (`option`), what a file says (`load_config`), what changes over a run (`Schedule`)."""

from zero123s.config.load import LoadedConfig, load_config
from zero123s.config.options import option
from zero123s.config.schedule import Schedule

__all__ = ["LoadedConfig", "Schedule", "load_config", "option"]
