"""`zero123s batch`: many pictures to meshes, on this machine or on a Ray cluster; run again, it does what is missing."""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from zero123s.cluster.items import Item, left_out, read_items
from zero123s.cluster.manifest import MANIFEST, RECORD, read_checked, whole, write_checked
from zero123s.cluster.summary_page import write_page
from zero123s.cluster.table import LiveTable, headline
from zero123s.cluster.worker import Setup, folder_of
from zero123s.config.load import load_config, read_overrides
from zero123s.data.single_image import check_elevation
from zero123s.diffusion.checkpoint.locate import find_file
from zero123s.errors import ConfigError
from zero123s.run.lock import locked
from zero123s.run.plan import choose_profile, plan_run
from zero123s.runtime.files import user_path

SECONDS_BETWEEN_PAGES = 5.0
EPILOG = """examples:
  zero123s batch photos/ --out meshes --prepare
  zero123s batch list.csv --out meshes trainer.max_steps=300
  zero123s batch photos/ --out /shared/meshes --address auto --gpus 0.5

A CSV has a header: image, and if wanted name, elevation, seed, overrides, or any key of the YAML file with a dot.
The same command again skips what is whole and goes on with the rest. See docs/batch.md."""


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        "zero123s batch",
        description="Turn many pictures into meshes on Ray.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = p.add_argument
    add("source", type=user_path, help="a folder of pictures, a .csv, or a .txt with one picture a line")
    add("--out", type=user_path, required=True, help="folder for results; on a cluster every node must see it")
    add(
        "--config",
        type=user_path,
        default="configs/stable-zero123.yaml",
        help="YAML file (default configs/stable-zero123.yaml)",
    )
    add("--profile", default="auto", help="overlay of the YAML file, as for launch.py (default auto)")
    add("--prepare", action="store_true", help="first cut the object out of pictures without transparency")
    add("--address", help="of a running Ray cluster, or auto; default: this machine")
    add("--workers", type=int, default=0, help="processes (default: as many as fit)")
    add("--cpus", type=float, default=1.0, help="CPU cores of a worker (default 1)")
    add("--gpus", type=float, help="GPUs of a worker, 0.5 for two workers on one (default: 1 where there is CUDA)")
    add("--retries", type=int, default=2, help="further attempts when a worker dies or a run breaks down (default 2)")
    add("--timeout", type=float, default=0.0, help="seconds that an item may take; 0 = any (default)")
    add("--dry-run", action="store_true", help="check everything, list what would run, write nothing")
    add("overrides", nargs="*", metavar="key=value", help="for all items, as for launch.py")
    return p


def main(argv: Sequence[str]) -> int:
    """Run `zero123s batch`; 0 when every item is finished, 1 when some are not."""
    args = _parser().parse_intermixed_args(list(argv))
    _check(args)
    config = find_file(args.config) or Path(args.config)
    items = read_items(args.source)
    if line := left_out(args.source).strip():
        print(line, file=sys.stderr)
    setup = _setup(args, config)
    _check_settings(items, setup)
    skipped = [] if not args.out.is_dir() else [r for i in items if (r := _done_before(i, setup)) is not None]
    records = {r["name"]: r for r in skipped}
    todo = [item for item in items if item.name not in records]
    if args.dry_run:
        for item in items:
            print(f"{'skip' if item.name in records else 'run ':<5}{item.name}  {item.image}  {' '.join(item.words)}")
        return 0
    with locked(args.out):
        _run(args, setup, items, todo, records)
    failed = [r for r in records.values() if r["state"] != "finished"]
    for record in failed:
        print(f"{record['name']}: {record['state']}: {record.get('error')}", file=sys.stderr)
    print(
        f"{len(items) - len(failed)} of {len(items)} finished, {len(skipped)} of them before; {args.out / 'index.html'}"
    )
    return 1 if failed else 0


