"""The command line: one config, one mode, overrides."""

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zero123s.errors import ConfigError, UserError
from zero123s.registry import nearest

MODES = ("train", "validate", "test", "export")
EPILOG = """overrides:
  any config key as key.subkey=value, for example
    data.image_path=photo.png trainer.max_steps=300 system.loss.lambda_sds=0.2
  resume=last (or a checkpoint, or a run folder) goes on in the same run folder;
  --validate, --test and --export need it.
"""


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one sentence, exit code 2."""

    def error(self, message: str) -> Any:
        raise ConfigError(f"{message[0].upper()}{message[1:]}. See --help.")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `launch.py`."""
    parser = _Parser(
        prog="launch.py",
        description="Turn pictures into a mesh, as a YAML file says.",
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="the YAML file, for example configs/multi-view.yaml")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--train", action="store_true", help="optimise, then render the turntable and export the mesh")
    mode.add_argument("--validate", action="store_true", help="render and score the supervised views")
    mode.add_argument("--test", action="store_true", help="render the turntable")
    mode.add_argument("--export", action="store_true", help="write the mesh")
    parser.add_argument("--gpu", default=None, help="GPU index; without CUDA the run goes on on the CPU and says so")
    parser.add_argument(
        "--profile",
        default="auto",
        help="overlay from the file's profiles: auto (cpu where there is no CUDA), none, or a name",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything and print the resolved config; write nothing"
    )
    return parser


def parse_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return flags and overrides; raises ConfigError for an unknown flag, with the nearest known one."""
    parser = build_parser()
    args, rest = parser.parse_known_args(list(argv))
    flags = [option for action in parser._actions for option in action.option_strings]
    for word in rest:
        if word.startswith("-"):
            raise ConfigError(f"Unknown flag '{word}'.{nearest(word, flags)}")
    args.mode = next(m for m in MODES if getattr(args, m))
    return args, rest


def choose_profile(wanted: str, config: Path) -> str | None:
    """Return the profile to lay over the file: "auto" is `cpu` where there is no CUDA and the file has one."""
    import torch

    from zero123s.config import profile_names

    if wanted == "none":
        return None
    if wanted != "auto":
        return wanted
    return "cpu" if not torch.cuda.is_available() and "cpu" in profile_names(config) else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 fine, 2 a mistake that the message explains, 130 interrupted."""
    try:
        args, overrides = parse_arguments(sys.argv[1:] if argv is None else argv)
        return run(args, overrides)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Check the whole experiment, then do what the mode says."""
    from zero123s import compat
    from zero123s.config import load_config
    from zero123s.experiment import parse_experiment
    from zero123s.run_dir import find_checkpoint, resolved_yaml, run_path
    from zero123s.system.base import plan_experiment

    profile = choose_profile(args.profile, Path(args.config))
    loaded = load_config(args.config, overrides, profile)
    notices = loaded.notices + compat.translate(loaded.cfg)
    experiment = parse_experiment(loaded)
    for package in experiment.imports:
        importlib.import_module(package)
    plan = plan_experiment(experiment)
    for notice in notices:
        print(f"note: {notice}", file=sys.stderr)
    if args.mode != "train" and not experiment.resume:
        experiment.resume = experiment.resume or ""
        find_checkpoint(f"(missing, needed by --{args.mode})", experiment)
    checkpoint = find_checkpoint(experiment.resume, experiment) if experiment.resume else None
    out_dir = checkpoint.parent.parent if checkpoint else run_path(experiment)
    if args.dry_run:
        print(resolved_yaml(experiment), end="")
        print(f"# profile: {profile or 'none'}; would write to {out_dir}")
        return 0

    from zero123s.session import Session

    started = time.perf_counter()
    session = Session(plan, out_dir, checkpoint, gpu=args.gpu)
    code = getattr(session, args.mode)()
    session.summary(time.perf_counter() - started)
    return code
