"""Sizes of a Zero123 model, with the keys of the original YAML (`model.params`).

This project adds: `parameterization: v`, sizes of the image encoder as numbers instead of a CLIP name, `pose_lift`
(zero123s/diffusion/lift.py), and any image size or autoencoder factor.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from inspect import signature
from pathlib import Path
from typing import Any

from zero123s.diffusion.lift import PoseLift
from zero123s.errors import ConfigError
from zero123s.registry import nearest


@dataclass(frozen=True)
class UNetConfig:
    """The denoiser; defaults are Stable Diffusion 1.x with eight input channels."""

    image_size: int = 32
    """Edge of the latents in cells."""
    in_channels: int = 8
    """Noisy latents + image latents + maps of the pose lift, if there is one."""
    out_channels: int = 4
    model_channels: int = 320
    attention_resolutions: tuple[int, ...] = (4, 2, 1)
    """Downsampling factors that have transformers (the middle block always has one)."""
    num_res_blocks: int = 2
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_heads: int = 8
    transformer_depth: int = 1
    context_dim: int = 768


@dataclass(frozen=True)
class VAEConfig:
    """The autoencoder; its factor is 2 ** (len(ch_mult) - 1)."""

    embed_dim: int = 4
    z_channels: int = 4
    resolution: int = 256
    in_channels: int = 3
    out_ch: int = 3
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2

    @property
    def factor(self) -> int:
        """Pixels per latent cell."""
        return 2 ** (len(self.ch_mult) - 1)


@dataclass(frozen=True)
class CLIPConfig:
    """The image encoder; defaults are OpenAI's ViT-L/14."""

    image_size: int = 224
    patch_size: int = 14
    width: int = 1024
    layers: int = 24
    heads: int = 16
    output_dim: int = 768


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the shapes and the arithmetic of a Zero123 model; defaults are the original's."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    clip: CLIPConfig | None = field(default_factory=CLIPConfig)
    """None = the YAML only names it: its sizes are read from the checkpoint's tensors."""
    linear_start: float = 0.00085
    linear_end: float = 0.0120
    timesteps: int = 1000
    scale_factor: float = 0.18215
    parameterization: str = "eps"
    """What the network predicts: "eps" or "v"."""
    pose_lift: Mapping[str, Any] | None = None
    """Arguments of `PoseLift`; None = none, as in the original."""

    @property
    def image_size(self) -> int:
        """Edge in pixels of the model's input and output images."""
        return self.unet.image_size * self.vae.factor


# Keys of the original YAML that only its own training code reads.
_IGNORED = {
    "model": {"base_learning_rate", "target"},
    "params": {
        "num_timesteps_cond", "log_every_t", "first_stage_key", "cond_stage_key", "image_size", "channels",
        "cond_stage_trainable", "conditioning_key", "monitor", "scheduler_config", "use_ema", "ckpt_path",
        "ignore_keys", "load_only_unet", "ucg_training", "logdir", "loss_type", "unet_trainable",
    },
    "unet": {"use_spatial_transformer", "use_checkpoint", "legacy", "dims", "dropout", "use_fp16"},
    "ddconfig": {"double_z", "attn_resolutions", "dropout"},
}  # fmt: skip
_FIXED = {"use_spatial_transformer": True, "legacy": False, "double_z": True, "attn_resolutions": []}


def parse_model_config(document: Mapping[str, Any], source: str = "the model's YAML") -> ModelConfig:
    """Read the sizes from the tree of an original YAML file.

    Args:
        document: with or without the outer `model:` and `params:`.
        source: where the tree comes from, for messages.

    Returns:
        The sizes.

    Raises:
        ConfigError: names the key that is unknown, of a wrong type, or describes an unsupported architecture.

    Example:
        >>> from zero123s.diffusion.model_config import parse_model_config
        >>> config = parse_model_config({"model": {"params": {"unet_config": {"params": {"image_size": 64}}}}})
        >>> config.unet.image_size, config.image_size, config.parameterization
        (64, 512, 'eps')
    """
    params = _subtree(_subtree(document, "model"), "params")
    unet = _subtree(params.get("unet_config", {}), "params")
    first_stage = _subtree(params.get("first_stage_config", {}), "params")
    known = {"unet_config", "first_stage_config", "cond_stage_config", "pose_lift"}
    scalars = {f.name: f.type for f in fields(ModelConfig)} | dict.fromkeys(known)
    _refuse_unknown(params, set(scalars) - {"unet", "vae", "clip"}, _IGNORED["params"], source, "model.params")
    _refuse_unknown(unet, _names(UNetConfig), _IGNORED["unet"], source, "unet_config.params")
    ddconfig = dict(_subtree(first_stage, "ddconfig"))
    _refuse_unknown(ddconfig, _names(VAEConfig), _IGNORED["ddconfig"], source, "first_stage_config.params.ddconfig")
    vae = {"embed_dim": first_stage.get("embed_dim", ddconfig.get("z_channels", 4))} | ddconfig
    config = ModelConfig(
        unet=_fill(UNetConfig, unet, source),
        vae=_fill(VAEConfig, vae, source),
        clip=_parse_clip(params.get("cond_stage_config", {}), source),
        pose_lift=dict(params["pose_lift"]) if params.get("pose_lift") else None,
        **_scalars(params, source),
    )
    _check(config, source)
    return config


