"""Executes a checked plan: train, validate, test, export."""

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader, Dataset

from zero123s.callbacks.checkpoints import Checkpoints, RandomStates
from zero123s.callbacks.guidance_views import GuidanceViews
from zero123s.callbacks.health import Health
from zero123s.callbacks.interrupt import GracefulInterrupt
from zero123s.callbacks.previews import Previews
from zero123s.callbacks.progress import StageProgress, StepProgress
from zero123s.callbacks.run_callback import RunCallback
from zero123s.callbacks.step_profile import StepProfile
from zero123s.callbacks.viewer import Viewer
from zero123s.errors import ConfigError, PeerLostError, RunLostError, UserError
from zero123s.images.io import write_png_atomic
from zero123s.ops.memory import is_out_of_memory
from zero123s.preprocess.input_image import LowConfidenceMaskError
from zero123s.run.console import log_to_file
from zero123s.run.devices import (
    choose_devices,
    choose_precision,
    choose_threads,
    first_device,
    peak_memory_gb,
    set_tf32,
)
from zero123s.run.disk_space import checkpoint_bytes, require_disk_space
from zero123s.run.double_precision import DoublePrecision
from zero123s.run.folder import (
    append_command,
    create_run_dir,
    read_run_record,
    write_run_record,
)
from zero123s.run.lock import locked
from zero123s.run.resume import (
    CHECKPOINTS,
    clear_run_dir,
    identity_of,
    record_last_started,
    refuse_other_run,
    starts_new_run,
)
from zero123s.run.starting_weights import RunCheckpointIO, load_weights, start_from_first_stage, start_from_weights
from zero123s.runtime.processes import is_main_process, peer_is_lost
from zero123s.system.base import BaseSystem, Plan, step_modules

ENDLESS = 2**31


class StepBatches(Dataset):
    """Yields the batch of the current global step, so that resuming needs no state of its own.

    Args:
        system: whose data source and step count.
    """

    def __init__(self, system: BaseSystem) -> None:
        self.system = system
        self.last = (-1, -1)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Any:
        step = self.system.global_step
        micro_step = self.last[1] + 1 if self.last[0] == step else 0
        self.last = (step, micro_step)
        return self.system.data_source.batch_at(step, micro_step, self.system.global_rank)


def build_system(plan: Plan, out_dir: Path) -> BaseSystem:
    """Read the data and build the system; raises UserError.

    A doubtful cut-out is the one mistake that leaves a file behind: the image that shows what is wrong with it.
    """
    try:
        return plan.build()
    except LowConfidenceMaskError as error:
        raise error.with_steps_saved_at(write_png_atomic(out_dir / "input" / "steps.png", error.steps)) from error


