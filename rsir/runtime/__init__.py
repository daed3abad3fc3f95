"""What every computation runs under: devices, threads, processes, memory, progress, checkpoints, randomness."""
