"""One run from a checked plan to its files: train, validate, test, export."""

import logging
import resource
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader, Dataset

from zero123s.callbacks.checkpoints import AtomicCheckpointIO
from zero123s.callbacks.guidance_views import GuidanceViews
from zero123s.callbacks.interrupt import GracefulInterrupt
from zero123s.callbacks.progress import StepProgress
from zero123s.run_dir import create_run_dir, write_run_record
from zero123s.system.base import BaseSystem, Plan, step_modules

ENDLESS = 2**31


class StepBatches(Dataset):
    """The batch of whatever global step training has reached, so that resuming needs no state of its own.

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


class Previews(pl.Callback):
    """Lets the system draw and score its present state at every validation interval, and logs the scores.

    Args:
        out_dir: the run folder.
        every: steps between previews; 0 = none.
    """

    def __init__(self, out_dir: Path, every: int) -> None:
        self.out_dir = out_dir
        self.every = every

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Make a preview when its step has come."""
        step = trainer.global_step
        if self.every and step % self.every == 0:
            for name, value in pl_module.preview(self.out_dir, step).items():
                pl_module.log(f"preview/{name}", value)


class Session:
    """A plan, a folder and a trainer.

    Args:
        plan: the checked experiment.
        out_dir: the run folder; made when something is written.
        checkpoint: where to go on from; None = from the start.
        gpu: what `--gpu` said.
    """

    def __init__(self, plan: Plan, out_dir: Path, checkpoint: Path | None, gpu: str | None = None) -> None:
        self.experiment = plan.experiment
        self.out_dir = out_dir
        self.checkpoint = checkpoint
        if gpu is not None and not torch.cuda.is_available():
            print(f"note: --gpu {gpu}: CUDA is not available here; running on the CPU.", file=sys.stderr)
        self.gpu = gpu
        self._quiet_lightning()
        if self.experiment.threads:
            torch.set_num_threads(self.experiment.threads)
        self.system: Any = plan.build()
        self.record: dict[str, Any] = {}
        if checkpoint is not None:
            state = AtomicCheckpointIO().load_checkpoint(checkpoint)
            self.system.load_state_dict(state["state_dict"])
            self.step = int(state["global_step"])
            step_modules(self.system, self.step)

    @staticmethod
    def _quiet_lightning() -> None:
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module="pytorch_lightning")

    def _trainer(self) -> pl.Trainer:
        t, c = self.experiment.trainer, self.experiment.checkpoint
        self.interrupt = GracefulInterrupt()
        callbacks: list[pl.Callback] = [
            self.interrupt,
            Previews(self.out_dir, t.val_check_interval),
            GuidanceViews(self.out_dir),
            ModelCheckpoint(
                self.out_dir / "ckpts",
                save_last=c.save_last,
                save_top_k=c.save_top_k,
                every_n_train_steps=c.every_n_train_steps,
            ),
        ]
        if t.enable_progress_bar:
            callbacks.append(StepProgress())
        precision = str(t.precision)
        if precision == "16-mixed" and not torch.cuda.is_available():
            print("note: trainer.precision=16-mixed needs CUDA; running in 32.", file=sys.stderr)
            precision = "32"
        on_gpu = torch.cuda.is_available()
        devices = [int(i) for i in self.gpu.split(",")] if on_gpu and self.gpu else t.devices
        return pl.Trainer(
            max_steps=t.max_steps,
            max_epochs=-1,
            max_time=t.max_time,
            limit_val_batches=0,
            log_every_n_steps=t.log_every_n_steps,
            accelerator=t.accelerator,
            devices=devices,
            num_nodes=t.num_nodes,
            strategy=t.strategy,
            precision=precision,  # type: ignore[arg-type]
            accumulate_grad_batches=t.accumulate_grad_batches,
            gradient_clip_val=t.gradient_clip_val,
            gradient_clip_algorithm=t.gradient_clip_algorithm,
            deterministic=t.deterministic,
            detect_anomaly=t.detect_anomaly,
            profiler=t.profiler,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[AtomicCheckpointIO()],
            callbacks=callbacks,
            logger=[TensorBoardLogger(self.out_dir, "tb_logs"), CSVLogger(self.out_dir, "csv_logs")],
        )

    def train(self) -> int:
        """Optimise, draw, test and export what the system has; returns 130 when interrupted, with a checkpoint written."""
        create_run_dir(self.out_dir, self.experiment)
        write_run_record(self.out_dir, {"state": "training"})
        trainer = self._trainer()
        loader = DataLoader(StepBatches(self.system), batch_size=None, num_workers=0)
        trainer.fit(self.system, loader, ckpt_path=None if self.checkpoint is None else str(self.checkpoint))
        self.step = trainer.global_step
        last = self.out_dir / "ckpts" / "last.ckpt"
        if self.interrupt.interrupted:
            trainer.save_checkpoint(last)
            write_run_record(self.out_dir, {"state": "interrupted", "step": self.step})
            print(f"Stopped at step {self.step}. Go on with: resume={self.out_dir}", file=sys.stderr)
            return 130
        trainer.save_checkpoint(last)
        self.record["model"] = self.system.describe()
        self.validate()
        self.test()
        if self.experiment.export_after_train:
            self.export()
        return 0

    def validate(self) -> int:
        """Let the system draw and score itself."""
        self.record["metrics"] = self.system.preview(self.out_dir, self.step)
        return 0

    def test(self) -> int:
        """Let the system write its final pictures."""
        self.record["pictures"] = self.system.test(self.out_dir, self.step)
        return 0

    def export(self) -> int:
        """Let the system write what training was for."""
        self.record["files"] = self.system.export(self.out_dir / "export")
        self.record["export"] = self.system.export_stats
        return 0

    def summary(self, seconds: float) -> None:
        """Write run.json and print where things are."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        state = "interrupted" if getattr(self, "interrupt", None) and self.interrupt.interrupted else "finished"
        self.record |= {
            "state": state,
            "step": self.step,
            "seconds": round(seconds, 1),
            "peak_memory_gb": round(peak, 2),
        }
        write_run_record(self.out_dir, self.record)
        print(f"{state}: step {self.step}, {seconds:.0f} s, {peak:.1f} GB, {self.out_dir}")
        for name, value in self.record.get("metrics", {}).items():
            print(f"  {name}: {value:.3f}")
        for kind, path in self.record.get("files", {}).items():
            print(f"  {kind}: {path}")
