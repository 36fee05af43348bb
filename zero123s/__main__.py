"""`python -m zero123s` is the `zero123s` command."""

import sys

from zero123s.commands import main

if __name__ == "__main__":
    sys.exit(main())
