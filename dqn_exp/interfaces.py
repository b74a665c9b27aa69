"""What each kind of part must do, and the types that parts exchange.

A part is called with what its kind is given, then `config=` and the dataclass of its node:

| kind | is given |
|---|---|
| env | seeds [S], the stream's name, strict |
| agent, exploration, optim | context |
| net, buffer | context, agent |
| wrapper | the gymnasium.Env to wrap |

Letters: S seeds, N envs per seed, B batch, A actions, P parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dqn_exp.state import Stateful


def widest_float(device: torch.device) -> torch.dtype:
    """float64, but float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


Step = int | Tensor  # a count of steps: an int, or a 0-dim int64 tensor in compiled code


@dataclass(frozen=True)
class Spec:
    """What an env looks like to the other parts."""

    obs_shape: tuple[int, ...]  # of one observation
    obs_dtype: torch.dtype  # as stored in replay
    n_actions: int  # A
    first_action: int = 0  # the env's own number of action 0
    first_obs: int | None = None  # number of the first discrete observation; None: not one-hot vectors


@dataclass(frozen=True)
class Context:
    """What parts are built with, beside their own config."""

    seeds: Tensor  # [S] int64 seed values, on the device
    n_envs: int  # N
    spec: Spec
    device: torch.device
    dtype: torch.dtype  # of parameters, rewards and values
    batch_size: int  # B
    total_steps: int  # env steps per seed
    total_updates: int  # gradient steps per seed

    @property
    def n_seeds(self) -> int:
        """Number of seeds, S."""
        return len(self.seeds)


class Transition(NamedTuple):
    """One step of every env; leading dims [S, N]."""

    obs: Tensor  # [S, N, *obs]
    action: Tensor  # [S, N] int64
    reward: Tensor  # [S, N]
    next_obs: Tensor  # [S, N, *obs] the true successor, never an obs after a reset
    terminated: Tensor  # [S, N] bool: a terminal state, nothing to bootstrap from
    truncated: Tensor  # [S, N] bool: cut off, by a time limit say; the successor still has a value

    @property
    def ended(self) -> Tensor:
        """Whether the step ended the episode, bool [S, N]."""
        return self.terminated | self.truncated


@dataclass(slots=True)
class Batch:
    """A minibatch of (n-step) transitions; leading dims [S, B]."""

    obs: Tensor  # [S, B, *obs]
    action: Tensor  # [S, B] int64
    reward: Tensor  # [S, B] n-step return
    discount: Tensor  # [S, B] gamma^n (1 - terminated) of the last step used
    next_obs: Tensor  # [S, B, *obs] the state to bootstrap from
    weight: Tensor  # [S, B] importance weights; ones for uniform sampling
    index: Tensor  # [S, B] int64 where the transitions lie in the buffer


class Loss(NamedTuple):
    """What a learning rule makes of a batch; all [S, B]."""

    loss: Tensor  # per sample, with gradient, before importance weights
    priority: Tensor  # what prioritised replay ranks by: |TD error| or similar, detached
    metrics: dict[str, Tensor]  # tag -> values whose mean over B is logged, detached