def model_config_document(config: ModelConfig) -> dict[str, Any]:
    """Write sizes as the tree that `parse_model_config` reads.

    Args:
        config: the sizes.

    Returns:
        Plain dicts, lists and numbers.

    Example:
        >>> from zero123s.diffusion.model_config import ModelConfig, model_config_document, parse_model_config
        >>> parse_model_config(model_config_document(ModelConfig())) == ModelConfig()
        True
    """
    unet = {f.name: _plain(getattr(config.unet, f.name)) for f in fields(UNetConfig)}
    vae = {f.name: _plain(getattr(config.vae, f.name)) for f in fields(VAEConfig)}
    clip = {f.name: getattr(config.clip, f.name) for f in fields(CLIPConfig)} if config.clip else {}
    embed_dim = vae.pop("embed_dim")
    params: dict[str, Any] = {
        "linear_start": config.linear_start,
        "linear_end": config.linear_end,
        "timesteps": config.timesteps,
        "scale_factor": config.scale_factor,
        "parameterization": config.parameterization,
        "unet_config": {"params": unet},
        "first_stage_config": {"params": {"embed_dim": embed_dim, "ddconfig": vae}},
        "cond_stage_config": {"params": clip},
    }
    if config.pose_lift is not None:
        params["pose_lift"] = {key: _plain(value) for key, value in config.pose_lift.items()}
    return {"model": {"params": params}}


