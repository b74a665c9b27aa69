"""Every config key: its type, meaning and range. The values are in conf/*.yaml.

A part receives its dataclass as `config`; a part outside this package defines its own, as a subclass of
`Agent`, `Net`, `Buffer`, `Optim`, `Exploration`, `Env` or `Wrapper`, with keys made by `key`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")
Check = tuple[Callable[[Any], bool], str]  # (whether a value is allowed, what is allowed)
Invalid = Iterator[tuple[str, str]]  # (key, message) of values that do not fit together
ANY: Check = (lambda _: True, "")
POSITIVE: Check = (lambda value: value > 0, "a number > 0")
NOT_NEGATIVE: Check = (lambda value: value >= 0, "a number >= 0")
SECONDS: Check = (lambda value: 0 < value <= 86_400, "a number of seconds > 0, at most a day")
UNIT: Check = (lambda value: 0 <= value <= 1, "a number in [0, 1]")
FRACTION: Check = (lambda value: 0 < value <= 1, "a number in (0, 1]")
BELOW_ONE: Check = (lambda value: 0 <= value < 1, "a number in [0, 1)")
WIDTHS: Check = (
    lambda value: len(value) <= 100 and all(width >= 1 for width in value),
    "a list of at most 100 integers >= 1",
)
BETAS: Check = (
    lambda value: len(value) == 2 and all(0 <= beta < 1 for beta in value),
    "a list of two numbers in [0, 1)",
)


def integer(least: int, most: int | None = None) -> Check:
    """An integer within bounds."""
    if most is None:
        return lambda value: value >= least, f"an integer >= {least}"
    return lambda value: least <= value <= most, f"an integer from {least} to {most:,}"


COUNT, NATURAL = integer(1), integer(0)


def one_of(*names: str) -> Check:
    """One of a few names."""
    return lambda value: value in names, f"one of: {', '.join(names)}"


def key(meaning: str, check: Check = ANY) -> Any:
    """A config key: what it means, and which values are allowed. A value must be given in a yaml."""
    return field(metadata={"meaning": meaning, "check": check})


def part(kind: str, meaning: str) -> Any:
    """A config node, or a list of them, that names a registered part of a kind."""
    return field(metadata={"kind": kind, "meaning": meaning, "check": ANY})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(key, part))
def config(cls: type[T]) -> type[T]:
    """Decorator: make a dataclass of keys. They have no defaults: values are in a yaml."""
    return dataclass(frozen=True, kw_only=True)(cls)


ACTIVATIONS = one_of("relu", "tanh", "elu", "gelu", "silu", "leaky_relu")


@config
class Target:
    tau: float = key(
        "step size of the target network towards the online network; 1 copies it", FRACTION
    )
    every: int | None = key("env steps between target updates; null: at every gradient step", COUNT)
    episodes: int | None = key("instead of `every`: episodes of a seed between target updates", COUNT)

    def problems(self) -> Invalid:
        if self.every and self.episodes:
            yield "episodes", "cannot be set together with agent.target.every"


@config
class Agent:
    name: str = key("learning rule in the registry")
    gamma: float = key("discount factor per env step", UNIT)
    n_step: int = key("env steps of the n-step return", COUNT)
    target: Target


@config
class DQN(Agent):
    loss: str = key("loss of the TD error", one_of("huber", "mse"))


@config
class Munchausen(DQN):
    alpha: float = key("weight of the log-policy bonus", UNIT)
    temperature: float = key("temperature of the softmax policy", POSITIVE)
    clip: float = key("lower bound of the log-policy bonus", (lambda value: value < 0, "a number < 0"))


@config
class Distributional(Agent):
    double: bool = key("choose the next action with the online network, as double DQN does")


@config
class C51(Distributional):
    atoms: int = key("atoms of the return distribution", integer(2, 10_000))
    v_min: float = key("return at the first atom")
    v_max: float = key("return at the last atom; 1 / (1 - gamma) bounds rewards up to 1")

    def problems(self) -> Invalid:
        if self.v_min >= self.v_max:
            yield "v_min", f"must be below agent.v_max={self.v_max}"


@config
class QRDQN(Distributional):
    quantiles: int = key("quantiles of the return distribution", integer(1, 10_000))


@config
class IQN(Distributional):
    samples: int = key("random quantile fractions of the estimate", integer(1, 10_000))
    target_samples: int = key("random quantile fractions of the target", integer(1, 10_000))
    act_samples: int = key("evenly spaced fractions whose mean is the Q-value", integer(1, 10_000))


@config
class Net:
    name: str = key("network in the registry")


@config
class MLP(Net):
    hidden: list[int] = key("units of each hidden layer", WIDTHS)
    activation: str = key("activation function of the hidden layers", ACTIVATIONS)
    sigma: float | None = key("initial noise of noisy layers; null: no noisy layers", POSITIVE)


@config
class Dueling(MLP):
    stream_hidden: list[int] = key("hidden units of the value and advantage streams", WIDTHS)


@config
class Buffer:
    name: str = key("replay buffer in the registry")
    capacity: int = key("transitions stored per seed", COUNT)


@config
class PER(Buffer):
    alpha: float = key(
        "priority exponent; 0 samples uniformly", (lambda value: 0 <= value <= 4, "a number in [0, 4]")
    )  # a power of a large TD error must stay finite
    beta_start: float = key("importance-weight exponent at the first update", UNIT)
    beta_end: float = key("importance-weight exponent at the last update", UNIT)
    epsilon: float = key("added to |TD error| so that no priority is 0", POSITIVE)

    def problems(self) -> Invalid:
        if self.beta_start > self.beta_end:
            yield "beta_start", f"must be at most buffer.beta_end={self.beta_end}"


@config
class Clip:
    kind: str = key("clip gradients by value, by each seed's global norm, or not at all",
                    one_of("value", "norm", "none"))  # fmt: skip
    max: float = key("largest absolute element, or largest norm", POSITIVE)


@config
class Optim:
    name: str = key("optimizer in the registry")
    lr: float = key("learning rate", POSITIVE)
    anneal: bool = key("decrease the learning rate linearly to 0 over total_steps")
    weight_decay: float = key("weight decay", NOT_NEGATIVE)
    clip: Clip


@config
class Adam(Optim):
    betas: list[float] = key("decay rates of the two moments", BETAS)
    eps: float = key("added to the denominator; damps updates with small gradients", POSITIVE)
    amsgrad: bool = key("divide by the largest second moment so far")


@config
class RMSprop(Optim):
    alpha: float = key("decay rate of the mean square", BELOW_ONE)
    eps: float = key("added to the denominator", POSITIVE)
    momentum: float = key("momentum", BELOW_ONE)


@config
class SGD(Optim):
    momentum: float = key("momentum", BELOW_ONE)


@config
class Exploration:
    name: str = key("exploration strategy in the registry")


@config
class Constant(Exploration):
    start: float = key("epsilon, the probability of a random action", UNIT)


@config
class PerEpisode(Exploration):
    start: float = key("epsilon of the first episode", UNIT)
    end: float = key("smallest epsilon", UNIT)

    def problems(self) -> Invalid:
        if self.end > self.start:
            yield "end", f"must be at most exploration.start={self.start}"


@config
class Decay(PerEpisode):
    start: float = key("epsilon at the start: the probability of a random action", UNIT)
    end: float = key("epsilon after the decay", UNIT)
    decay_steps: int = key("env steps of the decay: its length, or its time constant", COUNT)


@config
class Linear(Decay):
    hold_steps: int = key("env steps at the first epsilon before the decay begins", NATURAL)


@config
class EpsilonZ(Decay):
    mu: float = key("exponent of the zeta distribution of repetitions", POSITIVE)
    max_duration: int = key("env steps that a random action is repeated at most", integer(1, 1_000_000))


@config
class Boltzmann(PerEpisode):
    start: float = key("softmax temperature at the start", POSITIVE)
    end: float = key("softmax temperature after the decay", POSITIVE)
    decay_steps: int = key("env steps of the decay", COUNT)


@config
class Wrapper:
    name: str = key("wrapper in the registry")


@config
class ClipReward(Wrapper):
    low: float = key("smallest reward")
    high: float = key("largest reward")


@config
class ScaleReward(Wrapper):
    factor: float = key("what rewards are multiplied by")


@config
class Env:
    backend: str = key("gymnasium; or native: tensor functions that compile with the learner")
    id: str = key("Gymnasium id of the environment")
    n: int = key("parallel envs per seed", COUNT)
    vectorization: str = key("sync, or async: one process per env", one_of("sync", "async"))
    timeout: float | None = key(
        "seconds that async envs may take to reset or step; null: for ever", SECONDS
    )
    max_episode_steps: int | None = key("time limit; null: the env's own", COUNT)
    kwargs: dict[str, Any] = key("arguments for gymnasium.make")
    wrappers: list[Wrapper] = part("wrapper", "wrappers, innermost first: [{name: clip_reward, ...}]")

    def problems(self) -> Invalid:
        if self.timeout is not None and self.vectorization != "async":
            yield "timeout", "needs env.vectorization=async: only processes can be waited for"


@config
class Stop:
    episodes: int | None = key("end when every seed has finished this many episodes", COUNT)
    successes: int | None = key("end when every seed has had this many successes in a row", COUNT)
    success_return: float | None = key("return from which an episode is a success")

    def problems(self) -> Invalid:
        if (self.successes is None) != (self.success_return is None):
            yield "successes", "must be set together with train.stop.success_return"


@config
class Train:
    batch_size: int = key("transitions per gradient step and seed", COUNT)
    learning_starts: int = key("env steps before the first gradient step", NATURAL)
    every: int = key("env steps between updates", COUNT)
    updates: int = key("gradient steps per update", integer(1, 1_000_000))
    on_divergence: str = key(
        "if a seed's values become NaN or infinite: stop the run, or drop the seed",
        one_of("stop", "drop"),
    )
    stop: Stop

    def problems(self) -> Invalid:
        if self.learning_starts < self.batch_size:
            yield (
                "learning_starts",
                (f"must be at least train.batch_size={self.batch_size}, to fill the first minibatch"),
            )


@config
class Eval:
    every: int = key("env steps between greedy evaluations", COUNT)
    episodes: int = key("episodes per seed in each evaluation, played in parallel", COUNT)
    final_episodes: int = key(
        "episodes per seed in the final evaluation; a multiple of `episodes`", integer(1, 1_000_000)
    )
    solved: float | None = key("mean return from which the final evaluation counts as solved")

    def problems(self) -> Invalid:
        if self.final_episodes % self.episodes:
            yield "final_episodes", f"must be a multiple of eval.episodes={self.episodes}"


@config
class Log:
    every: int = key("env steps between log points", COUNT)
    histograms: bool = key("histograms of parameters and Q-values in TensorBoard, at log points")
    video: int = key("greedy episodes to film for TensorBoard at the end of training", NATURAL)


@config
class Checkpoint:
    every: int | None = key("env steps between checkpoints; null: only at the end", COUNT)
    keep: int = key("number of checkpoints kept, the newest", COUNT)
    new_episodes: bool = key(
        "on resume, begin new episodes if an env's current one cannot be restored, instead of refusing"
    )


LOGGERS = ("tensorboard", "wandb")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@config
class Config:
    seed: int = key("first seed", NATURAL)
    seeds: int = key("number of seeds trained in lockstep: seed, seed+1, ...", integer(1, 1_000_000))
    total_steps: int = key("env steps per seed", integer(1, 10**12))
    device: str = key("auto (cuda if present, else cpu), cpu, cuda, cuda:N or mps")
    threads: int = key(
        "CPU threads of torch; small nets are slower with more than one", integer(1, 1024)
    )
    compile: Any = key(
        "compile the training loop; auto: if the run is long enough to gain from it",
        (lambda value: isinstance(value, bool) or value == "auto", "auto, true or false"),
    )
    resume: str | None = key(
        "null: a new run; a run folder or one of its checkpoints: continue it; auto: continue the run "
        "in hydra.run.dir, or begin it"
    )
    plugins: list[str] = key("modules to import first; they may register parts")
    logger: Any = key(
        "where metrics go beside the CSV files: tensorboard, wandb, or a list of them",
        (
            lambda value: all(name in LOGGERS for name in _listed(value)),
            "tensorboard, wandb, or a list of them",
        ),
    )
    env: Env = part("env", "environment")
    agent: Agent = part("agent", "learning rule")
    net: Net = part("net", "Q-network")
    buffer: Buffer = part("buffer", "replay buffer")
    optim: Optim = part("optim", "optimizer")
    exploration: Exploration = part("exploration", "exploration")
    train: Train
    eval: Eval
    log: Log
    checkpoint: Checkpoint

    @property
    def loggers(self) -> list[str]:
        """The names of the loggers."""
        return _listed(self.logger)

    def problems(self) -> Invalid:
        total, n, capacity = self.total_steps, self.env.n, self.buffer.capacity
        if self.train.learning_starts >= total:
            yield "train.learning_starts", f"must be below total_steps={total}"
        if total % n:
            yield "total_steps", f"must be a multiple of env.n={n}"
        if capacity < self.train.batch_size:
            yield "buffer.capacity", f"must be at least train.batch_size={self.train.batch_size}"
        if capacity % n:
            yield "buffer.capacity", f"must be a multiple of env.n={n}"
        if self.agent.n_step * n >= capacity:
            yield "agent.n_step", f"must be below the {capacity // n} time steps that the buffer stores"


BASES: dict[str, type] = {  # kind of part -> the least that its config has
    "env": Env,
    "agent": Agent,
    "net": Net,
    "buffer": Buffer,
    "optim": Optim,
    "exploration": Exploration,
    "wrapper": Wrapper,
}
GROUPS = {  # folders of conf/
    "env": "environment",
    "agent": "learning rule, n-step returns, target network",
    "net": "Q-network",
    "buffer": "experience replay",
    "optim": "optimizer, learning-rate annealing, gradient clipping",
    "exploration": "exploration strategy and its schedule",
    "experiment": "preset: a whole recipe",
}
PARTS: dict[str, dict[str, type]] = {  # of this package: kind -> name -> what the part declares
    "env": {"gymnasium": Env, "native": Env},
    "agent": {
        "dqn": DQN,
        "ddqn": DQN,
        "sarsa": DQN,
        "expected_sarsa": DQN,
        "munchausen": Munchausen,
        "c51": C51,
        "qr_dqn": QRDQN,
        "iqn": IQN,
    },
    "net": {"mlp": MLP, "dueling": Dueling},
    "buffer": {"uniform": Buffer, "per": PER},
    "optim": {"adam": Adam, "adamw": Adam, "rmsprop": RMSprop, "sgd": SGD},
    "exploration": {
        "linear": Linear,
        "exponential": Decay,
        "constant": Constant,
        "per_episode": PerEpisode,
        "ez_greedy": EpsilonZ,
        "boltzmann": Boltzmann,
    },
    "wrapper": {"clip_reward": ClipReward, "scale_reward": ScaleReward},
}
