"""A small HTTP service over a finished run; needs ``rsir[serve]``."""
