"""Translates a whole threestudio file to this project's keys: its systems are combinations of the slots here.

Every word that is renamed or has no meaning here gives a notice; one that would change the result and cannot be
followed is refused. Values stay what they are, `${...}` included; references to a key that moves follow it.
"""

import re
from typing import Any

from zero123s.config.threestudio import keys
from zero123s.config.threestudio.recipe_guidance import translate_guidance
from zero123s.config.threestudio.translation import Translation
from zero123s.errors import ConfigError

TEXT_SYSTEMS = (
    "dreamfusion-system",
    "efficient-dreamfusion-system",
    "magic3d-system",
    "prolificdreamer-system",
    "sjc-system",
    "sdi-system",
    "latentnerf-system",
)
IMAGE_SYSTEMS = ("zero123-system", "zero123-simple-system", "magic123-system", "image-condition-dreamfusion-system")
REFUSED = {
    "system_type": {
        "fantasia3d-system": "its geometry stage trains on normals and masks in a schedule of its own",
        "textmesh-system": "it needs DeepFloyd IF",
        "control4d-multiview-system": "it edits captured scenes with a GAN",
        "instructnerf2nerf-system": "it edits captured scenes with InstructPix2Pix",
    },
    "data_type": {
        "co3d-datamodule": "photos with poses are read by multi-view-datamodule, from a transforms.json",
        "multiview-camera-datamodule": "photos with poses are read by multi-view-datamodule, from a transforms.json",
    },
    "system.geometry_type": {"custom-mesh": "a mesh is not a geometry to train here"},
    "system.material_type": {"pbr-material": "environment light is not rendered here"},
    "system.renderer_type": {
        "patch-renderer": "views are rendered whole; take its base_renderer and lower data.height where memory is short",
        "gan-volume-renderer": "there is no GAN here",
    },
    "system.prompt_processor_type": {
        "deep-floyd-prompt-processor": "DeepFloyd IF is not supported, Stable Diffusion is"
    },
}
LOSSES = {
    **dict.fromkeys(("lambda_vsd", "lambda_sdi", "lambda_sd"), "lambda_sds"),
    **dict.fromkeys(("lambda_vsd_img", "lambda_sd_img"), "lambda_sds_img"),
    "lambda_normal_smoothness_2d": "lambda_normal_smooth",
}
DROPPED_LOSSES = dict.fromkeys(("lambda_lora", "lambda_train_phi"), "the low-rank copy has an optimiser of its own")
DEFAULT_NETWORK = {
    "otype": "VanillaMLP",
    "activation": "ReLU",
    "output_activation": "none",
    "n_neurons": 64,
    "n_hidden_layers": 1,
}
"""threestudio's default network after an encoding; this project's has one more layer."""


def is_recipe(content: dict[Any, Any]) -> bool:
    """Tell whether a merged configuration is written for threestudio."""
    system = content.get("system")
    if not isinstance(system, dict):
        return False
    own = {"dreamfusion-system", "zero123-system"}
    foreign = {*TEXT_SYSTEMS, *IMAGE_SYSTEMS, *REFUSED["system_type"]} - own
    return content.get("system_type") in foreign or "prompt_processor_type" in system or "guidance_3d_type" in system


def to_native(content: dict[Any, Any]) -> list[str]:
    """Translate a merged threestudio file to this project's keys, in place; returns the notices.

    Raises:
        ConfigError: the file needs something that is not here; says what.
    """
    t = Translation(content)
    for key, reasons in REFUSED.items():
        if (name := t.get(key)) in reasons:
            raise ConfigError(f"{key}: threestudio's {name} is not there: {reasons[name]}.")
    kind = t.get("system_type", "dreamfusion-system")
    _data(t)
    _system(t, kind)
    _geometry(t)
    _material_and_background(t)
    _renderer(t)
    translate_guidance(t)
    _losses(t, kind)
    _rest(t)
    _single_words(t)
    for section in ("system.loss", "system.guidance"):
        t.put(section, _whole_steps(t.get(section, {})))
    t.follow_references()
    return t.notices


