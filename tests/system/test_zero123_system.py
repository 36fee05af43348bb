"""The training system: what a step does, and that every loss term has a way from its weight to the parameters."""

import csv
import zipfile

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader, Dataset

from zero123s.callbacks.health_checks import measure
from zero123s.config.parse import parse
from zero123s.errors import ConfigError
from zero123s.geometry import GEOMETRIES
from zero123s.geometry.implicit_volume import ImplicitVolume
from zero123s.geometry.scalar_field import NORMAL_TYPES
from zero123s.guidance.base import BaseGuidance
from zero123s.losses import TERMS
from zero123s.structures import GuidanceOutput
from zero123s.system.zero123 import VOLUMETRIC_TERMS, Zero123System

ENCODING = {"n_levels": 4, "log2_hashmap_size": 10, "base_resolution": 4}
NETWORK = {"n_neurons": 16, "n_hidden_layers": 1}
SDF = {"geometry_type": "implicit-sdf", "renderer_type": "neus-volume-renderer"}


class FakeGuidance(BaseGuidance):
    """Wants every view to be green, and remembers what it was shown."""

    def __init__(self, reference=None):
        self.steps = []

    def __call__(self, comp_rgb, cameras, step, generator):
        self.steps.append(step)
        loss = (comp_rgb - comp_rgb.new_tensor([0.0, 1.0, 0.0])).square().mean()
        return GuidanceOutput(loss, loss.detach(), torch.zeros(len(cameras), dtype=torch.long))

    def evaluate(self, comp_rgb, cameras, step, generator):
        return {"rendered": comp_rgb, "inverted": 1 - comp_rgb}


class Steps(Dataset):
    def __init__(self, system):
        self.system = system

    def __len__(self):
        return 2**31

    def __getitem__(self, index):
        return self.system.data_source.batch_at(self.system.global_step)


def build(data, loss, geometry=(), guided=True, **overrides) -> Zero123System:
    section = {
        "geometry": {
            "radius": 0.8,
            "normal_type": "finite_difference",
            "pos_encoding_config": ENCODING,
            "mlp_network_config": NETWORK,
            **dict(geometry),
        },
        "renderer": {"num_samples_per_ray": 48, "grid_resolution": 16},
        "loss": {f"lambda_{name}": weight for name, weight in loss.items()},
        "optimizer": {"name": "Adam", "args": {"lr": 0.02, "betas": [0.9, 0.99]}},
        **overrides,
    }
    system = Zero123System(parse(Zero123System.Config, section, "system"), data)
    if guided:
        system._guidance.append(FakeGuidance())
    return system


def train(system, steps, callbacks=(), logger=False, **overrides) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **overrides,
    )
    trainer.fit(system, DataLoader(Steps(system), batch_size=None))
    return trainer


class Recorder(pl.Callback):
    """Keeps the logged values of every step."""

    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.rows.append({k: float(v) for k, v in trainer.callback_metrics.items()})


@pytest.mark.parametrize("accumulated", [1, 2])
def test_numbers_are_written_every_few_steps(accumulated, disc_data, tmp_path):
    recorder, logger = Recorder(), CSVLogger(tmp_path)
    train(
        build(disc_data, {"rgb": 1.0}), 6, [recorder], logger, log_every_n_steps=3, accumulate_grad_batches=accumulated
    )
    with open(next(tmp_path.rglob("metrics.csv")), encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 5]
    losses = [float(row["loss/total"]) for row in rows]
    every = [row["loss/total"] for row in recorder.rows[accumulated - 1 :: accumulated]]
    assert losses == pytest.approx([every[2], every[5]], rel=1e-6)
    assert len(set(every)) == 6


# ---------------------------------------------------------------- losses


def one_pass(system, name):
    """The value of one term on its first pass, after the occupancy grid was made."""
    batch, view = system.data_source.batch_at(0), sorted(TERMS[name].views)[-1]
    system.renderer.update(system.field(), 0, system.generator("occupancy"))
    if view == "reference":
        return system.reference_losses(batch.reference, 0)
    return system.novel_losses(batch.novel, 0)


