"""threestudio's keys that are renamed or dropped here, and former keys of this project: files that use them still load.

Every entry produces one notice. A key that a slot here has itself is left alone; one that is in no table and in no
dataclass stays an error.
"""

from collections.abc import Callable
from typing import Any

from zero123s.errors import ConfigError

Known = Callable[[str], bool]
"""Tells whether a full key is one of this project's own, given the types that a configuration chooses."""

RENAMED = {
    "system.guidance.pretrained_model_name_or_path": "system.guidance.checkpoint",
    "system.geometry.isosurface_resolution": "system.exporter.isosurface_resolution",
    "system.geometry.isosurface_coarse_to_fine": "system.exporter.isosurface_coarse_to_fine",
    "system.geometry.isosurface_outlier_threshold": "system.exporter.isosurface_outlier_threshold",
}

FORMER_THRESHOLD = "system.exporter.isosurface_threshold"
THRESHOLD = "system.geometry.isosurface_threshold"
"""The former key went before this one, which the files of earlier runs hold as well."""

PROMPTS = {
    "system.prompt_processor.prompt": "system.guidance.prompt",
    "system.prompt_processor.negative_prompt": "system.guidance.negative_prompt",
}
"""Also renamed if the guidance takes a prompt."""
PROMPT_PROCESSOR = ("system.prompt_processor_type", "system.prompt_processor")
"""Dropped; why depends on the guidance."""

DROPPED = {
    "system.guidance.pretrained_config": "the architecture is read from the checkpoint; guidance.config names another",
    "system.guidance.vram_O": "the decoder is only loaded when it is needed",
    "system.guidance.half_precision_weights": "guidance.dtype decides the precision",
    "system.guidance.cond_image_path": "the guidance is conditioned on the data's own reference view",
    "system.guidance.cond_elevation_deg": "the guidance is conditioned on the data's own reference view",
    "system.guidance.cond_azimuth_deg": "the guidance is conditioned on the data's own reference view",
    "system.guidance.cond_camera_distance": "the guidance is conditioned on the data's own reference view",
    "system.renderer.radius": "the renderer takes the geometry's radius",
    "system.renderer.return_comp_normal": "the active losses determine what is rendered",
    "system.renderer.return_normal_perturb": "the active losses determine what is rendered",
    "system.geometry.isosurface_method": "marching cubes is the method here",
    "system.geometry.isosurface_chunk": "evaluation is sparse, and chunked automatically",
    "system.geometry.n_input_dims": "points have three dimensions",
    "system.exporter.context_type": "no OpenGL context is needed",
    "system.renderer.context_type": "no OpenGL context is needed",
    "system.cleanup_after_validation_step": "memory is freed automatically",
    "system.cleanup_after_test_step": "memory is freed automatically",
    "system.renderer.near_plane": "rays begin where they enter the geometry's cube",
    "system.renderer.far_plane": "rays end where they leave the geometry's cube",
    "system.geometry.isosurface": "any geometry can be exported",
    "system.material.requires_normal": "normals are computed where a loss or the material needs them",
    "system.material.ambient_only_on_test": "images outside training show the albedo",
    "system.exporter.save_video": "the turntable is drawn by --test, and after training",
    "data.rays_d_normalize": "directions have length one",
    "data.random_camera.rays_d_normalize": "directions have length one",
    "data.eval_batch_size": "views are evaluated one by one",
    "data.n_test_views_per_batch": "views are evaluated one by one",
    "data.use_random_camera": "a weight of zero for the guidance turns random views off",
    "data.random_camera.eval_batch_size": "views are evaluated one by one",
    "data.random_camera.n_test_views_per_batch": "views are evaluated one by one",
    "trainer.num_sanity_val_steps": "everything is checked before training",
    "trainer.limit_val_batches": "data.random_camera.n_val_views decides; trainer.val_check_interval=0 turns previews off",
    "trainer.limit_test_batches": "data.random_camera.n_test_views decides",
    "trainer.inference_mode": "views are drawn without gradients in any case",
    "system.loggers.wandb.name": "the run folder's name is used",
    "exp_dir": "it follows from exp_root_dir and name",
    "trial_name": "it follows from tag and use_timestamp",
    "n_gpus": "--gpu selects the GPUs",
    "timestamp": "the run folder's name has the time, see use_timestamp",
}

FORMER = {
    "trainer.max_memory_gb": "the run takes the memory it needs; limit it from outside (ulimit -d, a container, systemd-run)",
}
"""Keys of earlier versions, which their run folders still hold with the default; a notice only where a value was set.
"""


def new_key(key: str, known: Known) -> str:
    """Return this project's name of a threestudio key, any other unchanged."""
    if known(key):
        return key
    prompt = PROMPTS.get(key)
    return prompt if prompt and known(prompt) else {**RENAMED, FORMER_THRESHOLD: THRESHOLD}.get(key, key)


def other_name(key: str) -> str | None:
    """Return threestudio's name of a key of this project, or vice versa; None if both are the same."""
    back = {new: old for old, new in RENAMED.items()}
    return RENAMED.get(key) or back.get(key)


def translate(content: dict[Any, Any], known: Known) -> list[str]:
    """Rename and drop threestudio's keys of one file or command line, in place; return the notices.

    Args:
        content: nested plain values, not yet merged with others: a later layer replaces an earlier one by either name.
        known: see `Known`.

    Raises:
        ConfigError: a key and the one that replaces it are both given.
    """
    notices = []
    for old in (*RENAMED, *PROMPTS):
        new = new_key(old, known)
        if new == old or not has(content, old):
            continue
        if has(content, new):
            raise ConfigError(f"'{old}' is threestudio's name for '{new}'; give only one of them.")
        put(content, new, remove(content, old))
        notices.append(renamed_notice(old, new))
    former = FORMER_THRESHOLD
    if has(content, former) and not known(former) and (level := remove(content, former)) != "auto":
        put(content, THRESHOLD, level)
        notices.append(renamed_notice(former, THRESHOLD))
    takes_prompt = known("system.guidance.prompt")
    reason = "the guidance reads the prompt itself" if takes_prompt else "Zero123 takes no prompt"
    for key, why in {**dict.fromkeys(PROMPT_PROCESSOR, reason), **DROPPED}.items():
        if has(content, key) and not known(key) and remove(content, key) != {}:
            notices.append(dropped_notice(key, why))
    for key, why in FORMER.items():
        if has(content, key) and remove(content, key) not in (None, "", "null"):
            notices.append(f"{key} no longer exists: {why}.")
    return notices


def dropped_notice(key: str, why: str) -> str:
    """Return the sentence that says why a key has no effect."""
    return f"{key} is not needed: {why}."


def renamed_notice(old: str, new: str) -> str:
    """Return the sentence about a renamed key."""
    return f"{old} is {new} here."


def _section(content: Any, key: str) -> Any:
    """Return the section that holds a key, None where there is none."""
    for part in key.split(".")[:-1]:
        content = content.get(part) if isinstance(content, dict) else None
    return content


def has(content: dict[Any, Any], key: str) -> bool:
    """Tell whether a key is given."""
    section = _section(content, key)
    return isinstance(section, dict) and key.rpartition(".")[2] in section


def remove(content: dict[Any, Any], key: str) -> Any:
    """Remove a key that is set and return its value."""
    return _section(content, key).pop(key.rpartition(".")[2])


def put(content: dict[Any, Any], key: str, value: Any) -> None:
    """Set a key, creating the sections above it."""
    *sections, name = key.split(".")
    for part in sections:
        if not isinstance(content.get(part), dict):
            content[part] = {}
        content = content[part]
    content[name] = value
