"""The state that checkpoints save and restore."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

State = dict[str, Any]  # tensors, and what JSON can express


class Stateful(Protocol):
    """Has a state that a checkpoint saves."""

    def state_dict(self) -> State:
        """Its tensors, not copied, and numbers, strings, lists and dicts of them."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Continue from the state of another object with the same configuration.

        Raises:
            ValueError: the state does not fit; nothing has changed.
        """
        ...


class TensorState:
    """A state made of tensors that are changed in place and keep their shapes; empty by default."""

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors, not copied."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy a state into the tensors; raises ValueError if it does not fit."""
        copy_state(state, self.state_dict())


def copy_state(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy a state into tensors of the same names.

    Raises:
        ValueError: names, shapes or types differ; nothing has changed.
    """
    if unknown := sorted(state.keys() - tensors.keys()):
        raise ValueError(f"{unknown[0]} is in the state, and has no place")
    for name, tensor in tensors.items():
        require(name, state.get(name), tensor.dtype, tensor.shape)
    for name, tensor in tensors.items():
        tensor.copy_(state[name])


def require(
    name: str, found: Any, dtype: torch.dtype, shape: torch.Size, below: float = math.inf
) -> None:
    """Check a tensor of a state.

    Args:
        below: with it, all values must lie in [0, below).

    Raises:
        ValueError: it is not a tensor of this type and shape, or a value is out of range.
    """
    is_tensor = isinstance(found, Tensor)
    saved = f"{found.dtype} {list(found.shape)}" if is_tensor else type(found).__name__
    if saved != (own := f"{dtype} {list(shape)}"):
        raise ValueError(f"{name} is {saved} in the state, must be {own}")
    if below < math.inf and not ((found >= 0) & (found < below)).all():
        raise ValueError(f"{name} has a value outside [0, {below})")