@pytest.mark.parametrize("name", TERMS)
def test_every_loss_term_reaches_the_parameters(disc_data, name):
    is_mesh, is_sdf = "mesh" in TERMS[name].needs, TERMS[name].needs & {"sdf", "mesh"}
    overrides = SDF if is_sdf else {}
    if is_mesh:
        overrides = {**overrides, "renderer_type": "mesh-rasterizer", "renderer": {"grid_resolution": 16}}
    system = build(disc_data, {"sds": 0.0, name: 2.0}, **overrides)
    with torch.no_grad():
        system.geometry.encoding.table.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
        if is_sdf:  # the last layer starts at zero
            system.geometry.sdf_network.layers[-1].weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    term = one_pass(system, name)[name]
    assert term.weight == 2.0
    assert torch.isfinite(term.value)
    assert term.value > 0 or name == "convex"
    term.value.backward()
    gradient = system.geometry.encoding.table.grad
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


def test_terms_without_weight_ask_for_nothing(disc_data):
    system = build(disc_data, {"rgb": 1.0, "sds": 1.0})
    requested = []
    render = system.render
    system.render = lambda cameras, needs=frozenset(), *rest: requested.append(needs) or render(cameras, needs, *rest)
    terms = system.reference_losses(disc_data.batch_at(0).reference, 0)
    terms |= system.novel_losses(disc_data.batch_at(0).novel, 0)
    assert requested == [frozenset(), frozenset()]
    assert set(terms) == {"rgb", "sds"}


def test_zero_weight_builds_no_guidance(disc_data):
    system = build(disc_data, {"rgb": 1.0, "sds": 0.0}, guided=False)
    system.build_guidance()
    assert system.guidance is None


@pytest.mark.parametrize(
    ("name", "normal_type"),
    [("depth", "finite_difference"), ("depth_rel", "finite_difference"), *(("normal", t) for t in NORMAL_TYPES)],
)
def test_depth_and_normal_images_shape_the_scene(disc_data, name, normal_type):
    recorder = Recorder()
    system = build(disc_data, {name: 1.0, "mask": 1.0}, geometry={"normal_type": normal_type})
    train(system, 12, [recorder])
    first, last = (recorder.rows[i][f"loss/reference/{name}"] for i in (0, -1))
    assert last < 0.96 * first


def test_a_loss_without_its_image_is_reported(disc_data):
    disc_data.cfg.requires_depth = disc_data.cfg.requires_normal = False
    disc_data.prepare()
    for name, kind in (("depth", "depth"), ("depth_rel", "depth"), ("normal", "normal")):
        with pytest.raises(ConfigError, match=rf"lambda_{name} needs a {kind} image.*data\.requires_{kind}=true"):
            build(disc_data, {name: [0, 0.0, 0.1, 100]})


def test_refinement_leaves_the_terms_against_fog_out(disc_data):
    everything = dict.fromkeys(("rgb", "sds", "opaque", "orient", "sparsity"), 1.0)
    system = build(disc_data, everything, refinement=True)
    batch = disc_data.batch_at(0)
    assert set(system.reference_losses(batch.reference, 0)) == {"rgb"}
    assert set(system.novel_losses(batch.novel, 0)) == {"sds"}
    assert system.loss_weights.needs("novel", 0) == frozenset()
    system = build(disc_data, everything)
    assert set(system.novel_losses(batch.novel, 0)) == {"sds", *VOLUMETRIC_TERMS}


# ---------------------------------------------------------------- passes


def test_accumulate_does_both_passes_and_their_weighted_sum(disc_data):
    recorder = Recorder()
    system = build(disc_data, {"rgb": 3.0, "sds": 0.5})
    train(system, 2, [recorder])
    assert system.guidance.steps == [0, 1]
    row = recorder.rows[0]
    assert row["loss_weighted/reference/rgb"] == pytest.approx(3 * row["loss/reference/rgb"])
    expected = row["loss_weighted/reference/rgb"] + row["loss_weighted/novel/sds"]
    assert row["loss/total"] == pytest.approx(expected)


