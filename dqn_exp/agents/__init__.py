"""Learning rules: one file each, how a batch becomes a loss."""
