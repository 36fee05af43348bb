"""`zero123s web`: a page for making meshes from photos, bound to this machine by default."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from zero123s.commands.launch import refuse_flags
from zero123s.config.load import read_overrides
from zero123s.diffusion.checkpoint.locate import find_file
from zero123s.errors import ConfigError
from zero123s.run.lock import locked
from zero123s.runtime.files import user_path
from zero123s.web.jobs import JobQueue
from zero123s.web.photos import Limits
from zero123s.web.service import SERVED, Service
from zero123s.web.settings import QUALITIES, Settings, check_settings, read_models, read_qualities

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
EPILOG = """examples:
  zero123s web
  zero123s web --model stable=load/zero123/stable_zero123.ckpt --model small=load/zero123/small_zero123.safetensors
  zero123s web --host 0.0.0.0 --users users.txt --jobs 2 trainer.max_steps=600

Visitors choose among the models and qualities given here and can set nothing else. See docs/web.md."""


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        "zero123s web",
        description="Make meshes from photos on a web page.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = p.add_argument
    add("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine alone)")
    add("--port", type=int, default=7860, help="port (default 7860)")
    add("--users", type=user_path, metavar="FILE", help="a file of name:password lines; who is not in it stays outside")
    add("--share", action="store_true", help="a public address by gradio's tunnel; needs --users")
    add("--out", type=user_path, default=Path("outputs/web"), help="folder of all jobs (default outputs/web)")
    add("--jobs", type=int, default=1, help="jobs side by side (default 1)")
    add("--max-waiting", type=int, default=20, help="jobs in the queue (default 20)")
    add("--keep-days", type=float, default=0, metavar="N", help="delete jobs N days after their end (default 0: never)")
    add("--model", action="append", default=[], metavar="NAME=PATH", help="checkpoint to choose; repeat for several")
    add(
        "--qualities",
        type=user_path,
        metavar="YAML",
        help=f"other qualities than {', '.join(QUALITIES)}; see docs/web.md",
    )
    add("--draw-with", default="", metavar="MODEL", help="text-to-image pipeline (id or folder); allows prompts")
    add("--max-megabytes", type=float, default=20.0, help="of an upload (default 20)")
    add("--max-megapixels", type=float, default=24.0, help="of an image (default 24)")
    add("--config", default="configs/stable-zero123.yaml", help="YAML file (default configs/stable-zero123.yaml)")
    add("--profile", default="auto", help="overlay of the YAML file, as for launch.py (default auto)")
    add("overrides", nargs="*", metavar="key=value", help="for all runs, as for launch.py")
    return p


def main(argv: Sequence[str]) -> int:
    """Run `zero123s web` until it is interrupted."""
    parser = _parser()
    args, unknown = parser.parse_known_intermixed_args(list(argv))
    refuse_flags(unknown, parser)
    settings = read_settings(args)
    users = read_users(args.users) if args.users else None
    if args.share and users is None:
        raise ConfigError("--share opens the page to everybody who learns its address; give --users FILE with it.")
    if args.host not in LOOPBACK and users is None:
        print(
            f"note: everybody who reaches {args.host} may use this page; --users FILE requires a login.",
            file=sys.stderr,
        )
    # Before gradio is imported: where it puts uploads, and that it contacts no server.
    os.environ["GRADIO_TEMP_DIR"] = str(settings.out / SERVED)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from zero123s.web.server import serve

    with locked(settings.out):
        queue = JobQueue(settings.out, args.jobs, args.max_waiting, args.keep_days)
        try:
            serve(Service(settings, queue), args.host, args.port, users, args.share)
        finally:
            queue.close()
    return 0


def read_settings(args: argparse.Namespace) -> Settings:
    """Check the whole command line before anything is opened; raises UserError."""
    for name in ("jobs", "max_waiting", "max_megabytes", "max_megapixels"):
        if not getattr(args, name) > 0:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(args, name):g} must be above 0.")
    if not args.keep_days >= 0:
        raise ConfigError(f"--keep-days {args.keep_days:g} must not be below 0; 0 keeps every job.")
    if not 0 <= args.port <= 65535:
        raise ConfigError(f"--port {args.port}: expected 0 (any) to 65535.")
    read_overrides(args.overrides)
    config = find_file(args.config)
    if config is None:
        raise ConfigError(f"--config {args.config}: there is no such file.")
    settings = Settings(
        args.out.resolve(),
        str(config.resolve()),
        args.profile,
        tuple(args.overrides),
        read_models(args.model),
        read_qualities(args.qualities) if args.qualities else dict(QUALITIES),
        Limits(args.max_megabytes, args.max_megapixels),
        args.draw_with,
    )
    check_settings(settings)
    return settings


def read_users(path: Path) -> list[tuple[str, str]]:
    """Return the name:password lines of a file; raises ConfigError."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--users {path}: cannot be read ({error}).") from error
    users = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, colon, password = line.strip().partition(":")
        if not (name and colon and password):
            raise ConfigError(f"--users {path}, line {number}: expected name:password.")
        users.append((name, password))
    if not users:
        raise ConfigError(f"--users {path}: contains no user.")
    return users
