"""The parser of commands without Hydra."""

import argparse
from typing import NoReturn

from dqn_exp.config.problems import ConfigError, Problem


class Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse a command line."""
        raise ConfigError([Problem("command line", f"{message}; see {self.prog} --help")])