def test_alternate_and_reference_only_steps(disc_data):
    freq = {"ref_or_zero123": "alternate", "n_ref": 3, "ref_only_steps": 2}
    system = build(disc_data, {"rgb": 1.0, "sds": 1.0}, freq=freq)
    train(system, 8)
    assert system.guidance.steps == [2, 4, 5, 7]


def test_a_pass_that_pauses_renders_no_normals(disc_data):
    system = build(disc_data, {"rgb": 1.0, "sds": 1.0, "orient": 0.1}, freq={"normals_every": 2})
    rendered = []
    render = system.render
    system.render = lambda cameras, needs, *args: rendered.append("normal" in needs) or render(cameras, needs, *args)
    train(system, 4)
    assert rendered == [False, True, True, False] * 2  # novel before reference in every step


def test_the_guidance_turns_the_scene_green(disc_data):
    recorder = Recorder()
    system = build(disc_data, {"sds": 1.0})
    train(system, 12, [recorder])
    assert recorder.rows[-1]["loss/novel/sds"] < 0.9 * recorder.rows[0]["loss/novel/sds"]


def test_ambient_ratio_lies_between_minimum_and_one(disc_data):
    system = build(disc_data, {"sds": 1.0}, ambient_ratio_min=0.4)
    ratios = []
    draw = type(system.material).draw_shading
    system.material.draw_shading = lambda step, ratio, g: ratios.append(ratio) or draw(system.material, step, ratio, g)
    for step in range(40):
        system.generator = lambda purpose, s=step: torch.Generator().manual_seed(s)
        system.novel_losses(disc_data.batch_at(0).novel, step)
    assert 0.4 <= min(ratios) < 0.55
    assert 0.85 < max(ratios) <= 1


def test_without_ambient_ratio_the_material_chooses_lights(disc_data):
    material = {"ambient_only_steps": 0, "diffuse_prob": 1.0, "textureless_prob": 0.0}
    system = build(disc_data, {"sds": 1.0}, ambient_ratio_min=None, material=material)
    drawn = []
    render = system.render
    system.render = lambda cameras, needs, shading, *rest: (
        drawn.append(shading) or render(cameras, needs, shading, *rest)
    )
    system.novel_losses(disc_data.batch_at(0).novel, 0)
    assert (drawn[0].mode, drawn[0].ambient_ratio) == ("diffuse", None)


def test_light_begins_at_its_step(disc_data):
    system = build(
        disc_data, {"sds": 1.0}, material={"ambient_only_steps": 5, "diffuse_prob": 1.0, "textureless_prob": 1.0}
    )
    torch.nn.init.normal_(system.geometry.encoding.table, generator=torch.Generator().manual_seed(0))
    system.renderer.update(system.field(), 0, system.generator("occupancy"))
    cameras = disc_data.batch_at(0).novel
    images = []
    system._guidance[0] = lambda rgb, *rest: images.append(rgb.detach()) or FakeGuidance()(rgb, *rest)
    for step in (0, 5):
        system.novel_losses(cameras, step)
    assert images[0].std(dim=-1).max() > 0.01, "albedo has colour"
    assert images[1].std(dim=-1).max() < 1e-5, "textureless shading is gray"


# ---------------------------------------------------------------- optimiser


def test_parameter_groups_have_their_own_rates(disc_data):
    optimizer = {
        "name": "AdamW",
        "args": {"lr": 0.01, "betas": [0.9, 0.99]},
        "params": {"geometry.encoding": {"lr": 0.05}, "geometry.density_network": {}, "background": {}},
    }
    system = build(disc_data, {"rgb": 1.0}, optimizer=optimizer)
    before = {k: v.clone() for k, v in system.state_dict().items()}
    trainer = train(system, 1)
    rates = {g["name"]: g["lr"] for g in trainer.optimizers[0].param_groups}
    assert rates == {"geometry.encoding": 0.05, "geometry.density_network": 0.01, "background": 0.01}
    after = system.state_dict()
    assert not torch.equal(after["geometry.encoding.table"], before["geometry.encoding.table"])
    left_out = [k for k in after if k.startswith("geometry.feature_network")]
    assert left_out
    assert all(torch.equal(after[k], before[k]) for k in left_out)


