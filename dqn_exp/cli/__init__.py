"""Commands, one file each: argument parsing and exit codes, nothing else."""
