"""`python -m zero123s` is the `zero123s` command."""

import sys

from zero123s.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
