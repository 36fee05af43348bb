"""threestudio's guidances and prompt processors: here a prompt belongs to its guidance; VSD, SJC, SDI are variants."""

from typing import Any

from zero123s.config.threestudio.translation import Translation
from zero123s.errors import ConfigError

STABLE_DIFFUSION = "stable-diffusion-guidance"
ZERO123 = "zero123-guidance"
SD_2_1, SD_1_5 = "stabilityai/stable-diffusion-2-1-base", "runwayml/stable-diffusion-v1-5"
TEXT = {
    "stable-diffusion-guidance": {"checkpoint": SD_1_5, "scale_from": "conditional"},
    "stable-diffusion-vsd-guidance": {"variant": "vsd", "checkpoint": SD_2_1, "guidance_scale": 7.5},
    "stable-diffusion-sdi-guidance": {
        "variant": "sdi", "checkpoint": SD_2_1, "scale_from": "conditional", "weighting": "uniform", "t_anneal": True,
    },
    "stable-diffusion-unified-guidance": {"checkpoint": SD_1_5, "use_img_loss": True},
}  # fmt: skip
"""Guidances that take a prompt, with the settings that their names and defaults imply."""
IMAGE = {
    "zero123-unified-guidance": {"checkpoint": "bennyguo/zero123-diffusers", "guidance_scale": 5.0},
    "zero123-guidance": {"guidance_scale": 3.0},
    "stable-zero123-guidance": {"guidance_scale": 3.0},
}
REFUSED = {
    "deep-floyd-guidance": "DeepFloyd IF is not supported; a -sd file of the same recipe uses Stable Diffusion",
    "stable-diffusion-controlnet-guidance": "ControlNet is not supported",
    "stable-diffusion-instructpix2pix-guidance": "InstructPix2Pix is not supported",
}
SAME_RESULT = (
    "enable_memory_efficient_attention",
    "enable_sequential_cpu_offload",
    "enable_attention_slicing",
    "enable_channels_last_format",
)
PICTURES = ("return_rgb_1step_orig", "return_rgb_multistep_orig", "n_rgb_multistep_orig_steps", "max_items_eval")
LORA_MODEL = ("pretrained_model_name_or_path_lora", "vsd_phi_model_name_or_path")
LORA_CONDITION = (
    *("lora_cfg_training", "camera_condition_type"),
    *("vsd_lora_cfg_training", "vsd_use_camera_condition", "vsd_camera_condition_type"),
)
ONLY = {
    "guidance_scale_lora": ((1, 1.0), "the low-rank copy is not guided"),
    "vsd_guidance_scale_phi": ((1, 1.0), "the low-rank copy is not guided"),
    "lora_n_timestamp_samples": ((1,), "the low-rank copy learns from one noise level a step"),
    "vsd_lora_n_timestamp_samples": ((1,), "the low-rank copy learns from one noise level a step"),
    "vsd_use_lora": ((True,), "the copy of the denoiser is trained by low-rank adapters"),
    "token_merging": ((False,), "tokens are not merged"),
    "enable_sdi": ((True,), "without inversion it is plain SDS: use stable-diffusion-guidance"),
    "controlnet_model_name_or_path": ((None,), "ControlNet is not supported"),
    "lora_model_name_or_path": ((None,), "adapters of the prior are not loaded; merge them into its weights"),
}
PROMPT_WORDS = {
    **{name: name for name in ("prompt", "negative_prompt")},
    **{f"prompt_{view}": f"prompt_{view}" for view in ("front", "side", "back", "overhead")},
    **{f"{view}_threshold": f"{view}_threshold" for view in ("front", "back", "overhead")},
    **{f"perp_neg_f_{name}": f"perp_neg_f_{name}" for name in ("sb", "fsb", "fs", "sf")},
    "use_perp_neg": "perp_neg",
}
"""Keys of a prompt processor and their names in the guidance."""
INSTEAD = {
    "pretrained_model_name_or_path": "checkpoint",
    "weighting_strategy": "weighting",
    "use_img_loss": "image_loss",
    "var_red": "variance_reduction",
    "inversion_n_steps": "inversion_steps",
}