class Runner:
    """Runs a plan in a folder.

    Args:
        plan: the checked experiment.
        out_dir: the run folder; made when something is written.
        checkpoint: to resume from; None = from the start.
        gpu: what `--gpu` said.
        profile_run: record where the time of some steps went.
        run_callbacks: callbacks of the caller.
    """

    def __init__(
        self,
        plan: Plan,
        out_dir: Path,
        checkpoint: Path | None,
        gpu: str | None = None,
        profile_run: bool = False,
        run_callbacks: Sequence[RunCallback] = (),
    ) -> None:
        self.plan = plan
        self.experiment = plan.experiment
        self.run_callbacks = list(run_callbacks)
        self.out_dir = out_dir
        self.checkpoint = checkpoint
        self.starts_new_run = starts_new_run(out_dir, checkpoint)
        self._refuse_other_run()
        identity = identity_of(out_dir, checkpoint)
        self.checkpoints = Checkpoints(out_dir / CHECKPOINTS, self.experiment.checkpoint, identity, checkpoint)
        self.accelerator, self.devices = choose_devices(self.experiment, gpu)
        set_tf32(self.experiment.trainer.tf32, first_device(self.accelerator, self.devices))
        _quiet_lightning()
        self.profile_run = profile_run
        self.interrupt = GracefulInterrupt()
        self.health = Health(self.experiment.health)
        self.trainer: pl.Trainer | None = None
        self.step = 0
        self.system = build_system(plan, out_dir)  # before anything is timed: a missing image is reported at once
        threads = choose_threads(self.experiment.threads, out_dir)
        torch.set_num_threads(threads)
        self.record: dict[str, Any] = {"threads": threads}
        if checkpoint is not None:
            self.step = load_weights(self.system, checkpoint)
            step_modules(self.system, self.step)
            self.system.model_record = read_run_record(out_dir).get("model", {})

    def run(self, mode: str) -> str:
        """Run one mode in the run folder and keep run.json up to date; returns "finished" or "interrupted".

        Of several processes that train together, only the main one locks the folder, writes and prints.
        """
        started = time.perf_counter()
        if mode == "train":
            # Problems of settings, models or disks are reported before the folder is touched.
            c = self.experiment.checkpoint
            n_checkpoints = bool(c.save_last) + (1 if c.save_top_k < 0 else c.save_top_k)
            require_disk_space(self.out_dir, checkpoint_bytes(self.system), n_checkpoints)
            self.trainer = self._trainer()
        self.system.to(self.device)
        if mode == "train":
            self.system.load_networks(self.device)
            if self.checkpoint is None and self.system.weights_from is not None:
                self.record["weights"] = start_from_weights(self.system, self.system.weights_from)
            elif self.checkpoint is None and self.system.first_stage is not None:
                self.record["first_stage"] = start_from_first_stage(self.system, self.system.first_stage)
            elif self.checkpoint is None:
                self.record |= self.system.start()
        if not is_main_process():
            return self._run_nonzero_rank(mode)
        with self.interrupt.listening(), locked(self.out_dir):
            self._refuse_other_run()  # again: it may have begun since
            self._begin(mode)
            with log_to_file(self.out_dir / "log.txt"):
                try:
                    getattr(self, mode)()
                    state = "interrupted" if self.interrupt.interrupted else "finished"
                except KeyboardInterrupt:
                    state = "interrupted"
                except BaseException as error:
                    self._record_failure(mode, error)
                    raise
            self.record |= {
                "step": self.step,
                "ended": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
                "seconds": round(time.perf_counter() - started, 1),
                "peak_memory_gb": round(peak_memory_gb(self.device), 2),
            }
            if mode == "train":
                self.record["state"] = state
            write_run_record(self.out_dir, self.record)
        return state

    def _run_nonzero_rank(self, mode: str) -> str:
        """Train as one of several processes; the stages after training run on rank zero only."""
        with self.interrupt.listening():
            if mode == "train":
                self._fit()
        return "interrupted" if self.interrupt.interrupted else "finished"

    def _refuse_other_run(self) -> None:
        if self.starts_new_run and is_main_process():
            refuse_other_run(self.out_dir, self.experiment.overwrite)

    def _begin(self, mode: str) -> None:
        if self.starts_new_run and self.experiment.overwrite:
            clear_run_dir(self.out_dir, self.experiment)
        append_command(self.out_dir)
        if mode == "train" and (kept := self.system.data_source.save_inputs(self.out_dir / "input")):
            self.record["input"] = kept
        if mode == "train" or not (self.out_dir / "config.yaml").exists():
            create_run_dir(self.out_dir, self.experiment)
        if mode == "train":
            record_last_started(self.out_dir)
            started = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
            self.record |= {"run_id": self.checkpoints.identity.run_id, "model": self.system.describe()}
            write_run_record(self.out_dir, {"state": "training", "started": started, "error": None, **self.record})

    def _record_failure(self, mode: str, error: BaseException) -> None:
        if mode != "train":
            return
        state = "lost" if isinstance(error, RunLostError) else "failed"
        failure = {"state": state, "error": f"{type(error).__name__}: {error}", **self.health.record()}
        try:
            write_run_record(self.out_dir, failure)
        except UserError:
            logging.getLogger(__name__).warning("run.json could not be written either")

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        for callback in self.run_callbacks:
            callback.on_stage(stage)
        started = time.perf_counter()
        yield
        self.record.setdefault("stage_seconds", {})[stage] = round(time.perf_counter() - started, 1)

    # ------------------------------------------------------------ modes

    def train(self) -> None:
        """Optimise, then validate, test and export; stops early when interrupted."""
        with self._timed("train"):
            self._fit()
        self.record |= {"model": self.system.describe(), **self.health.record()}
        if self.interrupt.interrupted:
            return
        self.validate()
        self.test()
        if self.experiment.export_after_train:
            self.export()

    def _fit(self) -> None:
        """Optimise and save the last state, in all processes together."""
        trainer = self.trainer
        assert trainer is not None
        loader = DataLoader(StepBatches(self.system), batch_size=None, num_workers=0)
        try:
            # Lightning trusts its own checkpoints only when asked to; ours are read with weights_only throughout.
            trainer.fit(self.system, loader, ckpt_path=None if self.checkpoint is None else str(self.checkpoint))
        except SystemExit as error:  # how Lightning reports a KeyboardInterrupt before the first step
            raise KeyboardInterrupt from error
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise self.system.out_of_memory(error) from error
            if not peer_is_lost(error):
                raise
            if not is_main_process():
                raise SystemExit(PeerLostError.exit_code) from error  # one voice is enough
            raise PeerLostError(
                f"Training stopped at step {trainer.global_step}: another of the processes that train together has "
                "ended; what it said stands above."
            ) from error
        self.step = trainer.global_step
        self.checkpoints.save_last(trainer)
        self.system.to(self.device)  # Lightning's teardown has moved it to the CPU

    def validate(self) -> None:
        """Render and score the current state."""
        with self._timed("validate"):
            self.record["metrics"] = self.system.preview(self.out_dir, self.step)

    def test(self) -> None:
        """Write the final images."""
        with self._timed("test"):
            self.record["pictures"] = self.system.test(self.out_dir, self.step)

    def export(self) -> None:
        """Write the results."""
        shown = self.experiment.trainer.enable_progress_bar
        with self._timed("export"), closing(StageProgress("export")) if shown else nullcontext() as bar:
            self.record["files"] = self.system.export(self.out_dir / "export", bar)
        self.record["export"] = self.system.export_stats
        earlier = self.record.get("warnings", read_run_record(self.out_dir).get("warnings", []))
        self.record["warnings"] = self.health.check_mesh(self.system.export_stats, earlier)

    # ------------------------------------------------------------ training

    @property
    def device(self) -> torch.device:
        """The device of this process, before, during and after training."""
        if self.trainer is not None:
            return self.trainer.strategy.root_device
        return first_device(self.accelerator, self.devices)

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA device."""
        return self.device.type == "cuda"

    def _trainer(self) -> pl.Trainer:
        t = self.experiment.trainer
        loggers = [TensorBoardLogger(self.out_dir, "tb_logs"), CSVLogger(self.out_dir, "csv_logs")]
        if str(t.strategy).startswith(("fsdp", "deepspeed")):
            raise ConfigError(
                f"trainer.strategy={t.strategy}: the average of the weights and the images of a validation need whole "
                "weights, so they cannot be sharded; use ddp, and system.gradient_checkpointing or system.lora_rank "
                "where memory is short."
            )
        options: dict[str, Any] = {
            "max_steps": t.max_steps,
            "max_epochs": -1,
            "max_time": t.max_time,
            "limit_val_batches": 0,
            "log_every_n_steps": t.log_every_n_steps,
            "accelerator": self.accelerator,
            "devices": self.devices,
            "num_nodes": t.num_nodes,
            "strategy": t.strategy,
            "use_distributed_sampler": False,  # a batch is a function of step and rank already
            "accumulate_grad_batches": t.accumulate_grad_batches,
            "gradient_clip_val": t.gradient_clip_val,
            "gradient_clip_algorithm": t.gradient_clip_algorithm,
            "deterministic": t.deterministic,
            "detect_anomaly": t.detect_anomaly,
            "profiler": t.profiler,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "plugins": [RunCheckpointIO(self.system)],
            "callbacks": self._callbacks(),
            "logger": [*loggers, *self.system.extra_loggers(self.out_dir)],
        }
        precision = choose_precision(str(t.precision), self.on_gpu)
        if precision == "64":
            options["plugins"].append(DoublePrecision())
        else:
            options["precision"] = precision
        try:
            return pl.Trainer(**options)
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error

    def _callbacks(self) -> list[pl.Callback]:
        t = self.experiment.trainer
        previews = Previews(self.out_dir, t.val_check_interval)
        extra: list[pl.Callback] = [StepProgress()] if t.enable_progress_bar else []
        if self.profile_run:
            extra.append(StepProfile(self.out_dir, t.max_steps))
        if self.experiment.viewer.enabled:
            extra.append(Viewer(self.experiment.viewer))
        return [
            self.interrupt,
            RandomStates(self.experiment.seed),
            self.health,
            previews,
            GuidanceViews(self.out_dir),
            *extra,
            *self.run_callbacks,
            self.checkpoints,  # after all that may stop the run in the same step
        ]


def _quiet_lightning() -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
