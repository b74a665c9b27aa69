"""One Gymnasium environment: made, checked, and examined whether it is deterministic."""

from collections.abc import Callable, Iterator
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

Envs = SyncVectorEnv | AsyncVectorEnv
# Makes one env as training does, in a process of its own or not; given whether its answers are checked.
Trial = Callable[[bool], Envs]
# Of observations. torch has no counterpart of NumPy's other types, or cannot compute with it.
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
# Actions of the episodes that show whether an env is deterministic. Many are short: what survives a
# reset is most likely seen at once.
PROBES = [1] * 64 + [50]


def make(config: schema.Env, check: bool = False, render_mode: str | None = None) -> gymnasium.Env:
    """One env that records raw returns; discrete observations become one-hot vectors of uint8.

    Args:
        check: whether its answers are checked, which is slow: errors and warnings say what is odd.
        render_mode: of Gymnasium, instead of the config's.
    """
    options: dict[str, Any] = {}
    if config.max_episode_steps is not None:
        options["max_episode_steps"] = config.max_episode_steps
    options |= config.kwargs
    if render_mode is not None:
        options["render_mode"] = render_mode
    if not check:
        options["disable_env_checker"] = True
    env: gymnasium.Env = RecordEpisodeStatistics(gymnasium.make(config.id, **options))
    for node in config.wrappers:
        env = registry.build("wrapper", node, env)
    if isinstance(env.observation_space, spaces.Discrete):
        env = DtypeObservation(FlattenObservation(env), np.uint8)
    return _Checked(env, config.id) if check else env


class _Checked(gymnasium.Wrapper):
    """Raises ConfigError at an observation that its space, a Box, does not describe."""

    def __init__(self, env: gymnasium.Env, id: str):
        super().__init__(env)
        self._id = id

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        obs, info = self.env.reset(seed=seed, options=options)
        self._check(np.asarray(obs))
        return obs, info

    def step(self, action: Any) -> Any:
        obs, *rest = self.env.step(action)
        self._check(np.asarray(obs))
        return obs, *rest

    def _check(self, obs: np.ndarray) -> None:
        space = self.observation_space
        assert isinstance(space, spaces.Box)
        if obs.shape != space.shape or not np.can_cast(obs.dtype, space.dtype, "same_kind"):
            message = f"an observation is {obs.dtype} {obs.shape}, its space is {space}"
            raise _invalid(self._id, message)


def inspect(config: schema.Env, trial: Trial) -> Spec:
    """The spec of the env.

    Raises:
        ConfigError: the env cannot be made, cannot serve, or does not follow Gymnasium's API.
    """
    with _refused(config.id):
        env = make(config, check=True)
        env.close()
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
    with _refused(config.id, "does not follow Gymnasium's API: "), closing(trial(True)) as envs:
        envs.reset(seed=[0])
        envs.step(np.array([actions.start]))
    dtype = torch.from_numpy(np.empty(0, observations.dtype)).dtype
    return Spec(observations.shape, dtype, int(actions.n), int(actions.start), _first_obs(env))


def _first_obs(env: gymnasium.Env) -> int | None:
    """The number of the first discrete observation, if `make` has made one-hot vectors of them."""
    typed = env.env if isinstance(env, _Checked) else env
    flat = typed.env if isinstance(typed, DtypeObservation) else None
    if isinstance(flat, FlattenObservation) and isinstance(flat.env.observation_space, spaces.Discrete):
        return int(flat.env.observation_space.start)
    return None


def is_deterministic(config: schema.Env, trial: Trial) -> bool:
    """Whether episodes depend on their reset seeds and actions only, as far as some episodes show.

    State that survives a reset, such as MinAtar's last action, shows when the same episodes come after
    others. Takes 228 env steps.

    Raises:
        ConfigError: the env raises an error, or its process ends or hangs.
    """
    with _refused(config.id), closing(trial(False)) as envs:
        episodes = list(enumerate(PROBES))
        first = [_play(envs, *episode) for episode in episodes]
        again = [_play(envs, *episode) for episode in reversed(episodes)]
    return first == again[::-1]


def _play(envs: Envs, seed: int, n_actions: int) -> list[bytes]:
    """All bits of an episode of random actions."""
    space = envs.single_action_space
    assert isinstance(space, spaces.Discrete)
    obs, _ = envs.reset(seed=[seed])
    seen = [obs.tobytes()]
    for action in space.start + np.random.default_rng(seed).integers(space.n, size=(n_actions, 1)):
        obs, reward, terminated, truncated, _ = envs.step(action)
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