def translate_guidance(t: Translation) -> None:
    """Translate `system.guidance`, `guidance_3d` and `prompt_processor`."""
    kind = t.get("system.guidance_type", STABLE_DIFFUSION)
    if kind in REFUSED:
        raise ConfigError(f"system.guidance_type: threestudio's {kind} is not there: {REFUSED[kind]}.")
    if t.has("system.guidance_3d_type"):
        _two_guidances(t, kind)
        return
    takes_prompt = kind in TEXT
    if takes_prompt:
        _prompts(t, "system.guidance")
    _section(t, "system.guidance", kind)
    t.rename_type("system.guidance_type", STABLE_DIFFUSION if takes_prompt else _image_type(kind))
    _learning_rate(t, "system.guidance")


def _image_type(kind: str) -> str:
    return kind if kind == "stable-zero123-guidance" else ZERO123 if kind in IMAGE else kind


def _two_guidances(t: Translation, kind: str) -> None:
    """Translate Magic123's two guidances to a combined guidance weighted by the two losses' weights."""
    kind_3d = t.pop("system.guidance_3d_type")
    if kind not in TEXT or kind_3d not in IMAGE:
        raise ConfigError(f"system.guidance_type: {kind} with guidance_3d_type: {kind_3d} is not known as a pair.")
    _prompts(t, "system.guidance")
    _section(t, "system.guidance", kind)
    t.default("system.guidance_3d", {})
    _section(t, "system.guidance_3d", kind_3d)
    _learning_rate(t, "system.guidance")
    weights = [t.pop(f"system.loss.{name}", 0.0) for name in ("lambda_3d_sd", "lambda_sd")]
    t.put("system.loss.lambda_sds", 1.0)
    parts = [("guidance_3d", _image_type(kind_3d)), ("guidance", STABLE_DIFFUSION)]
    guidances = [
        {"type": name, "weight": weight, "settings": t.pop(f"system.{key}")}
        for (key, name), weight in zip(parts, weights, strict=True)
    ]
    for i, (key, _) in enumerate(parts):
        for name in guidances[i]["settings"]:
            t.moves_to(f"system.{key}.{name}", f"system.guidance.guidances[{i}].settings.{name}")
    t.put("system.guidance", {"guidances": guidances})
    t.put("system.guidance_type", "combined-guidance")
    t.notices.append(
        "guidance and guidance_3d are the parts of combined-guidance here, lambda_sd and lambda_3d_sd their weights."
    )


def _prompts(t: Translation, guidance: str) -> None:
    """Move the prompt processor's keys into the guidance."""
    key = "system.prompt_processor"
    if str(t.get(f"{key}.prompt")).startswith("lib:"):
        raise ConfigError(f"{key}.prompt: there is no prompt library; write the prompt itself.")
    for old, new in PROMPT_WORDS.items():
        t.move(f"{key}.{old}", f"{guidance}.{new}")
    if t.pop(f"{key}.view_dependent_prompt_front", False):
        t.default(f"{guidance}.view_words", "prefix")
    t.drop(f"{key}.pretrained_model_name_or_path", "the guidance's model encodes the prompt")
    for name in ("use_cache", "spawn"):
        t.drop(f"{key}.{name}", "prompts are encoded once, when the model is loaded")
    t.refuse_unless(f"{key}.use_prompt_debiasing", (False,), "prompts are taken as they are")
    for name in ("pretrained_model_name_or_path_prompt_debiasing", "prompt_debiasing_mask_ids"):
        t.drop(f"{key}.{name}", "prompts are taken as they are")
    leftover = t.pop(key, {}) or {}
    if leftover:
        raise ConfigError(f"Unknown key '{key}.{next(iter(leftover))}'.")
    t.drop("system.prompt_processor_type", "the guidance reads the prompt itself")


