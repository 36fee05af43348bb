"""`--viewer`: a live view of the field in a browser, rendered between training steps for a share of the time."""

import contextlib
import io
import logging
import math
import time
from typing import Any

import numpy as np
import pytorch_lightning as pl

from zero123s.callbacks.progress import format_losses
from zero123s.callbacks.viewer_images import KINDS, Budget, camera_at, pose_of, reference_thumbnail, render_view
from zero123s.config.experiment import ViewerConfig
from zero123s.errors import ConfigError, MissingDependencyError
from zero123s.runtime.processes import print_rank_zero
from zero123s.structures import Cameras
from zero123s.system.base import Plan

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_IMAGES = 1.0
"""Applies to a camera at rest; a moving one is followed immediately."""
MAX_FRUSTUMS = 12
"""Cameras shown of either kind."""
REFERENCE_COLOR, RANDOM_COLOR = (220, 90, 20), (60, 110, 200)
SIZE_OF_FRUSTUMS = 0.25
"""World units."""


def require_viewer(plan: Plan) -> None:
    """Check that a run with `viewer.enabled` can have a viewer.

    Raises:
        MissingDependencyError: viser is not installed.
        ConfigError: the system has no radiance field to display.
    """
    if not plan.experiment.viewer.enabled:
        return
    if not hasattr(plan.system_class, "render"):
        raise ConfigError(
            f"viewer.enabled: {plan.experiment.system_type} has no radiance field to display; leave --viewer out."
        )
    try:
        import viser  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "The viewer is made with viser, which is not installed: pip install -e '.[viewer]', or leave --viewer out."
        ) from error


