"""From conf/ to a checked config: composition, cross-field checks, and the text of --help.

Only this module, train.py and plug-ins know Hydra and OmegaConf.
"""

import atexit
import copy
import dataclasses
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from dqn_exp import registry
from dqn_exp.registry import ConfigError, did_you_mean
from dqn_exp.schema import GROUPS, PARTS, SCHEMAS

if TYPE_CHECKING:
    from dqn_exp.experiment import Experiment

# Beyond these, nothing is counted or computed as it is meant.
LARGEST = {bool: 2, int: 2**53, float: 1e30}
AT_MOST = {"seeds": 1_000_000, "threads": 1024, "exploration.max_duration": 1_000_000}
CONF = Path(__file__).parent.parent / "conf"


def compose(*overrides: str) -> dict[str, Any]:
    """The shipped config with overrides, checked, as the command line would give it."""
    register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return load(hydra_compose("config", overrides=list(overrides)))


def load(cfg: DictConfig) -> dict[str, Any]:
    """The checked config as plain nested dicts and lists.

    Raises:
        ConfigError: with every problem found, one line each.
    """
    try:
        config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise ConfigError([f"{error.full_key}: {str(error).splitlines()[0]}"]) from error
    problems = list(_schema_problems(cfg))
    known = tuple(problem.partition("=")[0] + end for problem in problems for end in "=.")
    problems += (p for p in _value_problems(config) if not p.startswith(known))
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
        elif node[name] is not None or fields[str(name)].type is Any:
            holds, allowed = fields[str(name)].metadata["check"]
            if not holds(node[name]):
                yield f"{path}={node[name]}: must be {allowed}"


def _value_problems(node: Any, prefix: str = "") -> Iterator[str]:
    """Numbers that nothing here can mean, and keys that ask Hydra to call something: nothing does."""
    for name, value in enumerate(node) if isinstance(node, list) else node.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict | list):
            yield from _value_problems(value, f"{path}.")
        elif isinstance(value, int | float) and not abs(value) < LARGEST[type(value)]:
            yield f"{path}={value}: must be finite, and below {LARGEST[type(value)]:,}"
        if name in ("_target_", "_partial_", "_args_", "_recursive_", "_convert_"):
            yield f"{path}: parts are built by name, nothing else is called"


def _cross_field_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Values that are fine alone but not together."""
    train, total, n = config["train"], config["total_steps"], config["env"].get("n", 1)
    for path, most in AT_MOST.items():
        *node, key = path.split(".")
        if (value := (config[node[0]] if node else config).get(key, 0)) > most:
            yield f"{path}={value}: must be at most {most:,}"
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
    stop = train["stop"]
    if (stop["successes"] is None) != (stop["success_return"] is None):
        yield "train.stop.successes and train.stop.success_return: both or neither must be set"
    target = config["agent"].get("target", {})
    if target.get("every") and target.get("episodes"):
        yield "agent.target.episodes: instead of agent.target.every, not beside it"
    low, high = (config["agent"].get(bound) for bound in ("v_min", "v_max"))
    if low is not None and high is not None and low >= high:
        yield f"agent.v_min={low}: must be below agent.v_max={high}"
    for node, low, high in (("exploration", "end", "start"), ("buffer", "beta_start", "beta_end")):
        values = config[node]
        if low in values and high in values and values[low] > values[high]:
            yield f"{node}.{low}={values[low]}: must be at most {node}.{high}={values[high]}"


def _part_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Names and keys that no registered part has, after importing the plug-ins."""
    for module in config["plugins"]:
        try:
            importlib.import_module(module)
        except Exception as error:  # of a plug-in, it may be any
            yield f"plugins: cannot import {module!r}: {type(error).__name__}: {error}"
    from dqn_exp import experiment  # here, because it imports torch and every part

    for kind in PARTS:
        yield from registry.problems(kind, config[kind])
    for number, wrapper in enumerate(config["env"].get("wrappers", [])):
        for problem in registry.problems("wrapper", wrapper):
            yield f"env.wrappers.{number}{problem.removeprefix('wrapper')}"
    try:
        experiment.resolve_device(config["device"])
    except ConfigError as error:
        yield from error.problems


