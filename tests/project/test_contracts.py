"""The contract of every registered class of every slot, plug-ins included.

A class that needs more than its default Config (a file, a model) is given it by `INPUTS`.
"""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from zero123s.background import BACKGROUNDS
from zero123s.commands.explain import key_docs
from zero123s.config.parse import parse
from zero123s.data import DATA
from zero123s.errors import ConfigError
from zero123s.exporter import EXPORTERS
from zero123s.geometry import GEOMETRIES
from zero123s.guidance import GUIDANCES
from zero123s.material import MATERIALS
from zero123s.material.base import Shading
from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.renderer import RENDERERS
from zero123s.structures import Batch, Cameras, FieldOutput, GaussianViews, Provenance, RadianceField, ReferenceView
from zero123s.system import SYSTEMS

REGISTRIES = (BACKGROUNDS, DATA, EXPORTERS, GEOMETRIES, GUIDANCES, MATERIALS, RENDERERS, SYSTEMS)


def shipped(registry):
    """The names of this package's own classes: other tests register theirs in the same process."""
    return [name for name in registry if registry.get(name).__module__.startswith("zero123s.")]


EVERY_CLASS = [(registry, name) for registry in REGISTRIES for name in shipped(registry)]
NEEDS = frozenset({"features", "normal", "normal_perturbed", "sdf"})
CPU = torch.device("cpu")
TINY_MODEL = Path(__file__).parents[1] / "helpers" / "tiny_lifted.yaml"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int = 48) -> torch.Tensor:
    return 1.2 * torch.rand(n, 3, generator=seeded()) - 0.6


def unit_vectors(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, 3, generator=seeded()), dim=-1)


@pytest.fixture(scope="session")
def inputs(disc_path, tiny_zero123, tiny_text_model, rendered_views, tiny_autoencoder) -> dict[str, dict[str, object]]:
    """What a class needs beyond its defaults, by name."""
    transforms = Path(__file__).parents[2] / "load" / "images" / "multi_view_sample" / "transforms.json"
    model = dict(word.removeprefix("system.guidance.").split("=", 1) for word in tiny_zero123)
    text = {"prompt": "a ball", "checkpoint": str(tiny_text_model)}
    return {
        "single-image-datamodule": {"image_path": str(disc_path)},
        "multi-view-datamodule": {"transforms_path": str(transforms)},
        "rendered-views-datamodule": {"root": str(rendered_views), "batch_size": 4, "held_out": 2},
        "autoencoder-system": {"model": str(TINY_MODEL)},
        "zero123-finetune-system": {"model": str(TINY_MODEL), "autoencoder": str(tiny_autoencoder)},
        "stable-zero123-guidance": model,
        "zero123-guidance": model,
        "stable-diffusion-guidance": text,
        "combined-guidance": {
            "guidances": [
                {"type": "stable-zero123-guidance", "settings": model},
                {"type": "stable-diffusion-guidance", "weight": 0.5, "settings": text},
            ]
        },
        "dreamfusion-system": {"loss": {"lambda_sds": 1.0}, "guidance": text},
        # The defaults are for real objects; the test's ball is as well shown by less.
        "mesh-exporter": {"isosurface_resolution": 24, "texture_size": 64},
    }


@pytest.fixture
def config(inputs):
    """Return the parsed default Config of a class, with what it needs."""
    return lambda registry, name: parse(registry.get(name).Config, inputs.get(name, {}), registry.slot)


def randomize(module: torch.nn.Module) -> None:
    """Move parameters off the special values they may start from, such as zero."""
    generator = seeded()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))


def every_parameter_learns(module: torch.nn.Module, loss: torch.Tensor) -> None:
    # Not autograd.grad: kernels may add to `.grad` themselves.
    module.zero_grad()
    loss.backward(retain_graph=True)
    for name, p in module.named_parameters():
        assert p.grad is not None, f"no gradient reaches {name}"
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().sum() > 0, f"the gradient of {name} is zero"


def same_after_state_dict(a: torch.nn.Module, b: torch.nn.Module) -> None:
    b.load_state_dict(a.state_dict())
    for key, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[key]), key


