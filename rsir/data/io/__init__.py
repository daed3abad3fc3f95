"""Readers and writers of files and frames."""