def test_a_sequence_of_schedulers_moves_the_rate(disc_data):
    scheduler = {
        "name": "SequentialLR",
        "milestones": [2],
        "schedulers": [
            {"name": "ConstantLR", "args": {"factor": 0.5, "total_iters": 100}},
            {"name": "ExponentialLR", "args": {"gamma": 0.1}},
        ],
    }
    rates = []

    class RecordRates(pl.Callback):
        def on_train_batch_start(self, trainer, *args):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    train(build(disc_data, {"rgb": 1.0}, scheduler=scheduler), 4, [RecordRates()])
    assert rates == pytest.approx([0.01, 0.01, 0.02, 0.002])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"scheduler": {"name": "CosineLR"}}, r"scheduler\.name: 'CosineLR'.*Did you mean"),
        ({"scheduler": {"name": "StepLR", "args": {"step": 3}}}, "Did you mean 'step_size'"),
        ({"scheduler": {"name": "StepLR", "interval": "epoch"}}, "use step"),
        ({"scheduler": {"name": "ChainedScheduler", "schedulers": [{"nam": "StepLR"}]}}, "expected `name`"),
        ({"optimizer": {"name": "Adamm"}}, r"optimizer\.name: 'Adamm'.*Did you mean"),
        ({"freq": {"ref_or_zero123": "both"}}, "accumulate or alternate"),
        ({"freq": {"n_ref": 0}}, "n_ref"),
        ({"freq": {"normals_every": 2, "ref_or_zero123": "alternate"}}, "steps that have both passes"),
        ({"ambient_ratio_min": 1.5}, "ambient_ratio_min"),
        ({"renderer_type": "neus-volume-renderer"}, r"neus-volume-renderer cannot render.*implicit-sdf"),
    ],
)
def test_wrong_settings_are_reported(disc_data, overrides, message):
    with pytest.raises(ConfigError, match=message):
        build(disc_data, {}, **overrides)


def test_the_eikonal_term_needs_a_distance(disc_data):
    with pytest.raises(ConfigError, match=r"lambda_eikonal is set.*implicit-sdf"):
        build(disc_data, {"eikonal": [0, 0.0, 0.1, 10]})


def test_gradient_clipping_bounds_the_step(disc_data):
    optimizer = {"name": "SGD", "args": {"lr": 1.0}}
    moved = []
    for clip in (None, 1e-3):
        system = build(disc_data, {"rgb": 100.0}, optimizer=optimizer)
        before = [p.detach().clone() for p in system.parameters()]
        train(system, 1, gradient_clip_val=clip)
        changes = [(p - b).square().sum() for p, b in zip(system.parameters(), before, strict=True)]
        moved.append(sum(changes).sqrt().item())
    assert moved[1] == pytest.approx(1e-3, rel=1e-2)
    assert moved[0] > 10 * moved[1]


def test_bf16_steps_stay_close_to_fp32(disc_data):
    values = {}
    for precision in ("32-true", "bf16-mixed"):
        recorder = Recorder()
        loss = {"rgb": 1.0, "mask": 1.0, "sds": 1.0, "normal_smooth": 1.0, "3d_normal_smooth": 1.0, "orient": 1.0}
        system = build(disc_data, loss, geometry={"normal_type": "analytic"})
        train(system, 2, [recorder], precision=precision)
        values[precision] = recorder.rows
        assert all(p.dtype == torch.float32 for p in system.parameters())
        assert all(torch.isfinite(p).all() for p in system.parameters())
    for full, half in zip(*values.values(), strict=True):
        assert half["loss/reference/rgb"] == pytest.approx(full["loss/reference/rgb"], rel=0.05)
        assert half["loss/novel/sds"] == pytest.approx(full["loss/novel/sds"], rel=0.05)
    assert values["bf16-mixed"] != values["32-true"]


# ---------------------------------------------------------------- images of the guidance


