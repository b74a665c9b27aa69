"""The schema of the whole config: every key's type, meaning and range, and the cross-field checks.

Values live in conf/*.yaml; a key here without one there is missing (???). Only this module, train.py
and plug-ins know Hydra and OmegaConf.
"""

import copy
import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.experimental.callback import Callback
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from dqn_exp import registry
from dqn_exp.registry import ConfigError, did_you_mean

CONF = Path(__file__).parent.parent / "conf"

Check = tuple[Callable[[Any], bool], str]  # (holds, what is allowed)
ANY: Check = (lambda _: True, "")
COUNT: Check = (lambda value: value >= 1, "an integer >= 1")
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


@dataclass
class Agent:
    name: str = key("learning rule in the registry")
    gamma: float = key("discount per env step", UNIT)
    n_step: int = key("env steps per return", COUNT)
    loss: str = key("loss of the TD error", one_of("huber", "mse"))
    target: Target = field(default_factory=Target)


@dataclass
class MLP:
    name: str = key("network in the registry")
    hidden: list[int] = key("units of each hidden layer", WIDTHS)
    activation: str = key("nonlinearity between layers", ACTIVATIONS)


@dataclass
class Dueling(MLP):
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
class Env:
    name: str = key("environment adapter in the registry")
    id: str = key("Gymnasium id")
    n: int = key("parallel envs per seed", COUNT)
    max_episode_steps: int | None = key("time limit; null: the env's own", COUNT)
    kwargs: dict[str, Any] = key("arguments for gymnasium.make")
    wrappers: list[dict[str, Any]] = key("wrappers from the inside out: [{name: clip_reward, ...}]")


@dataclass
class Train:
    batch_size: int = key("transitions per gradient step and seed", COUNT)
    learning_starts: int = key("env steps before the first update", NATURAL)
    every: int = key("env steps between updates", COUNT)
    updates: int = key("gradient steps at each of them", COUNT)


@dataclass
class Eval:
    every: int = key("env steps between greedy evaluations", COUNT)
    episodes: int = key("episodes per seed of each, all in parallel", COUNT)
    final_episodes: int = key("episodes per seed of the last; a multiple of episodes", COUNT)


@dataclass
class Log:
    every: int = key("env steps between log points", COUNT)


@dataclass
class Config:
    seed: int = key("first seed", NATURAL)
    seeds: int = key("how many train in lockstep: seed, seed+1, ...", COUNT)
    total_steps: int = key("env steps per seed", COUNT)
    device: str = key("auto (cuda if there is one, else cpu), cpu, cuda, cuda:N or mps")
    threads: int = key("CPU threads of torch; small nets lose with more than one", COUNT)
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
    "agent": {"dqn": Agent},
    "net": {"mlp": MLP, "dueling": Dueling},
    "buffer": {"uniform": Uniform, "per": PER},
    "optim": {"adam": Adam, "rmsprop": RMSprop, "sgd": SGD},
    "exploration": {"decay": Decay, "per_episode": PerEpisode, "constant": Constant},
    "train": {"train": Train},
    "eval": {"eval": Eval},
    "log": {"log": Log},
}


def compose(*overrides: str) -> dict[str, Any]:
    """The shipped config with overrides, checked, as the command line would give it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return load(hydra_compose("config", overrides=list(overrides)))


def load(cfg: DictConfig) -> dict[str, Any]:
    """The checked config as plain nested dicts and lists.

    Raises:
        ConfigError: with every problem found, one line each.
    """
    problems = list(_schema_problems(cfg))
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    if not problems:
        problems = list(_cross_field_problems(config)) + list(_part_problems(config))
    if problems:
        raise ConfigError(problems)
    return config


def _schema_problems(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Keys of a composed node that are unknown, unset or out of range (Hydra checked the types)."""
    schema = OmegaConf.get_type(node)
    if not dataclasses.is_dataclass(schema):
        return  # a plug-in's node; the registry knows its keys
    fields = {f.name: f for f in dataclasses.fields(schema)}
    for name in node:
        path = f"{prefix}{name}"
        if name not in fields:
            yield f"{path}: unknown key{did_you_mean(str(name), fields)}"
        elif OmegaConf.is_missing(node, name):
            yield f"{path}=???: must be set ({fields[str(name)].metadata['meaning']})"
        elif isinstance(node[name], DictConfig):
            yield from _schema_problems(node[name], f"{path}.")
        elif node[name] is not None:
            holds, allowed = fields[str(name)].metadata["check"]
            if not holds(node[name]):
                yield f"{path}={node[name]}: must be {allowed}"


