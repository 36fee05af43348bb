"""`--plot-schedules`: a picture of every value that changes over the run."""

import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw

from zero123s.config.schedule import Schedule
from zero123s.runtime.files import replacing

WIDTH, HEIGHT, MARGIN = 720, 150, 14
INK, LINE, AXIS = (30, 30, 30), (30, 90, 200), (190, 190, 190)


def plot_schedules(schedules: Mapping[str, Schedule], max_steps: int, path: Path) -> str:
    """Draw one panel per schedule that moves, over steps 0 to `max_steps`, and write it as PNG.

    Returns:
        A sentence that says what was drawn and which values stay constant.

    Raises:
        OutputError: the picture cannot be written.
    """
    moving = {k: s for k, s in schedules.items() if not s.is_constant}
    constant = [f"{k} = {s(0):g}" for k, s in schedules.items() if s.is_constant]
    image = Image.new("RGB", (WIDTH, max(len(moving), 1) * HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for i, (key, schedule) in enumerate(moving.items()):
        _panel(draw, i * HEIGHT, key, schedule, max_steps)
    if not moving:
        draw.text((MARGIN, MARGIN), "no value changes over the run", fill=INK)
    content = io.BytesIO()
    image.save(content, format="PNG")
    with replacing(path) as file:
        file.write(content.getvalue())
    return f"{path}: {len(moving)} schedules over {max_steps} steps. Constant: {'; '.join(constant) or 'none'}."


def _panel(draw: ImageDraw.ImageDraw, top: int, key: str, schedule: Schedule, max_steps: int) -> None:
    low, high = schedule.min, schedule.max
    left, right, upper, lower = MARGIN, WIDTH - MARGIN, top + 34, top + HEIGHT - 24
    draw.text((left, top + 6), f"{key}: {low:g} to {high:g}", fill=INK)
    draw.rectangle((left, upper, right, lower), outline=AXIS)
    points = []
    for x in range(left, right + 1):
        value = schedule(round(max_steps * (x - left) / (right - left)))
        points.append((x, lower - (lower - upper) * (value - low) / (high - low)))
    draw.line(points, fill=LINE, width=2)
    draw.text((left, lower + 6), "step 0", fill=INK)
    draw.text((right - 60, lower + 6), f"{max_steps}", fill=INK)
    for step, _ in schedule.points:
        if 0 < step < max_steps:
            x = left + (right - left) * step / max_steps
            draw.line((x, upper, x, lower), fill=AXIS)
            draw.text((x - 8, lower + 6), str(step), fill=INK)
