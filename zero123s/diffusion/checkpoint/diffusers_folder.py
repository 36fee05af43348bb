"""Reads and writes folders of the diffusers layout, one component at a time and without running its code.

The published folders differ only in the projection's name: `cc_projection/` with `projection.*` (kxic) or
`cc_projection.*` (Yuyang-z), `clip_camera_projection/` with `proj.*` (bennyguo, ashawkey).
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from zero123s.diffusion.checkpoint import layout
from zero123s.diffusion.checkpoint.weights_file import StoredTensor, WeightsFile, open_weights, sha256_of
from zero123s.diffusion.model import Zero123Model
from zero123s.diffusion.model_config import CLIPConfig, ModelConfig, UNetConfig, VAEConfig, read_model_config
from zero123s.errors import CheckpointError

PROJECTIONS = {"cc_projection": "projection.", "clip_camera_projection": "proj."}
_PROJECTION_PREFIXES = (*PROJECTIONS.values(), "cc_projection.", "")
# Pipeline class, module and class of the projection.
_PIPELINES = {
    "cc_projection": ("Zero1to3StableDiffusionPipeline", "pipeline_zero1to3", "CCProjection"),
    "clip_camera_projection": ("Zero123Pipeline", "zero123", "CLIPCameraProjection"),
}
_WEIGHT_FILES = (
    "diffusion_pytorch_model.safetensors", "model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors", "model.fp16.safetensors",
    "diffusion_pytorch_model.fp16_ema.safetensors", "model.fp16_ema.safetensors",
    "diffusion_pytorch_model.bin", "pytorch_model.bin",
)  # fmt: skip
# Attention layers of the autoencoder in folders written before diffusers 0.13.
_OLD_VAE_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_folder(folder: Path) -> tuple[ModelConfig, dict[str, WeightsFile]]:
    """Open a folder of the diffusers layout.

    Args:
        folder: with unet/, vae/, image_encoder/ and a projection.

    Returns:
        The sizes, and the open weight file of each component by its attribute of `Zero123Model`.

    Raises:
        CheckpointError: names the part that is missing, or the setting that is not a Zero123 model's.
    """
    projection = _projection_of(folder)
    files = {name: _open_component(folder / name) for name in ("unet", "vae", "image_encoder")}
    files["cc_projection"] = _open_component(folder / projection)
    return _read_config(folder), files


def component_name(component: str, name: str, file: WeightsFile) -> str:
    """Name a parameter as a weight file of the folder does.

    Args:
        component: an attribute of `Zero123Model`.
        name: of the parameter in our module.
        file: the component's weights.

    Returns:
        The name in the file, where it is known by another one.
    """
    if component == "cc_projection":
        return next((p + name for p in _PROJECTION_PREFIXES if p + name in file.tensors), name)
    if component == "vae" and name not in file.tensors:
        for old, new in _OLD_VAE_NAMES.items():
            if f".{new}." in name and name.replace(f".{new}.", f".{old}.") in file.tensors:
                return name.replace(f".{new}.", f".{old}.")
    return name


def sha256_of_folder(folder: Path) -> str:
    """Hash a folder: SHA-256 of the hashes of its four weight files, one a line, in fixed order.

    Args:
        folder: of the diffusers layout.

    Returns:
        SHA-256 in hexadecimal.

    Raises:
        CheckpointError: a weight file is missing.
    """
    names = ("unet", "vae", "image_encoder", _projection_of(folder))
    lines = "".join(f"{sha256_of(_weights_path(folder / name))}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def write_folder(model: Zero123Model, folder: Path, projection: str = "cc_projection") -> None:
    """Write a model as a folder of the diffusers layout.

    Args:
        model: without a pose lift.
        folder: is made.
        projection: name of the projection: "cc_projection" as kxic's Zero1to3 pipelines read it, or
            "clip_camera_projection" for Zero123Pipeline (bennyguo, ashawkey).

    Raises:
        CheckpointError: the model has a pose lift, which the layout cannot hold.
    """
    if model.lift is not None:
        raise CheckpointError("A model with a pose lift has no diffusers form: convert it to `original`.")
    for name in ("unet", "vae", "image_encoder"):
        getattr(model, name).save_pretrained(folder / name)
    _write_projection(model, folder, projection)
    scheduler = {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": model.n_timesteps,
        "beta_start": model.config.linear_start,
        "beta_end": model.config.linear_end,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": {"eps": "epsilon", "v": "v_prediction"}[model.config.parameterization],
    }
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    processor = {
        "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3, "size": 224,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    }  # fmt: skip
    _write_json(folder / "feature_extractor" / "preprocessor_config.json", processor)
    pipeline, module, kind = _PIPELINES[projection]
    index = {
        "_class_name": pipeline,
        "zero123s_family": model.family,
        projection: [module, kind],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    _write_json(folder / "model_index.json", index)


def open_folder(folder: Path, config: str | Path | ModelConfig | None) -> tuple[WeightsFile, ModelConfig]:
    """Open a folder as one table of tensors with the names of the original layout, parts of packed tensors apart.

    Args:
        folder: of the diffusers layout.
        config: sizes as the original's YAML file or a `ModelConfig`; None = the folder's own.

    Returns:
        The table, and the sizes.

    Raises:
        CheckpointError: the folder is incomplete or is not a Zero123 model's.
    """
    resolved, files = read_folder(folder)
    if config is not None:
        resolved = config if isinstance(config, ModelConfig) else read_model_config(config)
    tensors: dict[str, StoredTensor] = {}
    with torch.device("meta"):
        model = Zero123Model(resolved)
    for component, file in files.items():
        names = getattr(model, component).state_dict()
        for name, source in layout.weight_sources(resolved, component, names).items():
            stored = file.tensors.get(component_name(component, name, file))
            if stored is not None:
                tensors[layout.part_key(source)] = stored
    metadata = {}
    family = _read_json(folder / "model_index.json", optional=True).get("zero123s_family")
    if family:
        metadata["family"] = str(family)
    return WeightsFile(folder, tensors, metadata), resolved


def _projection_of(folder: Path) -> str:
    found = next((name for name in PROJECTIONS if (folder / name).is_dir()), None)
    if found is None:
        raise CheckpointError(
            f"{folder} has neither cc_projection/ nor clip_camera_projection/: it is not a Zero123 folder of diffusers."
        )
    return found


def _open_component(folder: Path) -> WeightsFile:
    return open_weights(_weights_path(folder))


def _weights_path(folder: Path) -> Path:
    found = next((folder / name for name in _WEIGHT_FILES if (folder / name).is_file()), None)
    if found is None:
        others = [*folder.glob("*.safetensors"), *folder.glob("*.bin")] if folder.is_dir() else []
        if len(others) != 1:
            raise CheckpointError(
                f"{folder} holds no weights ({_WEIGHT_FILES[0]} or the like): the folder is incomplete."
            )
        found = others[0]
    return found


def _read_config(folder: Path) -> ModelConfig:
    unet, vae, clip = (_read_json(folder / name / "config.json") for name in ("unet", "vae", "image_encoder"))
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json", optional=True)
    clip = clip.get("vision_config", clip)
    try:
        channels, widths = unet["block_out_channels"], vae["block_out_channels"]
        attends = ["CrossAttn" in kind for kind in unet["down_block_types"]]
        heads = unet["attention_head_dim"]
        return ModelConfig(
            unet=UNetConfig(
                image_size=unet["sample_size"],
                in_channels=unet["in_channels"],
                out_channels=unet["out_channels"],
                model_channels=channels[0],
                attention_resolutions=tuple(2**level for level, a in enumerate(attends) if a),
                num_res_blocks=unet["layers_per_block"],
                channel_mult=tuple(c // channels[0] for c in channels),
                num_heads=heads if isinstance(heads, int) else heads[0],
                context_dim=unet["cross_attention_dim"],
            ),
            vae=VAEConfig(
                embed_dim=vae["latent_channels"],
                z_channels=vae["latent_channels"],
                resolution=vae.get("sample_size", 256),
                ch=widths[0],
                ch_mult=tuple(w // widths[0] for w in widths),
                num_res_blocks=vae["layers_per_block"],
            ),
            clip=CLIPConfig(
                clip.get("image_size", 224),
                clip.get("patch_size", 14),
                clip["hidden_size"],
                clip["num_hidden_layers"],
                clip["num_attention_heads"],
                clip["projection_dim"],
            ),
            linear_start=scheduler.get("beta_start", 0.00085),
            linear_end=scheduler.get("beta_end", 0.0120),
            scale_factor=vae.get("scaling_factor", 0.18215),
            parameterization="v" if scheduler.get("prediction_type") == "v_prediction" else "eps",
        )
    except (KeyError, TypeError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"A config.json in {folder} lacks or misstates {error}.") from error


def _read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    if optional and not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"Cannot read {path}: {error}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no settings.")
    return content


def _write_projection(model: Zero123Model, folder: Path, projection: str) -> None:
    from safetensors.torch import save_file

    linear = model.cc_projection
    state = {PROJECTIONS[projection] + k: v.detach().cpu().contiguous() for k, v in linear.state_dict().items()}
    (folder / projection).mkdir(parents=True, exist_ok=True)
    save_file(state, str(folder / projection / "diffusion_pytorch_model.safetensors"))
    config: dict[str, Any] = {"_class_name": _PIPELINES[projection][2]}
    if projection == "clip_camera_projection":
        config |= {"embedding_dim": linear.in_features - 4, "additional_embeddings": 4}
    _write_json(folder / projection / "config.json", config)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
