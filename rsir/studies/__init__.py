"""Studies: each claim about the recursion as a command, ``rsir studies NAME``."""
