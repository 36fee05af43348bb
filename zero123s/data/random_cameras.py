"""Random cameras without an image, for text-to-3D."""

from dataclasses import dataclass, fields

from zero123s.data.base import DATA, BaseData
from zero123s.data.random_camera import RandomCameraConfig, RandomCameraSampler
from zero123s.errors import ConfigError
from zero123s.randomness import generator_for
from zero123s.structures import Batch, Cameras, ReferenceView


@DATA.register("random-camera-datamodule")
class RandomCameraData(BaseData):
    """Novel views for the guidance, as a function of the global step."""

    @dataclass
    class Config(BaseData.Config, RandomCameraConfig):
        """Settings of `random-camera-datamodule`."""

    cfg: Config

    def __init__(self, cfg: Config, seed: int = 0) -> None:
        super().__init__(cfg, seed)
        names = [f.name for f in fields(RandomCameraConfig)]
        self.sampler = RandomCameraSampler(RandomCameraConfig(**{name: getattr(cfg, name) for name in names}))

    def batch_at(self, step: int, micro_step: int = 0, rank: int = 0) -> Batch:
        """Return the random cameras of a step."""
        return Batch(None, self.sampler.sample(step, generator_for(self.seed, step, "cameras", rank, micro_step)))

    def novel_sizes(self) -> list[tuple[int, int]]:
        """Return the sizes of the random views."""
        return self.sampler.sizes()

    def reference(self) -> ReferenceView:
        """Raise ConfigError: there is no image."""
        raise ConfigError("random-camera-datamodule has no image; use system_type: dreamfusion-system with it.")

    def eval_cameras(self, split: str) -> Cameras:
        """Return the validation or test orbit."""
        return self.sampler.eval_cameras(split)
