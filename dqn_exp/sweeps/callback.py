"""A Hydra callback: what is done before Hydra writes anything."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from dqn_exp.config.overrides import given, literal


class NameJobs(Callback):
    """Settles the names of folders, and makes them known as `HydraConfig.get()`.

    Overrides that a sweep does not vary are left out of the names of its jobs.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Settle the run's folder, whose name has the time in it."""
        _settle(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Settle the sweep's folder, and add the keys that stay fixed to Hydra's exclude_keys."""
        _settle(config, "hydra.sweep.dir")
        overrides = OverridesParser.create().parse_overrides(given(config.hydra))
        fixed = [o.key_or_group for o in overrides if not o.is_sweep_override()]
        excluded = [*config.hydra.job.config.override_dirname.exclude_keys, *fixed]
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.overrides.hydra.append(
                f"hydra.job.config.override_dirname.exclude_keys=[{','.join(dict.fromkeys(excluded))}]"
            )


def _settle(config: DictConfig, key: str) -> None:
    try:
        folder = OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return  # Hydra meets it next
    with read_write(config.hydra):
        OmegaConf.update(config, key, literal(str(folder)))
    HydraConfig.instance().set_config(config)
