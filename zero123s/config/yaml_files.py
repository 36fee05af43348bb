"""Parses YAML text to plain Python values, within limits: a few lines could expand to more than the memory holds."""

import re
from pathlib import Path
from typing import Any

import yaml

from zero123s.errors import ConfigError
from zero123s.registry import nearest

MAX_BYTES = 1_000_000
MAX_NODES = 100_000
MAX_DEPTH = 40


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as OmegaConf reads it: 1e3 is a number, a date is text, a key that is given twice is an error.

    Aliases and endless nesting are refused before anything is built.
    """

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text)
        self.where = where
        self.depth = self.count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ConfigError(f"{self.where}: YAML aliases (*name) are not supported; write ${{other.key}} instead.")
        self.depth, self.count = self.depth + 1, self.count + 1
        if self.depth > MAX_DEPTH or self.count > MAX_NODES:
            raise ConfigError(f"{self.where}: nested too deeply or too large to be a configuration.")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"'{twice[0]}' is given twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


_FLOAT = r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
             |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
             |\.[0-9_]+(?:[eE][-+][0-9]+)?
             |[-+]?\.(?:inf|Inf|INF)
             |\.(?:nan|NaN|NAN))$"""
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_FLOAT, re.X), list("-+0123456789."))


def parse_yaml(text: str, where: str) -> tuple[Any, Any]:
    """Return the values of a YAML text, and the same with every scalar as text.

    Args:
        where: named in errors.

    Raises:
        ConfigError: malformed, oversized, or with aliases.
    """
    try:
        loader = _Loader(text, where)
        node = loader.get_single_node()
        return (None, None) if node is None else (loader.construct_document(node), _as_written(node))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: an integer of 5,000 digits
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error


def _as_written(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _as_written(value) for key, value in node.value}
    return [_as_written(entry) for entry in node.value] if isinstance(node, yaml.SequenceNode) else node.value


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of a YAML file, and the same with every scalar as text.

    Raises:
        ConfigError: missing, unreadable, oversized or malformed, or not a mapping.
    """
    if not path.exists():
        siblings = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise ConfigError(f"Config file '{path}' does not exist.{nearest(path.name, siblings)}")
    if path.is_dir():
        raise ConfigError(f"'{path}' is a folder; --config needs a YAML file.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes is not a configuration; the limit is {MAX_BYTES}.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error}).") from error
    content, written = parse_yaml(text, str(path))
    if content is None:
        return {}, {}
    if not isinstance(content, dict):
        kind = "list" if isinstance(content, list) else "single value"
        raise ConfigError(f"{path}: expected 'key: value' lines, found a {kind}.")
    return content, written
