"""Composition with Hydra: from conf/ and overrides to a checked, typed config.

Only this package, cli/ and sweeps/ know Hydra and OmegaConf.
"""

import re
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from dqn_exp import manifest, registry
from dqn_exp.config import typed
from dqn_exp.config.help import help_text
from dqn_exp.config.overrides import (
    given,
    problems_of,
    quoted,
    refused,
    unknown_keys,
    varied_keys,
)
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.config.schema import GROUPS, Config

PACKAGE = Path(__file__).parents[1]
# In a wheel, conf/ lies in the package; in a checkout, beside it.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())
USUAL_STEPS = 50_000  # total_steps that the shipped counts of env steps are chosen for
SEARCH = "hydra.searchpath="
LONGEST_NAME = 100  # bytes of a folder's name; file systems allow 255


def compose(*overrides: str, config_dir: str | Path | None = None) -> Config:
    """The config that overrides describe, as the command line would compose it.

    Args:
        overrides: `key=value` and `group=option`, as on the command line.
        config_dir: a folder with config groups of your own, which extend the shipped ones.

    Raises:
        ConfigError: with every problem found.
    """
    overrides = tuple(quoted(overrides))
    if problems := refused(overrides):
        raise ConfigError(problems)
    try:
        with composing():
            cfg = hydra_compose("config", overrides=[*_search(config_dir), *overrides])
    except ConfigError:
        raise
    except Exception as error:  # overrides can make Hydra raise anything
        raise explained(error, overrides, config_dir) from error
    return load(cfg, overrides)


def load(cfg: DictConfig, overrides: Sequence[str], folder: Path | None = None) -> Config:
    """The typed config of a composed one.

    With `resume=<path>`, that is the config saved in the checkpoint, changed only by `overrides`.

    Args:
        overrides: what was typed for this call.
        folder: of the run, for `resume=auto`: a run that continues for longer keeps the step counts
            that were scaled to its first `total_steps`.

    Raises:
        ConfigError: with every problem found.
    """
    try:
        now: dict[str, Any] = {}
        if folder and OmegaConf.select(cfg, "resume") == "auto" and (first := _first_total(folder)):
            now = {"total_steps": OmegaConf.select(cfg, "total_steps")}
            cfg = OmegaConf.merge(cfg, first)  # type: ignore[assignment]
        node: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
        node |= now
    except OmegaConfBaseException as error:
        raise ConfigError([Problem(str(error.full_key), _first_line(error))]) from error
    except RecursionError as error:
        message = "a value refers to itself, or is nested too deeply"
        raise ConfigError([Problem("config", message)]) from error
    if node.get("resume") not in (None, "auto"):
        node = _continued(node, OverridesParser.create().parse_overrides(list(overrides)))
    registry.load(node["plugins"] if isinstance(node.get("plugins"), list) else [])
    return typed.read(Config, node)


def explained(
    error: Exception, overrides: Sequence[str], config_dir: str | Path | None = None
) -> ConfigError:
    """What Hydra could not compose, in lines of our own with the nearest match."""
    try:
        problems = _problems(overrides, config_dir)
    except ConfigError as found:
        return found
    except Exception:  # what has failed to compose may fail again; the first error says why
        problems = []
    return ConfigError(problems or [_problem_of(error)])


def _problems(overrides: Sequence[str], config_dir: str | Path | None) -> list[Problem]:
    """Every problem with overrides that do not compose.

    Raises:
        ConfigError: there is no such `config_dir`.
    """
    problems: list[Problem] = []
    search = _search(config_dir) + [text for text in overrides if text.startswith(SEARCH)]
    with composing():
        loader = GlobalHydra.instance().config_loader()
        groups = {
            group: [
                o for o in loader.get_group_options(group, overrides=search) if not o.startswith("_")
            ]
            for group in loader.list_groups("")
            if group != "hydra"
        }
        choices, others = [], []
        for text in overrides:
            try:
                override = OverridesParser.create().parse_override(text)
            except (HydraException, ValueError, RecursionError) as wrong:
                problems.append(Problem(text, f"cannot be read: {_first_line(wrong)}"))
                continue
            (choices if override.key_or_group in groups else others).append(override)
        wrong, right = problems_of(choices, groups)
        cfg = hydra_compose("config", overrides=[*search, *right])
        unknown = unknown_keys(others, cfg, list(groups))
        bad = {problem.path for problem in unknown}
        right += [
            str(o.input_line)
            for o in others
            if o.key_or_group not in bad and not (o.is_delete() or o.is_sweep_override())
        ]
        problems += wrong + unknown
        try:
            load(hydra_compose("config", overrides=[*_search(config_dir), *right]), right)
        except ConfigError as more:
            problems += more.problems
        except Exception:  # the first error is the one to report
            return problems
    return problems


def _problem_of(error: Exception) -> Problem:
    """An error of Hydra as a problem."""
    if isinstance(error, OSError) and error.filename:
        return Problem("run folder", f"cannot be created: {error.strerror}", error.filename)
    if isinstance(error, InterpolationResolutionError):  # says nothing but what a resolver has raised
        key, reason = str(error.full_key), _first_line(error).rpartition("interpolation: ")[2]
        return Problem(key, reason)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return Problem("config", " ".join(str(error).split()))
    return Problem("hydra", f"{type(error).__name__}: {error}")


def _first_line(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).partition("\n")[0]


