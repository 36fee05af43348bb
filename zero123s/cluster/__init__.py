"""Many images to meshes on Ray: `zero123s batch`."""
