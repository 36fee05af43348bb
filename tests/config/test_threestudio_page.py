"""docs/from-threestudio.md says what the code does: its words are the tables of the code, its counts those of its rows."""

import re
from pathlib import Path

import pytest

from zero123s.config.threestudio import keys, recipe, recipe_guidance

PAGE = (Path(__file__).parents[2] / "docs" / "from-threestudio.md").read_text()


def words_of_the_code() -> list[tuple[str, str]]:
    """threestudio's words and what they are here, in the order of the page."""
    named = [(f"system_type: {name}", "system_type: dreamfusion-system") for name in recipe.TEXT_SYSTEMS]
    named += [(f"system_type: {name}", "system_type: zero123-system") for name in recipe.IMAGE_SYSTEMS]
    for name, implied in {**recipe_guidance.TEXT, **recipe_guidance.IMAGE}.items():
        kind = "stable-diffusion-guidance" if name in recipe_guidance.TEXT else recipe_guidance._image_type(name)
        variant = f", variant: {implied['variant']}" if "variant" in implied else ""
        named.append((f"system.guidance_type: {name}", f"system.guidance_type: {kind}{variant}"))
    named.append(("system.renderer_type: nvdiff-rasterizer", "system.renderer_type: mesh-rasterizer"))
    named.append(("data_type: eff-random-camera-datamodule", "data_type: random-camera-datamodule"))
    prompts = {f"system.prompt_processor.{k}": f"system.guidance.{v}" for k, v in recipe_guidance.PROMPT_WORDS.items()}
    guidance = {f"system.guidance.{k}": f"system.guidance.{v}" for k, v in recipe_guidance.INSTEAD.items()}
    losses = {f"system.loss.{k}": f"system.loss.{v}" for k, v in recipe.LOSSES.items()}
    named += [(k, v) for k, v in {**prompts, **guidance, **losses, **keys.RENAMED}.items() if k != v]
    return named + [(key, f"no effect: {why}") for key, why in keys.DROPPED.items()]


def rows(heading: str) -> list[list[str]]:
    section = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip().strip("`") for cell in line.strip("| ").split(" | ")] for line in lines[1:]]


def test_the_words_are_those_of_the_code():
    assert [tuple(row) for row in rows("Key by key")] == words_of_the_code()


@pytest.mark.parametrize("name", recipe.TEXT_SYSTEMS + recipe.IMAGE_SYSTEMS)
def test_a_system_becomes_the_one_documented(name):
    content = {"system_type": name, "system": {"prompt_processor_type": "dummy-prompt-processor"}}
    recipe.to_native(content)
    assert (f"system_type: {name}", f"system_type: {content['system_type']}") in words_of_the_code()


def test_the_counts_are_those_of_the_rows():
    table = [
        re.split(r"\s*\|\s*", line.strip("| "))[:5]
        for line in PAGE.split("## Which files work")[1].splitlines()
        if ".yaml |" in line
    ]
    found = [sum(row[i] == "yes" for row in table) for i in (1, 2, 3)]
    assert f"Of {len(table)} files: {found[0]} load, {found[1]} build, {found[2]} train" in PAGE
    assert found[2] >= 24
    assert all(row[4] for row in table if "no" in row[1:4]), "every no has its reason"
