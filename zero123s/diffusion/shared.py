"""Networks that several runs of one process share, instead of loading them for every run."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
MAX_CACHED = 2
"""Networks kept at once, the least recently used one goes first: full-size ones take gigabytes."""

_cache: OrderedDict[Hashable, Any] | None = None


@contextmanager
def sharing_networks() -> Iterator[None]:
    """Let all runs inside the block share the networks that they load; outside of it nothing is kept.

    Yields:
        None.
    """
    global _cache  # noqa: PLW0603 (one per process is the point)
    outer, _cache = _cache, OrderedDict()
    try:
        yield
    finally:
        _cache = outer


def shared(key: Hashable, load: Callable[[], T]) -> T:
    """Return a loaded object, from the cache of `sharing_networks` where there is one.

    Args:
        key: identifies what is loaded.
        load: loads it.

    Returns:
        What `load` returns, or returned under the same key before; the caller must not change it.

    Example:
        >>> from zero123s.diffusion.shared import shared, sharing_networks
        >>> with sharing_networks():
        ...     first, second = shared("net", lambda: object()), shared("net", lambda: object())
        >>> first is second
        True
    """
    if _cache is None:
        return load()
    if key not in _cache:
        # Room first: two full-size networks must not be in memory for the sake of a third.
        while len(_cache) >= MAX_CACHED:
            _cache.popitem(last=False)
        _cache[key] = load()
    _cache.move_to_end(key)
    return _cache[key]
