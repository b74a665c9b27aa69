"""A Hydra callback that prepares a sweep."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write


class NameJobs(Callback):
    """Leaves overrides that a sweep does not vary out of the names of its jobs."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Add the keys that stay fixed to Hydra's exclude_keys."""
        HydraConfig.instance().set_config(config)
        given = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        fixed = [o.key_or_group for o in given if not o.is_sweep_override()]
        excluded = [*config.hydra.job.config.override_dirname.exclude_keys, *fixed]
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.overrides.hydra.append(
                f"hydra.job.config.override_dirname.exclude_keys=[{','.join(dict.fromkeys(excluded))}]"
            )
