"""The command line of `launch.py`: one config, one mode, overrides."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zero123s.errors import ConfigError
from zero123s.registry import nearest
from zero123s.runtime.files import user_path

if TYPE_CHECKING:
    from zero123s.system.base import Plan

MODES = ("train", "validate", "test", "export")
EPILOG = """overrides:
  any config key as key.subkey=value, for example
    data.image_path=photo.png trainer.max_steps=300 system.loss.lambda_sds=0.2
  at the top: name= tag= seed= exp_root_dir= export_after_train=
  resume=last (or a checkpoint, or a run folder) resumes in the same run folder;
  --validate, --test and --export need it.
"""


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one sentence and exit code 2."""

    def error(self, message: str) -> Any:
        raise ConfigError(f"{message[0].upper()}{message[1:]}. See --help.")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `launch.py`."""
    parser = _Parser(
        prog="launch.py",
        description="Turn images into a mesh, as a YAML file says.",
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", type=user_path, required=True, help="the YAML file, for example configs/multi-view.yaml")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--train", action="store_true", help="optimise, then render the turntable and export the mesh")
    mode.add_argument("--validate", action="store_true", help="render and score the supervised views")
    mode.add_argument("--test", action="store_true", help="render the turntable")
    mode.add_argument("--export", action="store_true", help="write the mesh")
    add(
        "--threads", metavar="N", help="CPU threads, as threads=N: 0 (the default) = measure what pays off here and now"
    )
    add("--profile-run", action="store_true", help="record a few steps: print where their time and memory went, trace")
    add("--viewer", action="store_true", help="watch the field while it trains, in a browser; as viewer.enabled=true")
    add("--viewer-port", metavar="N", help="port of the viewer (7007); opens it as well")
    add("--gpu", metavar="N", help="GPU index, or several as 0,1; without CUDA the run uses the CPU, with a note")
    add(
        "--profile",
        default="auto",
        metavar="NAME",
        help="overlay from the file's profiles: auto (cpu without CUDA or with the bundled model), none, or a name",
    )
    add(
        "--dry-run",
        action="store_true",
        help="check everything, cut-outs as well where they need no network; print the resolved config, what "
        "would run and what would be written; write nothing",
    )
    add("--verbose", action="store_true", help="log every detail")
    add("--typecheck", action="store_true", help="check tensor shapes and types of all functions while running (slow)")
    add("--explain", metavar="KEY", help="document a key: type, range, default, present value and where it was set")
    return parser


def parse_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return flags and overrides; raises ConfigError for an unknown flag, with the nearest known one."""
    parser = build_parser()
    args, rest = parser.parse_known_args(list(argv))
    refuse_flags(rest, parser)
    args.mode = next((m for m in MODES if getattr(args, m)), None)
    if args.mode is None and not args.explain:
        raise ConfigError("Exactly one of --train, --validate, --test and --export is needed. See --help.")
    return args, rest


def refuse_flags(arguments: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Raise ConfigError for the first unknown flag, suggesting the intended one."""
    flags = [option for action in parser._actions for option in action.option_strings]
    for word in arguments:
        if word.startswith("-"):
            raise ConfigError(f"Unknown flag '{word}'.{_without_dashes(word) or nearest(word, flags)}")


def _without_dashes(word: str) -> str:
    """Return a hint for an override that was written as a flag, else an empty string."""
    from zero123s.config.experiment import ExperimentConfig

    key, _, value = word.lstrip("-").partition("=")
    is_key = "." in key or key in {f.name for f in fields(ExperimentConfig)}
    return f" Settings are written without dashes: {key}={value or 'VALUE'}" if is_key else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 success, 2 user error with an explanation, 130 interrupted."""
    from zero123s.run.console import limit_openmp_spin, run_command

    limit_openmp_spin()
    return run_command(lambda: _launch(sys.argv[1:] if argv is None else argv))


def _launch(argv: Sequence[str]) -> int:
    from zero123s.run.console import set_up_logging

    args, overrides = parse_arguments(argv)
    set_up_logging(args.verbose)
    if args.typecheck:
        from zero123s.run.type_checks import check_types_while_running

        check_types_while_running()
    return run(args, overrides)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Check the whole experiment, then run the selected mode."""
    from zero123s.run.plan import plan_run
    from zero123s.run.resume import require_checkpoint

    if args.threads is not None:
        overrides = [*overrides, f"threads={args.threads}"]
    if args.viewer or args.viewer_port is not None:
        overrides = [*overrides, "viewer.enabled=true"]
    if args.viewer_port is not None:
        overrides = [*overrides, f"viewer.port={args.viewer_port}"]
    loaded, plan = plan_run(args.config, overrides, args.profile)
    if args.explain:
        from zero123s.commands.explain import explain

        print(explain(args.explain, plan.experiment, loaded.origins))
        return 0
    try:
        return _run_plan(args, plan, loaded.profile, require_checkpoint(plan.experiment, args.mode))
    except ConfigError as error:
        raise ConfigError(loaded.explain(str(error))) from error


def _run_plan(args: argparse.Namespace, plan: "Plan", profile: str | None, checkpoint: Path | None) -> int:
    """Check what the mode needs, then run it, or print the plan."""
    requirements = plan.requirements(args.mode)
    if args.mode == "train":
        from zero123s.callbacks.viewer import require_viewer

        require_viewer(plan)
    if args.dry_run:
        from zero123s.commands.dry_run import print_dry_run

        print_dry_run(plan, args.mode, args.gpu, profile, checkpoint, requirements)
        return 0
    return _run_mode(args, plan, checkpoint, requirements)


def _run_mode(args: argparse.Namespace, plan: "Plan", checkpoint: Path | None, requirements: Mapping[str, Any]) -> int:
    from zero123s.callbacks.interrupt import EXIT_CODE
    from zero123s.run.resume import run_dir_for
    from zero123s.run.runner import Runner
    from zero123s.run.summary import describe_model, print_summary
    from zero123s.runtime.processes import is_main_process, print_rank_zero

    with run_dir_for(checkpoint, plan.experiment) as out_dir:
        runner = Runner(plan, out_dir, checkpoint, gpu=args.gpu, profile_run=args.profile_run)
        if guided := describe_model(requirements.get("model", {})):
            print_rank_zero(f"guided by {guided}")
        state = runner.run(args.mode)
    if is_main_process():
        print_summary(runner.record, out_dir, state, args.mode)
    return EXIT_CODE if state == "interrupted" else 0