def td_metrics(loss: Tensor, q: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The metrics that all learning rules log, given the loss, Q(s, a) and its target, all [S, B]."""
    return {
        "train/td_loss": loss.detach(),
        "train/td_error_abs": (target - q).abs(),
        "train/q_mean": q,
        "train/target_mean": target,
    }


class Episode(NamedTuple):
    """A finished episode, in the env's own rewards (before any reward wrapper)."""

    seed_index: int  # position in [0, S)
    env_index: int  # position in [0, N)
    number: int  # of this seed, from 0
    step: int  # env steps of the seed when it ended
    reward_sum: float  # undiscounted return
    length: int  # env steps


EPISODE_LOG = 1024  # finished episodes are kept for so many steps of each env


class NotDeterministicError(RuntimeError):
    """An env's current episode cannot be restored: it depends on more than seed and actions."""


class Env(Stateful, Protocol):
    """S * N environments in lockstep; finished episodes restart by themselves.

    Its state is asked for when all finished episodes have been taken.
    """

    spec: Spec
    compilable: bool  # whether `step` is made of tensor operations that compile
    episode_counts: Tensor  # [S] int64 finished episodes of each seed since `reset`

    @property
    def deterministic(self) -> bool:
        """Whether an episode depends on its reset seed and actions only."""
        ...

    def reset(self, first_episode: int = 0) -> Tensor:
        """First observations [S, N, *obs] of the episodes numbered from `first_episode`."""
        ...

    def step(self, action: Tensor) -> tuple[Transition, Tensor]:
        """Act with int64 [S, N]: the transition, and the obs [S, N, *obs] to act on next."""
        ...

    def take_episodes(self) -> list[Episode]:
        """Episodes finished since the last call or `reset`, in order; at most EPISODE_LOG steps ago."""
        ...

    def begin_new_episodes(self) -> Tensor:
        """Abandon all current episodes, uncounted, and begin the next: first obs [S, N, *obs]."""
        ...

    def close(self) -> None: ...


Weights = list[Tensor]  # views [S, *shape] into one parameter matrix [S, P]


class QNetwork(Protocol):
    """A function of weights and observations; it owns no tensors.

    Letters: K numbers per action (atoms, quantiles, fractions), M noise.
    """

    n_params: int  # P
    n_noise: int  # M: standard normal numbers that its noisy layers take; 0 without such layers

    def init(self, seeds: Tensor) -> Tensor:
        """Fresh parameters [S, P], each row from its own seed value."""
        ...

    def views(self, params: Tensor) -> Weights:
        """The matrix [S, P] as the weights of the layers, without copying."""
        ...

    def __call__(
        self,
        weights: Weights,
        obs: Tensor,
        noise: Tensor | None = None,
        fractions: Tensor | None = None,
    ) -> Tensor:
        """Obs [S, B, *obs] -> outputs [S, B, A], or [S, B, A, K] depending on the agent.

        Noise [S, M]; without it, noisy layers compute with their mean weights. Fractions [S, B, K]
        are those at which an implicit agent asks for quantiles; [S, 1, K] are the same for all of B.
        """
        ...

    def features(self, weights: Weights, obs: Tensor) -> Tensor:
        """Activations [S, B, F] of the last hidden layer that all outputs share."""
        ...

    def metrics(self, weights: Weights) -> dict[str, Tensor]:
        """Metrics of the parameters: tag -> [S]."""
        ...


class Forward(Protocol):
    """A network with its weights, and noise if it has any, filled in."""

    def __call__(self, obs: Tensor, *, fractions: Tensor | None = None) -> Tensor: ...


class Networks(NamedTuple):
    """What a learning rule may use. Each network has its own noise (Fortunato et al. 2018)."""

    online: Forward  # the gradient flows through it
    selector: Forward  # the online parameters again, without gradient: they choose the next action
    target: Forward  # the target parameters, without gradient
    draws: Tensor  # [S, n_draws] uniform in [0, 1)
    behaviour: Callable[[Tensor], Tensor]  # Q-values [S, B, A] -> probabilities of exploring actions


class Agent(Protocol):
    """A learning rule without state: how network outputs for a batch become a loss."""

    gamma: float  # discount factor per env step
    n_step: int  # env steps of the return
    n_atoms: int | None  # K numbers that the net outputs per action; None: one, the Q-value
    implicit: bool  # evaluates the net at quantile fractions
    on_policy: bool  # learns about the exploring policy

    def n_draws(self, batch_size: int) -> int:
        """Uniform numbers that `loss` takes for each seed's minibatch."""
        ...

    def q_values(self, net: Forward, obs: Tensor) -> Tensor:
        """Q-values [S, B, A] of obs [S, B, *obs]."""
        ...

    def loss(self, nets: Networks, batch: Batch) -> Loss:
        """Per-sample loss [S, B] of the batch; no gradient reaches the target."""
        ...


class ReplayBuffer(Stateful, Protocol):
    """Storage and sampling of transitions for all seeds.

    It counts nothing: where it writes, and how much it holds, follow from the env steps so far.
    """

    n_bytes: int  # of memory

    def add(self, transition: Transition, step: Step) -> None:
        """Store a transition [S, N] made at env step `step`: 0, N, 2N, ..."""
        ...

    def sample(self, step: Step, gradient_step: Step) -> Batch:
        """A minibatch [S, B] after env step `step`; `gradient_step` keys the draw and its schedules."""
        ...

    def update_priorities(self, index: Tensor, td_abs: Tensor) -> None:
        """Set the priorities [S, B], usually |TD error|, of transitions at index [S, B]."""
        ...

    def end_windows(self) -> None:
        """Stop all n-step windows at the newest transitions."""
        ...

    def age(self, index: Tensor, step: int) -> Tensor:
        """Env steps [S, B], until env step `step`, since transitions at index [S, B] were stored."""
        ...

    def metrics(self, step: int, gradient_step: int) -> dict[str, Tensor]:
        """Metrics of the buffer after env step `step`: tag -> [S]."""
        ...


class Exploration(Stateful, Protocol):
    """How Q-values become actions while training."""

    tag: str  # of its rate in the log

    def rate(self, step: Step, episode: Tensor) -> float | Tensor:
        """Epsilon, or temperature, at env step `step` of each seed, after [S] finished episodes:
        the same for all seeds, or [S].
        """
        ...

    def act(self, q: Tensor, step: Step, episode: Tensor) -> Tensor:
        """Q-values [S, N, A] -> int64 actions [S, N]."""
        ...

    def probabilities(self, q: Tensor, rate: Tensor) -> Tensor:
        """Action probabilities [S, B, A], given Q-values [S, B, A] and a rate [] or [S]."""
        ...
