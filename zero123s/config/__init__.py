"""Configuration: fields of a class (`option`), YAML files (`load_config`), values over the steps (`Schedule`)."""

from zero123s.config.load import LoadedConfig, load_config
from zero123s.config.options import option
from zero123s.config.schedule import Schedule

__all__ = ["LoadedConfig", "Schedule", "load_config", "option"]