@pytest.mark.parametrize(("registry", "name"), EVERY_CLASS, ids=lambda v: getattr(v, "slot", v))
def test_every_config_field_is_documented_and_survives_yaml(registry, name):
    cls = registry.get(name)
    assert issubclass(cls, registry.base)
    assert cls.__doc__, "a class has a docstring"
    # Loss weights are documented by the functions in losses.py.
    undocumented = [d.key for d in key_docs(cls.Config) if not d.doc and not d.key.startswith("loss.lambda_")]
    assert not undocumented, f"fields without a docstring below them: {undocumented}"


# ---------------------------------------------------------------- geometry


@pytest.fixture(params=shipped(GEOMETRIES))
def geometry_maker(request, config):
    cfg = config(GEOMETRIES, request.param)

    def make():
        torch.manual_seed(0)
        return GEOMETRIES.get(request.param)(cfg)

    return make


def test_geometry_computes_only_what_is_requested(geometry_maker):
    geometry, x = geometry_maker(), points()
    randomize(geometry)
    bare = geometry(x, frozenset())
    assert (bare.features, bare.normal, bare.normal_perturbed, bare.sdf_grad) == (None, None, None, None)
    torch.testing.assert_close(geometry.density(x), bare.sigma)
    out = geometry(x, NEEDS, seeded())
    torch.testing.assert_close(out.sigma, bare.sigma)
    assert out.sigma.shape == (48,)
    assert out.sigma.min() >= 0
    assert out.features.shape == (48, geometry.n_features)
    for normal in (out.normal, out.normal_perturbed):
        torch.testing.assert_close(normal.norm(dim=-1), torch.ones(48))
    assert not torch.equal(out.normal, out.normal_perturbed)
    assert (out.sdf is not None) == (out.sdf_grad is not None) == geometry.has_sdf
    assert all(t.dtype == torch.float32 for t in (out.sigma, out.features, out.normal))


def test_geometry_starts_solid_inside_and_empty_outside(geometry_maker):
    geometry = geometry_maker()
    x = torch.stack([torch.zeros(3), torch.full((3,), 0.99 * geometry.cfg.radius)])
    for level in (geometry.density(x), geometry.surface_level(x)):
        assert level[0] > level[1]


def test_geometry_trains_in_every_parameter(geometry_maker):
    geometry = geometry_maker()
    randomize(geometry)
    out = geometry(points(), NEEDS, seeded())
    every_parameter_learns(geometry, out.sigma.square().mean() + out.features.square().mean() + out.normal.std())


def test_geometry_repeats_itself_and_does_not_mix_points(geometry_maker):
    a, b, x = geometry_maker(), geometry_maker(), points()
    first, second = a(x, NEEDS, seeded()), b(x, NEEDS, seeded())
    for f in fields(first):
        left, right = getattr(first, f.name), getattr(second, f.name)
        assert left is right is None or torch.equal(left, right), f.name
    part = a(x[:7], NEEDS - {"normal_perturbed"})
    torch.testing.assert_close(part.sigma, first.sigma[:7])
    torch.testing.assert_close(part.normal, first.normal[:7], atol=1e-3, rtol=0)
    randomize(b)
    same_after_state_dict(a, b)
    assert torch.equal(a.density(x), b.density(x))


def test_geometry_works_in_double_precision(geometry_maker):
    geometry = geometry_maker()
    single, double = geometry(points(), NEEDS, seeded()), geometry.double()(points().double(), NEEDS, seeded())
    assert double.sigma.dtype == double.normal.dtype == double.features.dtype == torch.float64
    torch.testing.assert_close(double.sigma.float(), single.sigma, atol=1e-4, rtol=1e-4)


def test_geometry_takes_empty_and_gradient_free_queries(geometry_maker):
    geometry = geometry_maker()
    geometry.on_step(10**6)
    out = geometry(torch.zeros(0, 3), NEEDS, seeded())
    assert (out.sigma.shape, out.features.shape, out.normal.shape) == ((0,), (0, geometry.n_features), (0, 3))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            out = geometry(points(), NEEDS, seeded())
            assert torch.isfinite(out.normal).all()
            assert not out.sigma.requires_grad
            assert not out.normal.requires_grad