def _check(args: argparse.Namespace) -> None:
    for name in ("workers", "retries", "timeout", "cpus"):
        if getattr(args, name) < 0:
            raise ConfigError(f"--{name} {getattr(args, name):g} must be 0 or more.")
    if not args.source.exists():
        raise ConfigError(f"'{args.source}' does not exist; give a folder of pictures, a .csv or a .txt.")
    read_overrides(args.overrides)


def _setup(args: argparse.Namespace, config: Path) -> Setup:
    words = list(args.overrides)
    if not any(w.startswith("threads=") for w in words):
        words.append(f"threads={max(1, int(args.cpus))}")
    words.append("trainer.enable_progress_bar=false")
    profile = choose_profile(args.profile, config)
    text = OmegaConf.to_yaml(load_config(config, words, profile).cfg)
    fingerprint = hashlib.sha256(f"{text}{args.prepare}".encode()).hexdigest()
    return Setup(args.out.resolve(), str(config.resolve()), tuple(words), args.profile, fingerprint, args.prepare)


def _check_settings(items: Sequence[Item], setup: Setup) -> None:
    """Check every distinct set of overrides down to the last key before anything runs; raises ConfigError."""
    checked: set[frozenset[str]] = set()
    for item in items:
        keys = frozenset(word for word in item.words if not word.startswith(("seed=", "data.default_elevation_deg=")))
        if keys in checked:
            continue
        checked.add(keys)
        words = [*setup.words, *item.words, f"data.image_path={json.dumps(str(item.image))}"]
        try:
            loaded, plan = plan_run(setup.config, words, setup.profile)
            plan.requirements("train")
            check_elevation(OmegaConf.select(loaded.cfg, "data.default_elevation_deg", default=0.0))
        except ConfigError as error:
            raise ConfigError(f"{item.name}: {error}") from error


def _done_before(item: Item, setup: Setup) -> dict[str, Any] | None:
    record = whole(folder_of(item, setup), item.fingerprint(setup.fingerprint))
    return None if record is None else {**record, "skipped": True}


def _run(
    args: argparse.Namespace, setup: Setup, items: Sequence[Item], todo: list[Item], records: dict[str, Any]
) -> None:
    """Run what is missing; keeps manifest and page up to date on the way."""
    table = LiveTable(len(items))
    deaths, written = 0, 0.0

    def write(summary: str) -> None:
        listed = [records.get(i.name) or {"name": i.name, "image": str(i.image), "state": "waiting"} for i in items]
        write_checked(args.out / MANIFEST, {"config": setup.config, "overrides": list(setup.words), "items": listed})
        write_page(args.out, listed, summary)

    def on_change(batch: Any, finished_one: bool) -> None:
        nonlocal deaths, written
        deaths = batch.deaths
        records.update(batch.records)
        running = {job.item.name: batch.progress.get(job.item.name, {}) for job in batch.running.values()}
        table.show(list(records.values()), running, deaths)
        if finished_one and time.monotonic() - written > SECONDS_BETWEEN_PAGES:
            written = time.monotonic()
            write("running")

    if todo:
        from zero123s.cluster.pool import Batch, Placement, cluster

        placement = Placement(args.cpus, _gpus(args), args.workers, args.address)
        with cluster(placement) as room:
            Batch(setup, placement, args.retries, args.timeout, on_change).run(todo, room)
    write(headline(len(items), list(records.values()), 0, time.monotonic() - table.started, deaths))


def _gpus(args: argparse.Namespace) -> float:
    if args.gpus is not None:
        return float(args.gpus)
    import torch

    return 1.0 if torch.cuda.is_available() else 0.0


def read_manifest(out: Path) -> dict[str, Any]:
    """Return OUT/manifest.json; raises ConfigError when it is missing or its checksum is wrong."""
    content = read_checked(out / MANIFEST)
    if content is None:
        raise ConfigError(
            f"'{out / MANIFEST}' is missing or damaged; the same `zero123s batch` command writes it again from the "
            f"{RECORD} of every item."
        )
    return content
