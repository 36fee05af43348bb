"""Overrides that make a run of any config with images last seconds; what a test needs otherwise comes after them."""

SMALL = [
    "data.height=16",
    "data.width=16",
    "data.resolution_milestones=[]",
    "data.random_camera.height=16",
    "data.random_camera.width=16",
    "data.random_camera.batch_size=1",
    "data.random_camera.resolution_milestones=[]",
    "data.random_camera.eval_height=16",
    "data.random_camera.eval_width=16",
    "data.random_camera.n_val_views=1",
    "data.random_camera.n_test_views=2",
    "system.geometry.pos_encoding_config.n_levels=4",
    "system.geometry.pos_encoding_config.log2_hashmap_size=12",
    "system.renderer.num_samples_per_ray=32",
    "system.exporter.isosurface_resolution=24",
    "system.exporter.texture_size=64",
    "system.exporter.unwrap_time_limit_s=0",  # no process for xatlas: tests/mesh/test_unwrap.py, and the bundled model's job
    "system.exporter.poster=false",
    "system.warm_start.steps=20",
    "trainer.max_steps=2",
    "trainer.enable_progress_bar=false",
]
