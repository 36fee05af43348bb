"""Actions of a visitor: the functions behind the page and its API, independent of gradio."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from numpy import ndarray

from zero123s.errors import ImageError
from zero123s.images.io import write_png_atomic
from zero123s.run.folder import shell_safe
from zero123s.web.job_process import RUN
from zero123s.web.job_view import JobView, read_job_view
from zero123s.web.jobs import Job, JobQueue
from zero123s.web.photos import Corrections, PreparedPhoto, prepare_photo, read_upload
from zero123s.web.settings import Choice, Settings, check_choice, draw_task, run_overrides

SERVED = "served"
"""Folder below the server's own for uploads and for copies of results: the only one that is reachable from outside."""


class Service:
    """A server's settings and queue.

    Args:
        settings: what the operator decided.
        queue: runs the jobs.
    """

    def __init__(self, settings: Settings, queue: JobQueue) -> None:
        self.settings = settings
        self.queue = queue

    def prepare(
        self,
        upload: str | Path | None,
        corrections: Corrections | None = None,
        strokes: Float[ndarray, "h w 4"] | None = None,
    ) -> PreparedPhoto:
        """Return an uploaded photo, cut out and framed; raises ImageError."""
        if not upload:
            raise ImageError("Upload an image first.")
        return prepare_photo(read_upload(upload, self.settings.limits), corrections, strokes)

    def make(self, prepared: PreparedPhoto, choice: Choice, title: str, confirmed: bool = False) -> Job:
        """Queue a run on a prepared image.

        Args:
            confirmed: the user has confirmed a low-confidence cut-out.

        Raises:
            ConfigError: a choice that is not offered.
            ImageError: a low-confidence cut-out that the user has not confirmed.
            BusyError: the queue is full.
        """
        check_choice(self.settings, choice)
        if prepared.is_uncertain and not confirmed:
            raise ImageError(
                f"The cut-out is doubtful: {prepared.segmentation.reason or 'many pixels are undecided'}; correct it on "
                "the page, or give a photo with a plainer background."
            )

        def fill(folder: Path) -> Mapping[str, Any]:
            image = write_png_atomic(folder / "input_rgba.png", prepared.rgba)
            write_png_atomic(folder / "input_steps.png", prepared.steps)
            return {"words": run_overrides(self.settings, choice, image, folder / RUN)}

        task = {"config": self.settings.config, "profile": self.settings.profile, "quality": choice.quality}
        return self.queue.submit("mesh", shell_safe(Path(title).stem), task, fill)

    def draw(self, prompt: str, seed: int) -> Job:
        """Queue the generation of an image from a prompt; raises ConfigError, BusyError."""
        task = draw_task(self.settings, prompt, seed)
        return self.queue.submit("draw", task["prompt"], task)

    def view(self, job_id: object) -> JobView:
        """Return the state of a job; raises ConfigError for an unknown one."""
        return read_job_view(self.queue, self.queue.get(job_id))

    def cancel(self, job_id: object) -> JobView:
        """Stop a job; raises ConfigError for an unknown one."""
        self.queue.cancel(self.queue.get(job_id))
        return self.view(job_id)
