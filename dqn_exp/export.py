"""A trained Q-function as a file for other programs: ONNX, or PyTorch's own (torch.export).

Letters: B batch, A actions.
"""

import importlib
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dqn_exp.interfaces import Spec

CHECKED = 64  # random observations on which the file must agree with the run's own network
TOLERANCE = 1e-5  # of a Q-value, relative to the largest if that is above 1


class DifferentError(RuntimeError):
    """The exported function computes other Q-values."""


class QModule(nn.Module):
    """Observations [B, *obs] -> Q-values [B, A]."""

    def __init__(self, q: Callable[[Tensor], Tensor]):
        super().__init__()
        self._q = q

    def forward(self, obs: Tensor) -> Tensor:
        return self._q(obs.unsqueeze(0)).squeeze(0)


def export(q: Callable[[Tensor], Tensor], spec: Spec, path: Path) -> float:
    """Write a Q-function into a .onnx or .pt2 file, and check it.

    The input `obs` is [B, *obs] in the env's own type, for any B; the output `q` is [B, A].

    Args:
        q: observations [1, B, *obs] -> Q-values [1, B, A].

    Returns:
        the largest difference from the run's own Q-values.

    Raises:
        DifferentError: it is more than TOLERANCE.
    """
    module, obs = QModule(q).eval(), _observations(spec)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells what is not installed
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own use of torch
        program = torch.export.export(
            module, (obs,), dynamic_shapes={"obs": {0: torch.export.Dim("batch", min=1)}}, strict=False
        )
        computed = (_write_onnx if path.suffix == ".onnx" else _write_pt2)(program, path, obs)
        expected = module(obs).numpy()
    difference = float(np.abs(computed - expected).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise DifferentError(f"the exported Q-values differ by {difference:.2g} from the run's own")
    return difference


def _observations(spec: Spec) -> Tensor:
    """CHECKED random observations [B, *obs]; a network takes any numbers."""
    random = np.random.default_rng(0)
    if spec.first_obs is not None:
        return torch.eye(spec.obs_shape[0], dtype=spec.obs_dtype)[
            random.integers(spec.obs_shape[0], size=CHECKED)
        ]
    values = random.normal(size=(CHECKED, *spec.obs_shape))
    if not spec.obs_dtype.is_floating_point:
        values = random.integers(2, size=values.shape)
    return torch.from_numpy(values).to(spec.obs_dtype)


def _write_onnx(program: torch.export.ExportedProgram, path: Path, obs: Tensor) -> np.ndarray:
    """Write a .onnx file; returns what ONNX Runtime computes with it."""
    onnxruntime = importlib.import_module("onnxruntime")
    exported = torch.onnx.export(
        program, input_names=["obs"], output_names=["q"], dynamo=True, verbose=False
    )
    assert exported is not None
    exported.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["q"], {"obs": obs.numpy()})[0]


def _write_pt2(program: torch.export.ExportedProgram, path: Path, obs: Tensor) -> np.ndarray:
    """Write a .pt2 file; returns what the file's program computes."""
    torch.export.save(program, path)
    return torch.export.load(path).module()(obs).numpy()
