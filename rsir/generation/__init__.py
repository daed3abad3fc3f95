"""Generate, verify and acquire trajectories."""
