"""Fit one backbone."""
