"""The training command for many command lines, each in a child forked from this warm process.

Reads a JSON list of arguments per line, and writes what became of it as one line of JSON. A fork takes
milliseconds, where starting Python and importing torch take seconds.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch

from dqn_exp import build, registry
from dqn_exp.cli import train
from dqn_exp.config.compose import compose
from dqn_exp.run.run import Run

LIMIT = 20.0  # seconds until a command counts as hanging


def main() -> None:
    torch.set_num_threads(1)
    registry.load_package()
    assert callable(Run)  # imported for the children
    build(compose("seeds=1")).close()
    for line in sys.stdin:
        print(json.dumps(outcome(json.loads(line))), flush=True)


def outcome(arguments: list[str]) -> dict:
    """Exit code (None after LIMIT), output, and files of a command in an empty folder."""
    folder = Path(tempfile.mkdtemp())
    here, streams = folder / "here", [folder / "out", folder / "err"]
    here.mkdir()
    child = os.fork()
    if not child:
        _become_program(arguments, here, streams)
    began, code = time.monotonic(), None
    while time.monotonic() - began < LIMIT:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.005)
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    out, err = (path.read_text(errors="replace") for path in streams)
    files = sorted(str(path.relative_to(here)) for path in here.rglob("*"))
    shutil.rmtree(folder)
    return {"code": code, "out": out, "err": err, "files": files}


def _become_program(arguments: list[str], here: Path, streams: list[Path]) -> None:
    """Run the command as the process that it would be."""
    code = 1
    try:
        os.setsid()
        os.chdir(here)
        for descriptor, path in enumerate(streams, 1):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = ["train.py", *arguments]
        train.main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
