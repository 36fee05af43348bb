"""What `--typecheck` decorates every function with."""

from beartype import BeartypeConf, beartype

check_types = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""beartype that takes an int where a float is annotated, as PEP 484 says."""
