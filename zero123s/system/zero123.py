"""The Zero123 system: supervised reference views, random views under guidance, one optimiser step."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import WandbLogger

from zero123s.background import BACKGROUNDS
from zero123s.data.base import BaseData
from zero123s.errors import ConfigError, MissingDependencyError
from zero123s.exporter import EXPORTERS
from zero123s.geometry import GEOMETRIES
from zero123s.guidance import GUIDANCES, BaseGuidance
from zero123s.images.io import write_png_atomic
from zero123s.losses import LossTerm, LossWeights, View
from zero123s.material import MATERIALS
from zero123s.material.base import Shading
from zero123s.mesh.splats import write_gaussians
from zero123s.ops.cameras import generate_rays
from zero123s.ops.latent_colors import latents_to_rgb
from zero123s.randomness import generator_for
from zero123s.renderer import RENDERERS
from zero123s.structures import Batch, Cameras, GuidanceOutput, Provenance, ReferenceView, RenderOutput
from zero123s.system.base import SYSTEMS, BaseSystem
from zero123s.system.exposure import expose_render, expose_views, guidance_exposure
from zero123s.system.field import GeometryMaterialField, LatentColors
from zero123s.system.optimizers import (
    build_optimizer,
    build_scheduler,
    check_optimizer,
    check_scheduler,
    may_fuse,
)
from zero123s.system.refinement import convert_first_stage
from zero123s.system.slots import FieldSystemConfig, check_novel_sizes, check_slots, novel_size_notes
from zero123s.system.visualize import render_orbit, save_strip, save_video, score_reference
from zero123s.system.warm_start import warm_start
from zero123s.system.warm_views import WarmViews, restore_warm_views

logger = logging.getLogger(__name__)

VOLUMETRIC_TERMS = frozenset({"orient", "sparsity", "opaque"})


@SYSTEMS.register("zero123-system")
class Zero123System(BaseSystem):
    """Optimises a radiance field under reference losses and score distillation."""

    @dataclass
    class Config(FieldSystemConfig):
        """Settings of `zero123-system`."""

    cfg: Config

    @classmethod
    def check(cls, cfg: Any) -> None:
        """Type all slot sections; raises ConfigError."""
        check_slots(cfg)
        check_optimizer(cfg.optimizer)
        check_scheduler(cfg.scheduler)

    @classmethod
    def requirements(cls, cfg: Config, mode: str) -> dict[str, Any]:
        """Check the guiding model and the extra loggers for training; see `BaseSystem`."""
        found: dict[str, Any] = {"slots": cfg.slot_names()}
        if mode == "train":
            if cfg.loggers.wandb.enable and find_spec("wandb") is None:
                raise MissingDependencyError(
                    "system.loggers.wandb.enable is true but the package wandb is not installed; run `pip install wandb` or "
                    "leave it out: TensorBoard and CSV logs are always written."
                )
            if LossWeights(cfg.loss).is_ever_used("sds"):
                found["model"] = GUIDANCES.get(cfg.guidance_type).requirements(cfg.guidance)
        return found

    def __init__(self, cfg: Config, data: BaseData, seed: int = 0) -> None:
        super().__init__(cfg, data, seed)
        if isinstance(cfg.geometry, Mapping):
            type(self).check(cfg)
        # Parameters start from the seed alone, whatever was drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.geometry = GEOMETRIES.get(cfg.geometry_type)(cfg.geometry)  # pyright: ignore[reportArgumentType]
            self.material = MATERIALS.get(cfg.material_type)(cfg.material, self.geometry.n_features)
            self.background = BACKGROUNDS.get(cfg.background_type)(cfg.background)
            self.renderer = RENDERERS.get(cfg.renderer_type)(cfg.renderer, self.geometry.cfg.radius)
        self.exporter = EXPORTERS.get(cfg.exporter_type)(cfg.exporter)
        self.loss_weights = LossWeights(
            cfg.loss,
            skipped=VOLUMETRIC_TERMS if cfg.refinement else frozenset(),
            regularized=cfg.regularized_views,
            normals_every=cfg.freq.normals_every,
        )
        for name, required_map in self.loss_weights.required_maps().items():
            if required_map not in data.available_maps():
                raise ConfigError(
                    f"system.loss.lambda_{name} needs a {required_map} image, and the data has none; set "
                    f"data.requires_{required_map}=true and put X_{required_map}.png next to X_rgba.png, or name it by data.{required_map}_path."
                )
        if self.loss_weights.is_ever_used("sds"):
            self.memory_keys = ("data.random_camera.batch_size", "data.random_camera.height")
            check_novel_sizes(data, GUIDANCES.get(cfg.guidance_type).resizes_to_square)
        # Outside nn.Module's reach: frozen networks belong neither to the checkpoint nor to the optimiser.
        self._guidance: list[BaseGuidance] = []
        self.exposure = 1.0
        self.warm_views: WarmViews | None = None
        """Sampled views that supervise the first steps, with `warm_start.type: views`."""

    # ------------------------------------------------------------ parts

    @property
    def guidance(self) -> BaseGuidance | None:
        """The guidance, once training has begun and if it has a weight."""
        return self._guidance[0] if self._guidance else None

    @property
    def weights_from(self) -> str | None:
        """The checkpoint named by weights."""
        return self.cfg.weights

    @property
    def weights_ignored(self) -> list[str]:
        """Names of the modules that `system.weights` leaves out."""
        return self.cfg.weights_ignore_modules

    @property
    def first_stage(self) -> str | None:
        """The checkpoint named by geometry_convert_from."""
        return self.cfg.geometry_convert_from

    @property
    def first_stage_override(self) -> Mapping[str, Any]:
        """Settings of the first stage that geometry_convert_override replaces."""
        return self.cfg.geometry_convert_override

    def start(self) -> dict[str, Any]:
        """Initialise the geometry from the reference images and by `warm_start`; see `BaseSystem`."""
        if self.input_view() is not None:
            self.geometry.start_from_views(self.data_source.photos(), generator_for(self.seed, 0, "start"))
        return warm_start(self)

    def start_from(self, first: BaseSystem) -> dict[str, Any]:
        """Initialise surface and colours from a first stage; see `BaseSystem`."""
        if not isinstance(first, Zero123System):
            raise ConfigError(f"system.geometry_convert_from: {self.first_stage} is not a run of a radiance field.")
        return convert_first_stage(self, first)

    def load_networks(self, device: torch.device) -> None:
        """Load the guidance; see `BaseSystem`."""
        self.build_guidance(device)

    def build_guidance(self, device: torch.device | None = None) -> None:
        """Load the guidance's networks onto a device (default: this module's) if it ever has a weight."""
        if self._guidance or not self.loss_weights.is_ever_used("sds"):
            return
        guidance_class = GUIDANCES.get(self.cfg.guidance_type)
        views = None if self.input_view() is None else self.data_source.conditioning_views()
        self.exposure = guidance_exposure(self.cfg.guidance_exposure, views, self.cfg.guidance_input)
        views = views and expose_views(views, self.exposure)
        self._guidance.append(guidance_class(self.cfg.guidance, views, device or self.device))
        for note in novel_size_notes(self.data_source, self._guidance[0].image_size):
            logger.warning("note: %s", note)

    def input_view(self) -> ReferenceView | None:
        """The supervised images; None for text-to-3D."""
        return self.data_source.reference()

    def field(self, shading: Shading | None = None, generator: torch.Generator | None = None) -> GeometryMaterialField:
        """Return the scene as a radiance field, for renderer and exporter."""
        return GeometryMaterialField(self.geometry, self.material, shading, generator, self.n_parts)

    def render(
        self,
        cameras: Cameras,
        needs: frozenset[str] = frozenset(),
        shading: Shading | None = None,
        generator: torch.Generator | None = None,
    ) -> RenderOutput:
        """Render whole images of the current scene."""
        rays = generate_rays(cameras.to(self.device, self.dtype))  # pyright: ignore[reportArgumentType]
        out = self.renderer(rays, self.field(shading, generator), self.background, needs, generator)
        if self.training or self.cfg.guidance_input != "latents":
            return out
        return replace(out, comp_rgb=latents_to_rgb(out.comp_rgb))

    # ------------------------------------------------------------ training

    def configure_optimizers(self) -> Any:
        """Build optimiser and scheduler from the config."""
        optimizer = build_optimizer(self.cfg.optimizer, self, fused=may_fuse(self.trainer))
        if not self.cfg.scheduler.name:
            return optimizer
        scheduler = build_scheduler(self.cfg.scheduler, optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": self.cfg.scheduler.interval},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the guidance's trained state."""
        super().on_save_checkpoint(checkpoint)
        if self.guidance and (learned := self.guidance.state()):
            checkpoint["guidance"] = learned
        if self.warm_views is not None:
            checkpoint["warm_views"] = self.warm_views.images.cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the guidance's trained state."""
        super().on_load_checkpoint(checkpoint)
        if self.guidance and "guidance" in checkpoint:
            self.guidance.load_state(checkpoint["guidance"])
        if "warm_views" in checkpoint and self.cfg.warm_start.type == "views":
            reference = self.data_source.conditioning_views()
            self.warm_views = restore_warm_views(
                self.cfg.warm_start, checkpoint["warm_views"], reference, self.exposure
            )

    def setup(self, stage: str) -> None:
        """Load the guidance when training begins."""
        if stage == "fit":
            # Lightning moves this module to its device only after setup().
            self.build_guidance(self.trainer.strategy.root_device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Update schedules and the occupancy grid for this step."""
        super().on_train_batch_start(batch, batch_idx)
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        self.geometry.before_step(optimizer, self.global_step, self.generator("before-step"))
        self.renderer.update(self.field(), self.global_step, self.generator("occupancy"))

    def passes(self, batch: Batch, step: int) -> tuple[bool, bool]:
        """Return whether step `step` does the reference pass and the novel pass."""
        novel = batch.novel is not None and self.loss_weights.weight("sds", step) != 0 and bool(self._guidance)
        freq = self.cfg.freq
        if step < freq.ref_only_steps or not novel:
            return True, False
        if freq.ref_or_zero123 == "accumulate":
            return bool(self.loss_weights.active("reference", step)), True
        return (True, False) if step % freq.n_ref == 0 else (False, True)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the weighted sum of all losses of both passes."""
        step = self.global_step
        reference_pass, novel_pass = self.passes(batch, step)
        total = torch.zeros((), device=self.device)
        if novel_pass:
            assert batch.novel is not None
            total = total + self._weigh(self.novel_losses(batch.novel, step), "novel")
        if reference_pass:
            assert batch.reference is not None
            total = total + self._weigh(self.reference_losses(batch.reference, step), "reference")
        total = total + self._weigh(self.geometry_losses(step), "geometry")
        if self.warm_views is not None:
            warm = self.warm_views.loss(self.render, step, self.generator("warm-view"))
            total = total + self._weigh(warm, "warm")
        self.diagnostics.numbers["loss/total"] = total.detach()
        self.log_numbers(self.diagnostics.numbers)
        self.diagnostics = replace(
            self.diagnostics, occupancy=self.renderer.occupied(), elevation_deg=self._elevation_deg
        )
        return total

    def reference_losses(self, reference: ReferenceView, step: int) -> dict[str, LossTerm]:
        """Render the reference views, unlit, and compare."""
        generator = self.generator("render-reference")
        needs = self.loss_weights.needs("reference", step)
        out = self.render(reference.cameras, needs, Shading("albedo", 1.0), generator)
        self.diagnostics.numbers["samples/reference"] = torch.tensor(float(out.n_samples))
        self.diagnostics = replace(self.diagnostics, opacity=out.opacity.detach(), mask=reference.mask)
        return self.loss_weights.compute("reference", step, View(out, reference))

    def novel_losses(self, cameras: Cameras, step: int) -> dict[str, LossTerm]:
        """Render random views and compute the guidance's loss."""
        assert self.guidance is not None
        generator = self.generator("render-novel")
        shading = self._draw_shading(step, generator)
        needs = self.loss_weights.needs("novel", step)
        if self.cfg.guidance_input == "normal":
            needs |= {"normal"}
        out = self.render(cameras, needs, shading, generator)
        self.diagnostics.numbers["samples/novel"] = torch.tensor(float(out.n_samples))
        # In double precision the field is trained, not the guidance networks.
        image, cameras = self._guidance_image(out).float(), cameras.to(self.device, torch.float32)
        self.guidance.n_parts = self.n_parts
        guided = self.guidance(image, cameras, step, self.generator("guidance"))
        self._diagnose_guidance(guided, image, cameras, step)
        distilled = {"sds": LossTerm(guided.loss, self.loss_weights.weight("sds", step))}
        if guided.image_loss is not None:
            distilled["sds_img"] = LossTerm(guided.image_loss, self.loss_weights.weight("sds_img", step))
        return {**distilled, **self.loss_weights.compute("novel", step, View(out))}

    def _draw_shading(self, step: int, generator: torch.Generator) -> Shading:
        """Draw the light of the random views, at least `ambient_ratio_min` of it ambient."""
        draw = float(torch.rand((), generator=generator))
        least = self.cfg.ambient_ratio_min
        return self.material.draw_shading(step, None if least is None else least + (1 - least) * draw, generator)

    def _guidance_image(self, out: RenderOutput) -> torch.Tensor:
        """Return the channels of a rendering that `guidance_input` names, B H W K."""
        if self.cfg.guidance_input == "normal":
            assert out.comp_normal is not None
            return out.comp_normal
        return expose_render(out, self.exposure)[..., :3] if self.cfg.guidance_input == "rgb" else out.comp_rgb

    def _diagnose_guidance(self, guided: GuidanceOutput, image: torch.Tensor, cameras: Cameras, step: int) -> None:
        """Keep the size of the guidance's gradient and, in steps of `freq.guidance_eval`, images of what it works on."""
        assert self.guidance is not None
        grad_norm = guided.grad_norm.detach()
        self.diagnostics.numbers["guidance/grad_norm"] = grad_norm
        self.diagnostics = replace(self.diagnostics, guidance_grad_norm=grad_norm)
        every = self.cfg.freq.guidance_eval
        if every and step % every == 0:
            images = self.guidance.evaluate(image.detach(), cameras, step, self.generator("guidance-eval"))
            self.diagnostics = replace(self.diagnostics, guidance_images=images)

    def geometry_losses(self, step: int) -> dict[str, LossTerm]:
        """Return the terms of the geometry itself, if one has a weight."""
        weights = {name: self.loss_weights.weight(name, step) for name in self.geometry.regularization_terms}
        if not any(weights.values()):
            return {}
        values = self.geometry.regularization(self.generator("regularization"))
        return {name: LossTerm(values[name], weight) for name, weight in weights.items() if weight}

    def _weigh(self, terms: dict[str, LossTerm], where: str) -> torch.Tensor:
        """Return the weighted sum of the terms of one pass, each noted down for logs and callbacks."""
        total = torch.zeros((), device=self.device)
        for name, term in terms.items():
            weighted = term.weight * term.value
            total = total + weighted
            self.diagnostics.losses[f"{where}/{name}"] = term.value.detach()
            self.diagnostics.numbers[f"loss/{where}/{name}"] = term.value.detach()
            self.diagnostics.numbers[f"loss_weighted/{where}/{name}"] = weighted.detach()
        return total

    @property
    def _elevation_deg(self) -> float | None:
        """Elevation of the one input image that a guidance is conditioned on."""
        reference = self.input_view()
        if reference is None or len(reference.cameras) != 1 or not self._guidance:
            return None
        return float(reference.cameras.elevation_deg[0])

    def halve_loss(self, name: str, times: int = 1) -> bool:
        """Halve the weight of a term on both passes; see `BaseSystem`."""
        term = name.rsplit("/", 1)[-1]
        self.loss_weights.halvings[term] = self.loss_weights.halvings.get(term, 0) + times
        return True

    # ------------------------------------------------------------ results

    def preview(self, out_dir: Path, step: int) -> dict[str, float]:
        """Score the supervised views and write a strip of the validation orbit."""
        reference = self.input_view()
        scores = {} if reference is None else score_reference(self, reference)
        sheet = out_dir / "save" / "warm-views.png"
        if self.warm_views is not None and not sheet.exists():
            write_png_atomic(sheet, self.warm_views.sheet())
        save_strip(
            out_dir / "save" / f"it{step}-val.png", render_orbit(self, self.data_source.eval_cameras("validate"))
        )
        return scores

    def test(self, out_dir: Path, step: int) -> dict[str, Path]:
        """Write the turntable video."""
        path = out_dir / "save" / f"it{step}-test.mp4"
        return {"turntable": save_video(path, render_orbit(self, self.data_source.eval_cameras("test")))}

    def export(self, out_dir: Path, progress: Any = None) -> dict[str, Path]:
        """Write the mesh; raises MeshError when there is no surface."""
        photos = None if self.input_view() is None else self.data_source.photos()
        result = self.exporter(
            LatentColors(self.field()) if self.cfg.guidance_input == "latents" else self.field(),
            out_dir,
            threshold=self.geometry.cfg.isosurface_threshold,
            reference=photos,
            extras=Provenance.of_model(self.describe()),
            progress=progress,
        )
        self.export_stats = result.stats
        gaussians = self.field().gaussian_parameters()
        if gaussians is None:
            return result.files
        return result.files | write_gaussians(out_dir, self.exporter.cfg.save_name, gaussians)

    def describe(self) -> dict[str, Any]:
        """Return the guiding model's entry in run.json."""
        return self.guidance.describe() if self.guidance else self.model_record

    def extra_loggers(self, out_dir: Path) -> list[Any]:
        """Return the logger of Weights & Biases, if it is switched on."""
        wandb = self.cfg.loggers.wandb
        return [WandbLogger(project=wandb.project, name=out_dir.name, save_dir=out_dir)] if wandb.enable else []
