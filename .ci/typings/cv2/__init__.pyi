# Seen as untyped by pyright: its own types are missing, slow to read, or wrong where this project uses it.
from typing import Any

def __getattr__(name: str) -> Any: ...
