"""A batch: many images with one configuration, a run for each; finished items are not run again."""

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from tqdm import tqdm

from zero123s.cluster.items import Item
from zero123s.cluster.manifest import MANIFEST, finished_record, write_checked
from zero123s.cluster.summary_page import write_page
from zero123s.cluster.worker import Placement, Setup, folder_of
from zero123s.config.load import load_config
from zero123s.config.loaded import COMMAND_LINE
from zero123s.data.single_image import check_elevation
from zero123s.errors import ConfigError
from zero123s.preprocess.input_image import CutOutConfig
from zero123s.run.plan import choose_profile, plan_run
from zero123s.runtime.job_runner import JobRunner, WorkerDiedError, WorkerTimeoutError

SECONDS_BETWEEN_PAGES = 5.0


def make_setup(out: Path, config: Path, overrides: Sequence[str], profile: str, cpus: float, cut_out: bool) -> Setup:
    """Return the settings that all items share; raises ConfigError for an unreadable file or override."""
    overrides = list(overrides)
    if not any(word.startswith("threads=") for word in overrides):
        overrides.append(f"threads={max(1, int(cpus))}")
    overrides.append("trainer.enable_progress_bar=false")
    text = OmegaConf.to_yaml(load_config(config, overrides, choose_profile(profile, config, overrides)).cfg)
    fingerprint = hashlib.sha256(f"{text}{cut_out}".encode()).hexdigest()
    return Setup(out.resolve(), str(config.resolve()), tuple(overrides), profile, fingerprint, cut_out)


def check_items(items: Sequence[Item], setup: Setup, source: Path) -> dict[str, CutOutConfig | None]:
    """Check every distinct set of overrides completely before anything runs; raises ConfigError.

    Args:
        items, setup: what is to run.
        source: where the items' own overrides come from, named in errors.

    Returns:
        How the run of every item cuts its object out, by the item's name; None = it takes images as they are.
    """
    checked: dict[frozenset[str], CutOutConfig | None] = {}
    cut_outs: dict[str, CutOutConfig | None] = {}
    for item in items:
        keys = frozenset(
            word for word in item.overrides if not word.startswith(("seed=", "data.default_elevation_deg="))
        )
        if keys in checked:
            cut_outs[item.name] = checked[keys]
            continue
        overrides = [*setup.overrides, *item.overrides, f"data.image_path={json.dumps(str(item.image))}"]
        try:
            loaded, plan = plan_run(setup.config, overrides, setup.profile)
            plan.requirements("train")
            check_elevation(OmegaConf.select(loaded.cfg, "data.default_elevation_deg", default=0.0))
        except ConfigError as error:
            is_own = any(word.partition("=")[0] in str(error) for word in item.overrides)
            message = str(error).replace(f"(set in {COMMAND_LINE})", f"(set in {source})") if is_own else error
            raise ConfigError(f"{item.name}: {message}") from error
        cut_outs[item.name] = checked[keys] = getattr(plan.experiment.data, "cut_out", None)
    return cut_outs


def finished_before(items: Sequence[Item], setup: Setup) -> dict[str, dict[str, Any]]:
    """Return the records of items that an earlier run finished with the same settings, by name."""
    found = {item.name: finished_record(folder_of(item, setup), item.fingerprint(setup.fingerprint)) for item in items}
    return {name: {**record, "skipped": True} for name, record in found.items() if record is not None}


def summary(total: int, records: Sequence[Mapping[str, Any]], deaths: int) -> str:
    """Return one line with the number of items per state, and of workers that died."""
    states = Counter(str(record["state"]) for record in records)
    parts = [f"{len(records)} of {total}", *(f"{n} {state}" for state, n in sorted(states.items()))]
    return ", ".join([*parts, f"{deaths} workers replaced"] if deaths else parts)


