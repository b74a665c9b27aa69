"""The state that checkpoints save and restore."""

from collections.abc import Mapping
from typing import Any, Protocol

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
    for name in sorted(state.keys() | tensors.keys()):
        saved, own = (
            f"{x.dtype} {list(x.shape)}" if isinstance(x := d.get(name), Tensor) else "nothing"
            for d in (state, tensors)
        )
        if saved != own:
            raise ValueError(f"{name} is {saved} in the state, must be {own}")
    for name, tensor in tensors.items():
        tensor.copy_(state[name])