def _cross_field_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Values that are fine alone but not together."""
    train, total, n = config["train"], config["total_steps"], config["env"].get("n", 1)
    starts, capacity = train["learning_starts"], config["buffer"].get("capacity")
    if starts >= total:
        yield f"train.learning_starts={starts}: must be below total_steps={total}"
    if starts < train["batch_size"]:
        yield (
            f"train.learning_starts={starts}: must be at least train.batch_size="
            f"{train['batch_size']}, so that the first minibatch can be drawn"
        )
    if total % n:
        yield f"total_steps={total}: must be a multiple of env.n={n}"
    if capacity is not None:
        if capacity < train["batch_size"]:
            yield f"buffer.capacity={capacity}: must be at least train.batch_size={train['batch_size']}"
        if capacity % n:
            yield f"buffer.capacity={capacity}: must be a multiple of env.n={n}"
        if config["agent"].get("n_step", 1) * n >= capacity:
            yield (
                f"agent.n_step={config['agent']['n_step']}: must be below the "
                f"{capacity // n} time steps that buffer.capacity={capacity} holds"
            )
    rounds = config["eval"]
    if rounds["final_episodes"] % rounds["episodes"]:
        yield (
            f"eval.final_episodes={rounds['final_episodes']}: must be a multiple of "
            f"eval.episodes={rounds['episodes']}"
        )
    for node, low, high in (("exploration", "end", "start"), ("buffer", "beta_start", "beta_end")):
        values = config[node]
        if low in values and high in values and values[low] > values[high]:
            yield f"{node}.{low}={values[low]}: must be at most {node}.{high}={values[high]}"


def _part_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Names and keys that no registered part has, after importing the plug-ins."""
    for module in config["plugins"]:
        try:
            importlib.import_module(module)
        except ImportError as error:
            yield f"plugins: cannot import {module!r}: {error}"
    from dqn_exp import experiment  # here, because it imports torch and every part

    for kind in PARTS:
        yield from registry.problems(kind, config[kind])
    try:
        experiment.resolve_device(config["device"])
    except ConfigError as error:
        yield from error.problems


class RefuseInvalid(Callback):
    """Hydra callback: check the config before Hydra makes a folder for the run."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Print what is wrong and exit with 2, or do nothing."""
        task = copy.deepcopy(config)
        with open_dict(task):
            del task["hydra"]
        try:
            load(task)
        except ConfigError as error:
            print(error, file=sys.stderr)
            raise SystemExit(2) from None


def help_text() -> str:
    """The text of --help: config groups with their options, and every key with its meaning."""
    lines = [
        "Train value-based agents, many seeds in one process. Each run gets a folder of its own.",
        "  python train.py agent=ddqn buffer=per seeds=8",
        "  python train.py --multirun agent=dqn,ddqn buffer=uniform,per",
        "",
        "Groups (choose with group=option)",
    ]
    for group in sorted(path for path in CONF.iterdir() if path.is_dir()):
        options = ", ".join(sorted(path.stem for path in group.glob("*.yaml")))
        lines.append(f"  {group.name:<12} {options}")
    lines += ["", "Keys (set with key=value; --cfg job shows the values)"]
    for group, schemas in SCHEMAS.items():
        meanings = {k: v for schema in schemas.values() for k, v in _meanings(schema, group)}
        lines += [f"  {path:<27} {meaning}" for path, meaning in meanings.items()]
    lines += ["", "--hydra-help shows the flags; -sc install=bash prints shell completion."]
    return "\n".join(lines)


def _meanings(schema: type, prefix: str) -> Iterator[tuple[str, str]]:
    """Path and meaning of each key of a schema."""
    for f in dataclasses.fields(schema):
        path = f"{prefix}.{f.name}" if prefix else f.name
        if "meaning" in f.metadata:
            allowed = f.metadata["check"][1]
            yield path, f.metadata["meaning"] + (f" ({allowed})" if allowed else "")
        elif path not in SCHEMAS:
            yield from _meanings(f.type, path)  # type: ignore[arg-type]


def register_schemas() -> None:
    """Make the schemas and the help text known to Hydra; called before it starts."""
    store = ConfigStore.instance()
    for group, schemas in SCHEMAS.items():
        for name, schema in schemas.items():
            store.store(group=f"schema/{group}".rstrip("/"), name=name, node=schema)
    store.store(group="hydra/help", name="dqn_exp", node={"template": help_text()})
