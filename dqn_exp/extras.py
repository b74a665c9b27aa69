"""Optional libraries, which extras of the package install."""

import importlib
from types import ModuleType

from dqn_exp.config.problems import ConfigError, Problem


def extra(module: str, name: str) -> ModuleType:
    """A module of an optional library.

    Args:
        name: of the extra that installs it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        message = f'is not installed: pip install "dqn-exp[{name}]"'
        raise ConfigError([Problem(module.partition(".")[0], message)]) from error
