"""From a config to its parts. Building writes no files and sets no global state."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from dqn_exp import registry
from dqn_exp.buffers.memory import require_memory
from dqn_exp.compiled.loops import MAX_UNROLLED, CompiledSteps, WholeLoop, updates_of_period
from dqn_exp.compiled.play import CompiledPlay
from dqn_exp.config import schema
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.interfaces import Agent, Context, Env, Exploration, QNetwork, ReplayBuffer
from dqn_exp.learner import Learner
from dqn_exp.loop import Loop
from dqn_exp.play import Play

FORMS: dict[type[Loop], str] = {
    Loop: "not compiled",
    CompiledSteps: "steps compiled",
    WholeLoop: "whole loop compiled",
}
# With compile=auto: gradient steps from which the time saved exceeds that of a first compilation.
WORTH_COMPILING = {CompiledSteps: 50_000, WholeLoop: 10_000}
MATRICES = 6  # of parameters: online, target, gradient, the optimizer's two or three


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
    """
    registry.load(config.plugins)
    train, device = config.train, resolve_device(config.device)
    seeds = torch.arange(config.seed, config.seed + config.seeds, dtype=torch.int64, device=device)
    strict = train.on_divergence == "stop"
    env = registry.build("env", config.env, seeds, "train", strict)
    eval_config = replace(config.env, n=config.eval.episodes)
    eval_env = registry.build("env", eval_config, seeds, "eval", strict)
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


def _form(config: schema.Config, context: Context, compilable: bool) -> type[Loop]:
    """The form of the training loop that the config key `compile` asks for, or auto chooses."""
    if config.compile is False:
        return Loop
    pattern = updates_of_period(context.n_envs, config.train.every, config.train.updates)
    short = max(len(pattern), sum(pattern)) <= MAX_UNROLLED
    form = WholeLoop if compilable and short else CompiledSteps
    if config.compile == "auto" and context.total_updates < WORTH_COMPILING[form]:
        return Loop
    return form
