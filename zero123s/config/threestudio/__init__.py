"""Compatibility with threestudio's YAML: single keys in files of this project, and whole threestudio files.

`words` has what is renamed or dropped anywhere. `recipe` reads a file that is threestudio's own: its systems, guidances
and prompt processors are other arrangements of the slots here.
"""

from zero123s.config.threestudio.recipe import is_recipe, to_native
from zero123s.config.threestudio.words import new_key, other_name, renamed_notice, translate

__all__ = ["is_recipe", "new_key", "other_name", "renamed_notice", "to_native", "translate"]