def test_guidance_images_are_written_at_intervals(disc_data, tmp_path):
    from PIL import Image

    from zero123s.callbacks.guidance_views import GuidanceViews

    system = build(disc_data, {"sds": 1.0}, freq={"guidance_eval": 2})
    train(system, 4, [GuidanceViews(tmp_path)])
    names = sorted(p.name for p in (tmp_path / "save").iterdir())
    assert names == [f"it{step}-guidance-{name}.png" for step in (0, 2) for name in ("inverted", "rendered")]
    assert Image.open(tmp_path / "save" / names[0]).size == (24, 12)


def test_a_step_leaves_diagnostics_for_callbacks(disc_data):
    system = build(disc_data, {"rgb": 1.0, "sds": 1.0}, freq={"guidance_eval": 2})
    train(system, 2)
    diagnostics = system.diagnostics
    assert diagnostics.step == 1
    assert set(diagnostics.losses) == {"novel/sds", "reference/rgb"}
    assert diagnostics.guidance_images == {}, "those of step 0 are gone"
    names = {"occupied", "components", "opacity", "silhouette_iou", "guidance_gradient", "elevation_deg"}
    assert set(measure(diagnostics)) == names


def test_a_halved_term_counts_half(disc_data):
    system = build(disc_data, {"sds": 1.0})
    assert system.halve_loss("novel/sds")
    assert system.loss_weights.weight("sds", 0) == 0.5


def test_evaluating_the_guidance_changes_no_random_number(disc_data):
    states = []
    for every in (0, 1):
        system = build(disc_data, {"sds": 1.0}, freq={"guidance_eval": every})
        train(system, 3)
        states.append(system.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


# ---------------------------------------------------------------- export


def test_an_untrained_distance_field_exports_its_sphere(disc_data, tmp_path):
    import trimesh

    exporter = {"isosurface_resolution": 40, "texture_size": 64, "formats": ["ply"], "project_photo": False}
    exporter["cut_to_silhouette"] = False  # the image shows another object
    system = build(disc_data, {}, geometry={"sdf_bias_params": 0.45}, exporter=exporter, **SDF)
    mesh = trimesh.load(system.export(tmp_path)["ply"], force="mesh")
    assert mesh.is_watertight
    radii = (mesh.vertices**2).sum(axis=1) ** 0.5
    assert radii.min() > 0.44
    assert radii.max() < 0.46


def test_3mf_carries_the_licence_of_the_guiding_model(disc_data, tmp_path):
    exporter = {"isosurface_resolution": 24, "texture_size": 64, "formats": ["3mf"], "project_photo": False}
    exporter |= {"cut_to_silhouette": False, "poster": False}
    system = build(disc_data, {}, exporter=exporter, **SDF)
    system.guidance.describe = lambda: {"path": "model.ckpt", "license": "CC BY-NC <4.0>", "sha256": None, "other": 1}
    with zipfile.ZipFile(system.export(tmp_path)["3mf"]) as archive:
        model = archive.read("3D/3dmodel.model").decode()
    assert '<metadata name="LicenseTerms">CC BY-NC &lt;4.0&gt;</metadata>' in model


# ---------------------------------------------------------------- terms of the geometry itself


@GEOMETRIES.register("regularized-volume")
class RegularizedVolume(ImplicitVolume):
    """Has a term of its own: the mean square of its table."""

    regularization_terms = ("table_decay",)

    def regularization(self, generator=None):
        return {"table_decay": self.encoding.table.square().mean()}


def test_a_geometrys_own_term_counts_with_its_weight(disc_data):
    recorder = Recorder()
    system = build(disc_data, {"rgb": 1.0, "table_decay": [1, 0.0, 1e6, 2]}, geometry_type="regularized-volume")
    train(system, 3, [recorder])
    assert "loss/geometry/table_decay" not in recorder.rows[0]
    last = recorder.rows[2]
    assert last["loss_weighted/geometry/table_decay"] == pytest.approx(1e6 * last["loss/geometry/table_decay"])
    expected = last["loss_weighted/geometry/table_decay"] + last["loss/reference/rgb"]
    assert last["loss/total"] == pytest.approx(expected)


def test_a_term_of_another_geometry_is_unknown(disc_data):
    with pytest.raises(ConfigError, match="lambda_table_decay"):
        build(disc_data, {"table_decay": 1.0})
