"""Overrides, in threestudio's words, that make two steps of a file of threestudio's last seconds on a CPU."""

from typing import Any

SMALL_VIEWS = (
    *("height=16", "width=16", "batch_size=1", "resolution_milestones=[]", "eval_height=16", "eval_width=16"),
    *("n_val_views=1", "n_test_views=1"),
)
ALWAYS = (
    *("trainer.max_steps=2", "trainer.enable_progress_bar=false", "checkpoint.every_n_train_steps=2"),
    "export_after_train=false",
)


def tiny_words(content: dict[str, Any], text_model: Any, zero123: list[str], image: Any, first_stage: Any) -> list[str]:
    """Return the overrides for a file's content.

    Args:
        content: the file, read as plain YAML.
        text_model: folder of a small Stable Diffusion.
        zero123: words for a small Zero123, `system.guidance.checkpoint=...` and `system.guidance.config=...`.
        image: image of an object.
        first_stage: run folder for `system.geometry_convert_from`.
    """
    system, arguments = content.get("system", {}), list(ALWAYS)
    cameras = "data.random_camera" if content.get("data_type") == "single-image-datamodule" else "data"
    arguments += [f"{cameras}.{word}" for word in SMALL_VIEWS]
    if cameras != "data":
        arguments += ["data.height=16", "data.width=16", "data.resolution_milestones=[]", f"data.image_path={image}"]
    geometry = system.get("geometry_type", "implicit-volume")
    if geometry == "volume-grid":
        arguments.append("system.geometry.grid_size=[8,8,8]")
    elif geometry == "tetrahedra-sdf-grid":
        arguments.append("system.geometry.isosurface_resolution=16")
    if geometry != "volume-grid":
        arguments.append("system.geometry.pos_encoding_config.log2_hashmap_size=8")
    if system.get("renderer_type") in ("nerf-volume-renderer", None):
        arguments.append("system.renderer.num_samples_per_ray=32")
    if "prompt" in system.get("prompt_processor", {}) and system["prompt_processor"]["prompt"] == "???":
        arguments.append("system.prompt_processor.prompt=a ball")
    if "geometry_convert_from" in system:
        arguments.append(f"system.geometry_convert_from={first_stage}")
    if "weights" in system:
        arguments.append(f"system.weights={first_stage}/ckpts/last.ckpt")
    if "stable-diffusion" in str(system.get("guidance_type")):
        arguments.append(f"system.guidance.pretrained_model_name_or_path={text_model}")
    else:
        arguments += zero123
    if "guidance_3d_type" in system:
        arguments += [word.replace("system.guidance.", "system.guidance_3d.") for word in zero123]
    return arguments
