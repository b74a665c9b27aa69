"""`dqn-exp train`, and `python train.py`: a run, or with --multirun a sweep.

Exit codes: 0 ok, 1 failed run, 2 invalid configuration, 75 stopped by a signal with a checkpoint saved.
"""

import argparse
import contextlib
import logging
import math
import os
import shlex
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser  # there is no public way to it
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dqn_exp.config import compose
from dqn_exp.config.overrides import given, literal, quoted, refused, varied_keys
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.config.schema import Config
from dqn_exp.sweeps import status, worker

if TYPE_CHECKING:
    from dqn_exp.parts import Parts

log = logging.getLogger(__name__)


class RunFailedError(Exception):
    """A run has failed, and has said so."""


def main() -> None:
    """Run the command line."""
    if "--version" in sys.argv[1:]:
        print(f"dqn-exp {version('dqn-exp')}")
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise errors here instead of printing them
    warnings.filterwarnings("error", "provider=hydra.searchpath")  # a folder that is not there
    sys.argv[1:] = quoted(sys.argv[1:])
    compose.register_resolvers()
    code = 0
    try:
        arguments = _arguments()
        if problems := refused(arguments.overrides):
            raise ConfigError(problems)
        try:
            job()
        except (RunFailedError, ConfigError):
            raise
        except Exception as error:  # Hydra could not create the folder, or compose the config
            raise compose.explained(error, arguments.overrides, arguments.config_dir) from error
    except RunFailedError:
        code = 1
    except ConfigError as error:
        code = _say(error)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    if HydraConfig.initialized():  # Hydra has composed a config, see sweeps/callback.py
        with contextlib.suppress(OmegaConfBaseException):  # without a name for its folder
            code = _end(HydraConfig.get(), code)
    sys.exit(code)


@hydra.main(version_base="1.3", config_path=str(compose.CONF), config_name="config")
def job(cfg: DictConfig) -> float:
    """One run; returns the objective for sweepers."""
    here = HydraConfig.get()
    # Hydra sets these paths as they are; a ${...} in them is text.
    runtime: dict[str, Any] = OmegaConf.to_container(here.runtime, resolve=False)  # type: ignore
    folder, began_in = Path(runtime["output_dir"]), Path(runtime["cwd"])
    in_sweep = here.mode == RunMode.MULTIRUN
    if began_in != Path.cwd() and cfg.get("resume") not in (None, "auto"):  # hydra.job.chdir=true
        cfg.resume = literal(str(began_in / str(cfg.resume)))
    beside_others = in_sweep and worker.is_worker()
    if beside_others:
        worker.end_with_parent()
    try:
        if not str(folder).isprintable():
            message = "its name has characters that cannot be printed"
            raise ConfigError([Problem("run folder", message, folder)])
        config = compose.load(cfg, given(here), folder)
        if in_sweep and config.resume not in (None, "auto"):
            message = "a sweep is continued with its hydra.sweep.dir and resume=auto"
            raise ConfigError([Problem("resume", message, config.resume)])
        from dqn_exp import Run  # not above: --help does not need torch

        typed, varied = given(here), varied_keys(here) if in_sweep else None
        objective = Run(_built(config), folder, not in_sweep, typed, varied).run()
    except ConfigError as error:
        # Hydra would print more about an exception than the lines that say what is wrong.
        if in_sweep and not _note_refusal(folder, error):
            raise
        code = _say(error)
        if in_sweep:  # its exit code follows from what was noted
            return math.nan
        raise SystemExit(code) from error
    except (Exception, SystemExit) as error:  # which has been logged; an env can call sys.exit
        if in_sweep:
            raise RunFailedError(str(error)) from error
        raise SystemExit(1) from error
    if objective is None:
        if beside_others:  # which may continue
            worker.end_if_alone()
            return math.nan
        raise SystemExit(75)  # ends a sweep, too
    return objective


def _built(config: Config) -> "Parts":
    """The parts of a run; what a plug-in raises is logged."""
    from dqn_exp import build

    try:
        return build(config)
    except ConfigError:
        raise
    except Exception:
        log.exception("the parts cannot be built")
        raise


def _note_refusal(folder: Path, error: ConfigError) -> bool:
    """Leave the reason in the folder of a sweep's job; returns False if that holds a run instead."""
    from dqn_exp.run.folder import RunFolder

    job = RunFolder(folder, None)
    if noted := job.summary().get("status") in (None, "refused"):
        job.write_summary({"status": "refused", "error": str(error)})
    return noted


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder that was made for nothing, and those around it."""
    for each in (folder, *folder.parents):
        if os.path.isdir(each):  # unlike Path.is_dir, False for a name that cannot be
            if each == Path.cwd():
                return
            try:
                each.rmdir()  # which only an empty one allows
            except OSError:
                return


def _say(error: ConfigError) -> int:
    for problem in dict.fromkeys(map(str, error.problems)):
        print(problem, file=sys.stderr)
    return 2


def _arguments() -> argparse.Namespace:
    """Hydra's own arguments.

    Raises:
        ConfigError: they cannot be read, or ask for what this program does not do.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError([Problem("command line", message)])

    parser.error = refuse
    arguments = parser.parse_args()
    if arguments.config_path is not None:
        refuse("--config-path would replace conf/; --config-dir adds to it")
    if arguments.experimental_rerun is not None:
        refuse("--experimental-rerun would run code from a file")
    return arguments


def _end(hydra: HydraConf, code: int) -> int:
    """Remove a folder made for nothing; print how the jobs of a sweep ended; returns the exit code."""
    if hydra.mode != RunMode.MULTIRUN:
        if code:
            _remove_if_empty(Path(hydra.run.dir).absolute())
        return code
    sweep = Path(hydra.sweep.dir).absolute()
    found = status.jobs(sweep)
    if not found:
        if os.path.isdir(sweep) and os.listdir(sweep) == ["multirun.yaml"]:
            (sweep / "multirun.yaml").unlink()
        _remove_if_empty(sweep)
        return code or _say(ConfigError([Problem("command line", "the sweep has no jobs")]))
    shown = sweep.relative_to(Path.cwd()) if sweep.is_relative_to(Path.cwd()) else sweep
    print(f"\n{len(found)} jobs in {shown}, best first:")
    print("\n".join(status.table(found)))
    print(f"  tensorboard --logdir {shlex.quote(str(shown))}")
    print(f"  dqn-exp report {shlex.quote(str(shown))}")
    if any(job.state in status.FAILED for job in found):
        print(f"  dqn-exp sweep {shlex.quote(str(shown))} --failed")
    ended = status.exit_code(found)
    # A call that was refused as a whole says so, whatever earlier ones have left, unless a job is lost.
    return code if code == 2 and ended != 1 else ended or code
