"""The `zero123s` command: one subcommand for every tool besides training."""

import importlib
import sys
from collections.abc import Sequence

from zero123s import __version__
from zero123s.registry import nearest
from zero123s.run.console import limit_openmp_spin, run_command

COMMANDS = {
    "prepare": ("zero123s.commands.prepare", "cut the object out of a photo and frame it as Zero123 expects"),
    "views": ("zero123s.commands.views", "draw novel views of one image with a Zero123 checkpoint"),
    "convert": ("zero123s.commands.convert", "rewrite a checkpoint in another layout or precision"),
    "download": ("zero123s.commands.download", "fetch published Zero123 weights, with their licence"),
    "evaluate": ("zero123s.commands.evaluate", "score a run or a mesh, and write a report"),
    "render": ("zero123s.commands.render", "render meshes or generated objects into training views"),
    "cache-latents": ("zero123s.commands.cache_latents", "encode rendered views once, for quick training"),
    "batch": ("zero123s.commands.batch", "turn many images into meshes, here or on a Ray cluster"),
    "web": ("zero123s.commands.web", "open a web page to make meshes on"),
    "migrate": ("zero123s.commands.migrate", "show what an extension for threestudio has to change"),
    "launch": ("zero123s.commands.launch", "train, validate, test or export as a YAML file says (same as launch.py)"),
}


def usage() -> str:
    """Return the list of commands."""
    lines = [f"  {name:<15}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [f"zero123s {__version__}", "usage: zero123s COMMAND ...  (COMMAND --help for its options)", *lines]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; exit code 2 and one sentence for a user error."""
    limit_openmp_spin()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] not in COMMANDS:
        print(
            f"error: Unknown command '{arguments[0]}'.{nearest(arguments[0], list(COMMANDS))}\n{usage()}",
            file=sys.stderr,
        )
        return 2
    return run_command(lambda: importlib.import_module(COMMANDS[arguments[0]][0]).main(arguments[1:]))
