"""Oddities of a config, each in a line, so that none goes unnoticed."""

from collections.abc import Iterator, Mapping
from typing import Any


def deviations(config: Mapping[str, Any]) -> Iterator[str]:
    """What a config does on purpose that one would otherwise not do, a line each."""
    if (activation := config["net"].get("output_activation")) in ("relu", "gelu", "silu", "elu"):
        yield f"net.output_activation={activation}: negative Q-values are out of reach"
    if config["buffer"].get("compat"):
        yield (
            "buffer.compat=notebook: uniform replay for 30 episodes, then the item after that drawn "
            "(Schaul 2016: prioritised from the start, the item drawn)"
        )
    if config["agent"].get("target", {}).get("episodes"):
        yield "agent.target.episodes: the target moves by episodes, rarely once they are long"
    for wrapper in config["env"].get("wrappers", []):
        if wrapper.get("name") == "time_limit_is_terminal":
            yield "time_limit_is_terminal: nothing bootstraps past a time limit (Pardo 2018: it should)"
        if wrapper.get("name") == "outcome_reward":
            yield "outcome_reward: learns from -1, 0, 1; returns logged are the env's own"
