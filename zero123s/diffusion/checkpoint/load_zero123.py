"""Loads Zero123 checkpoints of the original layout and writes them.

The modules are built without storage and the memory-mapped tensors assigned to them, so that loading takes no more
memory than the weights that are kept.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from zero123s.diffusion.checkpoint import layout
from zero123s.diffusion.checkpoint.family import LICENCES, announce_licence, decide_family
from zero123s.diffusion.checkpoint.infer_sizes import infer_clip_config, infer_model_config
from zero123s.diffusion.checkpoint.weights_file import StoredTensor, WeightsFile, open_weights, sha256_of
from zero123s.diffusion.model import Zero123Model
from zero123s.diffusion.model_config import (
    ModelConfig,
    model_config_document,
    parse_model_config,
    read_model_config,
)
from zero123s.diffusion.speed import compute_in_float32, computes_natively
from zero123s.errors import CheckpointError, ConfigError

log = logging.getLogger(__name__)

COMPONENTS = ("unet", "vae", "image_encoder", "cc_projection", "lift")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CONFIG_KEY = "zero123s_config"
"""Safetensors metadata: the architecture as JSON, with the keys of the original YAML."""
# From here on, a denoiser is so large that bf16 halves its time on a CPU with native bf16; smaller ones gain nothing.
LARGE_UNET_CHANNELS = 256


def load_zero123(
    path: str | Path,
    config: str | Path | ModelConfig | None = None,
    family: str = "auto",
    ema: bool = True,
    dtype: str = "auto",
    device: str | torch.device = "cpu",
    decoder: bool = True,
) -> Zero123Model:
    """Load a checkpoint of the original layout, or a folder of the diffusers layout.

    Args:
        path: `.ckpt` or `.safetensors` file, with or without moving averages, of any float precision; or a folder.
        config: sizes as the original's YAML file or a `ModelConfig`; None = the file's metadata, else a `.yaml` next to
            it, else read from the tensors' shapes.
        family: "stable-zero123", "zero123", or "auto" (metadata, else file name; a guess is logged as a warning).
        ema: prefer the denoiser's moving average where the file has one.
        dtype: "fp32", "bf16", "fp16", or "auto" (fp16 on CUDA; on a CPU fp32, and bf16 for a large denoiser where the
            processor computes in it). On a CPU that does not, weights are stored in half precision and used in fp32.
        device: where the model computes.
        decoder: False drops the autoencoder's decoder, which score distillation does not need.

    Returns:
        A frozen model in eval mode; its `info` has path, hash, family, licence and dtypes.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, not a Zero123 checkpoint, or of other shapes.
        ConfigError: an unknown family or dtype, or a YAML file that does not describe a Zero123 model.

    Example:
        >>> from zero123s.diffusion import load_zero123
        >>> from zero123s.diffusion.checkpoint.locate import find_file
        >>> model = load_zero123(find_file("load/zero123/small_zero123.safetensors"))  # the bundled small model
        >>> model.info["name"], model.image_size, model.latent_size
        ('small-zero123', 64, 16)
    """
    path = Path(path)
    if path.is_dir():
        from zero123s.diffusion.checkpoint.diffusers_folder import open_folder, sha256_of_folder

        file, config = open_folder(path, config)
        digest = sha256_of_folder(path)
    else:
        file = open_weights(path)
        digest = sha256_of(path)
        _refuse_other_models(file)
    model_config = _resolve_config(file, config)
    chosen = decide_family(path, file.metadata, family, digest)
    with torch.device("meta"):
        model = Zero123Model(model_config, chosen.family)
    if not decoder:
        model.vae.decoder = None
        model.vae.post_quant_conv = None
    use_ema = ema and layout.ema_name(layout.UNET + "input_blocks.0.0.weight") in file.tensors
    dtypes = _choose_dtypes(dtype, torch.device(device), model_config)
    _assign(model, file, use_ema, dtypes)
    _materialise_buffers(model)
    model = model.to(device).eval().requires_grad_(False)
    for component, part_dtype in dtypes.items():
        if not computes_natively(part_dtype, torch.device(device)):
            compute_in_float32(getattr(model, component))
    model.info = {"path": str(path), "sha256": digest, "family": chosen.family, "name": chosen.name} | {
        "license": LICENCES[chosen.name],
        "weights": "EMA" if use_ema else "raw",
        "dtype": ", ".join(f"{name} {str(d).removeprefix('torch.')}" for name, d in dtypes.items()),
    }
    log.info("Loaded %s (%s, %s weights; %s).", path, chosen.name, model.info["weights"], model.info["dtype"])
    announce_licence(chosen.name)
    return model


def original_state_dict(model: Zero123Model) -> dict[str, Tensor]:
    """Collect the model's weights under the original's key names, unchanged to the bit.

    Args:
        model: with all its components.

    Returns:
        Tensors by key, as in the `state_dict` of an original checkpoint.
    """
    parts: dict[str, list[tuple[layout.WeightSource, Tensor]]] = {}
    for component in COMPONENTS:
        module = getattr(model, component)
        if module is None:
            continue
        state = module.state_dict()
        for name, source in layout.weight_sources(model.config, component, state).items():
            parts.setdefault(source.key, []).append((source, state[name].detach()))
    return {key: layout.join_parts(pieces) for key, pieces in parts.items()}


def save_zero123(
    model: Zero123Model, path: str | Path, dtype: torch.dtype | None = None, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the weights under the original key names; the file appears under its name only when it is complete.

    A `.safetensors` file carries its own architecture and family. A `.ckpt` is for tools that read only the original layout:
    its weights lie under `state_dict`, and the denoiser's once more as moving average (the same bytes, stored once),
    because those tools overwrite the denoiser with the average whether the file has one or not.

    Args:
        model: with all its components.
        path: ends in `.safetensors` or `.ckpt`; its folder is made.
        dtype: of the written weights; None = as they are.
        metadata: more text for a `.safetensors` file's metadata.

    Raises:
        ConfigError: the path has another suffix.

    Example:
        >>> import tempfile
        >>> from zero123s.diffusion import load_zero123, save_zero123
        >>> from zero123s.diffusion.checkpoint.locate import find_file
        >>> model = load_zero123(find_file("load/zero123/small_zero123.safetensors"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_zero123(model, f"{folder}/copy.safetensors")
        ...     load_zero123(f"{folder}/copy.safetensors").info["name"]
        'small-zero123'
    """
    path = Path(path)
    tensors = {k: v.to("cpu", dtype).contiguous() for k, v in original_state_dict(model).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        described = {CONFIG_KEY: json.dumps(model_config_document(model.config)), "family": model.family}
        if model.info:
            described["name"] = str(model.info["name"])
        save_file(tensors, str(partial), metadata=described | dict(metadata or {}))
    elif path.suffix == ".ckpt":
        average = {layout.ema_name(k): v for k, v in tensors.items() if k.startswith(layout.UNET)}
        torch.save({"state_dict": tensors | average, "global_step": 0}, partial)
    else:
        raise ConfigError(f"The checkpoint {path} must end in .safetensors or .ckpt.")
    partial.replace(path)


def _resolve_config(file: WeightsFile, config: str | Path | ModelConfig | None) -> ModelConfig:
    sibling = file.path.with_suffix(".yaml")
    if isinstance(config, ModelConfig):
        resolved = config
    elif config is not None:
        resolved = read_model_config(config)
    elif CONFIG_KEY in file.metadata:
        try:
            document = json.loads(file.metadata[CONFIG_KEY])
        except ValueError as error:
            raise CheckpointError(f"Cannot load {file.path}: the architecture in its metadata is damaged.") from error
        resolved = parse_model_config(document, f"the metadata of {file.path}")
    elif sibling.is_file():
        resolved = read_model_config(sibling)
    else:
        resolved = infer_model_config(file.shapes)
        if resolved != ModelConfig():
            log.warning("%s does not state its architecture: assuming 8 heads and 32 x 32 latents.", file.path)
    if resolved.clip is None:
        resolved = replace(resolved, clip=infer_clip_config(file.shapes))
    return resolved


def _refuse_other_models(file: WeightsFile) -> None:
    """Raise CheckpointError with the likely kind of file when the tensors are not a Zero123 model's."""
    shapes = file.shapes
    conv_in = shapes.get(layout.UNET + "input_blocks.0.0.weight")
    if layout.PROJECTION + "weight" in shapes and conv_in is not None:
        return
    if conv_in is not None:
        kind = "a Stable Diffusion checkpoint (no cc_projection.weight), not a Zero123 one"
    elif "conv_in.weight" in shapes or "time_embedding.linear_1.weight" in shapes:
        kind = "one component of a diffusers model: give the folder that holds unet/, vae/ and image_encoder/"
    else:
        kind = f"not a Zero123 checkpoint; its first tensors are {', '.join(list(shapes)[:3]) or 'none'}"
    raise CheckpointError(f"Cannot load {file.path}: it is {kind}.")


def _choose_dtypes(dtype: str, device: torch.device, config: ModelConfig) -> dict[str, torch.dtype]:
    if dtype != "auto" and dtype not in DTYPES:
        raise ConfigError(f"Unknown dtype '{dtype}'. Known: auto, {', '.join(DTYPES)}.")
    names = [name for name in COMPONENTS if name != "lift" or config.pose_lift is not None]
    if dtype != "auto":
        chosen = dict.fromkeys(names, DTYPES[dtype])
        # The lift has layers that compute_in_float32 does not handle, and few weights.
        if "lift" in chosen and not computes_natively(DTYPES[dtype], device):
            chosen["lift"] = torch.float32
        return chosen
    if device.type == "cuda":
        return dict.fromkeys(names, torch.float16)
    chosen = dict.fromkeys(names, torch.float32)
    if config.unet.model_channels >= LARGE_UNET_CHANNELS and computes_natively(torch.bfloat16, device):
        chosen["unet"] = torch.bfloat16
    return chosen


def _assign(model: Zero123Model, file: WeightsFile, ema: bool, dtypes: Mapping[str, torch.dtype]) -> None:
    """Assign the file's tensors to the model, component by component; a missing one is an error."""
    used, missing, wrong = set(), [], []
    for component, dtype in dtypes.items():
        module: nn.Module = getattr(model, component)
        shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        state = {}
        for name, place in layout.weight_sources(model.config, component, shapes).items():
            source = place
            key = layout.ema_name(source.key) if ema and component == "unet" else source.key
            expected = source.original_shape(shapes[name])
            if layout.part_key(source) in file.tensors:  # a diffusers folder: the parameter as it is
                key, expected, source = layout.part_key(source), shapes[name], layout.WeightSource(name)
            stored = file.tensors.get(key)
            used.add(key)
            if stored is None:
                missing.append(key)
            elif stored.shape != expected and not _is_pointwise(stored.shape, expected):
                wrong.append(f"{key} is {stored.shape} instead of {expected}")
            elif not (missing or wrong):
                state[name] = _read_part(file, key, stored, source, dtype).reshape(shapes[name])
        if not (missing or wrong):
            module.load_state_dict(state, strict=True, assign=True)
    _report(file, used, missing, wrong)


def _is_pointwise(stored: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Old diffusers folders keep attention matrices as 1 x 1 convolutions."""
    return stored == (*expected, 1, 1)


def _read_part(
    file: WeightsFile, key: str, stored: StoredTensor, source: layout.WeightSource, dtype: torch.dtype
) -> Tensor:
    if not stored.dtype.is_floating_point:
        raise CheckpointError(f"Cannot load {file.path}: {key} holds {stored.dtype}, not floating-point weights.")
    try:
        part = source.extract(stored.read(dtype))
    except CheckpointError as error:
        raise CheckpointError(f"Cannot load {file.path}: {key}: {error}.") from error
    if not all(torch.isfinite(bound) for bound in part.aminmax()):
        raise CheckpointError(f"Cannot load {file.path}: {key} holds NaN or infinite values as {dtype}.")
    return part.contiguous()


def _report(file: WeightsFile, used: set[str], missing: list[str], wrong: list[str]) -> None:
    unexpected = [key for key in file.tensors if key not in used and not _is_known_extra(key)]
    log.info("%s: %d tensors loaded, %d unexpected.", file.path, len(used) - len(missing) - len(wrong), len(unexpected))
    if unexpected:
        log.warning("%s holds tensors that no part of the model uses: %s ...", file.path, ", ".join(unexpected[:3]))
    if missing:
        few = ", ".join(missing[:3])
        raise CheckpointError(
            f"Cannot load {file.path}: {len(missing)} of {len(used)} tensors are missing ({few} ...); it was pruned "
            "too far, or its architecture differs from its YAML."
        )
    if wrong:
        raise CheckpointError(
            f"Cannot load {file.path}: {len(wrong)} tensors have another shape than the architecture requires "
            f"({'; '.join(wrong[:2])}): give its own YAML."
        )


def _is_known_extra(key: str) -> bool:
    known = (*layout.UNUSED_PREFIXES, layout.UNET, layout.VAE + "decoder.", layout.VAE + "post_quant_conv.")
    return key in layout.SCHEDULE_BUFFERS or key.startswith(known)


def _materialise_buffers(model: Zero123Model) -> None:
    """Compute the buffers that checkpoints do not contain and that were built without storage."""
    from zero123s.diffusion.conditioning import alphas_cumprod

    config = model.config
    model.alphas_cumprod = alphas_cumprod(config.linear_start, config.linear_end, config.timesteps)
    embeddings = model.image_encoder.vision_model.embeddings
    embeddings.position_ids = torch.arange(embeddings.position_embedding.num_embeddings)[None]
    left = [name for name, tensor in (*model.named_buffers(), *model.named_parameters()) if tensor.is_meta]
    assert not left, f"still without storage: {left}"