def expanded(arguments: list[str]) -> list[str]:
    """Command-line arguments, where resume=<path> is made to mean all that its run began with.

    The path is of a run folder, or of a checkpoint in one. What else is said on the command line wins.
    Exits with 2 if there is no run, or a group is chosen to be nothing, which Hydra answers with a
    traceback.
    """
    for group, _, option in (argument.partition("=") for argument in arguments):
        if group in GROUPS and group not in ("experiment", "ablate") and option in ("", "null"):
            print(f"{group}={option}: must be one of: {', '.join(_options(group))}", file=sys.stderr)
            raise SystemExit(2)
    named = [a.removeprefix("resume=") for a in arguments if a.startswith("resume=")]
    if not named or named[-1] in ("auto", "null"):
        return arguments
    path = Path(named[-1].strip("'\"")).absolute()
    run_dir = path.parent.parent if path.parent.name == "checkpoints" else path
    try:
        began_with = yaml.safe_load((run_dir / ".hydra/overrides.yaml").read_text())
        kept = [a for a in began_with if not a.lstrip("+~").startswith(("resume=", "hydra"))]
    except (OSError, yaml.YAMLError, TypeError, AttributeError) as error:
        print(f"resume={named[-1]}: no run is there ({error})", file=sys.stderr)
        raise SystemExit(2) from None
    first = next(i for i, a in enumerate(arguments) if "=" in a and not a.startswith("-"))
    flags, given = arguments[:first], [a for a in arguments[first:] if not a.startswith("resume=")]
    here = ["hydra.mode=RUN", f"hydra.run.dir={_quoted(run_dir)}", f"resume={_quoted(path)}"]
    return [*flags, *kept, *given, *here]


def _quoted(path: Path) -> str:
    """As Hydra's grammar takes any text."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


class JobChecks(Callback):
    """Hydra callback: what comes before a run, and after a sweep."""

    experiment: "Experiment | None" = None  # of a single run, built before Hydra has written anything
    sweep: Path | None = None  # folder of this process's sweep
    failed = False  # whether a run of this process has

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Build the run, or exit with 2."""
        from dqn_exp.experiment import Experiment  # here, because it imports torch

        HydraConfig.instance().set_config(config)  # the folder's name asks it for the choices
        task = copy.deepcopy(config)
        with open_dict(task):
            del task["hydra"]
        try:
            folder = Path(config.hydra.run.dir).absolute()
            JobChecks.experiment = Experiment(load(task), folder, progress=True)
        except ConfigError as error:
            print(error, file=sys.stderr)
            raise SystemExit(2) from None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Have the jobs listed in the end, even if one fails: Hydra only tells of the first."""
        HydraConfig.instance().set_config(config)
        JobChecks.sweep = Path(config.hydra.sweep.dir).absolute()
        atexit.register(_list_jobs)

    @classmethod
    def exit_code(cls, code: Any) -> Any:
        """What to exit with, given Hydra's code: 1 is 2 unless a run, of whatever process, failed."""
        failed = cls.failed or any(job["status"] == "failed" for _, job in _jobs())
        return 2 if code == 1 and not failed else code


def _jobs() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder and summary of each job of this process's sweep."""
    begun = JobChecks.sweep.glob("*/.hydra") if JobChecks.sweep else ()
    for path in sorted(begun, key=lambda path: path.stat().st_mtime):
        summary, job = path.with_name("summary.json"), {"status": "refused", "objective": "see above"}
        yield path.parent, json.loads(summary.read_text()) if summary.exists() else job


def _list_jobs() -> None:
    """Print how each job of a sweep ended."""
    for folder, job in _jobs():
        print(f"{job['status']:<12}{job.get('error') or job['objective']}  {folder}")


def help_text() -> str:
    """The text of --help: config groups with their options, and every key with its meaning."""
    lines = [
        "Train value-based agents, many seeds in one process. Each run gets a folder of its own.",
        "  python train.py agent=ddqn buffer=per seeds=8",
        "  python train.py --multirun agent=dqn,ddqn buffer=uniform,per",
        "",
        "Groups (choose with group=option)",
    ]
    for group, meaning in GROUPS.items():
        lines.append(f"  {group:<12} {meaning}: {', '.join(_options(group))}")
    lines += ["", "Keys (set with key=value; --cfg job shows the values)"]
    for group, schemas in SCHEMAS.items():
        meanings = {k: v for schema in schemas.values() for k, v in _meanings(schema, group)}
        lines += [f"  {path:<27} {meaning}" for path, meaning in meanings.items()]
    lines += ["", "--hydra-help shows the flags; -sc install=bash prints shell completion."]
    return "\n".join(lines)


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


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
    """Make the schemas and the help text known to Hydra; called before it composes."""
    store = ConfigStore.instance()
    for group, schemas in SCHEMAS.items():
        for name, schema in schemas.items():
            store.store(group=f"schema/{group}".rstrip("/"), name=name, node=schema)
    store.store(group="hydra/help", name="dqn_exp", node={"template": help_text()})
