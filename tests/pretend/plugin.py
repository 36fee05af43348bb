"""`pytest -p pretend.plugin`: loads the hooks before anything imports torch."""

from pretend import hooks

hooks.load()
