"""Recommendations by names: one engine for Python, the command line and the HTTP service."""
