"""Sweeps: names of jobs, and how their jobs ended."""
