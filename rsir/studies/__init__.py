"""Studies: each claim about the recursion as a command, ``python -m rsir.studies NAME``."""
