"""dqn-exp: experiments with the DQN family, many seeds at once.

    import dqn_exp

    config = dqn_exp.compose("agent=ddqn", "buffer=per", "seeds=8", "total_steps=20_000")
    iqm = dqn_exp.Run(dqn_exp.build(config), "runs/mine").run()

    policy = dqn_exp.load_policy("runs/mine")
    action = policy(obs)

`compose` checks a config, `build` makes its parts, `Run` trains them in a folder, `load_policy` loads a
trained agent, and `register` adds parts of your own.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dqn_exp.config.compose import compose
    from dqn_exp.parts import build
    from dqn_exp.policy import load_policy
    from dqn_exp.registry import register
    from dqn_exp.run.run import Run

__all__ = ["Run", "build", "compose", "load_policy", "register"]

_MODULES = {
    "Run": "run.run",
    "build": "parts",
    "compose": "config.compose",
    "load_policy": "policy",
    "register": "registry",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `--help` does not need torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'dqn_exp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"dqn_exp.{_MODULES[name]}"), name)
