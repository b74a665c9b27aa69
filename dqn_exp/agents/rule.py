"""What all learning rules share."""


class Rule:
    """Discount, length of returns, and how the target moves.

    Args:
        target: the node `agent.target`.
    """

    n_atoms: int | None = None
    implicit = False
    on_policy = False

    def __init__(self, gamma: float, n_step: int, target: dict):
        self.gamma = gamma
        self.n_step = n_step
        self.tau: float = target["tau"]
        self.target_every: int | None = target["every"]
        self.target_episodes: int | None = target["episodes"]

    def n_draws(self, batch_size: int) -> int:
        """None are drawn."""
        return 0