# ---------------------------------------------------------------- material


@pytest.fixture(params=shipped(MATERIALS))
def material_name(request):
    return request.param


@pytest.fixture
def n_features(material_name) -> int:
    """Return how many features the material needs from a geometry: latents have four."""
    return 4 if material_name == "sd-latent-adapter-material" else 3


@pytest.fixture
def material_maker(material_name, n_features, config):
    cfg = config(MATERIALS, material_name)

    def make():
        torch.manual_seed(0)
        return MATERIALS.get(material_name)(cfg, n_features)

    return make


SHADINGS = (Shading(), Shading("diffuse", 0.3), Shading("textureless", 0.3))


@pytest.mark.parametrize("shading", SHADINGS, ids=lambda s: s.mode)
@pytest.mark.parametrize("n", [48, 0])
def test_material_gives_colours_under_any_light(material_maker, n_features, shading, n):
    material = material_maker()
    assert material.needs(shading) <= {"features", "normal"}
    features = 4 * torch.randn(n, n_features, generator=seeded())
    normal = unit_vectors(n) if "normal" in material.needs(shading) else None
    rgb = material(features, points(n), unit_vectors(n), normal, 5 * unit_vectors(n), shading)
    assert rgb.shape == (n, 3)
    assert ((rgb >= 0) & (rgb <= 1)).all()


def test_material_trains_features_and_itself(material_maker, n_features):
    material = material_maker()
    features = torch.randn(48, n_features, generator=seeded(), requires_grad=True)
    rgb = material(features, points(), unit_vectors(48), None, None, Shading())
    (gradient,) = torch.autograd.grad(rgb.sum(), features, retain_graph=True)
    assert (gradient.abs().sum(0) > 0).all()
    if list(material.parameters()):
        every_parameter_learns(material, rgb.square().sum())
    other = material_maker()
    randomize(other)
    same_after_state_dict(material, other)


def test_material_works_in_double_precision(material_maker, n_features):
    material, x = material_maker(), unit_vectors(8)
    features = torch.randn(8, n_features, generator=seeded())
    single = material(features, x, x, x, 5 * x, SHADINGS[1])
    wide = x.double()
    double = material.double()(features.double(), wide, wide, wide, 5 * wide, SHADINGS[1])
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single)


def test_material_draws_its_light_from_the_generator_alone(material_maker):
    material = material_maker()
    drawn = [[material.draw_shading(10**6, 0.7, g) for _ in range(20)] for g in (seeded(), seeded())]
    assert drawn[0] == drawn[1]
    assert {s.mode for s in drawn[0]} <= {"albedo", "textureless", "diffuse"}
    assert {s.ambient_ratio for s in drawn[0]} <= {0.7, 1.0}


# ---------------------------------------------------------------- background


@pytest.fixture(params=shipped(BACKGROUNDS))
def background_maker(request, config):
    cfg = config(BACKGROUNDS, request.param)

    def make():
        torch.manual_seed(0)
        return BACKGROUNDS.get(request.param)(cfg)

    return make


def test_background_is_a_colour_for_every_direction(background_maker):
    background, dirs = background_maker(), unit_vectors(2, 5, 7)
    out = background(dirs, seeded())
    assert out.shape == dirs.shape
    assert ((out >= 0) & (out <= 1)).all()
    assert torch.equal(out, background_maker()(dirs, seeded()))
    assert background(dirs[:0], seeded()).shape == (0, 5, 7, 3)
    if list(background.parameters()):
        every_parameter_learns(background, background(unit_vectors(8, 64, 64)).square().sum())
    other = background_maker()
    randomize(other)
    same_after_state_dict(background, other)
    assert torch.equal(background.eval()(dirs), other.eval()(dirs))


def test_background_works_in_double_precision(background_maker):
    background, dirs = background_maker(), unit_vectors(1, 4, 4)
    single = background(dirs)
    double = background.double()(dirs.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single)


# ---------------------------------------------------------------- renderer and exporter


