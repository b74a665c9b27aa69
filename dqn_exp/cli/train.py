"""`dqn-exp train`, and `python train.py`: a run, or with --multirun a sweep.

Exit codes: 0 ok, 1 failed run, 2 invalid configuration, 75 stopped by a signal with a checkpoint saved.
"""

import argparse
import logging
import math
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from dqn_exp.config import compose
from dqn_exp.config.overrides import quoted
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.config.schema import Config
from dqn_exp.sweeps import status

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
    sys.argv[1:] = quoted(sys.argv[1:])
    compose.register_resolvers()
    code = 0
    try:
        try:
            job()
        except (RunFailedError, ConfigError):
            raise
        except Exception as error:  # Hydra could not create the folder, or compose the config
            if isinstance(error, OSError) and error.filename:
                message = f"cannot be created: {error.strerror}"
                raise ConfigError([Problem("run folder", message, error.filename)]) from error
            raise compose.explained(error, *_typed()) from error
    except RunFailedError:
        code = 1
    except ConfigError as error:
        code = _say(error)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    if HydraConfig.initialized():  # a sweep's, see sweeps/callback.py
        ended = _end_sweep(Path(HydraConfig.get().sweep.dir).absolute())
        if code != 2 or ended == 1:  # else this call was refused, whatever earlier ones have left
            code = ended or code
    sys.exit(code)


@hydra.main(version_base="1.3", config_path=str(compose.CONF), config_name="config")
def job(cfg: DictConfig) -> float:
    """One run; returns the objective for sweepers."""
    here = HydraConfig.get()
    folder, in_sweep = Path(here.runtime.output_dir), here.mode == RunMode.MULTIRUN
    began_in = Path(here.runtime.cwd)
    if began_in != Path.cwd() and cfg.get("resume") not in (None, "auto"):  # hydra.job.chdir=true
        cfg.resume = str(began_in / cfg.resume)
    try:
        config = compose.load(cfg, here.overrides.task, folder)
        if in_sweep and config.resume not in (None, "auto"):
            message = "a sweep is continued with its hydra.sweep.dir and resume=auto"
            raise ConfigError([Problem("resume", message, config.resume)])
        from dqn_exp import Run  # not above: --help does not need torch

        objective = Run(_built(config), folder, progress=not in_sweep).run()
    except ConfigError as error:
        # Hydra would print more about an exception than the lines that say what is wrong.
        if in_sweep and not _note_refusal(folder, error):
            raise
        code = _say(error)
        if in_sweep:  # its exit code follows from what was noted
            return math.nan
        _remove_if_empty(folder)
        raise SystemExit(code) from error
    except Exception as error:  # which has been logged
        if in_sweep:
            raise RunFailedError(str(error)) from error
        raise SystemExit(1) from error
    if objective is None:
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


def _remove_if_empty(folder: Path, but: tuple[str, ...] = (".lock",)) -> None:
    """Remove a folder that Hydra has made for nothing, and those around it."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= set(but):
        for path in folder.iterdir():
            path.unlink()
    while folder.is_dir() and not any(folder.iterdir()) and folder != Path.cwd():
        folder.rmdir()
        folder = folder.parent


def _say(error: ConfigError) -> int:
    for problem in dict.fromkeys(map(str, error.problems)):
        print(problem, file=sys.stderr)
    return 2


def _typed() -> tuple[list[str], str | None]:
    """The overrides on the command line, and the folder of --config-dir."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd")
    for flags in (("--config-name", "-cn"), ("--config-path", "-cp"), ("--package", "-p")):
        parser.add_argument(*flags)
    known, others = parser.parse_known_args()
    return [text for text in others if not text.startswith("-")], known.config_dir


def _end_sweep(sweep: Path) -> int:
    """Print how the jobs ended; returns the sweep's exit code."""
    found = status.jobs(sweep)
    if not found:
        _remove_if_empty(sweep, but=("multirun.yaml",))
        return 0
    shown = sweep.relative_to(Path.cwd()) if sweep.is_relative_to(Path.cwd()) else sweep
    print(f"\n{len(found)} jobs in {shown}, best first:")
    print("\n".join(status.table(found)))
    print(f"  tensorboard --logdir {shown}")
    return status.exit_code(found)
