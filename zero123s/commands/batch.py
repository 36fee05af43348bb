"""`zero123s batch`: many images to meshes, on this machine or on a Ray cluster; repeated, it runs what is missing."""

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from zero123s.cluster.batch import Batch, check_items, finished_before, make_setup
from zero123s.cluster.items import Item, read_items, skipped_note
from zero123s.cluster.worker import Placement
from zero123s.commands.launch import refuse_flags
from zero123s.config.load import read_overrides
from zero123s.diffusion.checkpoint.locate import find_file
from zero123s.errors import ConfigError, ImageError
from zero123s.images.io import read_image
from zero123s.preprocess.input_image import CutOutConfig, check_file
from zero123s.run.lock import locked
from zero123s.runtime.files import user_path

EPILOG = """examples:
  zero123s batch photos/ --out meshes --prepare
  zero123s batch list.csv --out meshes trainer.max_steps=300
  zero123s batch photos/ --out /shared/meshes --address auto --gpus 0.5

A CSV has a header: image, and optionally name, elevation, seed, overrides, or any key of the YAML file with a dot.
The same command again skips finished items and resumes the others. See docs/batch.md."""


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        "zero123s batch",
        description="Turn many images into meshes on Ray.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = p.add_argument
    add("source", type=user_path, help="a folder of images, a .csv, or a .txt with one image a line")
    add("--out", type=user_path, required=True, help="folder for results; on a cluster every node must see it")
    add(
        "--config",
        type=user_path,
        default="configs/stable-zero123.yaml",
        help="YAML file (default configs/stable-zero123.yaml)",
    )
    add("--profile", default="auto", help="overlay of the YAML file, as for launch.py (default auto)")
    add("--prepare", action="store_true", help="first cut the object out of images without transparency")
    add("--address", help="of a running Ray cluster, or auto; default: this machine")
    add("--workers", type=int, default=0, help="processes (default: as many as fit)")
    add("--cpus", type=float, default=1.0, help="CPU cores of a worker (default 1)")
    add("--gpus", type=float, help="GPUs of a worker, 0.5 for two workers on one (default: 1 where there is CUDA)")
    add("--retries", type=int, default=2, help="further attempts when a worker dies or a run breaks down (default 2)")
    add("--timeout", type=float, default=0.0, help="seconds that an item may take; 0 = any (default)")
    add(
        "--dry-run",
        action="store_true",
        help="check everything, cut-outs as well where they need no network; list what would run, write nothing",
    )
    add("overrides", nargs="*", metavar="key=value", help="for all items, as for launch.py")
    return p


def main(argv: Sequence[str]) -> int:
    """Run `zero123s batch`; 0 when every item is finished, 1 when some are not."""
    parser = _parser()
    args, unknown = parser.parse_known_intermixed_args(list(argv))
    refuse_flags(unknown, parser)
    _check(args)
    config = find_file(args.config) or Path(args.config)
    items = read_items(args.source)
    if line := skipped_note(args.source).strip():
        print(line, file=sys.stderr)
    setup = make_setup(args.out, config, args.overrides, args.profile, args.cpus, args.prepare)
    cut_outs = check_items(items, setup, args.source)
    records = finished_before(items, setup)
    n_before = len(records)
    if args.dry_run:
        return _print_dry_run(items, records, cut_outs, args.prepare)
    with locked(args.out):
        placement = Placement(args.cpus, _gpus(args), args.workers, args.address)
        records = Batch(setup, items, records, args.retries, args.timeout).run(placement)
    failed = [r for r in records.values() if r["state"] != "finished"]
    for record in failed:
        print(f"{record['name']}: {record['state']}: {record.get('error')}", file=sys.stderr)
    print(f"{len(items) - len(failed)} of {len(items)} finished, {n_before} of them before; {args.out / 'index.html'}")
    return 1 if failed else 0


def _print_dry_run(
    items: Sequence[Item], skipped: Collection[str], cut_outs: Mapping[str, CutOutConfig | None], prepare: bool
) -> int:
    """List what would run; read every image of it and check its cut-out. Returns 1 when one cannot be used."""
    n_bad = 0
    for item in items:
        state = "skip" if item.name in skipped else "run"
        try:
            if state == "run":
                _check_image(item.image, cut_outs[item.name], prepare)
        except ImageError as error:
            state, n_bad = "bad", n_bad + 1
            print(f"{item.name}: {error}", file=sys.stderr)
        print(f"{state:<5}{item.name}  {item.image}  {' '.join(item.overrides)}")
    if n_bad:
        print(f"{n_bad} of {len(items)} images cannot be used; the others would run.", file=sys.stderr)
    return 1 if n_bad else 0


def _check_image(path: Path, cut_out: CutOutConfig | None, prepare: bool) -> None:
    """Raise the ImageError with which an item would fail before its first step."""
    is_photo = not read_image(path).has_alpha
    if prepare and is_photo:
        check_file(path, CutOutConfig())
    elif cut_out is not None:
        check_file(path, cut_out)


def _check(args: argparse.Namespace) -> None:
    for name in ("workers", "retries", "timeout", "cpus"):
        if getattr(args, name) < 0:
            raise ConfigError(f"--{name} {getattr(args, name):g} must be 0 or more.")
    if not args.source.exists():
        raise ConfigError(f"'{args.source}' does not exist; give a folder of images, a .csv or a .txt.")
    if args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"--out {args.out}: is a file; give a folder.")
    read_overrides(args.overrides)


def _gpus(args: argparse.Namespace) -> float:
    if args.gpus is not None:
        return float(args.gpus)
    import torch

    return 1.0 if torch.cuda.is_available() else 0.0
