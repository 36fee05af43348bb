"""Which Zero123 checkpoint a run uses: `auto`, a path, or the bundled small model."""

from dataclasses import dataclass
from pathlib import Path

from zero123s.errors import CheckpointError
from zero123s.runtime.files import user_path

REPOSITORY = Path(__file__).resolve().parents[3]
STABLE_ZERO123 = "load/zero123/stable_zero123.ckpt"
BUNDLED = "load/zero123/small_zero123.safetensors"

HOW_TO_GET = (
    "get Stable Zero123 with `zero123s download stable-zero123` (research licence; `stable-zero123-c` for commercial "
    "use under Stability AI's community licence), or leave guidance.checkpoint at `auto` to use the bundled small model"
)

DOWNLOADS = {
    "zero123-xl.ckpt": "zero123-xl",
    "105000.ckpt": "zero123",
    "165000.ckpt": "zero123-165000",
    "stable_zero123_c.ckpt": "stable-zero123-c",
}
"""Names for `zero123s download`, by published file; for other files the error is HOW_TO_GET."""


@dataclass(frozen=True)
class LocatedCheckpoint:
    """A checkpoint on disk and whether it is the small one that ships with this project."""

    path: Path
    bundled: bool


def find_file(path: str | Path) -> Path | None:
    """Find a file as given or relative to the repository.

    Args:
        path: of a file or folder.

    Returns:
        The path that exists, else None.
    """
    candidates = [user_path(path), REPOSITORY / Path(path)]
    return next((p for p in candidates if p.exists()), None)


def locate_checkpoint(spec: str = "auto") -> LocatedCheckpoint:
    """Return the checkpoint that a configuration means.

    Args:
        spec: "auto" (load/zero123/stable_zero123.ckpt when that exists, else the bundled small model), or a file or
            folder.

    Returns:
        Its path, and whether it is the bundled model.

    Raises:
        CheckpointError: an explicit path that is missing, or a damaged installation without the bundled model.
    """
    if spec == "auto":
        stable = find_file(STABLE_ZERO123)
        if stable is not None:
            return LocatedCheckpoint(stable, bundled=False)
        return LocatedCheckpoint(locate_bundled(), bundled=True)
    found = find_file(spec)
    if found is None:
        name = DOWNLOADS.get(Path(spec).name)
        how = f"get it with `zero123s download {name}`, which shows its licence" if name else HOW_TO_GET
        raise CheckpointError(f"The checkpoint '{spec}' does not exist: {how}.")
    return LocatedCheckpoint(found, bundled=found.name == Path(BUNDLED).name)


def locate_bundled() -> Path:
    """Find the bundled small model.

    Returns:
        Its path.

    Raises:
        CheckpointError: a damaged installation without it.
    """
    bundled = find_file(BUNDLED)
    if bundled is None:
        raise CheckpointError(
            f"The bundled model {BUNDLED} is missing from {REPOSITORY}: clone the repository again, or {HOW_TO_GET}."
        )
    return bundled
