"""What all learning rules share."""

from dqn_exp.config import schema
from dqn_exp.interfaces import Context


class Agent:
    """A learning rule: discount factor, length of returns, and what it asks of a network.

    A subclass names its own dataclass as the type of `config`.
    """

    config: schema.Agent
    n_atoms: int | None = None
    implicit = False
    on_policy = False

    def __init__(self, context: Context, config: schema.Agent):
        self.config = config
        self.gamma, self.n_step = config.gamma, config.n_step

    def n_draws(self, batch_size: int) -> int:
        """Uniform numbers that `loss` needs for each seed's minibatch: none."""
        return 0
