"""A real TensorBoard server."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode


@contextmanager
def tensorboard(logdir: Path) -> Iterator[Callable[..., Any]]:
    """A server on a free port; yields a function that asks it for JSON."""
    command = [sys.executable, "-W", "ignore", "-m", "tensorboard.main", "--logdir", str(logdir)]
    command += ["--port", "0", "--load_fast", "false", "--reload_interval", "1"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        url = next(m[0] for line in server.stderr if (m := re.search(r"http://\S+:\d+/", line)))

        def ask(path: str, body: Any = None, until: Callable[[Any], bool] = bool, **query: str) -> Any:
            """Polls until the answer is complete: the server reads its folder in the background.

            Args:
                until: whether an answer is complete; by default, whether it is not empty.
            """
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(f"{url}{path}?{urlencode(query)}", data)
            if data:
                request.add_header("Content-Type", "application/json")
            for _ in range(100):
                try:
                    with urllib.request.urlopen(request) as response:
                        if until(answer := json.load(response)):
                            return answer
                except urllib.error.HTTPError as error:
                    if error.code not in (400, 404):  # what it has not read yet is not found
                        raise
                time.sleep(0.2)
            raise TimeoutError(path)

        yield ask
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()
