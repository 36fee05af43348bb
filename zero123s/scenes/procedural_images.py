"""Small images for generated objects: letters, labels, woods, stripes, windows, faces."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from zero123s.mesh.scene_mesh import Texture
from zero123s.scenes.procedural_color import DARK, WHITE, Color, any_color, jitter, soft, vivid

Rng = np.random.Generator
LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
GLYPHS = LETTERS + "0123456789&?!"
SIZE = 96


def _rgb(color: Color) -> tuple[int, int, int]:
    r, g, b = (round(255 * c) for c in color)
    return r, g, b


def _texture(image: Image.Image) -> Texture:
    return Texture(np.asarray(image, np.uint8))


def word(rng: Rng, longest: int = 6) -> str:
    """Return a random word of capitals, at times a number."""
    n = int(rng.integers(2, longest + 1))
    return "".join(
        "0123456789"[rng.integers(10)] if rng.uniform() < 0.1 else LETTERS[rng.integers(23)] for _ in range(n)
    )


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _write(draw: ImageDraw.ImageDraw, text: str, box: tuple[float, float, float, float], color: Color) -> None:
    """Draw text as large as it fits into (left, top, right, bottom)."""
    font = _font(64)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    scale = min((box[2] - box[0]) / max(right - left, 1), (box[3] - box[1]) / max(bottom - top, 1))
    font = _font(max(6, int(64 * scale)))
    draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), text, _rgb(color), font=font, anchor="mm")


def contrast(rng: Rng, ground: Color) -> Color:
    """Return a colour that can be read on `ground`."""
    light = sum(ground) > 1.4
    if rng.uniform() < 0.5:
        return DARK if light else WHITE
    r, g, b = np.clip(np.asarray(vivid(rng)) * (0.55 if light else 1.0) + (0.0 if light else 0.25), 0, 1)
    return float(r), float(g), float(b)


def glyph_mask(glyph: str, size: int = 24) -> NDArray[np.float32]:
    """Return the coverage of a character that fills a square, in [0, 1]."""
    image = Image.new("RGB", (size, size))
    _write(ImageDraw.Draw(image), glyph, (2, 2, size - 2, size - 2), (1.0, 1.0, 1.0))
    return (np.asarray(image)[..., 0] / 255).astype(np.float32)


def letter(rng: Rng, ground: Color) -> Texture:
    """Return a single character on a ground, in half of the cases framed."""
    image = Image.new("RGB", (SIZE, SIZE), _rgb(ground))
    draw, ink = ImageDraw.Draw(image), contrast(rng, ground)
    if rng.uniform() < 0.5:
        draw.rectangle((3, 3, SIZE - 4, SIZE - 4), outline=_rgb(ink), width=5)
    _write(draw, GLYPHS[rng.integers(len(GLYPHS))], (18, 18, SIZE - 18, SIZE - 18), ink)
    return _texture(image)


def label(rng: Rng, ground: Color, aspect: float = 1.5) -> Texture:
    """Return a printed label, `aspect` wide and 1 high: words, stripes, a disc or a badge, lines of small print."""
    w, h = int(SIZE * max(aspect, 1)), int(SIZE * max(1 / aspect, 1))
    image = Image.new("RGB", (w, h), _rgb(ground))
    draw, ink = ImageDraw.Draw(image), contrast(rng, ground)
    second = _rgb(any_color(rng))
    kind = rng.integers(5)
    if kind == 0:
        draw.rectangle((0, h * 0.62, w, h), fill=second)
    elif kind == 1:
        draw.ellipse((w * 0.25, h * 0.4, w * 0.75, h * 0.4 + w * 0.5), fill=second, outline=_rgb(ink), width=3)
    elif kind == 2:
        for i in range(0, w + h, 24):
            draw.line((i, 0, i - h, h), fill=second, width=8)
        draw.rectangle((w * 0.08, h * 0.15, w * 0.92, h * 0.5), fill=_rgb(ground))
    elif kind == 3:
        draw.rectangle((0, 0, w, h * 0.14), fill=second)
        draw.rectangle((0, h * 0.86, w, h), fill=second)
    _write(draw, word(rng), (w * 0.1, h * 0.18, w * 0.9, h * 0.48), ink)
    if kind in (0, 3, 4):
        for i in range(3):
            y = h * (0.6 + 0.08 * i)
            draw.line((w * 0.15, y, w * rng.uniform(0.5, 0.85), y), fill=_rgb(ink), width=2)
    return _texture(image)


def stripes(rng: Rng) -> Texture:
    """Return horizontal bands of two to four colours and random widths."""
    colors = [np.array(any_color(rng)) for _ in range(rng.integers(2, 5))]
    rows, image = 0, np.zeros((SIZE, 8, 3))
    while rows < SIZE:
        n = int(rng.integers(5, 22))
        image[rows : rows + n] = colors[rng.integers(len(colors))]
        rows += n
    return Texture(np.round(255 * image).astype(np.uint8))


def wood_grain(rng: Rng, color: Color) -> Texture:
    """Return boards with a vertical grain and dark joints."""
    x = np.linspace(0, 2 * np.pi, SIZE, endpoint=False)
    y = np.linspace(0, 1, SIZE)[:, None]
    wave = sum(rng.uniform(0.3, 1) * np.sin(k * x + rng.uniform(0, 6) + 2 * np.sin(2 * np.pi * y)) for k in (3, 7, 16))
    shade = 1 + 0.07 * np.asarray(wave) + rng.normal(0, 0.015, (SIZE, SIZE))
    boards = int(rng.integers(1, 6))
    if boards > 1:
        shade[:, :: SIZE // boards] *= 0.55
    image = np.clip(np.array(color) * shade[..., None], 0, 1)
    return Texture(np.round(255 * image).astype(np.uint8))


def bricks(rng: Rng, color: Color) -> Texture:
    """Return courses of bricks or stones with light joints."""
    rows, columns = int(rng.integers(5, 9)), int(rng.integers(3, 6))
    image = Image.new("RGB", (SIZE, SIZE), _rgb(jitter(rng, (0.75, 0.73, 0.7), 0.05)))
    draw, h, w = ImageDraw.Draw(image), SIZE / rows, SIZE / columns
    for r in range(rows):
        for c in range(-1, columns + 1):
            x = (c + 0.5 * (r % 2)) * w
            draw.rectangle((x + 1.5, r * h + 1.5, x + w - 1, (r + 1) * h - 1), fill=_rgb(jitter(rng, color, 0.035)))
    return _texture(image)


def windows(rng: Rng, wall: Color, columns: int, rows: int) -> Texture:
    """Return a facade: a grid of windows, some of them lit, with sills."""
    cell = 24
    image = Image.new("RGB", (columns * cell, rows * cell), _rgb(wall))
    draw, glass, frame = ImageDraw.Draw(image), jitter(rng, (0.42, 0.55, 0.68), 0.08), contrast(rng, wall)
    left, tall = rng.uniform(3, 7), rng.uniform(12, 18)
    for r in range(rows):
        for c in range(columns):
            x, y = c * cell, r * cell + 3
            pane = (0.97, 0.9, 0.6) if rng.uniform() < 0.12 else jitter(rng, glass, 0.03)
            draw.rectangle((x + left, y, x + cell - left, y + tall), fill=_rgb(pane))
            draw.line((x + left - 1, y + tall + 1, x + cell - left + 1, y + tall + 1), fill=_rgb(frame), width=2)
    return _texture(image)


def knitted(rng: Rng, color: Color, second: Color) -> Texture:
    """Return a woven pattern: over and under in both directions."""
    n = int(rng.integers(6, 11))
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE * n
    over = (np.floor(x) + np.floor(y)) % 2 == 0
    bulge = np.where(over, np.sin(np.pi * (y % 1)), np.sin(np.pi * (x % 1)))
    base = np.where(over[..., None], np.array(color), np.array(second))
    image = np.clip(base * (0.6 + 0.45 * bulge[..., None]), 0, 1)
    return Texture(np.round(255 * image).astype(np.uint8))


def speckles(rng: Rng, color: Color) -> Texture:
    """Return blots of other colours on a ground, such as sprinkles, terrazzo or spots."""
    image = Image.new("RGB", (SIZE, SIZE), _rgb(color))
    draw, size = ImageDraw.Draw(image), rng.uniform(2, 9)
    inks = [_rgb(any_color(rng)) for _ in range(rng.integers(1, 5))]
    for _ in range(int(900 / size**1.3)):
        x, y = rng.uniform(0, SIZE, 2)
        a, c = size * rng.uniform(0.4, 1, 2)
        draw.ellipse((x - a, y - c, x + a, y + c), fill=inks[rng.integers(len(inks))])
    return _texture(image)


def any_image(rng: Rng) -> Texture:
    """Return one of the patterns above."""
    makers: tuple[Callable[[], Texture], ...] = (
        lambda: letter(rng, any_color(rng)),
        lambda: label(rng, soft(rng), 1.5),
        lambda: stripes(rng),
        lambda: wood_grain(rng, jitter(rng, (0.6, 0.42, 0.26), 0.08)),
        lambda: bricks(rng, jitter(rng, (0.62, 0.32, 0.24), 0.08)),
        lambda: knitted(rng, any_color(rng), any_color(rng)),
        lambda: speckles(rng, any_color(rng)),
    )
    return makers[rng.integers(len(makers))]()