class Ball:
    """A ball of radius 0.5 with density and distance, red where x > 0 and blue behind; `level` can be trained."""

    bound = 1.0

    def __init__(self) -> None:
        self.level = torch.tensor(0.0, requires_grad=True)

    def surface_level(self, x):
        return 0.5 + self.level - x.norm(dim=-1)

    def density(self, x):
        return 20 * torch.sigmoid(20 * self.surface_level(x))

    def query(self, x, dirs, needs, light_positions=None):
        normal = F.normalize(x, dim=-1)
        front = (x[:, :1] > 0).float()
        rgb = torch.cat([front, torch.zeros_like(front), 1 - front], dim=-1)
        sdf = -self.surface_level(x)
        return FieldOutput(self.density(x), rgb, normal, normal, sdf, normal)

    def gaussians(self, centers, needs, light_positions):
        """Flat discs, evenly spread over the ball."""
        n = 2000
        z, turn = 1 - (2 * torch.arange(n) + 1) / n, 2.399963 * torch.arange(n)
        out = torch.stack([(1 - z * z).sqrt() * turn.cos(), (1 - z * z).sqrt() * turn.sin(), z], dim=-1)
        # The shortest turn that takes +z to the outside.
        quaternions = F.normalize(torch.stack([1 + z, -out[:, 1], out[:, 0], 0 * z], dim=-1), dim=-1)
        red = (out[:, 0] > 0).float()
        rgb = torch.stack([red, 0 * red, 1 - red], dim=-1).expand(len(centers), n, 3)
        normal = out.expand(len(centers), n, 3) if "normal" in needs else None
        scales = torch.tensor([0.03, 0.03, 0.002]).expand(n, 3)
        return GaussianViews((0.5 + self.level) * out, scales, quaternions, torch.full((n,), 0.95), rgb, normal)


def gray(dirs, generator=None):
    return torch.full_like(dirs, 0.5)


def views(size: int = 14):
    return generate_rays(orbit_cameras(10.0, torch.tensor([0.0, 120.0]), height=size, width=size))


@pytest.fixture(params=shipped(RENDERERS))
def renderer_maker(request, config):
    cfg = config(RENDERERS, request.param)

    def make(**changes):
        torch.manual_seed(0)
        renderer = RENDERERS.get(request.param)(replace(cfg, **changes), Ball.bound)
        for step in (0, 16, 32):
            renderer.on_step(step)
            renderer.update(Ball(), step, seeded(step))
        return renderer

    return make


