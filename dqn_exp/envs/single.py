"""One Gymnasium environment: made, checked, and played twice to see whether it is deterministic."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import DtypeObservation, FlattenObservation, RecordEpisodeStatistics

from dqn_exp import registry
from dqn_exp.config import schema
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.interfaces import Spec

# Of observations. torch has no counterpart of NumPy's other types, or cannot compute with it.
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
# Actions of the episodes that show whether an env is deterministic. Many are short: what survives a
# reset is most likely seen at once.
PROBES = [1] * 64 + [50]


def make(config: schema.Env, check: bool = False) -> gymnasium.Env:
    """One env that records raw returns; discrete observations become one-hot vectors of uint8.

    Args:
        check: whether Gymnasium's own checker, which is slow, warns of what is odd about the env.
    """
    options: dict[str, Any] = {}
    if config.max_episode_steps is not None:
        options["max_episode_steps"] = config.max_episode_steps
    options |= config.kwargs
    if not check:
        options["disable_env_checker"] = True
    env: gymnasium.Env = RecordEpisodeStatistics(gymnasium.make(config.id, **options))
    for node in config.wrappers:
        env = registry.build("wrapper", node, env)
    if isinstance(env.observation_space, spaces.Discrete):
        env = DtypeObservation(FlattenObservation(env), np.uint8)
    return env


def inspect(config: schema.Env) -> tuple[Spec, int]:
    """The spec of the env, and the number of its first action.

    Raises:
        ConfigError: the env cannot be made, cannot serve, or does not follow Gymnasium's API.
    """
    with _refused(config.id):
        env = make(config, check=True)
    observations, actions = env.observation_space, env.action_space
    if env.spec is None or env.spec.max_episode_steps is None:
        raise _invalid(config.id, "has no time limit; set env.max_episode_steps")
    if not isinstance(actions, spaces.Discrete):
        raise _invalid(config.id, f"actions are {actions}; the DQN family needs Discrete")
    if not isinstance(observations, spaces.Box):
        raise _invalid(config.id, f"observations are {observations}; supported are Box and Discrete")
    if observations.dtype not in map(np.dtype, DTYPES):
        known = ", ".join(DTYPES)
        raise _invalid(config.id, f"observations are {observations.dtype}; supported are {known}")
    if 0 in observations.shape:
        raise _invalid(config.id, f"observations are empty: {observations}")
    with _refused(config.id, "does not follow Gymnasium's API: "):
        first, _ = env.reset(seed=0)
        obs, _, _, _, _ = env.step(actions.start)
        env.close()
    for seen in (np.asarray(first), np.asarray(obs)):
        if seen.shape != observations.shape or not np.can_cast(
            seen.dtype, observations.dtype, "same_kind"
        ):
            message = f"an observation is {seen.dtype} {seen.shape}, its space is {observations}"
            raise _invalid(config.id, message)
    dtype = torch.from_numpy(np.empty(0, observations.dtype)).dtype
    return Spec(observations.shape, dtype, int(actions.n)), int(actions.start)


def is_deterministic(id: str, env: SyncVectorEnv | AsyncVectorEnv) -> bool:
    """Whether episodes depend on their reset seeds and actions only, as far as some episodes show.

    State that survives a reset, such as MinAtar's last action, shows when the same episodes come after
    others. Takes 228 env steps.

    Args:
        env: one env, with Discrete actions, as a vector env; it is closed.

    Raises:
        ConfigError: the env raises an error, or its process ends or hangs.
    """
    with _refused(id), closing(env):
        episodes = list(enumerate(PROBES))
        first = [_play(env, *episode) for episode in episodes]
        again = [_play(env, *episode) for episode in reversed(episodes)]
    return first == again[::-1]


def _play(env: SyncVectorEnv | AsyncVectorEnv, seed: int, n_actions: int) -> list[bytes]:
    """All bits of an episode of random actions."""
    space = env.single_action_space
    assert isinstance(space, spaces.Discrete)
    obs, _ = env.reset(seed=[seed])
    seen = [obs.tobytes()]
    for action in space.start + np.random.default_rng(seed).integers(space.n, size=(n_actions, 1)):
        obs, reward, terminated, truncated, _ = env.step(action)
        seen += [array.tobytes() for array in (obs, reward, terminated, truncated)]
        if terminated | truncated:
            break
    return seen


@contextmanager
def _refused(id: str, what: str = "") -> Iterator[None]:
    """Raise ConfigError for whatever an env raises, or if it asks the program to end."""
    try:
        yield
    except ConfigError:
        raise
    except gymnasium.error.Error as error:
        raise _invalid(id, f"{what}{error}") from error
    except (Exception, SystemExit) as error:
        raise _invalid(id, f"{what}{type(error).__name__}: {error}") from error


def _invalid(id: str, message: str) -> ConfigError:
    return ConfigError([Problem("env.id", message, id)])
