"""A trained model and what it was trained on, for use elsewhere."""
