"""Values out of range are refused, all at once, each with what is allowed."""

import pytest

from dqn_exp import config
from dqn_exp.registry import ConfigError

COUNT, NATURAL, UNIT = "an integer >= 1", "an integer >= 0", "a number in [0, 1]"
POSITIVE, NOT_NEGATIVE, BELOW_ONE = "a number > 0", "a number >= 0", "a number in [0, 1)"
WIDTHS, BETAS = "a list of integers >= 1", "two numbers in [0, 1)"

# By the parts they belong to: key -> what is allowed, and values that are not.
RANGES: dict[str, dict[str, tuple[str, list[str]]]] = {
    "agent=dqn": {
        "agent.gamma": (UNIT, ["1.5", "-0.1", "nan", "inf"]),
        "agent.n_step": (COUNT, ["0", "-1"]),
        "agent.target.tau": ("a number in (0, 1]", ["0.0", "1.1", "nan", "-0.5"]),
        "agent.target.every": (COUNT, ["0", "-5"]),
        "agent.target.episodes": (COUNT, ["0", "-5"]),
        "agent.loss": ("one of: huber, mse", ["hubber", "1"]),
        "optim.lr": (POSITIVE, ["nan", "0.0", "inf", "-0.1"]),
        "optim.weight_decay": (NOT_NEGATIVE, ["-1.0", "nan", "inf"]),
        "optim.eps": (POSITIVE, ["0.0", "nan"]),
        "optim.betas": (BETAS, ["[0.9]", "[0.9, 1.0]", "[nan, 0.9]", "[0.9, 0.9, 0.9]"]),
        "optim.clip.max": (POSITIVE, ["0.0", "nan", "inf", "-10.0"]),
        "optim.clip.kind": ("one of: value, norm, none", ["nrm"]),
        "net.hidden": (WIDTHS, ["[0]", "[16, -3]"]),
        "net.activation": ("one of: relu, tanh, elu, gelu, silu, leaky_relu", ["rellu", "None"]),
        "net.output_activation": ("one of: relu, tanh, elu, gelu, silu, leaky_relu", ["softmax"]),
        "net.sigma": (POSITIVE, ["0.0", "nan", "-0.5"]),
        "buffer.capacity": (COUNT, ["0", "-1"]),
        "exploration.start": (UNIT, ["1.1", "-0.1", "nan"]),
        "exploration.end": (UNIT, ["-0.1", "nan", "2.0"]),
        "exploration.decay_steps": (COUNT, ["0", "-1"]),
        "exploration.hold_steps": (NATURAL, ["-1"]),
        "env.n": (COUNT, ["0", "-1"]),
        "env.max_episode_steps": (COUNT, ["0", "-1"]),
        "env.vectorization": ("one of: sync, async", ["threads"]),
        "train.batch_size": (COUNT, ["0", "-4"]),
        "train.learning_starts": (NATURAL, ["-1"]),
        "train.every": (COUNT, ["0", "-2"]),
        "train.updates": (COUNT, ["0", "-2"]),
        "train.on_divergence": ("one of: stop, drop", ["maybe"]),
        "train.stop.episodes": (COUNT, ["0"]),
        "train.stop.successes": (COUNT, ["0"]),
        "eval.every": (COUNT, ["0", "-1"]),
        "eval.episodes": (COUNT, ["0"]),
        "eval.final_episodes": (COUNT, ["0"]),
        "log.every": (COUNT, ["0", "-1"]),
        "checkpoint.every": (COUNT, ["0", "-1"]),
        "checkpoint.keep": (COUNT, ["0", "-1"]),
        "total_steps": (COUNT, ["0", "-1"]),
        "seed": (NATURAL, ["-1"]),
        "seeds": (COUNT, ["0", "-1"]),
        "threads": (COUNT, ["0"]),
        "compile": ("auto, true or false", ["sometimes", "1", "0"]),
    },
    "agent=c51 buffer=per net=dueling optim=rmsprop exploration=ez_greedy": {
        "agent.atoms": ("an integer >= 2", ["1", "0"]),
        "buffer.alpha": (NOT_NEGATIVE, ["-0.1", "nan", "inf"]),
        "buffer.beta_start": (UNIT, ["1.1", "nan"]),
        "buffer.beta_end": (UNIT, ["-1.0", "inf"]),
        "buffer.epsilon": (POSITIVE, ["0.0", "nan"]),
        "buffer.compat": ("one of: notebook", ["book"]),
        "net.stream_hidden": (WIDTHS, ["[0]"]),
        "optim.alpha": (BELOW_ONE, ["1.0", "nan"]),
        "optim.momentum": (BELOW_ONE, ["1.0", "-0.1"]),
        "exploration.mu": (POSITIVE, ["0.0", "nan"]),
        "exploration.max_duration": (COUNT, ["0"]),
    },
    "agent=munchausen optim=sgd exploration=boltzmann": {
        "agent.alpha": (UNIT, ["nan", "1.5"]),
        "agent.temperature": (POSITIVE, ["0.0", "inf"]),
        "agent.clip": ("a number < 0", ["0.0", "nan"]),
        "optim.momentum": (BELOW_ONE, ["1.0"]),
        "exploration.start": (POSITIVE, ["0.0", "inf"]),
        "exploration.end": (POSITIVE, ["0.0", "nan"]),
    },
    "agent=iqn": {
        "agent.samples": (COUNT, ["0"]),
        "agent.target_samples": (COUNT, ["0"]),
        "agent.act_samples": (COUNT, ["0"]),
    },
    "agent=qr_dqn": {"agent.quantiles": (COUNT, ["0", "-1"])},
}


@pytest.mark.parametrize(
    ("parts", "nth"),
    [
        (parts, n)
        for parts, keys in RANGES.items()
        for n in range(max(len(values) for _, values in keys.values()))
    ],
)
def test_values_out_of_range_are_all_listed_with_what_is_allowed(parts: str, nth: int) -> None:
    """The n-th bad value of every key, on one command line."""
    bad = {
        key: (values[nth], allowed)
        for key, (allowed, values) in RANGES[parts].items()
        if nth < len(values)
    }
    with pytest.raises(ConfigError) as caught:
        config.compose(*parts.split(), *(f"{key}={value}" for key, (value, _) in bad.items()))
    expected = [f"{key}={value}: must be {allowed}" for key, (value, allowed) in bad.items()]
    assert sorted(caught.value.problems) == sorted(expected)