def read_model_config(path: str | Path) -> ModelConfig:
    """Read the sizes from an original YAML file.

    Args:
        path: of the file.

    Returns:
        The sizes.

    Raises:
        ConfigError: the file is missing, not YAML, or does not describe a Zero123 model.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        document: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"Cannot read the model's YAML {path}: {str(error).splitlines()[0]}.") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} holds no `model.params` section.")
    return parse_model_config(document, str(path))


def _scalars(params: Mapping[str, Any], source: str) -> dict[str, Any]:
    kinds = {"linear_start": float, "linear_end": float, "timesteps": int, "scale_factor": float}
    chosen: dict[str, Any] = {}
    for name, kind in (kinds | {"parameterization": str}).items():
        if name in params:
            try:
                chosen[name] = kind(params[name])
            except (TypeError, ValueError) as error:
                raise ConfigError(f"model.params.{name} in {source} must be a number, not {params[name]!r}.") from error
    return chosen


def _parse_clip(section: Mapping[str, Any], source: str) -> CLIPConfig | None:
    params = dict(_subtree(section, "params"))
    name = params.pop("model", None)
    if not params:
        return CLIPConfig() if name in (None, "ViT-L/14") else None
    _refuse_unknown(params, _names(CLIPConfig), {"jit", "device", "antialias"}, source, "cond_stage_config.params")
    return _fill(CLIPConfig, params, source)


def _check(config: ModelConfig, source: str) -> None:
    if config.parameterization not in ("eps", "v"):
        raise ConfigError(f"parameterization '{config.parameterization}' in {source} must be eps or v.")
    if config.vae.embed_dim != config.vae.z_channels:
        raise ConfigError(
            f"embed_dim {config.vae.embed_dim} in {source} must equal z_channels {config.vae.z_channels}."
        )
    for name, widths in (
        ("model_channels", [config.unet.model_channels * m for m in config.unet.channel_mult]),
        ("ch", [config.vae.ch * m for m in config.vae.ch_mult]),
    ):
        if not widths or any(width <= 0 or width % 32 for width in widths):
            raise ConfigError(f"{name} in {source} gives widths {widths}: each must be a multiple of 32 (group norm).")
    if config.unet.model_channels % config.unet.num_heads:
        raise ConfigError(f"model_channels in {source} must be divisible by num_heads {config.unet.num_heads}.")
    if config.clip is not None:
        _check_clip(config.clip, source)
    maps = _check_lift(config.pose_lift, config, source) if config.pose_lift is not None else 0
    z = config.vae.z_channels
    if (config.unet.in_channels, config.unet.out_channels) != (2 * z + maps, z):
        raise ConfigError(
            f"unet_config.params in {source}: in_channels {config.unet.in_channels}, out_channels "
            f"{config.unet.out_channels}; latents of {z} channels, those of the image and {maps} maps of a pose "
            f"lift need {2 * z + maps} and {z}."
        )


def _check_clip(clip: CLIPConfig, source: str) -> None:
    if clip.patch_size < 1 or clip.image_size < 1 or clip.image_size % clip.patch_size:
        raise ConfigError(
            f"cond_stage_config.params in {source}: image_size {clip.image_size} must be a multiple of patch_size "
            f"{clip.patch_size}; otherwise the encoder would ignore the image's edge."
        )
    if clip.heads < 1 or clip.width % clip.heads:
        raise ConfigError(f"cond_stage_config.params in {source}: heads {clip.heads} must divide width {clip.width}.")


def _check_lift(lift: Mapping[str, Any], config: ModelConfig, source: str) -> int:
    """Check that a pose lift fits the rest; returns how many maps it makes."""
    where = f"pose_lift in {source}"
    defaults = {name: p.default for name, p in signature(PoseLift).parameters.items()}
    _refuse_unknown(lift, set(defaults), set(), source, "model.params.pose_lift")
    chosen = defaults | dict(lift)
    for name, value in chosen.items():
        values = value if name == "widths" and isinstance(value, list | tuple) else [value]
        if isinstance(defaults[name], bool):
            if not isinstance(value, bool):
                raise ConfigError(f"{where}: {name} must be true or false, not {value!r}.")
            continue
        kind = int | float if isinstance(defaults[name], float) else int
        if not values or not all(isinstance(v, kind) and not isinstance(v, bool) and v > 0 for v in values):
            raise ConfigError(
                f"{where}: {name} must be {'a number' if kind is not int else 'whole numbers'} > 0, not {value!r}."
            )
    size, coarsest = chosen["latent_size"], 2 ** (len(chosen["widths"]) - 1)
    if size != config.unet.image_size or chosen["in_channels"] != config.vae.z_channels:
        raise ConfigError(
            f"{where}: latent_size {size} and in_channels {chosen['in_channels']} must be those of the latents, "
            f"unet_config's image_size {config.unet.image_size} and the autoencoder's z_channels {config.vae.z_channels}."
        )
    if size % coarsest or size // coarsest < 2 or any(w % 32 for w in chosen["widths"]):
        raise ConfigError(
            f"{where}: {len(chosen['widths'])} widths need a latent_size that is a multiple of {coarsest} and at least "
            f"{2 * coarsest}, not {size}, and must be multiples of 32 (group norm)."
        )
    return chosen["out_channels"]


def _fill(cls: type, values: Mapping[str, Any], source: str) -> Any:
    chosen = {}
    for f in fields(cls):
        if f.name not in values:
            continue
        value = values[f.name]
        items = list(value) if isinstance(f.default, tuple) and isinstance(value, list | tuple) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in items):
            kind = "a list of whole numbers" if isinstance(f.default, tuple) else "a whole number"
            raise ConfigError(f"{f.name} in {source} must be {kind}, not {value!r}.")
        chosen[f.name] = tuple(items) if isinstance(f.default, tuple) else value
    return cls(**chosen)


def _refuse_unknown(section: Mapping[str, Any], known: set[str], ignored: set[str], source: str, where: str) -> None:
    for key, value in section.items():
        if key not in known | ignored:
            raise ConfigError(f"Unknown key {where}.{key} in {source}.{nearest(str(key), sorted(known))}")
        if key in _FIXED and value != _FIXED[key]:
            raise ConfigError(f"{where}.{key} = {value!r} in {source}: only {_FIXED[key]!r} is a Zero123 model.")


def _subtree(document: Any, key: str) -> Mapping[str, Any]:
    """Return document[key] if it is there, else the document itself taken as that section."""
    section = document.get(key, document) if isinstance(document, Mapping) else document
    if not isinstance(section, Mapping):
        raise ConfigError(f"Section '{key}' of the model's YAML must be a mapping, not {type(section).__name__}.")
    return section


def _names(cls: type) -> set[str]:
    return {f.name for f in fields(cls)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
