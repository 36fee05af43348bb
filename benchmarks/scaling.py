"""How the cost of a NeRF step grows with the size and the number of views: linearly in samples, or worse?

Run: python benchmarks/scaling.py [--repeats 3] [--output scaling.json] [--plot docs/images/scaling.png]
One thread, CPU time, median. 32^2 to 512^2 pixels, then 1 to 16 views of 64^2; with nanoseconds per sample.
"""

import math
from pathlib import Path

from compare import STEP, arguments, ball_scene, medians, report, save
from nerf_step import BOX, our_step
from PIL import Image, ImageDraw

from zero123s.ops.ray_marching import march

SIZES = (32, 64, 128, 256, 512)
VIEWS = (1, 2, 4, 8, 16)
WIDTH, HEIGHT, MARGIN = 720, 480, 60
INK, GRID_LINE = (30, 30, 30), (215, 215, 215)
COLORS = {"size": (30, 90, 200), "views": (200, 90, 30)}

Row = tuple[str, int, float]
"""What was varied, samples, seconds."""


def n_samples(size: int, views: int) -> int:
    """Return how many samples a step takes."""
    rays_o, rays_d, ball = ball_scene(size, views=views)
    return len(march(rays_o, rays_d, BOX, ball, STEP).t_starts)


def plot(rows: list[Row], path: Path) -> None:
    """Draw seconds over samples, both logarithmic, with a line of slope 1."""
    x = [math.log10(n) for _, n, _ in rows]
    y = [math.log10(s) for _, _, s in rows]
    left, right = math.floor(min(x)), math.ceil(max(x))
    low, high = math.floor(min(y)), math.ceil(max(y))

    def place(a: float, b: float) -> tuple[float, float]:
        across = MARGIN + (WIDTH - 1.5 * MARGIN) * (a - left) / (right - left)
        return across, HEIGHT - MARGIN - (HEIGHT - 1.5 * MARGIN) * (b - low) / (high - low)

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for power in range(left, right + 1):
        draw.line((place(power, low), place(power, high)), fill=GRID_LINE)
        draw.text((place(power, low)[0] - 10, HEIGHT - MARGIN + 8), f"1e{power}", fill=INK)
    for power in range(low, high + 1):
        draw.line((place(left, power), place(right, power)), fill=GRID_LINE)
        draw.text((12, place(left, power)[1] - 6), f"{10.0**power:g} s", fill=INK)
    middle = sum(b - a for a, b in zip(x, y, strict=True)) / len(x)
    a, b = max(left, low - middle), min(right, high - middle)
    draw.line((place(a, a + middle), place(b, b + middle)), fill=(150, 150, 150))
    for (kind, _, _), a, b in zip(rows, x, y, strict=True):
        across, down = place(a, b)
        draw.ellipse((across - 5, down - 5, across + 5, down + 5), fill=COLORS[kind])
    draw.text((MARGIN, 8), "CPU seconds of a step over its samples; grey: proportional", fill=INK)
    draw.text((MARGIN, 22), "blue: one view of 32^2 to 512^2    orange: 1 to 16 views of 64^2", fill=INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def main() -> None:
    """Print and write times, and the slope of a straight line through their logarithms."""
    args = arguments(__doc__, files=("plot",), repeats=3)
    results: dict[str, dict] = {}
    rows: list[Row] = []
    for kind, size, views in [("size", s, 1) for s in SIZES] + [("views", 64, v) for v in VIEWS]:
        count = n_samples(size, views)
        seconds = medians({"step": our_step(size, views)}, args.repeats)["step"]
        report(results, f"{views} x {size}^2", {"step": seconds}, {"ns per sample": 1e9 * seconds / count})
        rows.append((kind, count, seconds))
    for kind in COLORS:
        ends = [(math.log(n), math.log(s)) for k, n, s in rows if k == kind]
        slope = (ends[-1][1] - ends[0][1]) / (ends[-1][0] - ends[0][0])
        results[f"exponent, {kind}"] = {"ratio": slope}
        print(f"cost ~ samples^{slope:.2f} over the {kind}")
    if args.plot:
        plot(rows, args.plot)
    save(results, args.output)


if __name__ == "__main__":
    main()
