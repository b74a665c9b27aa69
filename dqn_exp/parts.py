"""From a config to its parts. Building writes no files and sets no global state."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch

from dqn_exp import registry
from dqn_exp.buffers.memory import require_memory
from dqn_exp.compiled.loops import MAX_UNROLLED, CompiledSteps, WholeLoop
from dqn_exp.compiled.play import CompiledPlay
from dqn_exp.config import schema
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.interfaces import EPISODE_LOG, Agent, Context, Env, Exploration, QNetwork, ReplayBuffer
from dqn_exp.learner import Learner
from dqn_exp.loop import Loop
from dqn_exp.play import Play
from dqn_exp.signals import exits_are_errors

FORMS: dict[type[Loop], str] = {
    Loop: "not compiled",
    CompiledSteps: "steps compiled",
    WholeLoop: "whole loop compiled",
}
# With compile=auto: gradient steps from which the time saved exceeds that of a first compilation.
WORTH_COMPILING = {CompiledSteps: 50_000, WholeLoop: 10_000}
MATRICES = 6  # of parameters: online, target, gradient, the optimizer's two or three
# Bytes of an env, about, by backend and vectorization; in Python, 10 to 100 kB were measured.
ENV_BYTES = {
    ("native", "sync"): 16 * EPISODE_LOG,
    ("gymnasium", "sync"): 50_000,
    ("gymnasium", "async"): 20_000_000,  # a process
}
MOST_ENVS = 100_000  # in Python: making one takes about a millisecond, a step of all seconds
COSINES = 64  # numbers that embed a quantile fraction
WINDOW = 10  # numbers for each step of an n-step window


@dataclass
class Parts:
    """Everything that a run consists of, built from its config; for S seeds in lockstep."""

    config: schema.Config
    context: Context
    env: Env
    eval_env: Env
    agent: Agent
    net: QNetwork
    buffer: ReplayBuffer
    exploration: Exploration
    learner: Learner
    loop: Loop
    play: Play  # greedy, in eval_env

    @property
    def form(self) -> str:
        """What is compiled, in words."""
        return FORMS[type(self.loop)]

    def deviations(self) -> Iterator[str]:
        """What the parts do on purpose that their sources do not, a line each."""
        config = self.config
        nodes = [
            (kind, getattr(config, kind)) for kind in ("env", "agent", "net", "buffer", "exploration")
        ]
        nodes += [("wrapper", wrapper) for wrapper in config.env.wrappers]
        yield from filter(None, (registry.deviation(kind, node) for kind, node in nodes))
        if config.agent.target.episodes:
            yield "agent.target.episodes: the longer episodes are, the less often the target moves"

    def close(self) -> None:
        """Close the environments."""
        self.env.close()
        self.eval_env.close()


def build(config: schema.Config, dtype: torch.dtype = torch.float32) -> Parts:
    """Build all parts of a run.

    Args:
        dtype: of parameters and values; float64 is for tests.

    Raises:
        ConfigError: the parts do not fit together, into memory, or onto this machine.
        RuntimeError: code of a part has ended the process.
    """
    with exits_are_errors(), ExitStack() as on_failure:
        parts = _built(config, dtype, on_failure)
        on_failure.pop_all()
        return parts


def _built(config: schema.Config, dtype: torch.dtype, on_failure: ExitStack) -> Parts:
    registry.load(config.plugins)
    train, device = config.train, resolve_device(config.device)
    eval_config = replace(config.env, n=config.eval.episodes)
    _require_room_for_envs(config, device)
    seeds = torch.arange(config.seed, config.seed + config.seeds, dtype=torch.int64, device=device)
    strict = train.on_divergence == "stop"
    env = registry.build("env", config.env, seeds, "train", strict)
    on_failure.callback(env.close)
    eval_env = registry.build("env", eval_config, seeds, "eval", strict)
    on_failure.callback(eval_env.close)
    n_envs = config.env.n
    before = (train.learning_starts - 1) // n_envs * n_envs  # the last step without updates
    times = config.total_steps // train.every - before // train.every
    context = Context(
        seeds=seeds,
        n_envs=n_envs,
        batch_size=train.batch_size,
        spec=env.spec,
        device=device,
        dtype=dtype,
        total_steps=config.total_steps,
        total_updates=times * train.updates,
    )
    agent = registry.build("agent", config.agent, context)
    try:
        net = registry.build("net", config.net, context, agent)
    except ValueError as error:
        raise ConfigError([Problem("net", str(error), config.net.name)]) from error
    n_bytes = MATRICES * len(seeds) * net.n_params * dtype.itemsize
    require_memory(n_bytes, device, "net", f"{config.net.name} with seeds={len(seeds)}")
    _require_room_for_updates(config, context, agent)
    buffer = registry.build("buffer", config.buffer, context, agent)
    exploration = registry.build("exploration", config.exploration, context)
    optimizer = registry.build("optim", config.optim, context)
    learner = Learner(context, net, agent, config.agent.target, optimizer, exploration.probabilities)
    form = _form(config, context, env.compilable)
    loop = form(
        context=context,
        env=env,
        buffer=buffer,
        agent=agent,
        learner=learner,
        exploration=exploration,
        learning_starts=train.learning_starts,
        train_every=train.every,
        updates=train.updates,
    )
    if form is WholeLoop:
        play = CompiledPlay(eval_env, learner.q, device, agent.gamma)
    else:
        play = Play(eval_env, learner.q, agent.gamma)
    return Parts(
        config, context, env, eval_env, agent, net, buffer, exploration, learner, loop, play
    )  # fmt: skip


def resolve_device(name: str) -> torch.device:
    """The torch device that the config key `device` names; "auto" is cuda where there is one.

    Raises:
        ConfigError: this machine has no such device.
    """
    visible = ["cpu"]
    if torch.cuda.is_available():
        visible += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        visible.append("mps")
    if name == "auto":
        return torch.device("cuda" if "cuda" in visible else "cpu")
    if name not in visible:
        allowed = f"must be auto or a device of this machine: {', '.join(visible)}"
        raise ConfigError([Problem("device", allowed, name)])
    return torch.device(name)


def _require_room_for_envs(config: schema.Config, device: torch.device) -> None:
    """Refuse more envs than fit, before the first is made."""
    S, env, episodes = config.seeds, config.env, config.eval.episodes
    key, most = ("env.n", env.n) if env.n > episodes else ("eval.episodes", episodes)
    value, n_envs = f"{most} with seeds={S}", S * (env.n + episodes)
    if env.backend == "gymnasium" and n_envs > MOST_ENVS:
        message = f"at most {MOST_ENVS:,} envs are made in Python; these would be {n_envs:,}"
        raise ConfigError([Problem(key, message, value)])
    where = device if env.backend == "native" else torch.device("cpu")
    n_bytes = n_envs * ENV_BYTES.get((env.backend, env.vectorization), 0)
    require_memory(n_bytes, where, key, value)


def _require_room_for_updates(config: schema.Config, context: Context, agent: Agent) -> None:
    """Refuse minibatches whose largest tensors alone do not fit."""
    S, B, A = context.n_seeds, context.batch_size, context.spec.n_actions
    K, fractions = agent.n_atoms or 1, agent.n_draws(1) if agent.implicit else 1
    layers = sum(getattr(config.net, "hidden", [])) + A * K  # outputs of all layers
    numbers = {  # key -> its value, and how many numbers a transition takes
        "train.batch_size": (B, 2 * math.prod(context.spec.obs_shape) + layers),
        "agent.n_step": (agent.n_step, agent.n_step * WINDOW),
        "agent": (f"{config.agent.name} with {K} values per action", K * K),
        "agent.samples": (fractions, fractions * (COSINES + layers)),
    }
    for key, (value, n) in numbers.items():
        about = f"{value}, seeds={S}, train.batch_size={B}"
        require_memory(S * B * n * context.dtype.itemsize, context.device, key, about)


def _form(config: schema.Config, context: Context, compilable: bool) -> type[Loop]:
    """The form of the training loop that the config key `compile` asks for, or auto chooses."""
    if config.compile is False:
        return Loop
    every = config.train.every
    period = math.lcm(every, context.n_envs)  # env steps after which the updates repeat
    short = max(period // context.n_envs, period // every * config.train.updates) <= MAX_UNROLLED
    form = WholeLoop if compilable and short else CompiledSteps
    if config.compile == "auto" and context.total_updates < WORTH_COMPILING[form]:
        return Loop
    return form
