"""A run: its folder, training, checkpoints, logs and summary."""
