"""The top level of a YAML file: slots, trainer, and the run folder."""

import re
from dataclasses import dataclass, field
from typing import Any

from zero123s.config.interpolation import resolve
from zero123s.config.loaded import LoadedConfig
from zero123s.config.options import option, ordered
from zero123s.config.parse import parse
from zero123s.errors import ConfigError

MAX_STEPS = 1_000_000_000
"""A year of training takes 30 million steps of a second each."""


@dataclass
class TrainerConfig:
    """Arguments of Lightning's Trainer, under its names."""

    max_steps: int = option(600, low=1, high=MAX_STEPS)
    """Optimiser steps."""
    max_time: str | None = None
    """Stop after this long, "DD:HH:MM:SS"."""
    val_check_interval: int = option(100, low=0)
    """Steps between previews (views are rendered, the reference view is scored); 0 = none."""
    log_every_n_steps: int = option(1, low=1)
    """Steps between log lines."""
    enable_progress_bar: bool = True
    """Show the progress bar."""
    precision: str = option("32", choices=("32", "64", "bf16-mixed", "16-mixed"))
    """Floating point numbers in bits; 16-mixed needs CUDA."""
    tf32: bool = True
    """On CUDA: round the factors of float32 products to TF32's 10 bits, several times faster; sums stay float32."""
    accelerator: str = option("auto", choices=("auto", "cpu", "gpu", "mps"))
    """Kind of device."""
    devices: Any = "auto"
    """Number of devices, or "auto"."""
    num_nodes: int = option(1, low=1)
    """Machines that train together."""
    strategy: str = "auto"
    """Lightning strategy: "auto", "ddp", "ddp_spawn"...; those that share out the weights are not supported."""
    accumulate_grad_batches: int = option(1, low=1)
    """Batches whose gradients are summed before a step."""
    gradient_clip_val: float | None = option(None, above=0)
    """Largest gradient norm; None = no clipping."""
    gradient_clip_algorithm: str | None = option(None, choices=("norm", "value"))
    """What gradient_clip_val limits; None = the norm."""
    deterministic: bool = False
    """Use deterministic algorithms of torch only."""
    detect_anomaly: bool = False
    """Find the operation that makes a NaN; slow."""
    profiler: str | None = option(None, choices=("simple", "advanced", "pytorch"))
    """Lightning profiler."""


@dataclass
class CheckpointConfig:
    """When checkpoints are written, with the keys of Lightning's ModelCheckpoint."""

    save_last: Any = True
    """Keep `last.ckpt` up to date; "link" makes it a link to the newest one."""
    save_top_k: int = option(1, low=-1)
    """Number of newest checkpoints kept under the name of their step; -1 all of them, 0 none."""
    every_n_train_steps: int = option(100, low=1)
    """Steps between checkpoints."""


@dataclass
class HealthConfig:
    """Thresholds of the health checks. Every finding is one line on the terminal, in run.json and in the report."""

    every: int = option(25, low=0)
    """Steps between checks of the measurements below; 0 = never. Losses, gradients and weights are checked in every
    step.
    """
    after: int = option(100, low=0)
    """Steps before the first check: the scene needs time to appear."""
    max_failures: int = option(3, low=1)
    """Steps with a loss, gradient or weight that is not finite, within failure_window, after which the run stops."""
    failure_window: int = option(100, low=1)
    """Steps after which a failure is forgotten."""
    lost_after: int = option(4, low=0)
    """Consecutive checks with an empty, full or wrong scene after which the run stops; 0 = never."""
    min_occupied: float = option(1e-4, low=0.0, high=1.0)
    """Share of the occupancy grid below which the scene is empty."""
    max_occupied: float = option(0.9, low=0.0, high=1.0)
    """Share of the occupancy grid above which the scene is full of fog."""
    min_opacity: float = option(0.1, low=0.0, high=1.0)
    """Mean opacity inside the image's silhouette below which the object is invisible."""
    max_opacity_drop: float = option(0.5, low=0.0, high=1.0)
    """Share of its best value that the opacity inside the silhouette may lose."""
    max_components: int = option(12, low=1)
    """Separate pieces of occupied space, each of at least two cells, above which there are floaters."""
    min_silhouette_iou: float = option(0.6, low=0.0, high=1.0)
    """Overlap with the image's silhouette that must be reached, unless it still rises."""
    min_silhouette_gain: float = option(0.01, low=0.0, high=1.0)
    """Smallest increase of the overlap between two checks that counts as rising."""
    lost_silhouette_iou: float = option(0.1, low=0.0, high=1.0)
    """Overlap below which the scene is wrong, see lost_after."""
    min_mesh_silhouette_iou: float = option(0.95, low=0.0, high=1.0)
    """Overlap of the exported mesh's silhouette with the image's that must be reached."""
    min_guidance_gradient: float = option(1e-6, low=0.0)
    """Norm of the guidance's gradient below which the guidance has no effect."""
    elevation_range: list[float] = option([-15.0, 70.0], low=-90.0, high=90.0)
    """Degrees of data.default_elevation_deg that are plausible: Zero123 was trained on images from above."""

    def __post_init__(self) -> None:
        ordered(self.elevation_range, "health.elevation_range", -90, 90)
        ordered([self.min_occupied, self.max_occupied], "health.min_occupied, max_occupied", 0, 1)
        ordered(
            [self.lost_silhouette_iou, self.min_silhouette_iou], "health.lost_silhouette_iou, min_silhouette_iou", 0, 1
        )