@contextmanager
def composing() -> Iterator[None]:
    """Hydra, set up to compose from conf/."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def _search(config_dir: str | Path | None) -> list[str]:
    """The override that makes Hydra search a folder as well; none without a folder.

    Raises:
        ConfigError: there is no such folder.
    """
    if config_dir is None:
        return []
    path = Path(config_dir).absolute()
    if not path.is_dir():
        raise ConfigError([Problem("config_dir", "no such folder", config_dir)])
    quoted = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return [f"{SEARCH}['file://{quoted}']"]


def _first_total(folder: Path) -> dict[str, Any]:
    """`total_steps` of the run in a folder, as it is saved; nothing if there is no run."""
    try:
        return {"total_steps": manifest.newest(folder)["config"]["total_steps"]}
    except (manifest.CheckpointError, KeyError):  # if it is damaged, the run says so
        return {}


def _continued(node: dict[str, Any], given: Sequence[Override]) -> dict[str, Any]:
    """The config saved by the run that `resume` names, changed by what was typed for this call."""
    path = node["resume"]
    run, checkpoint = manifest.split(Path(str(path)))
    try:
        saved = manifest.read(checkpoint) if checkpoint else manifest.newest(run)
    except manifest.CheckpointError as error:
        raise ConfigError([Problem("resume", str(error), path)]) from error
    config, problems = saved["config"], []
    typed_keys = {override.key_or_group for override in given}
    if "experiment" in typed_keys:
        problems.append(Problem("experiment", "leave it out: a run continues with its own config"))
    problems += foreign_code(config, path, typed_keys)
    if problems:
        raise ConfigError(problems)
    for key in typed_keys:
        if not key.startswith("hydra"):
            _copy(key.split("."), node, config)
    return config | {"resume": path}


def foreign_code(config: dict[str, Any], run: Any, typed_keys: Set[str] = frozenset()) -> list[Problem]:
    """Modules outside this package that a saved config would import, unless they are typed again.

    What a run folder says is not executed: imports must be asked for in each call.
    """
    problems, plugins = list[Problem](), config.get("plugins")
    names = list(map(str, plugins)) if isinstance(plugins, list) else []
    if "plugins" not in typed_keys and not all(name.startswith("dqn_exp.") for name in names):
        repeat = f"repeat plugins=[{','.join(names)}] if you trust them"
        problems.append(Problem("resume", f"the run needs plug-ins, which run code; {repeat}", run))
    env = config.get("env")
    env_id = str(env.get("id")) if isinstance(env, dict) else ""
    if "env.id" not in typed_keys and ":" in env_id:
        repeat = f"repeat env.id={env_id} if you trust it"
        problems.append(Problem("resume", f"the run's env imports a module; {repeat}", run))
    return problems


def _copy(keys: list[str], source: dict[str, Any], target: dict[str, Any]) -> None:
    """Give the value at a path of keys in `target` what it is in `source`."""
    *parents, last = keys
    for parent in parents:
        below = source.get(parent)
        source = below if isinstance(below, dict) else {}
        target = target.setdefault(parent, {})
    if last in source:
        target[last] = source[last]
    else:
        target.pop(last, None)


def register_resolvers() -> None:
    """Make the functions that conf/config.yaml calls known to OmegaConf."""
    for function in (scaled, run_dir, run_name, job_name, help_):
        name = function.__name__.rstrip("_")
        OmegaConf.register_new_resolver(f"dqn_exp.{name}", function, replace=True)


def scaled(value: int, least: Any = 1, *, _root_: DictConfig) -> int:
    """A count of env steps that shrinks in proportion in runs shorter than USUAL_STEPS."""
    total = typed.whole_number(OmegaConf.select(_root_, "total_steps")) or USUAL_STEPS
    share = min(1.0, total / USUAL_STEPS)
    return min(value, max(typed.whole_number(least) or 1, round(value * share)))


def run_dir(default: str, *, _root_: DictConfig) -> str:
    """The folder of a run: that of the run it continues, or a new one."""
    resume = OmegaConf.select(_root_, "resume")
    if resume == "auto":
        raise ValueError("must be set to the folder of the run that resume=auto continues")
    return default if resume in (None, "auto") else str(manifest.split(Path(str(resume)))[0])


def run_name(*, _root_: DictConfig) -> str:
    """`<env>_<agent>-<buffer>-<net>`, the end of a run folder's name."""
    chosen = OmegaConf.select(_root_, "hydra.runtime.choices") or {}
    names = [chosen.get(g) or OmegaConf.select(_root_, f"{g}.name") for g in ("agent", "buffer", "net")]
    return _file_name(f"{OmegaConf.select(_root_, 'env.id')}_{'-'.join(map(str, names))}")


def job_name(*, _root_: DictConfig) -> str:
    """`<n>_<swept overrides>` with the last words of their keys, the name of a sweep job's folder."""
    job = _root_.hydra.job
    varied = varied_keys(_root_.hydra)
    values = (text.partition("=") for text in given(_root_.hydra))
    parts = [f"{key.rsplit('.')[-1]}={value}" for key, _, value in values if key.lstrip("+~") in varied]
    return _file_name(f"{job.num}_{','.join(parts)}" if parts else str(job.num))


def help_(*, _root_: DictConfig) -> str:
    """The text of --help, for the options chosen."""
    sources = _root_.hydra.runtime.config_sources  # conf/ and the folder of --config-dir
    folders = [Path(source.path) for source in sources if source.schema == "file"]
    groups = {
        group: sorted({p.stem for folder in folders for p in (folder / group).glob("[!_]*.yaml")})
        for group in GROUPS
    }
    config = {key: value for key, value in _root_.items() if key != "hydra"}
    return help_text(OmegaConf.to_container(OmegaConf.create(config), resolve=False), groups)  # type: ignore[arg-type]


def _file_name(text: str) -> str:
    """A text with only characters that are safe in a file's name and in a shell.

    A long one ends in a hash of the whole.
    """
    name = re.sub(r"[^\w.,=+-]+", "-", text).strip("-")
    if len(name.encode()) <= LONGEST_NAME:
        return name
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}-{digest}"