def _section(t: Translation, key: str, kind: str) -> None:
    """Translate the settings of one guidance in place."""
    implied = dict({**TEXT, **IMAGE}.get(kind, {}))
    if "unified" in kind and t.pop(f"{key}.guidance_type", "sds") == "vsd":
        implied["variant"] = "vsd"
        implied["use_img_loss"] = False
    for name, value in implied.items():
        given_as = next((old for old, new in INSTEAD.items() if new == name), name)
        if not t.has(f"{key}.{given_as}"):
            t.default(f"{key}.{name}", value)
    if t.get(f"{key}.weighting_strategy") == "dreamfusion":
        t.put(f"{key}.weighting_strategy", "sds")
    for old, new in INSTEAD.items():
        t.move(f"{key}.{old}", f"{key}.{new}")
    if t.pop(f"{key}.use_sjc", False):
        t.default(f"{key}.variant", "sjc")
        t.put(f"{key}.weighting", "uniform")
    elif t.get(f"{key}.variant") != "sjc":
        t.drop(f"{key}.variance_reduction", "it belongs to use_sjc")
    _annealing(t, key, 10000 if "sdi" in kind else 25000)
    _without_meaning(t, key)


def _annealing(t: Translation, key: str, default_steps: int) -> None:
    modes = {"sqrt_anneal": "sqrt", "t_anneal": "linear"}
    for word, mode in modes.items():
        if t.pop(f"{key}.{word}", False):
            t.default(f"{key}.timesteps", mode)
            t.default(f"{key}.anneal_steps", t.get(f"{key}.trainer_max_steps", default_steps))
    if t.has(f"{key}.trainer_max_steps"):
        t.pop(f"{key}.trainer_max_steps")


def _without_meaning(t: Translation, key: str) -> None:
    for name in SAME_RESULT:
        t.drop(f"{key}.{name}", "it would not change the result")
    for name in PICTURES:
        t.drop(f"{key}.{name}", "system.freq.guidance_eval writes such images")
    for name in LORA_MODEL:
        t.drop(f"{key}.{name}", "the low-rank copy is one of the guiding model itself")
    for name in LORA_CONDITION:
        t.drop(f"{key}.{name}", "the low-rank copy is conditioned as the guiding model is")
    t.drop(f"{key}.token_merging_params", "tokens are not merged")
    t.drop(f"{key}.preprocessor", "ControlNet is not supported")
    t.drop(f"{key}.control_scale", "ControlNet is not supported")
    for name, (allowed, why) in ONLY.items():
        t.refuse_unless(f"{key}.{name}", allowed, why)
    if key == "system.guidance_3d":
        for name in ("cond_image_path", "cond_elevation_deg", "cond_azimuth_deg", "cond_camera_distance"):
            t.drop(f"{key}.{name}", "the guidance is conditioned on the data's own reference view")
    t.drop(f"{key}.half_precision_weights", "guidance.dtype decides the precision")


def _learning_rate(t: Translation, key: str) -> None:
    """Set the LoRA copy's learning rate to that of the optimiser's group `guidance`."""
    group: Any = t.pop("system.optimizer.params.guidance", None)
    if group is None:
        return
    if t.get(f"{key}.variant") != "vsd":
        t.notices.append("system.optimizer.params.guidance is not needed: the guidance learns nothing.")
        return
    rate = group.get("lr") if isinstance(group, dict) else None
    if not isinstance(group, dict) or set(group) != {"lr"}:
        raise ConfigError(f"system.optimizer.params.guidance: expected {{lr: ...}} alone, got {group}.")
    t.default(f"{key}.lora_lr", rate)
    t.notices.append(f"system.optimizer.params.guidance.lr is {key}.lora_lr here.")
