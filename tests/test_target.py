"""The target network's three schedules, with numbers worked by hand."""

import pytest
import torch
from helpers import context

from dqn_exp.config import schema
from dqn_exp.interfaces import Step, Transition
from dqn_exp.target import TargetNetwork, multiples_passed

ONLINE = torch.tensor([[8.0, -4.0], [16.0, 0.0]])  # [S, P]; targets start at 0
count = pytest.mark.parametrize("count", [int, torch.tensor], ids=["ints", "tensors"])


def made(tau: float, n_envs: int = 1, **schedule: int) -> TargetNetwork:
    target = schema.Target(**{"tau": tau, "every": None, "episodes": None} | schedule)
    return TargetNetwork(context([0, 1], n_envs), target, torch.zeros(2, 2))


def transition(ended: list[list[bool]], truncated: bool = False) -> Transition:
    """A step of [S, N] envs, of which some end their episode."""
    ends = torch.tensor(ended)
    nothing, values = torch.zeros_like(ends), torch.zeros(ends.shape)
    flags = (nothing, ends) if truncated else (ends, nothing)
    return Transition(values, nothing.long(), values, values, *flags)


NO_END = transition([[False], [False]])
NO_EPISODES = torch.tensor([0, 0])


def test_the_target_starts_as_a_copy_of_the_online_parameters() -> None:
    params = ONLINE.clone()
    target = TargetNetwork(context([0, 1]), schema.Target(tau=1.0, every=9, episodes=None), params)
    params.zero_()
    assert torch.equal(target.params, ONLINE)


def test_a_soft_target_moves_by_tau_at_each_update_and_at_nothing_else() -> None:
    target = made(tau=0.25)
    seen = []
    for _ in range(2):
        target.after_update(ONLINE, None)
        target.after_step(ONLINE, 100, transition([[True], [True]]).ended, torch.tensor([1, 1]))
        seen.append(target.params.tolist())
    # A quarter of the way, then a quarter of what is left.
    assert seen == [[[2.0, -1.0], [4.0, 0.0]], [[3.5, -1.75], [7.0, 0.0]]]


def test_the_soft_target_of_a_seed_that_no_longer_learns_stays() -> None:
    target = made(tau=0.5)
    target.after_update(ONLINE, torch.tensor([True, False]))
    assert target.params.tolist() == [[4.0, -2.0], [0.0, 0.0]]


@count
def test_an_interval_moves_the_target_at_its_multiples_and_at_no_update(count: type[Step]) -> None:
    target, moved = made(tau=0.5, every=3), []
    for step in range(1, 8):
        target.after_update(ONLINE, None)
        target.after_step(ONLINE, count(step), NO_END.ended, NO_EPISODES)
        moved.append(target.params[0, 0].item())
    assert moved == [0.0, 0.0, 4.0, 4.0, 4.0, 6.0, 6.0]


@count
def test_parallel_envs_that_pass_a_multiple_move_the_target_once(count: type[Step]) -> None:
    target, moved = made(tau=0.5, n_envs=4, every=6), []
    two = transition([[False] * 4] * 2)
    for step in range(4, 25, 4):  # 8 passes 6, 12 reaches 12, 20 passes 18, 24 reaches 24
        target.after_step(ONLINE, count(step), two.ended, NO_EPISODES)
        moved.append(target.params[0, 0].item())
    assert moved == [0.0, 4.0, 6.0, 6.0, 7.0, 7.5]


def test_an_interval_shorter_than_a_step_of_all_envs_moves_the_target_once_a_step() -> None:
    target = made(tau=0.5, n_envs=4, every=1)
    target.after_step(ONLINE, 4, transition([[False] * 4] * 2).ended, NO_EPISODES)
    assert target.params[0, 0] == 4.0


@pytest.mark.parametrize("truncated", [False, True])
def test_every_second_episode_moves_the_target_of_its_own_seed_from_the_first_on(
    truncated: bool,
) -> None:
    target, moved = made(tau=0.5, episodes=2), []
    counts = torch.tensor([0, 0])
    for step in range(1, 6):
        ended = torch.tensor(
            [True, step == 4]
        )  # the first seed's at every step, the second's at step 4
        counts += ended
        target.after_update(ONLINE, None)
        target.after_step(
            ONLINE, step, transition(ended.unsqueeze(1).tolist(), truncated).ended, counts
        )
        moved.append(target.params[:, 0].tolist())
    # Episodes 0, 2 and 4 of the first seed; episode 0 of the second.
    assert moved == [[4.0, 0.0], [4.0, 0.0], [6.0, 0.0], [6.0, 8.0], [7.0, 8.0]]


def test_episodes_that_end_together_move_the_target_once() -> None:
    target = made(tau=0.5, n_envs=3, episodes=2)
    both = transition([[True, True, True], [False, False, True]])
    target.after_step(ONLINE, 3, both.ended, torch.tensor([3, 2]))  # episodes 0, 1, 2; and episode 1
    assert target.params.tolist() == [[4.0, -2.0], [0.0, 0.0]]


@count
@pytest.mark.parametrize(
    ("step", "every", "n_envs", "passed"),
    [
        (1, 2, 1, 0),
        (2, 2, 1, 1),
        (3, 2, 1, 0),
        (8, 2, 8, 4),
        (16, 3, 8, 3),
        (8, 9, 8, 0),
        (16, 9, 8, 1),
    ],
)
def test_multiples_passed_by_a_step_of_all_envs(
    count: type[Step], step: int, every: int, n_envs: int, passed: int
) -> None:
    assert multiples_passed(count(step), every, n_envs) == passed
