"""A second, wider family of generated objects: kinds that scanned and modelled collections of furniture lack.

`procedural.generate` stays as it is, since objects of its seeds are the held-out sets of benchmarks.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from zero123s.mesh.scene_mesh import SceneMesh, Texture, normalize
from zero123s.scenes import (
    procedural,
    procedural_animals,
    procedural_birds,
    procedural_characters,
    procedural_food,
    procedural_fruit,
    procedural_hollow,
    procedural_printed,
    procedural_scenery,
    procedural_thin,
    procedural_wildlife,
)
from zero123s.scenes.augment import colors_by_area, hue_shifted, neutral, transformed
from zero123s.scenes.primitives import Builder
from zero123s.scenes.procedural_color import DARK, WHITE

Kind = Callable[[Builder, np.random.Generator], None]
FAMILIES: tuple[tuple[float, tuple[Kind, ...]], ...] = (
    (0.15, procedural_animals.KINDS),
    (0.06, procedural_birds.KINDS),
    (0.07, procedural_wildlife.KINDS),
    (0.11, procedural_food.KINDS),
    (0.03, procedural_fruit.KINDS),
    (0.09, procedural_scenery.KINDS),
    (0.14, procedural_characters.KINDS),
    (0.06, procedural_hollow.KINDS),
    (0.06, procedural_thin.KINDS),
    (0.11, procedural_printed.KINDS),
    (0.12, procedural.KINDS),
)
"""Share of the objects, and the kinds of each family; a kind listed twice comes twice as often."""
P_COLOURLESS = 0.2
"""Share of objects that are recoloured in white, grey and black, as about a fifth of real objects are."""


def generate_extended(seed: int) -> SceneMesh:
    """Return a random object: upright (z up), front towards +x, mostly mirror symmetric in y, normalised.

    A fifth of the objects are recoloured in white, greys and black. A pure function of `seed`.
    """
    rng = np.random.default_rng([seed, 1])
    shares = [share for share, _ in FAMILIES]
    kinds = FAMILIES[rng.choice(len(FAMILIES), p=shares)][1]
    kind = kinds[rng.integers(len(kinds))]
    builder = Builder()
    kind(builder, rng)
    scene = transformed(builder.build(kind.__name__), np.diag(rng.uniform(0.9, 1.1, 3)))
    if rng.uniform() < P_COLOURLESS:
        scene = colourless(scene, rng)
    elif rng.uniform() < 0.1:
        scene = hue_shifted(scene, rng.uniform(0, 1), rng.uniform(0.6, 1.2), rng.uniform(0.85, 1.1))
    return normalize(scene, fill=float(rng.uniform(0.8, 0.92)))


def colourless(scene: SceneMesh, rng: np.random.Generator) -> SceneMesh:
    """Recolour the scene: all white, grey or black, or its parts white, grey and black in turn."""
    if rng.uniform() < 0.4:
        return neutral(scene, rng)
    colors, shares = colors_by_area(scene)
    tones = (WHITE, (float(rng.uniform(0.35, 0.75)),) * 3, DARK)
    chosen = [np.array(tones[i]) for i in rng.choice(3, len(colors), p=[0.55, 0.2, 0.25])]
    chosen[int(np.argmax(shares))] = np.array(tones[rng.choice(3, p=[0.75, 0.1, 0.15])])
    paints, textures = [], []
    for paint, tone in zip(scene.paints, chosen, strict=False):
        textured = paint.color == (1.0, 1.0, 1.0)  # the paint of a textured face multiplies its image
        color = paint.color if textured else tuple(tone.tolist())
        second = tuple(np.clip(tone - 0.25 * np.sign(tone.mean() - 0.5), 0, 1).tolist())
        paints.append(replace(paint, color=color, second=second))
    for texture in scene.textures:
        grey = texture.image.mean(-1, keepdims=True).repeat(3, -1)
        textures.append(Texture(np.clip(0.5 * grey + 118, 0, 255).astype(np.uint8)))
    return replace(scene, paints=tuple(paints), textures=tuple(textures))
