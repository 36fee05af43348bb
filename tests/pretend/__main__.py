"""Run a script on the pretended device and print what it did there: `python tests/pretend SCRIPT ARGS...`."""

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run the script that the first argument names."""
    sys.path[0] = str(Path(__file__).parents[1])
    sys.path.insert(0, str(Path.cwd()))
    from pretend import hooks

    hooks.load()

    from pretend.cuda import pretend_cuda

    sys.argv = sys.argv[1:]
    with pretend_cuda() as counts:
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        finally:
            counts.report()


if __name__ == "__main__":
    main()
