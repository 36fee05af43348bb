"""Lets a forked process import the package anew: where an import hook is to see it, and the libraries are to stay."""

import sys

for name in [name for name in sys.modules if name.partition(".")[0] == "zero123s"]:
    del sys.modules[name]
