"""Train an agent: `python train.py agent=ddqn buffer=per seeds=8`; `--help` lists groups and keys.

Exit codes: 0 ok, 1 failed run, 2 invalid configuration, 75 stopped by a signal, resume=auto goes on.
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from omegaconf import DictConfig

from dqn_exp import config

config.register_schemas()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    """Run one job; returns the objective for sweepers."""
    from dqn_exp.experiment import Experiment  # not above: --help need not wait for torch

    try:
        built = config.JobChecks.experiment  # but not in a sweep
        experiment = built or Experiment(config.load(cfg), Path(HydraConfig.get().runtime.output_dir))
        objective = experiment.run()
    except config.ConfigError as error:
        raise CompactHydraException(str(error)) from error
    except Exception:
        config.JobChecks.failed = True
        raise
    if objective is None:
        raise SystemExit(75)  # ends a sweep, too
    return objective


if __name__ == "__main__":
    try:
        sys.argv[1:] = config.expanded(sys.argv[1:])
        main()
    except SystemExit as stop:
        sys.exit(config.JobChecks.exit_code(stop.code))
