"""How good a mesh is: against its input, against a ground truth, and by itself."""

from zero123s.evaluate.scores import Scores, surface_scores, texture_scores, view_scores

__all__ = ["Scores", "surface_scores", "texture_scores", "view_scores"]
