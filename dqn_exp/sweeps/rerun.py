"""Run jobs of a sweep again, from their checkpoints or from the start."""

import sys
from collections.abc import Sequence

from dqn_exp import build
from dqn_exp.analysis.folders import config
from dqn_exp.config import typed
from dqn_exp.config.compose import foreign_code
from dqn_exp.config.problems import ConfigError, shown
from dqn_exp.config.schema import Config
from dqn_exp.run.run import Run
from dqn_exp.sweeps.status import Job


def rerun(jobs: Sequence[Job], varied: Sequence[str]) -> None:
    """Run jobs one after the other; one that fails again does not stop the others, a signal does.

    Args:
        varied: keys that differ between the jobs of the sweep.
    """
    for job in sorted(jobs, key=lambda job: job.number):
        print(f"\njob {job.number}: {shown(job.folder)}", flush=True)
        try:
            if Run(build(_saved(job)), job.folder, progress=False, varied=varied).run() is None:
                return
        except ConfigError as error:
            for problem in error.problems:
                print(problem, file=sys.stderr)
        except Exception as error:  # a failed run has logged its traceback
            print(shown(f"{type(error).__name__}: {error}"), file=sys.stderr)


def _saved(job: Job) -> Config:
    """The config that a job has saved; nothing that it says is executed.

    Raises:
        ConfigError: it is invalid, or needs code that is not part of this package.
    """
    node = config(job.folder)
    if problems := foreign_code(node, job.folder):
        raise ConfigError(problems)
    return typed.read(Config, node | {"resume": "auto"})
