"""Compatibility with threestudio's YAML: single keys in files of this project, and whole threestudio files.

`keys` has what is renamed or dropped anywhere. `recipe` reads a file that is threestudio's own: its systems, guidances
and prompt processors are other arrangements of the slots here.
"""

from zero123s.config.threestudio.keys import new_key, other_name, renamed_notice, translate
from zero123s.config.threestudio.recipe import is_recipe, to_native

__all__ = ["is_recipe", "new_key", "other_name", "renamed_notice", "to_native", "translate"]