def _single_words(t: Translation) -> None:
    """Apply the tables of `keys`, except for keys that a geometry here has itself."""
    own = ("isosurface_resolution",) if t.get("system.geometry_type") == "tetrahedra-sdf-grid" else ()
    for old, new in keys.RENAMED.items():
        if old.rpartition(".")[2] not in own:
            t.move(old, new)
    for key, why in {**dict.fromkeys(keys.PROMPT_PROCESSOR, "Zero123 takes no prompt"), **keys.DROPPED}.items():
        t.drop(key, why)


def _whole_steps(value: Any) -> Any:
    """Convert a whole first step of a schedule, such as 100.0, to an integer: threestudio only minds the last one's
    type.
    """
    if isinstance(value, dict):
        return {k: _whole_steps(v) for k, v in value.items()}
    if isinstance(value, list) and len(value) >= 4 and isinstance(value[0], float) and value[0].is_integer():
        return [int(value[0]), *value[1:]]
    return [_whole_steps(v) for v in value] if isinstance(value, list) else value


def _data(t: Translation) -> None:
    if t.get("data_type") == "eff-random-camera-datamodule":
        t.rename_type("data_type", "random-camera-datamodule")
        for key in ("data.sample_height", "data.sample_width"):
            t.drop(key, "all pixels of a view are rendered, at data.height and data.width")
    if t.get("data_type") == "single-image-datamodule":
        t.drop_if("data.batch_size", 1, "there is one reference view")
    # One of threestudio's files refers to keys that it does not have.
    data = t.get("data")
    for name, value in list(data.items()) if isinstance(data, dict) else ():
        missing = re.fullmatch(r"\$\{(data\.default_\w+)\}", str(value))
        if missing and not t.has(missing[1]):
            t.drop(f"data.{name}", f"{missing[1]}, which it refers to, is not given, so that the default counts")


def _system(t: Translation, kind: str) -> None:
    """Rename the system, and set what it implies."""
    is_text = kind in TEXT_SYSTEMS or t.get("data_type") == "random-camera-datamodule"
    t.rename_type("system_type", "dreamfusion-system" if is_text else "zero123-system")
    if kind not in ("zero123-system", "image-condition-dreamfusion-system"):
        t.default("system.ambient_ratio_min", None)
    if kind in ("magic123-system", "zero123-simple-system"):
        t.default("system.regularized_views", "novel")
    if kind in ("sjc-system", "latentnerf-system") and t.get("system.refinement") is not True:
        t.default("system.guidance_input", "latents")
    if t.has("system.geometry_convert_from"):
        t.default("system.geometry_convert_inherit_texture", False)
    stage = t.pop("system.stage", "coarse") if kind == "prolificdreamer-system" else "coarse"
    if stage not in ("coarse", "geometry", "texture"):
        raise ConfigError(f"system.stage: '{stage}' is none of coarse, geometry and texture.")
    if stage != "coarse":
        t.default("system.refinement", True)
    if stage == "geometry":
        t.default("system.guidance_input", "normal")
    t.drop("system.subpixel_rendering", "images are drawn at the size of views")
    t.drop("system.visualize_samples", "there are no such images")
    t.move("system.convexity_res", "system.loss.convexity_resolution")
    t.move("system.freq.ref_or_guidance", "system.freq.ref_or_zero123")
    t.refuse_unless("system.guide_shape", (None,), "a guide shape (sketchshape) is not supported")
    if t.get("system.weights_ignore_modules", ()) is None:
        t.pop("system.weights_ignore_modules")