class Batch:
    """Runs the items of a batch on a cluster, with a progress bar, a manifest and a summary page.

    Args:
        setup: what the items have in common.
        items: all of them.
        records: of the items that are finished already, by name.
        retries: further attempts after a worker died or an item failed by a bug; mistakes are final.
        timeout: seconds that one attempt may take; 0 = any.
    """

    def __init__(
        self, setup: Setup, items: Sequence[Item], records: Mapping[str, dict[str, Any]], retries: int, timeout: float
    ) -> None:
        self.setup, self.items, self.records = setup, items, dict(records)
        self.retries, self.timeout = retries, timeout

    def run(self, placement: Placement) -> dict[str, dict[str, Any]]:
        """Run the remaining items and return the records of all items by name.

        Raises:
            ConfigError: no cluster, no free resources in it, or workers that cannot be started.
        """
        todo = [item for item in self.items if item.name not in self.records]
        deaths = 0
        if todo:
            from zero123s.cluster.pool import RayWorkers, cluster

            with cluster(placement) as n_workers:
                workers = RayWorkers(self.setup, placement, self.timeout, self._on_record)
                self._runner = JobRunner(workers.open, min(n_workers, len(todo)), self._on_lost, self.retries)
                try:
                    for item in todo:
                        self._runner.submit(item)
                    self._watch(workers.progress)
                except WorkerDiedError as error:
                    raise ConfigError(f"Workers die as soon as they start: {error}") from error
                finally:
                    self._runner.close(workers.kill)
            deaths = self._runner.deaths
        self._write(summary(len(self.items), list(self.records.values()), deaths))
        return self.records

    def _watch(self, read_progress: Callable[[], Mapping[str, Mapping[str, Any]]]) -> None:
        """Show and record the progress of the items until all have a record."""
        written, n_written, done = 0.0, len(self.records), False
        # On a pipe or in a log file, a line now and then.
        interval = 0.1 if sys.stderr.isatty() else 30.0
        bar = tqdm(total=len(self.items), initial=n_written, unit="item", mininterval=interval, dynamic_ncols=True)
        with bar:
            while not done:
                done = self._runner.wait(0.5)
                progress = read_progress()
                running = {item.name: progress.get(item.name, {}) for item in list(self._runner.running)}
                steps = [f"{name} {p.get('step', 0)}/{p.get('max_steps', '?')}" for name, p in sorted(running.items())]
                counts = summary(len(self.items), list(self.records.values()), self._runner.deaths)
                bar.set_postfix_str(", ".join([counts, *steps]), refresh=False)
                bar.update(len(self.records) - bar.n)
                if len(self.records) > n_written and time.monotonic() - written > SECONDS_BETWEEN_PAGES:
                    written, n_written = time.monotonic(), len(self.records)
                    self._write("running")

    def _write(self, headline: str) -> None:
        waiting = ({"name": i.name, "image": str(i.image), "state": "waiting"} for i in self.items)
        listed = [self.records.get(record["name"], record) for record in waiting]
        content = {"config": self.setup.config, "overrides": list(self.setup.overrides), "items": listed}
        write_checked(self.setup.out / MANIFEST, content)
        write_page(self.setup.out, listed, headline)

    def _on_record(self, item: Item, attempt: int, record: dict[str, Any]) -> None:
        if record["state"] == "failed" and not record.pop("final") and attempt <= self.retries:
            self._runner.submit(item, attempt + 1)
        else:
            self.records[item.name] = record

    def _on_lost(self, item: Item, attempt: int, error: WorkerDiedError) -> None:
        timed_out = isinstance(error, WorkerTimeoutError)
        died = f"its worker died {attempt} times, perhaps for lack of memory"
        self.records[item.name] = {
            "name": item.name,
            "image": str(item.image),
            "overrides": list(item.overrides),
            "fingerprint": item.fingerprint(self.setup.fingerprint),
            "attempts": attempt,
            "state": "timed out" if timed_out else "failed",
            "error": str(error) if timed_out else died,
        }
