"""The tensors of a state as safetensors files: one for all small tensors, several for a large one.

https://github.com/huggingface/safetensors#format
"""

import json
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from dqn_exp.state import State

SEGMENT_BYTES = 4 << 20  # larger tensors are split; pieces that did not change are not written again
SMALL = "state.safetensors"  # all tensors that are not split
NAME = re.compile(r"[A-Za-z0-9_.]+\.safetensors")
DTYPES = {  # as safetensors names them
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}


def split(state: State, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a state by path (`learner/params`), and the rest of it."""
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            tensors[prefix + key] = value
        elif isinstance(value, dict):
            below, rest[key] = split(value, f"{prefix}{key}/")
            tensors |= below
        else:
            rest[key] = value
    return tensors, rest


def join(state: State, pieces: Mapping[str, list[Tensor]]) -> State:
    """Put tensors, each in pieces, into the rest of their state; the opposite of `split`."""
    for key, tensors in pieces.items():
        *parents, last = key.split("/")
        node = state
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
    return state


def pieces(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The files of tensors: name and content."""
    small = {}
    for key, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        if tensor.nbytes <= SEGMENT_BYTES:
            small[key] = tensor
            continue
        rows = max(1, SEGMENT_BYTES * len(tensor) // tensor.nbytes)
        for number, piece in enumerate(tensor.split(rows)):
            yield f"{key.replace('/', '.')}.{number:06d}.safetensors", {key: piece}
    yield SMALL, small


def may_hold(name: str, key: str) -> bool:
    """Whether the file of a name can hold a tensor, or a piece of it."""
    return name == SMALL or name.startswith(f"{key.replace('/', '.')}.")


def serialised(tensors: Mapping[str, Tensor]) -> list[memoryview]:
    """The parts of a file, without copying CPU tensors as the library does."""
    header, parts, end = {}, [], 0
    for key, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        facts = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        header[key] = facts
        if tensor.numel():
            parts.append(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # aligned
    return [memoryview(struct.pack("<Q", len(text)) + text), *parts]
