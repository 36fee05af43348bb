"""Train, validate, test or export: `python launch.py --help`."""

import sys

from zero123s.commands.launch import main

if __name__ == "__main__":
    sys.exit(main())