def _geometry(t: Translation) -> None:
    kind, key = t.get("system.geometry_type", "implicit-volume"), "system.geometry"
    if kind in ("implicit-volume", "implicit-sdf"):
        t.default(f"{key}.mlp_network_config", dict(DEFAULT_NETWORK))
    if t.has(f"{key}.normal_type") and t.get(f"{key}.normal_type") is None:
        t.drop(f"{key}.normal_type", "normals are computed where a loss or a material needs them")
    t.refuse_unless(f"{key}.anneal_density_blob_std_config", (None,), "the blob keeps its width")
    if kind == "tetrahedra-sdf-grid":
        for name in ("isosurface_remove_outliers", "isosurface_outlier_n_faces_threshold"):
            t.drop(f"{key}.{name}", "the exporter drops small parts")
        t.refuse_unless(f"{key}.force_shape_init", (False,), "a first stage goes before shape_init")
    if str(t.get(f"{key}.shape_init")).startswith("mesh:"):
        raise ConfigError(f"{key}.shape_init: a mesh to start from is not supported; use sphere or ellipsoid.")
    for name in ("shape_init_mesh_up", "shape_init_mesh_front"):
        t.drop(f"{key}.{name}", "there is no mesh to start from")


def _material_and_background(t: Translation) -> None:
    key = "system.material"
    if t.get("system.material_type") == "no-material":
        t.refuse_unless(
            f"{key}.mlp_network_config", (None,), "use neural-radiance-material for a network behind features"
        )
        t.drop(f"{key}.input_feature_dims", "the geometry says how many features there are")
        if t.get(f"{key}.n_output_dims") == 0:
            t.drop(f"{key}.n_output_dims", "a geometry without features is grey")


def _renderer(t: Translation) -> None:
    key = "system.renderer"
    if t.get("system.renderer_type") == "nvdiff-rasterizer":
        t.rename_type("system.renderer_type", "mesh-rasterizer")
        if t.get("system.geometry_type") == "tetrahedra-sdf-grid":
            t.default("system.geometry.isosurface_resolution", 128)
            t.default(f"{key}.grid_resolution", "${system.geometry.isosurface_resolution}")
            t.default(f"{key}.randomized", False)
        return
    reason = "samples lie in uniform steps in occupied space; use estimator=occgrid with num_samples_per_ray=512"
    t.refuse_unless(f"{key}.estimator", ("occgrid",), reason)
    for name in ("num_samples_per_ray_proposal", "num_samples_per_ray_importance"):
        t.drop(f"{key}.{name}", "the occupancy grid places the samples")
    for name in ("proposal_network_config", "prop_optimizer_config", "prop_scheduler_config"):
        t.drop(f"{key}.{name}", "the occupancy grid places the samples")


def _losses(t: Translation, kind: str) -> None:
    key = "system.loss"
    for name, why in DROPPED_LOSSES.items():
        t.drop(f"{key}.{name}", why)
    if kind == "magic123-system":
        t.move(f"{key}.lambda_mask", f"{key}.lambda_mask_bce")
    if kind == "sjc-system":
        reason = "its logarithm of a negative number is not defined"
        t.refuse_unless(f"{key}.lambda_depth", (0,), reason)
        t.drop(f"{key}.center_ratio", "it belongs to lambda_depth")
    t.refuse_unless(f"{key}.lambda_shape", (0,), "a guide shape is not supported")
    for old, new in LOSSES.items():
        if t.has(f"{key}.{old}"):
            t.move(f"{key}.{old}", f"{key}.{new}")


def _rest(t: Translation) -> None:
    if t.get("system.optimizer.name") == "FusedAdam":
        t.put("system.optimizer.name", "Adam")
        t.notices.append("FusedAdam is Adam here: it is fused by itself.")
    if t.get("system.exporter_type") == "dummy-exporter":
        t.pop("system.exporter_type")
        t.pop("system.exporter", None)
        t.default("export_after_train", False)
        t.notices.append("dummy-exporter is export_after_train=false here.")
    if t.get("checkpoint.every_n_train_steps") == 0:
        t.put("checkpoint.every_n_train_steps", "${trainer.max_steps}")
        t.notices.append("checkpoint.every_n_train_steps=0 is one checkpoint at the end here.")
    t.drop("trial_dir", "it follows from exp_root_dir, name and tag")
