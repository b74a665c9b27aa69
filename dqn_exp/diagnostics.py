"""Diagnostic metrics of a training. Letters: S seeds."""

import numpy as np
import torch
from torch import Tensor

from dqn_exp import td
from dqn_exp.loop import Loop

SAMPLES = "buffer/effective_sample_size"


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
    # A metric that the config makes constant is left out: its chart would be empty.
    if (values.get(SAMPLES, np.zeros(())) == context.batch_size).all():  # uniform replay
        del values[SAMPLES]
    lr, rate = loop.learner.lr, loop.exploration.rate
    last = context.total_steps
    if lr(0) != lr(last):
        values["train/lr"] = np.full(context.n_seeds, lr(loop.step))
    ends = (torch.as_tensor(rate(n, torch.full_like(counts, n))) for n in (0, last))
    if not torch.equal(*ends):
        now = torch.as_tensor(rate(loop.step, counts)).cpu().numpy()
        values[loop.exploration.tag] = np.broadcast_to(now, (context.n_seeds,))
    return values


def histograms(loop: Loop) -> dict[str, np.ndarray]:
    """Tag -> [S, n]: all parameters, and the Q-values of a minibatch after the first update."""
    found = {"histograms/parameters": loop.learner.params}
    if loop.gradient_step:
        batch = loop.buffer.sample(loop.step, loop.gradient_step)
        with torch.no_grad():
            found["histograms/q"] = loop.learner.q(batch.obs).flatten(1)
    return {tag: values.detach().cpu().numpy() for tag, values in found.items()}


def _of_a_minibatch(loop: Loop) -> dict[str, Tensor]:
    """Tag -> [S], from a minibatch as the next update might draw it."""
    batch = loop.buffer.sample(loop.step, loop.gradient_step)
    return loop.learner.diagnostics(batch) | {
        "buffer/sample_age": loop.buffer.age(batch.index, loop.step).float().mean(1),
        "buffer/terminal_fraction": (batch.discount == 0.0).float().mean(1),
        SAMPLES: td.effective_sample_size(batch.weight),
    }
