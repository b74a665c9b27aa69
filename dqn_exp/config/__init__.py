"""The typed configuration: its schema, composition with Hydra, and what is wrong with an input."""