@dataclass
class ViewerConfig:
    """A live view of the field during training, in a browser."""

    enabled: bool = False
    """Open it; needs the extra `viewer`."""
    host: str = "127.0.0.1"
    """Address to listen at; with any other than this machine's, the viewer is open to the network."""
    port: int = option(7007, low=1, high=65535)
    """Port; the next free one where it is taken."""
    height: int = option(128, low=16, high=1024)
    """Pixels of the image; a control of the page changes it."""
    max_share: float = option(0.25, above=0.0, high=1.0)
    """Largest share of the time spent on rendering for the viewer."""


@dataclass
class ExperimentConfig:
    """The top level of a YAML file."""

    data_type: str = "single-image-datamodule"
    """Registered name of the data source."""
    data: Any = field(default_factory=dict)
    """Settings of the data source."""
    system_type: str = "zero123-system"
    """Registered name of the system."""
    system: Any = field(default_factory=dict)
    """Settings of the system: its slots, losses, optimiser."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Lightning Trainer."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When checkpoints are written."""
    health: HealthConfig = field(default_factory=HealthConfig)
    """Health checks during training."""
    viewer: ViewerConfig = field(default_factory=ViewerConfig)
    """Live viewer."""
    name: str = "default"
    """Folder below exp_root_dir: one experiment, many runs."""
    description: str = ""
    """Free text, kept with the run."""
    tag: str = ""
    """First half of the run folder's name; empty = the input's file name."""
    seed: int = 0
    """Everything random derives from it."""
    use_timestamp: bool = True
    """Append @date-time to the run folder's name."""
    trial_dir: str = option("", path=True)
    """Set by the program: the run folder; paths inside it follow when the folder is moved or copied."""
    overwrite: bool = False
    """Clear a run folder that holds another run before starting in it; otherwise that is refused."""
    exp_root_dir: str = option("outputs", path=True)
    """Where all runs go."""
    resume: str | None = option(None, path=True)
    """Checkpoint to resume from: a path, a run folder, or `last`."""
    export_after_train: bool = True
    """Write the mesh when training ends."""
    imports: list[str] = field(default_factory=list)
    """Python packages to import first; they register their own classes."""
    threads: int = option(0, low=0, high=1024)
    """CPU threads; 0 = one, or one per core, whichever a short measurement at the start finds faster."""


def parse_experiment(loaded: LoadedConfig) -> ExperimentConfig:
    """Check the top level; the sections of data and system are checked by `zero123s.system.base.plan_experiment`."""
    try:
        experiment = parse(ExperimentConfig, resolve(loaded.cfg))
        _check_max_time(experiment.trainer.max_time)
    except ConfigError as error:
        raise ConfigError(loaded.explain(str(error))) from error
    return experiment


def _check_max_time(value: str | None) -> None:
    if value is not None and not re.fullmatch(r"\d\d:\d\d:\d\d:\d\d", value):
        raise ConfigError(f"trainer.max_time: '{value}' is not DD:HH:MM:SS, for example 00:01:30:00.")