def test_renderer_shows_the_ball(renderer_maker):
    assert isinstance(Ball(), RadianceField)
    out = renderer_maker().eval()(views(), Ball(), gray, frozenset({"normal"}))
    shape = (2, 14, 14)
    assert (out.comp_rgb.shape, out.opacity.shape, out.depth.shape) == ((*shape, 3), (*shape, 1), (*shape, 1))
    for image in (out.comp_rgb, out.opacity, out.comp_normal):
        assert ((image >= 0) & (image <= 1 + 1e-5)).all()
    assert out.opacity[0, 7, 7] > 0.95
    assert out.opacity[0, 0, 0] < 0.01
    torch.testing.assert_close(out.comp_rgb[0, 0, 0], torch.full((3,), 0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(out.comp_rgb[0, 7, 7], torch.tensor([1.0, 0, 0]), atol=0.06, rtol=0)
    assert out.depth[0, 7, 7].item() == pytest.approx(3.8 - 0.5, abs=0.15)
    facing = 2 * out.comp_normal[0, 7, 7] - 1
    assert F.cosine_similarity(facing, torch.tensor([1.0, 0, 0.2]), dim=0) > 0.9


def test_renderer_does_not_depend_on_chunks(renderer_maker):
    whole = renderer_maker().eval()(views(), Ball(), gray, frozenset({"normal"}))
    chunked = renderer_maker(eval_chunk_size=37).eval()(views(), Ball(), gray, frozenset({"normal"}))
    torch.testing.assert_close(whole.comp_rgb, chunked.comp_rgb)
    torch.testing.assert_close(whole.comp_normal, chunked.comp_normal)


def test_renderer_trains_reproducibly_and_returns_samples(renderer_maker):
    renderer, field = renderer_maker(), Ball()
    if not renderer.has_samples:
        out = renderer(views(), field, gray, frozenset(), seeded(1))
        (gradient,) = torch.autograd.grad(out.opacity.sum(), field.level)
        assert gradient > 0, "a larger ball covers more"
        assert (out.comp_normal, out.weights) == (None, None)
        return
    needs = frozenset({"normal", "samples", "normal_perturbed", "sdf"})
    a, b = (renderer(views(), field, gray, needs, seeded(1)) for _ in range(2))
    assert torch.equal(a.comp_rgb, b.comp_rgb)
    assert not torch.equal(a.comp_rgb, renderer(views(), field, gray, needs, seeded(2)).comp_rgb)
    n = len(a.weights)
    assert n > 0
    assert [len(t) for t in (a.dirs, a.ray_indices, a.normal, a.normal_perturbed, a.sdf_grad)] == [n] * 5
    summed = torch.zeros(2 * 14 * 14).index_add(0, a.ray_indices, a.weights)
    torch.testing.assert_close(summed.reshape(a.opacity.shape), a.opacity)
    (gradient,) = torch.autograd.grad(a.opacity.sum(), field.level, retain_graph=True)
    assert gradient > 0, "a larger ball covers more"
    if list(renderer.parameters()):
        every_parameter_learns(renderer, a.opacity.square().sum())
    bare = renderer(views(), field, gray, frozenset(), seeded(1))
    assert (bare.comp_normal, bare.weights, bare.normal) == (None, None, None)


def test_renderer_state_travels(renderer_maker):
    renderer, other = renderer_maker(), renderer_maker()
    randomize(other)
    same_after_state_dict(renderer, other)
    images = [r.eval()(views(), Ball(), gray).comp_rgb for r in (renderer, other)]
    assert torch.equal(*images)


def test_renderer_takes_no_rays(renderer_maker):
    rays = views()
    none = type(rays)(rays.rays_o[:0], rays.rays_d[:0], rays.light_positions[:0])
    out = renderer_maker().train()(none, Ball(), gray, frozenset({"normal"}), seeded())
    assert out.comp_rgb.shape == (0, 14, 14, 3)


@pytest.mark.parametrize("name", shipped(EXPORTERS))
def test_exporter_writes_the_ball(name, config, tmp_path):
    stages = []
    exporter = EXPORTERS.get(name)(config(EXPORTERS, name))
    result = exporter(
        Ball(), tmp_path / "new", threshold=0.0, extras=Provenance("test"), progress=lambda *a: stages.append(a)
    )
    assert result.files
    assert all(p.is_file() and p.stat().st_size > 0 and p.parent == tmp_path / "new" for p in result.files.values())
    assert not list((tmp_path / "new").glob("*.part"))
    radii = torch.from_numpy(result.mesh.vertices).norm(dim=-1)
    assert radii.min() > 0.45
    assert radii.max() < 0.55
    assert [share for _, share in stages] == sorted(share for _, share in stages)
    assert stages[-1][1] == 1


# ---------------------------------------------------------------- guidance


@pytest.fixture(scope="session")
def reference_view(disc_path) -> ReferenceView:
    cls = DATA.get("single-image-datamodule")
    data = cls(cls.Config(image_path=str(disc_path), height=32, width=32))
    data.prepare()
    return data.reference()


@pytest.mark.parametrize("name", shipped(GUIDANCES))
def test_guidance_is_reproducible_and_its_networks_frozen(name, config, reference_view):
    cls = GUIDANCES.get(name)
    cfg = config(GUIDANCES, name)
    cls.check(cfg)
    cls.requirements(cfg)
    guidance = cls(cfg, reference_view, CPU)
    assert not isinstance(guidance, torch.nn.Module), "a guidance is in no checkpoint"
    cameras = orbit_cameras(torch.tensor([0.0, 30.0]), torch.tensor([20.0, 140.0]), height=16, width=16)
    one = cameras.select(slice(0, 1))
    rgb = torch.rand(2, 16, 16, 3, generator=seeded(), requires_grad=True)
    with torch.no_grad():
        losses = [guidance(rgb[:1], one, 0, seeded(seed)).loss.item() for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    out = guidance(rgb, cameras, 0, seeded(1))
    (gradient,) = torch.autograd.grad(out.loss, rgb)
    assert torch.isfinite(gradient).all()
    assert (gradient.abs().sum(dim=(1, 2, 3)) > 0).all(), "every view is judged"
    assert (out.loss.shape, out.grad_norm.shape, out.timesteps.shape) == ((), (), (2,))
    assert rgb.grad is None
    for image in guidance.evaluate(rgb[:1].detach(), one, 0, seeded()).values():
        assert image.shape[0] == 1
        assert image.shape[-1] == 3
        assert ((image >= 0) & (image <= 1)).all()
    assert {"path", "family", "bundled"} <= set(guidance.describe())


# ---------------------------------------------------------------- data


def equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if hasattr(a, "__dataclass_fields__"):
        return all(equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return a == b


def check_cameras(cameras: Cameras) -> None:
    assert cameras.c2w.shape == (len(cameras), 4, 4)
    rotation = cameras.c2w[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)
    assert (cameras.distance > 0).all()
    assert (cameras.elevation_deg.abs() <= 90).all()
    assert ((cameras.fovy_deg > 0) & (cameras.fovy_deg < 180)).all()


def check_views(view: ReferenceView) -> None:
    check_cameras(view.cameras)
    n, height, width, _ = view.rgb.shape
    assert (n, height, width) == (len(view.cameras), view.cameras.height, view.cameras.width)
    assert view.mask.shape == (n, height, width, 1)
    for image in (view.rgb, view.mask):
        assert image.dtype == torch.float32
        assert ((image >= 0) & (image <= 1)).all()


@pytest.mark.parametrize("name", shipped(DATA))
def test_data_is_a_function_of_the_step(name, config):
    def make(seed):
        source = DATA.get(name)(config(DATA, name), seed)
        source.prepare()
        return source

    first, second, other = make(0), make(0), make(1)
    assert equal(first.batch_at(7), second.batch_at(7))
    assert equal(first.batch_at(7), first.batch_at(7)), "asking twice changes nothing"
    different = [first.batch_at(8), first.batch_at(7, micro_step=1), first.batch_at(7, rank=1), other.batch_at(7)]
    assert not any(equal(first.batch_at(7), batch) for batch in different)
    batch = first.batch_at(7)
    if isinstance(batch, Batch) and batch.reference is None:
        check_cameras(batch.novel)
        with pytest.raises(ConfigError, match="no image"):
            first.reference()
    elif isinstance(batch, Batch):
        check_views(batch.reference)
        check_views(first.reference())
        given = {kind for kind in ("depth", "normal") if getattr(first.reference(), kind) is not None}
        assert given == first.available_maps()
        if batch.novel is not None:
            check_cameras(batch.novel)
        for split in ("validate", "test"):
            check_cameras(first.eval_cameras(split))


# ---------------------------------------------------------------- system


SYSTEM_DATA = {
    "dreamfusion-system": "random-camera-datamodule",
    "zero123-system": "single-image-datamodule",
    "autoencoder-system": "rendered-views-datamodule",
    "zero123-finetune-system": "rendered-views-datamodule",
}


@pytest.mark.parametrize("name", shipped(SYSTEMS))
def test_system_is_a_function_of_its_seed(name, config):
    assert name in SYSTEM_DATA, f"say in SYSTEM_DATA which data source {name} is trained on"
    source = DATA.get(SYSTEM_DATA[name])(config(DATA, SYSTEM_DATA[name]))
    source.prepare()
    cls = SYSTEMS.get(name)

    def make(seed):
        torch.manual_seed(123)
        untouched = torch.random.get_rng_state()
        cfg = config(SYSTEMS, name)
        cls.check(cfg)
        system = cls(cfg, source, seed)
        assert torch.equal(torch.random.get_rng_state(), untouched), "building draws from the seed alone"
        return system

    a, b, c = make(0), make(0), make(1)
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    assert not all(torch.equal(v, c.state_dict()[k]) for k, v in a.state_dict().items())
    same_after_state_dict(a, c)
