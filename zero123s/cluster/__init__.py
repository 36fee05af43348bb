"""Many pictures to meshes on Ray: `zero123s batch`."""
