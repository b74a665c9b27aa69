"""What the reward wrappers change, on real environments."""

import gymnasium
import pytest
from helpers import part


def rewards(id: str, *wrappers: dict) -> set[float]:
    """The rewards of the first steps of an env in wrappers, innermost first."""
    env = gymnasium.make(id)
    for wrapper in wrappers:
        env = part("wrapper", wrapper["name"], env, **wrapper)
    env.reset(seed=0)
    return {float(env.step(0)[1]) for _ in range(5)}


CLIP = {"name": "clip_reward", "low": -0.25, "high": 0.5}
SCALE = {"name": "scale_reward", "factor": 0.125}


# CartPole pays 1 a step, MountainCar -1.
@pytest.mark.parametrize(("id", "clipped"), [("CartPole-v1", 0.5), ("MountainCar-v0", -0.25)])
def test_rewards_are_clipped_to_both_ends_of_a_range(id: str, clipped: float) -> None:
    assert rewards(id, CLIP) == {clipped}


@pytest.mark.parametrize(("id", "scaled"), [("CartPole-v1", 0.125), ("MountainCar-v0", -0.125)])
def test_rewards_are_multiplied_by_a_factor(id: str, scaled: float) -> None:
    assert rewards(id, SCALE) == {scaled}


def test_wrappers_apply_from_the_innermost_one_outwards() -> None:
    assert rewards("CartPole-v1", SCALE, CLIP) == {0.125}
    assert rewards("CartPole-v1", CLIP, SCALE) == {0.0625}
