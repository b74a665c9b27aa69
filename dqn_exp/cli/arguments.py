"""What commands without Hydra share: bad input is said in one line each, with exit code 2."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from dqn_exp.config.problems import ConfigError, Problem


class Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse a command line."""
        raise ConfigError([Problem("command line", f"{message}; see {self.prog} --help")])


@contextmanager
def refusals() -> Iterator[None]:
    """Print what a ConfigError says, a line each, and exit with code 2."""
    try:
        yield
    except ConfigError as error:
        for problem in dict.fromkeys(map(str, error.problems)):
            print(problem, file=sys.stderr)
        sys.exit(2)
