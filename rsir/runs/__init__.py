"""A run's folder, its manifest, its rounds and their models."""
