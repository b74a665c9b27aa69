"""Environments for all seeds at once."""
