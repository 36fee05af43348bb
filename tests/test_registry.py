from dataclasses import dataclass

import pytest

from zero123s.errors import ConfigError
from zero123s.registry import Registry


class Shape:
    @dataclass
    class Config:
        size: int = 1


@pytest.fixture
def shapes():
    registry = Registry("shape", Shape)

    @registry.register("round-shape")
    class Round(Shape):
        pass

    return registry


def test_finds_by_name(shapes):
    assert shapes.get("round-shape").__name__ == "Round"
    assert list(shapes) == ["round-shape"]


def test_unknown_name_names_the_nearest(shapes):
    with pytest.raises(ConfigError, match=r"Unknown shape_type 'round-shap'\. Did you mean 'round-shape'\?"):
        shapes.get("round-shap")


def test_refuses_a_class_of_another_slot(shapes):
    with pytest.raises(TypeError, match="must inherit Shape"):
        shapes.register("wrong")(dict)


def test_refuses_a_name_that_is_taken(shapes):
    class Other(Shape):
        pass

    with pytest.raises(ValueError, match="already"):
        shapes.register("round-shape")(Other)