class Viewer(pl.Callback):
    """Serves live renders to browsers; errors in the viewer never stop training.

    Args:
        cfg: the `viewer` section.
    """

    def __init__(self, cfg: ViewerConfig) -> None:
        self.cfg = cfg
        self.server: Any = None
        self.budget = Budget(cfg.max_share)
        self._drawn: dict[int, tuple[Any, float, int]] = {}
        """Last image of each client: state of its camera and controls, time, and step."""
        self._last_message = 0.0

    # ------------------------------------------------------------ Lightning

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start the server."""
        if trainer.is_global_zero:
            self._safely(self._open, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Render for the client that has waited longest, if the share of time allows."""
        if self.server is None:
            return
        self._safely(self._show_progress, trainer)
        if self.server is not None and self.budget.is_free:
            self._safely(self._draw, pl_module, trainer.global_step, batch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Stop the server; the following stages only write files."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Stop the server."""
        self._close()

    def _safely(self, function: Any, *args: Any) -> None:
        """Call a function; on an error close the viewer, so that training continues."""
        try:
            function(*args)
        except Exception as error:
            logger.warning("warning: the viewer is closed (%s: %s); training continues.", type(error).__name__, error)
            logger.debug("the viewer failed", exc_info=True)
            self._close()

    # ------------------------------------------------------------ server

    def _open(self, system: Any) -> None:
        import viser

        with contextlib.redirect_stdout(io.StringIO()):  # it prints a box, whatever `verbose` says
            self.server = viser.ViserServer(host=self.cfg.host, port=self.cfg.port, label="zero123s", verbose=False)
        self.server.scene.set_up_direction("+z")
        self.server.gui.configure_theme(control_layout="collapsible", show_share_button=False, show_logo=False)
        gui = self.server.gui
        self._words = gui.add_markdown("waiting for the first step")
        self._kind = gui.add_dropdown("Show", KINDS)
        self._size = gui.add_slider("Pixels", 32, 512, 16, self.cfg.height)
        self._reference = gui.add_checkbox("Reference views", True)
        self._random = gui.add_checkbox("Random cameras", False)
        reference = system.input_view()
        self._frustums = []
        if reference is not None:
            for i in range(min(len(reference.cameras), MAX_FRUSTUMS)):
                rgb = (255 * reference_thumbnail(reference, i) + 0.5).astype(np.uint8)
                name = f"/reference/{i}"
                self._frustums.append(self._frustum(name, reference.cameras, i, REFERENCE_COLOR, rgb))
            self._start_at(reference.cameras)
        self._others: list[Any] = []
        print_rank_zero(f"viewer: http://{self.cfg.host}:{self.server.get_port()}")

    def _start_at(self, cameras: Cameras) -> None:
        """Place a new client's camera slightly behind the first reference camera."""
        _, position = pose_of(cameras, 0)
        start = self.server.initial_camera
        start.position, start.look_at = 1.4 * position + np.array([0.0, 1.2, 0.5]), np.zeros(3)
        start.fov = math.radians(1.6 * float(cameras.fovy_deg[0]))

    def _frustum(self, name: str, cameras: Cameras, index: int, color: Any, rgb: Any = None) -> Any:
        wxyz, position = pose_of(cameras, index)
        fov, aspect = math.radians(float(cameras.fovy_deg[index])), cameras.width / cameras.height
        return self.server.scene.add_camera_frustum(
            name,
            fov,
            aspect,
            scale=SIZE_OF_FRUSTUMS,
            thickness=SIZE_OF_FRUSTUMS / 50,
            color=color,
            image=rgb,
            wxyz=wxyz,
            position=position,
        )

    def _close(self) -> None:
        server, self.server = self.server, None
        if server is None:
            return
        try:
            server.stop()
        except Exception as error:  # it is over anyway
            logger.debug("the viewer could not be closed: %s", error)

    # ------------------------------------------------------------ between steps

    def _show_progress(self, trainer: pl.Trainer) -> None:
        if time.monotonic() - self._last_message < SECONDS_BETWEEN_IMAGES:
            return
        self._last_message = time.monotonic()
        losses = format_losses(trainer.callback_metrics, 1000).replace(" ", "  \n")
        self._words.content = f"**step {trainer.global_step} of {trainer.max_steps}**\n\n{losses}"

    def _draw(self, system: Any, step: int, batch: Any) -> None:
        clients = self.server.get_clients()
        self._drawn = {i: shown for i, shown in self._drawn.items() if i in clients}
        never: tuple[Any, float, int] = (None, -math.inf, -1)
        # Whoever was shown something longest ago comes first, so that several visitors share.
        for client_id in sorted(clients, key=lambda i: self._drawn.get(i, never)[1]):
            view, shown_at, shown_step = self._drawn.get(client_id, never)
            now = self._view_of(clients[client_id])
            is_old = step != shown_step and time.monotonic() - shown_at > SECONDS_BETWEEN_IMAGES
            if now == view and not is_old:
                continue
            started = time.monotonic()
            self._drawn[client_id] = (now, started, step)
            self._show_cameras(batch)
            self._send(system, clients[client_id])
            self.budget.spent(time.monotonic() - started)
            return

    def _view_of(self, client: Any) -> Any:
        camera = client.camera
        pose = (*np.round(camera.wxyz, 6), *np.round(camera.position, 6), round(camera.fov, 6), round(camera.aspect, 4))
        return (*pose, self._kind.value, self._size.value, self._reference.value, self._random.value)

    def _send(self, system: Any, client: Any) -> None:
        c = client.camera
        camera = camera_at(c.wxyz, c.position, math.degrees(c.fov), c.aspect, int(self._size.value))
        rgb, depth = render_view(system, camera, self._kind.value)
        client.scene.set_background_image((255 * rgb + 0.5).astype(np.uint8), format="jpeg", depth=depth)

    def _show_cameras(self, batch: Any) -> None:
        for frustum in self._frustums:
            frustum.visible = bool(self._reference.value)
        for frustum in self._others:
            frustum.remove()
        novel = getattr(batch, "novel", None)
        self._others = []
        if self._random.value and novel is not None:
            n = min(len(novel), MAX_FRUSTUMS)
            self._others = [self._frustum(f"/random/{i}", novel, i, RANDOM_COLOR) for i in range(n)]
