"""Replay buffers: storage and sampling for all seeds at once."""
