"""Q-networks of seed-batched layers."""
