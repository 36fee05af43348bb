"""threestudio's YAML words that mean something else here, or nothing, and this project's former ones: their files load unchanged.

Every entry produces one notice. A key that is in no table and in no dataclass stays an error.
"""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from zero123s.errors import ConfigError

RENAMED = {
    "system.guidance.pretrained_model_name_or_path": "system.guidance.checkpoint",
    "system.geometry.isosurface_resolution": "system.exporter.isosurface_resolution",
    "system.geometry.isosurface_coarse_to_fine": "system.exporter.isosurface_coarse_to_fine",
    "system.geometry.isosurface_outlier_threshold": "system.exporter.isosurface_outlier_threshold",
}

DROPPED = {
    "system.prompt_processor_type": "Zero123 takes no prompt",
    "system.prompt_processor": "Zero123 takes no prompt",
    "system.guidance.pretrained_config": "the architecture is read from the checkpoint; guidance.config names another",
    "system.guidance.vram_O": "the decoder is only loaded when it is needed",
    "system.guidance.half_precision_weights": "guidance.dtype decides the precision",
    "system.guidance.cond_image_path": "the guidance is conditioned on the data's own reference view",
    "system.guidance.cond_elevation_deg": "the guidance is conditioned on the data's own reference view",
    "system.guidance.cond_azimuth_deg": "the guidance is conditioned on the data's own reference view",
    "system.guidance.cond_camera_distance": "the guidance is conditioned on the data's own reference view",
    "system.renderer.radius": "the renderer takes the geometry's radius",
    "system.renderer.return_comp_normal": "losses ask the renderer for what they need",
    "system.renderer.return_normal_perturb": "losses ask the renderer for what they need",
    "system.geometry.isosurface_method": "marching cubes is the method here",
    "system.geometry.isosurface_chunk": "evaluation is sparse and chunked by itself",
    "system.exporter.context_type": "no OpenGL context is needed",
    "system.cleanup_after_validation_step": "memory is freed by itself",
    "system.cleanup_after_test_step": "memory is freed by itself",
    "data.use_random_camera": "a weight of zero for the guidance turns random views off",
    "data.random_camera.eval_batch_size": "views are evaluated one by one",
    "data.random_camera.n_test_views_per_batch": "views are evaluated one by one",
    "trainer.num_sanity_val_steps": "everything is checked before training",
    "trainer.limit_val_batches": "data.random_camera.n_val_views decides; trainer.val_check_interval=0 turns previews off",
    "trainer.limit_test_batches": "data.random_camera.n_test_views decides",
    "trainer.inference_mode": "views are drawn without gradients in any case",
    "system.loggers.wandb.name": "the run folder's name is used",
}

FORMER = {
    "trainer.max_memory_gb": "the run takes the memory it needs; limit it from outside (ulimit -d, a container, systemd-run)",
}
"""Keys of earlier versions, which their run folders still hold with the default; a notice only where a value was set."""


def _select(cfg: DictConfig, key: str) -> Any:
    node: Any = cfg
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return None
        node = node._get_node(part)
    return node


def _remove(cfg: DictConfig, key: str) -> None:
    parent, _, name = key.rpartition(".")
    node = _select(cfg, parent) if parent else cfg
    del node[name]


def translate(cfg: DictConfig) -> list[str]:
    """Rename and drop threestudio's keys in place, before interpolations are resolved; return the notices.

    Raises:
        ConfigError: a key and the one that replaces it are both given.
    """
    notices = []
    for old, new in RENAMED.items():
        node = _select(cfg, old)
        if node is None:
            continue
        if _select(cfg, new) is not None:
            raise ConfigError(f"'{old}' is threestudio's name for '{new}'; give only one of them.")
        OmegaConf.update(cfg, new, node, force_add=True)
        _remove(cfg, old)
        notices.append(f"{old} is {new} here.")
    for key, reason in DROPPED.items():
        if _select(cfg, key) is not None:
            _remove(cfg, key)
            notices.append(f"{key} is not needed: {reason}.")
    for key, reason in FORMER.items():
        node = _select(cfg, key)
        if node is not None:
            if not node._is_none():
                notices.append(f"{key} no longer exists: {reason}.")
            _remove(cfg, key)
    return notices
