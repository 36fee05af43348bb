"""One registry per slot: YAML name -> class."""

import difflib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from zero123s.errors import ConfigError

Base = TypeVar("Base")
Registered = TypeVar("Registered", bound=type)

REGISTRIES: dict[str, "Registry"] = {}
"""Every slot's registry by the slot's name, once its package has been imported."""


def nearest(name: str, known: list[str]) -> str:
    """Suggest the closest known name, for an error message.

    Args:
        name: the name that was given.
        known: the valid names.

    Returns:
        " Did you mean 'x'?", or an empty string if no known name is close.

    Example:
        >>> from zero123s.registry import nearest
        >>> nearest("implicit-volum", ["implicit-volume", "volume-grid"])
        " Did you mean 'implicit-volume'?"
    """
    longer = [k for k in known if len(name) > 1 and k.startswith(name)]
    match = longer if len(longer) == 1 else difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean '{match[0]}'?" if match else ""


class Registry(Generic[Base]):
    """The implementations of one slot by name.

    Args:
        slot: the slot's name in YAML, `geometry` for `geometry_type: ...`.
        base: the class every entry must inherit from.
    """

    def __init__(self, slot: str, base: type[Base]) -> None:
        self.slot = slot
        self.base = base
        self._classes: dict[str, type[Base]] = {}
        REGISTRIES[slot] = self

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """Decorate a class to make it available under a name.

        Args:
            name: the value of `<slot>_type` in YAML.

        Returns:
            The decorator, which returns the class itself. It raises TypeError for a class without the slot's base or
            without a `Config`, and ValueError for a name that another class has.
        """

        def decorate(cls: Registered) -> Registered:
            self._add(name, cls)
            return cls

        return decorate

    def _add(self, name: str, cls: type) -> None:
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            raise TypeError(f"{cls!r} cannot be {self.slot}_type '{name}': it must inherit {self.base.__name__}.")
        if not hasattr(cls, "Config"):
            raise TypeError(f"{cls.__name__} needs a nested dataclass Config to be registered as '{name}'.")
        taken = self._classes.get(name)
        # A module that is executed twice (a notebook cell, a reload) re-registers its own class.
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{self.slot}_type '{name}' is already {taken.__module__}.{taken.__qualname__}.")
        self._classes[name] = cls

    def get(self, name: str) -> type[Base]:
        """Return a registered class.

        Args:
            name: the value of `<slot>_type` in YAML.

        Returns:
            The class.

        Raises:
            ConfigError: no class has this name; the message has the nearest and all known names.
        """
        if name not in self._classes:
            known = sorted(self._classes)
            raise ConfigError(f"Unknown {self.slot}_type '{name}'.{nearest(name, known)} Known: {', '.join(known)}.")
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __contains__(self, name: object) -> bool:
        return name in self._classes
