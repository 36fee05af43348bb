"""The commands of the matrix at sizes that take seconds, always with `--gpu 0`."""

from pathlib import Path

from tiny_run import SMALL

from zero123s.commands.launch import main

REPOSITORY = Path(__file__).parents[3]
SHARED = ["use_timestamp=false", "threads=1", "trainer.enable_progress_bar=false", "checkpoint.every_n_train_steps=1"]
FIELD = [*SHARED, "system.exporter.texture_size=64", "trainer.val_check_interval=1", "health.every=1"]


def launch(config: str | Path, out: Path, *words: str, mode: str = "--train") -> Path:
    """Run a configuration that takes an image; returns the run folder."""
    path = config if isinstance(config, Path) else REPOSITORY / "configs" / f"{config}.yaml"
    base = ["--config", str(path), "--profile", "none", mode, "--gpu", "0", f"exp_root_dir={out}", "tag=run"]
    assert main([*base, *SMALL, *FIELD, *words]) == 0
    return out / path.stem / "run"


def launch_plain(config: str | Path, out: Path, *words: str) -> Path:
    """Train a configuration that has no input image, or sizes of its own; returns the run folder."""
    path = config if isinstance(config, Path) else REPOSITORY / "configs" / f"{config}.yaml"
    base = ["--config", str(path), "--profile", "none", "--train", "--gpu", "0", f"exp_root_dir={out}", "tag=run"]
    assert main([*base, *SHARED, *words]) == 0
    return out / path.stem / "run"
