"""Other systems: Ray, experiment trackers."""
