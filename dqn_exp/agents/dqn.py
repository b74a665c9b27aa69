"""DQN. Mnih et al. 2015, "Human-level control through deep reinforcement learning".

Deviations, all configurable: n-step returns, a target network that may move softly, the loss.
"""

from torch import Tensor

from dqn_exp import td
from dqn_exp.agents.agent import Agent
from dqn_exp.config import schema
from dqn_exp.interfaces import Batch, Forward, Loss, Networks, td_metrics
from dqn_exp.registry import register


@register("agent", "dqn")
class DQN(Agent):
    """Q-learning towards R + discount * max_a Q_target(s', a)."""

    config: schema.DQN

    def q_values(self, net: Forward, obs: Tensor) -> Tensor:
        """The network's outputs [S, B, A] are the Q-values."""
        return net(obs)

    def bootstrap(self, nets: Networks, next_obs: Tensor) -> Tensor:
        """Value [S, B] of the states bootstrapped from."""
        return td.q_learning_bootstrap(nets.target(next_obs))

    def target(self, nets: Networks, batch: Batch) -> Tensor:
        """TD targets [S, B]."""
        return td.target(batch.reward, batch.discount, self.bootstrap(nets, batch.next_obs))

    def loss(self, nets: Networks, batch: Batch) -> Loss:
        """Per-sample loss [S, B] of the batch; no gradient reaches the target."""
        q = td.select(nets.online(batch.obs), batch.action)
        y = self.target(nets, batch).detach()
        loss = td.LOSSES[self.config.loss](q, y)
        metrics = td_metrics(loss, q.detach(), y)
        return Loss(loss, metrics["train/td_error_abs"], metrics)
