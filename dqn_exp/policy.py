"""Use what a run has trained: load an agent and act on observations.

    policy = dqn_exp.load_policy("outputs/2026-01-31/12-00-00-000000_CartPole-v1_ddqn-per-mlp")
    action = policy(obs)

Letters: S seeds, B batch, A actions.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dqn_exp import registry
from dqn_exp.compiled import kernels
from dqn_exp.config import typed
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.config.schema import Config
from dqn_exp.interfaces import Context, Spec
from dqn_exp.run import trained

QFunction = Callable[[Tensor], Tensor]


class Policy:
    """A trained agent of one seed; acts greedily unless asked to explore.

    Observations are those of the env, as the run's wrappers make them, as arrays, tensors or lists:
    one [*obs], or several [B, *obs]. Discrete ones are numbers: one, or [B].

    Args:
        q: observations [1, B, *obs] -> Q-values [1, B, A].
        about: what it is, for people.
    """

    def __init__(self, q: QFunction, spec: Spec, seed: int, about: str):
        self.spec, self.seed, self._q, self._about = spec, seed, q, about
        self._random = np.random.default_rng(seed)

    def __call__(self, obs: ArrayLike | Tensor, epsilon: float = 0.0) -> int | np.ndarray:
        """The env's action for one observation, int; or for several, int64 [B].

        Args:
            epsilon: probability of a uniformly random action instead of the best one.
        """
        q = self.q(obs)
        action = q.argmax(-1)
        if epsilon > 0.0:
            explores = self._random.random(action.shape) < epsilon
            action = np.where(explores, self._random.integers(q.shape[-1], size=action.shape), action)
        action = action + self.spec.first_action
        return int(action) if q.ndim == 1 else action

    def q(self, obs: ArrayLike | Tensor) -> np.ndarray:
        """Q-values [A] of one observation, or [B, A] of several."""
        batch, single = self._batch(obs)
        with torch.no_grad():
            q = self._q(batch.unsqueeze(0))[0].numpy()
        return q[0] if single else q

    def _batch(self, obs: ArrayLike | Tensor) -> tuple[Tensor, bool]:
        """Observations [B, *obs] as the network takes them, and whether there was only one.

        Raises:
            ValueError: they are not observations of the env.
        """
        array = np.asarray(obs.detach().cpu() if isinstance(obs, Tensor) else obs)
        spec, shape = self.spec, () if self.spec.first_obs is not None else self.spec.obs_shape
        single = array.shape == shape
        if not single and (array.ndim == 0 or array.shape[1:] != shape):
            wanted = f"{list(shape)}, or [B{''.join(f', {n}' for n in shape)}] for a batch"
            raise ValueError(f"obs has shape {list(array.shape)}, must be {wanted}")
        array = array.reshape(-1, *shape)
        if spec.first_obs is not None:
            array = _one_hot(array, spec.first_obs, *spec.obs_shape)
        return torch.tensor(array, dtype=spec.obs_dtype), single

    def __repr__(self) -> str:
        return f"<Policy: {self._about}>"


def load_policy(run: str | Path, seed: int | None = None, checkpoint: int | None = None) -> Policy:
    """The trained agent of a run folder. It needs the checkpoint, and not the env.

    Nothing in the folder is executed: if the run used plug-ins, import them first.

    Args:
        run: a run folder, or a checkpoint in one.
        seed: of the run; by default, the one with the best last evaluation.
        checkpoint: env step of the checkpoint; by default, the newest.

    Raises:
        ConfigError: there is no such run, checkpoint or seed, it is damaged, or a plug-in is missing.
    """
    found = trained.load(run, checkpoint)
    index = found.index(seed)
    config = read_config(found)
    q = q_function(config, found, slice(index, index + 1))
    about = f"{config.agent.name} on {config.env.id}, seed {found.seeds[index]}"
    if seed is None and len(found.seeds) > 1:
        about += f" (the best of {len(found.seeds)})"
    about += f", env step {found.manifest['step']:,}"
    if np.isfinite(score := found.scores[index]):
        about += f", last greedy return {score:.1f}"
    return Policy(q, found.spec, found.seeds[index], about)


def read_config(found: trained.Trained) -> Config:
    """The config of a run, checked; the plug-ins that it names must have been imported.

    Raises:
        ConfigError: it is invalid, or a plug-in has not been imported.
    """
    plugins = found.manifest["config"].get("plugins")
    names = list(map(str, plugins)) if isinstance(plugins, list) else []
    if missing := [n for n in names if not n.startswith("dqn_exp.") and n not in sys.modules]:
        message = "the run's plug-in runs code; import it first if you trust it"
        raise ConfigError([Problem("plugins", message, name) for name in missing])
    registry.load([name for name in names if name.startswith("dqn_exp.")])
    return typed.read(Config, found.manifest["config"])


def q_function(config: Config, found: trained.Trained, rows: slice = slice(None)) -> QFunction:
    """The Q-function of the seeds in some rows: observations [S, B, *obs] -> Q-values [S, B, A].

    Raises:
        ConfigError: the parameters are not those of the config's network.
    """
    context = Context(
        seeds=torch.tensor(found.seeds[rows]),
        n_envs=config.env.n,
        spec=found.spec,
        device=torch.device("cpu"),
        dtype=found.params.dtype,
        batch_size=config.train.batch_size,
        total_steps=config.total_steps,
        total_updates=1,
    )
    agent = registry.build("agent", config.agent, context)
    net = registry.build("net", config.net, context, agent)
    params = found.params[rows]
    if net.n_params != params.shape[1]:
        message = f"{params.shape[1]:,} parameters are saved, the network has {net.n_params:,}"
        raise ConfigError([Problem("run", message, found.checkpoint)])
    weights = kernels.Views(net.views, params)
    return lambda obs: agent.q_values(partial(net, weights()), obs)


def _one_hot(numbers: np.ndarray, first: int, n: int) -> np.ndarray:
    """Discrete observations [B] as vectors [B, n]."""
    if not (np.issubdtype(numbers.dtype, np.integer) and ((numbers - first) // n == 0).all()):
        raise ValueError(f"obs must be whole numbers from {first} to {first + n - 1}")
    return np.eye(n, dtype=np.uint8)[numbers - first]
