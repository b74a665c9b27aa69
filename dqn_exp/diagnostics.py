"""Diagnostic metrics of a training. Letters: S seeds."""

import numpy as np
import torch
from torch import Tensor

from dqn_exp import td
from dqn_exp.loop import Loop


def scalars(loop: Loop) -> dict[str, np.ndarray]:
    """Tag -> [S]: means over the updates since the last call, and current values.

    One copy from the device.
    """
    context, counts = loop.context, loop.env.episode_counts
    rows = loop.learner.means.take() | loop.buffer.metrics(loop.step, loop.gradient_step)
    if loop.gradient_step:
        rows |= _of_a_minibatch(loop)
    matrix = torch.stack([row.to(context.device, torch.float32) for row in rows.values()])
    values = dict(zip(rows, matrix.cpu().numpy(), strict=True))
    rate = torch.as_tensor(loop.exploration.rate(loop.step, counts)).cpu().numpy()
    values[loop.exploration.tag] = np.broadcast_to(rate, (context.n_seeds,))
    values["train/lr"] = np.full(context.n_seeds, loop.learner.lr(loop.step))
    return values


def _of_a_minibatch(loop: Loop) -> dict[str, Tensor]:
    """Tag -> [S], from a minibatch as the next update might draw it."""
    batch = loop.buffer.sample(loop.step, loop.gradient_step)
    return loop.learner.diagnostics(batch) | {
        "buffer/sample_age": loop.buffer.age(batch.index, loop.step).float().mean(1),
        "buffer/terminal_fraction": (batch.discount == 0.0).float().mean(1),
        "buffer/effective_sample_size": td.effective_sample_size(batch.weight),
    }
