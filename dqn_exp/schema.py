"""Every config key: its type, meaning and range, as dataclasses.

Values live in conf/*.yaml; a key here without one there is missing. What knows Hydra is config.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MISSING: Any = "???"  # how OmegaConf writes a value that must be given

Check = tuple[Callable[[Any], bool], str]  # (holds, what is allowed)
ANY: Check = (lambda _: True, "")
COUNT: Check = (lambda value: value >= 1, "an integer >= 1")
TWO: Check = (lambda value: value >= 2, "an integer >= 2")
NATURAL: Check = (lambda value: value >= 0, "an integer >= 0")
POSITIVE: Check = (lambda value: 0 < value < float("inf"), "a number > 0")
NOT_NEGATIVE: Check = (lambda value: 0 <= value < float("inf"), "a number >= 0")
UNIT: Check = (lambda value: 0 <= value <= 1, "a number in [0, 1]")
FRACTION: Check = (lambda value: 0 < value <= 1, "a number in (0, 1]")
BELOW_ONE: Check = (lambda value: 0 <= value < 1, "a number in [0, 1)")
WIDTHS: Check = (lambda value: all(width >= 1 for width in value), "a list of integers >= 1")


def one_of(*names: str) -> Check:
    """One of a few names."""
    return lambda value: value in names, f"one of: {', '.join(names)}"


def key(meaning: str, check: Check = ANY) -> Any:
    """A config key: what it means, and the values allowed."""
    return field(default=MISSING, metadata={"meaning": meaning, "check": check})


ACTIVATIONS = one_of("relu", "tanh", "elu", "gelu", "silu", "leaky_relu")


@dataclass
class Target:
    tau: float = key("step of the target network towards the online one; 1 copies it", FRACTION)
    every: int | None = key("env steps between target steps; null: one with every update", COUNT)
    episodes: int | None = key("instead of env steps, episodes of a seed between them", COUNT)


@dataclass
class Rule:
    name: str = key("learning rule in the registry")
    gamma: float = key("discount per env step", UNIT)
    n_step: int = key("env steps per return", COUNT)
    target: Target = field(default_factory=Target)


@dataclass
class Agent(Rule):
    loss: str = key("loss of the TD error", one_of("huber", "mse"))


@dataclass
class Munchausen(Agent):
    alpha: float = key("weight of the log-policy bonus", UNIT)
    temperature: float = key("of the softmax policy", POSITIVE)
    clip: float = key("lowest log-policy bonus", (lambda value: value < 0, "a number < 0"))


@dataclass
class Distributional(Rule):
    double: bool = key("choose the next action by the online network, as double DQN does")


@dataclass
class C51(Distributional):
    atoms: int = key("atoms of the distribution of returns", TWO)
    v_min: float = key("return of the first atom")
    v_max: float = key("return of the last atom; 1 / (1 - gamma) bounds rewards up to 1")


@dataclass
class QRDQN(Distributional):
    quantiles: int = key("quantiles of the distribution of returns", COUNT)


@dataclass
class IQN(Distributional):
    samples: int = key("random fractions for the estimate", COUNT)
    target_samples: int = key("random fractions for the target", COUNT)
    act_samples: int = key("even fractions that Q-values are means over", COUNT)


@dataclass
class Net:
    name: str = key("network in the registry")
    hidden: list[int] = key("units of each hidden layer", WIDTHS)
    activation: str = key("nonlinearity between layers", ACTIVATIONS)
    sigma: float | None = key("initial noise of noisy layers; null: none are noisy", POSITIVE)


@dataclass
class MLP(Net):
    output_activation: str | None = key("nonlinearity of the Q-values; null: none", ACTIVATIONS)


@dataclass
class Dueling(Net):
    stream_hidden: list[int] = key("hidden units of the value and advantage streams", WIDTHS)


@dataclass
class Uniform:
    name: str = key("replay buffer in the registry")
    capacity: int = key("transitions kept per seed", COUNT)


@dataclass
class PER(Uniform):
    alpha: float = key("priority exponent; 0 samples uniformly", NOT_NEGATIVE)
    beta_start: float = key("importance-weight exponent at the first update", UNIT)
    beta_end: float = key("importance-weight exponent at the last update", UNIT)
    epsilon: float = key("added to |TD| so that no priority is 0", POSITIVE)
    compat: str | None = key("sample as the PER notebook did, errors and all", one_of("notebook"))


@dataclass
class Clip:
    kind: str = key("clip gradients by value, by each seed's global norm, or not at all",
                    one_of("value", "norm", "none"))  # fmt: skip
    max: float = key("largest absolute element, or norm", POSITIVE)


@dataclass
class Optim:
    name: str = key("optimizer in the registry")
    lr: float = key("learning rate", POSITIVE)
    anneal: bool = key("decrease the learning rate linearly to 0 over total_steps")
    weight_decay: float = key("weight decay", NOT_NEGATIVE)
    clip: Clip = field(default_factory=Clip)


@dataclass
class Adam(Optim):
    betas: list[float] = key(
        "decay rates of the two moments",
        (lambda v: len(v) == 2 and all(0 <= b < 1 for b in v), "two numbers in [0, 1)"),
    )
    eps: float = key("added to the denominator", POSITIVE)
    amsgrad: bool = key("divide by the largest second moment so far")


@dataclass
class RMSprop(Optim):
    alpha: float = key("decay rate of the mean square", BELOW_ONE)
    eps: float = key("added to the denominator", POSITIVE)
    momentum: float = key("momentum", BELOW_ONE)


@dataclass
class SGD(Optim):
    momentum: float = key("momentum", BELOW_ONE)


@dataclass
class Constant:
    name: str = key("exploration in the registry")
    start: float = key("epsilon at the start", UNIT)


@dataclass
class PerEpisode(Constant):
    end: float = key("smallest epsilon", UNIT)


@dataclass
class Decay(PerEpisode):
    decay_steps: int = key("env steps of the decay: its length, or its time constant", COUNT)


@dataclass
class Line(Decay):
    hold_steps: int = key("env steps before the decay begins", NATURAL)


@dataclass
class EpsilonZ(Decay):
    mu: float = key("exponent of the zeta distribution of repetitions", POSITIVE)
    max_duration: int = key("most steps that a random action is repeated", COUNT)


@dataclass
class Boltzmann:
    name: str = key("exploration in the registry")
    start: float = key("temperature at the start", POSITIVE)
    end: float = key("temperature after the decay", POSITIVE)
    decay_steps: int = key("env steps of the decay", COUNT)


@dataclass
class Env:
    backend: str = key("gymnasium, or native: tensor functions that compile with the learner")
    id: str = key("Gymnasium id")
    n: int = key("parallel envs per seed", COUNT)
    vectorization: str = key("sync, or async: a process for each env", one_of("sync", "async"))
    max_episode_steps: int | None = key("time limit; null: the env's own", COUNT)
    kwargs: dict[str, Any] = key("arguments for gymnasium.make")
    wrappers: list[dict[str, Any]] = key("wrappers from the inside out: [{name: clip_reward, ...}]")


@dataclass
class Stop:
    episodes: int | None = key("end when every seed has finished so many episodes", COUNT)
    successes: int | None = key("end when every seed has had so many successes in a row", COUNT)
    success_return: float | None = key("return from which an episode is a success")


@dataclass
class Train:
    batch_size: int = key("transitions per gradient step and seed", COUNT)
    learning_starts: int = key("env steps before the first update", NATURAL)
    every: int = key("env steps between updates", COUNT)
    updates: int = key("gradient steps at each of them", COUNT)
    on_divergence: str = key(
        "once a seed's values are not finite: stop the run, or drop the seed and go on with the others",
        one_of("stop", "drop"),
    )
    stop: Stop = field(default_factory=Stop)


@dataclass
class Eval:
    every: int = key("env steps between greedy evaluations", COUNT)
    episodes: int = key("episodes per seed of each, all in parallel", COUNT)
    final_episodes: int = key("episodes per seed of the last; a multiple of episodes", COUNT)
    solved: float | None = key("mean return from which the last evaluation counts as solved")


@dataclass
class Log:
    every: int = key("env steps between log points", COUNT)


@dataclass
class Checkpoint:
    every: int | None = key("env steps between checkpoints; null: only at the end", COUNT)
    keep: int = key("how many of the newest to keep", COUNT)
    new_episodes: bool = key(
        "on resume, begin new episodes where an env's cannot be restored, instead of refusing"
    )


@dataclass
class Config:
    seed: int = key("first seed", NATURAL)
    seeds: int = key("how many train in lockstep: seed, seed+1, ...", COUNT)
    total_steps: int = key("env steps per seed", COUNT)
    device: str = key("auto (cuda if there is one, else cpu), cpu, cuda, cuda:N or mps")
    threads: int = key("CPU threads of torch; small nets lose with more than one", COUNT)
    compile: Any = key(
        "compile the inner loop; auto: if the run is long enough to gain by it",
        (lambda value: isinstance(value, bool) or value == "auto", "auto, true or false"),
    )
    resume: str | None = key(
        "go on: auto (in this run's folder, from its newest checkpoint, or from the start if there is "
        "none), or a path: of a run folder, or of a checkpoint in one"
    )
    plugins: list[str] = key("modules to import first, which may register parts")
    env: Any = key("environment")
    agent: Any = key("learning rule")
    net: Any = key("Q-network")
    buffer: Any = key("replay buffer")
    optim: Any = key("optimizer")
    exploration: Any = key("exploration")
    train: Train = field(default_factory=Train)
    eval: Eval = field(default_factory=Eval)
    log: Log = field(default_factory=Log)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)


GROUPS = {  # of conf/, for the help
    "env": "environment, and how many of it per seed",
    "agent": "learning rule, discount, n-step, target network",
    "net": "Q-network",
    "buffer": "experience replay",
    "optim": "optimizer, learning-rate annealing, clipping",
    "exploration": "how to act while learning, and its schedule",
    "train": "when to learn, and from how much",
    "eval": "greedy evaluation",
    "log": "how often to log",
    "checkpoint": "how often to save everything, to go on from",
    "experiment": "a preset: a whole recipe",
    "ablate": "leaves a part out of experiment=rainbow",
}
PARTS = (
    "env",
    "agent",
    "net",
    "buffer",
    "optim",
    "exploration",
)  # nodes that name a registered part
SCHEMAS: dict[str, dict[str, type]] = {  # group -> name -> schema; "" is the root
    "": {"config": Config},
    "env": {"gymnasium": Env},
    "agent": {
        "dqn": Agent,
        "munchausen": Munchausen,
        "c51": C51,
        "qr_dqn": QRDQN,
        "iqn": IQN,
    },
    "net": {"mlp": MLP, "dueling": Dueling},
    "buffer": {"uniform": Uniform, "per": PER},
    "optim": {"adam": Adam, "rmsprop": RMSprop, "sgd": SGD},
    "exploration": {
        "linear": Line,
        "decay": Decay,
        "per_episode": PerEpisode,
        "constant": Constant,
        "ez_greedy": EpsilonZ,
        "boltzmann": Boltzmann,
    },
    "train": {"train": Train},
    "eval": {"eval": Eval},
    "log": {"log": Log},
    "checkpoint": {"checkpoint": Checkpoint},
}
