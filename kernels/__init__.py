"""Triton kernels of rsir; installed as ``rsir.kernels``. Imports torch and triton only."""
