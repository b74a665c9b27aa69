"""TD maths against tables worked by hand and naive loops."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.testing import assert_close

from dqn_exp import rng, td


def test_select_takes_the_value_of_each_action():
    q = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[7.0, 8.0, 9.0], [0.0, -1.0, -2.0]]])
    action = torch.tensor([[0, 2], [1, 1]])
    assert td.select(q, action).tolist() == [[1.0, 6.0], [8.0, -1.0]]


def test_double_q_takes_the_targets_value_of_the_selectors_action():
    # The table of rlax's value_learning_test: the plain maximum would bootstrap from 91.
    q_tm1, values = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[91.0, 2.0, 66.0]])
    selector = torch.tensor([[11.0, 20.0, 1.0]])
    estimate = td.select(q_tm1, torch.tensor([1]))
    one = torch.ones(1)
    double = td.double_q_bootstrap(values, selector)
    plain = td.q_learning_bootstrap(values)
    assert double.item() == 2.0
    assert plain.item() == 91.0
    assert (td.target(one, one, double) - estimate).item() == 1.0
    assert (td.target(one, one, plain) - estimate).item() == 90.0


@pytest.mark.parametrize(
    ("reward", "discount", "bootstrap", "expected"),
    [
        (1.0, 0.0, 1e30, 1.0),  # terminated: whatever the network says of the successor
        (1.0, 0.5, 4.0, 3.0),
        (-2.0, 0.25, -8.0, -4.0),
        (0.0, 1.0, 7.0, 7.0),
    ],
)
def test_target_is_reward_plus_discounted_bootstrap(reward, discount, bootstrap, expected):
    arguments = (torch.tensor([x]) for x in (reward, discount, bootstrap))
    assert td.target(*arguments).tolist() == [expected]


@pytest.mark.parametrize(
    ("x", "loss", "slope"),
    [  # x = target - estimate; slope = d loss / d estimate
        (2.0, 1.5, -1.0),
        (-2.0, 1.5, 1.0),
        (100.0, 99.5, -1.0),
        (1.0, 0.5, -1.0),
        (0.5, 0.125, -0.5),
        (-0.5, 0.125, 0.5),
        (0.0, 0.0, 0.0),
    ],
)
def test_huber_is_quadratic_inside_one_and_linear_outside(x: float, loss: float, slope: float):
    estimate = torch.tensor([10.0, 10.0], requires_grad=True)
    value = td.LOSSES["huber"](estimate, estimate.detach() + x)
    value.sum().backward()
    assert value.tolist() == [loss, loss]
    assert estimate.grad is not None
    assert estimate.grad.tolist() == [slope, slope]


@pytest.mark.parametrize(("x", "loss", "slope"), [(2.0, 4.0, -4.0), (-3.0, 9.0, 6.0), (0.0, 0.0, 0.0)])
def test_mse_is_the_square_of_each_sample(x: float, loss: float, slope: float):
    estimate = torch.tensor([10.0, 10.0], requires_grad=True)
    value = td.LOSSES["mse"](estimate, estimate.detach() + x)
    value.sum().backward()
    assert value.tolist() == [loss, loss]
    assert estimate.grad is not None
    assert estimate.grad.tolist() == [slope, slope]


@pytest.mark.parametrize("loss", td.LOSSES.values(), ids=td.LOSSES.keys())
def test_gradients_of_losses_agree_with_finite_differences(loss):
    estimate = torch.tensor([0.3, -0.2, 5.0, -7.0], dtype=torch.float64, requires_grad=True)
    target = torch.zeros(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), estimate)


@pytest.mark.parametrize(
    ("stop", "expected", "last"),
    [  # rewards 1, 2, 4, 8 and gamma 1/2
        ([False, False, False, False], 1 + 1 + 1 + 1, 3),  # a window's last step always stops it
        ([False, False, False, True], 4, 3),
        ([False, True, False, False], 1 + 1, 1),
        ([True, False, False, False], 1, 0),
        ([True, True, True, True], 1, 0),
        ([False, False, True, True], 3, 2),
    ],
)
def test_n_step_return_ends_with_the_first_stop(stop: list[bool], expected: float, last: int):
    reward, powers = torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([1.0, 0.5, 0.25, 0.125])
    value, position = td.n_step(reward, torch.tensor(stop), powers)
    assert value.item() == expected
    assert position.item() == last
    assert position.dtype == torch.int64


def test_n_step_of_one_is_the_reward():
    reward = torch.tensor([[3.0], [5.0]])
    value, last = td.n_step(reward, torch.tensor([[True], [False]]), torch.ones(1))
    assert value.tolist() == [3.0, 5.0]
    assert last.tolist() == [0, 0]


def naive_n_step(reward: np.ndarray, stop: np.ndarray, gamma: float) -> tuple[float, int]:
    value = 0.0
    for k in range(len(reward)):
        value += gamma**k * reward[k]
        if stop[k]:
            return value, k
    return value, len(reward) - 1


@pytest.mark.parametrize("n", [1, 2, 5, 10])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_n_step_equals_a_naive_loop_on_random_windows(n: int, gamma: float):
    numbers = np.random.default_rng(n)
    reward, stop = numbers.normal(size=(3, 40, n)), numbers.random((3, 40, n)) < 0.2
    powers = torch.tensor([gamma**k for k in range(n)], dtype=torch.float64)
    values, lasts = td.n_step(torch.from_numpy(reward), torch.from_numpy(stop), powers)
    for where in np.ndindex(3, 40):
        value, last = naive_n_step(reward[where], stop[where], gamma)
        assert values[where].item() == pytest.approx(value, rel=1e-12, abs=1e-12)
        assert lasts[where].item() == last


# Of two actions of probabilities 1/4 and 3/4 at temperature 1, where a constant changes nothing.
QUARTER = torch.tensor([1 / 4, 3 / 4], dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.03])
@pytest.mark.parametrize("constant", [0.0, 10.0, -300.0])
def test_log_policy_and_soft_bootstrap_of_two_actions_by_hand(temperature: float, constant: float):
    q = temperature * QUARTER.log() + constant
    assert_close(td.log_policy(q, temperature), temperature * QUARTER.log(), rtol=0.0, atol=1e-12)
    assert td.soft_bootstrap(q, temperature).item() == pytest.approx(constant, abs=1e-12)
    # By its definition, the sum over actions.
    expected = (QUARTER * (q - temperature * QUARTER.log())).sum().item()
    assert td.soft_bootstrap(q, temperature).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("action", "low", "expected"),
    [
        (0, -2.0, math.log(1 / 4)),
        (1, -2.0, math.log(3 / 4)),
        (0, -1.0, -1.0),
        (1, -1.0, math.log(3 / 4)),
        (1, -0.25, -0.25),
    ],
)
def test_munchausen_bonus_is_clipped_at_low(action: int, low: float, expected: float):
    bonus = td.munchausen_bonus(QUARTER.log() + 5.0, torch.tensor(action), 1.0, low)
    assert bonus.item() == pytest.approx(expected, abs=1e-12)


def test_soft_bootstrap_tends_to_the_maximum_and_bonuses_to_gaps():
    q = torch.tensor([3.0, 1.0, 2.5], dtype=torch.float64)
    for temperature in (1e-1, 1e-2, 1e-3):
        excess = td.soft_bootstrap(q, temperature).item() - 3.0
        assert 0.0 <= excess <= temperature * math.log(3)
        gaps = td.log_policy(q, temperature)
        assert_close(gaps, q - 3.0, rtol=0.0, atol=temperature * math.log(3))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_soft_values_do_not_overflow(sign: float):
    q = torch.tensor([[1e4, -1e4], [1e4, 1e4 - 1.0], [-1e4, -1e4]]) * sign
    assert_close(td.soft_bootstrap(q, 0.03), q.amax(-1), rtol=0.0, atol=0.03)
    for action in (0, 1):
        bonus = td.munchausen_bonus(q, torch.full((3,), action), 0.03, -1.0)
        gap = (td.select(q, torch.full((3,), action)) - q.amax(-1)).clamp(min=-1.0)
        assert_close(bonus, gap, rtol=0.0, atol=0.03)


@pytest.mark.parametrize(
    ("draw", "action"),
    [
        (0.0, 1),  # action 0 has probability 0
        (0.2499, 1),
        (0.25, 2),
        (0.7499, 2),
        (0.75, 4),  # and so has 3
        (1 - 2.0**-24, 4),
    ],
)
def test_sample_action_at_the_edges_of_the_distribution(draw: float, action: int):
    probabilities = torch.tensor([0.0, 0.25, 0.5, 0.0, 0.25])
    sampled = td.sample_action(probabilities, torch.tensor(draw))
    assert sampled.item() == action
    assert sampled.dtype == torch.int64


def test_a_certain_action_is_always_sampled():
    draws = torch.tensor([0.0, 0.5, 1 - 2.0**-24])
    for action in range(3):
        probabilities = torch.eye(3)[action].expand(3, 3)
        assert td.sample_action(probabilities, draws).tolist() == [action] * 3


def test_sampled_actions_are_as_frequent_as_their_probabilities():
    rows = [[0.1, 0.2, 0.3, 0.4], [0.55, 0.05, 0.15, 0.25]]
    probabilities = torch.tensor(rows, dtype=torch.float64)
    draws = rng.uniform(torch.tensor([3, 8]), "test", 0, (20_000,))
    sampled = td.sample_action(probabilities.unsqueeze(1).expand(2, 20_000, 4), draws)
    for row, expected in zip(sampled, probabilities, strict=True):
        assert stats.chisquare(row.bincount(minlength=4), expected * 20_000).pvalue > 1e-3


def test_functions_work_on_any_leading_shape():
    def chain(q: Tensor, q_selector: Tensor) -> Tensor:
        bootstrap = td.double_q_bootstrap(q, q_selector) + td.q_learning_bootstrap(q)
        return td.huber(bootstrap, td.target(bootstrap, bootstrap, bootstrap))

    q, q_selector = torch.linspace(-2, 3, 24), torch.linspace(5, -1, 24).sin()
    flat = chain(q.view(8, 3), q_selector.view(8, 3))
    for lead in [(2, 4), (4, 2), (2, 2, 2)]:
        assert torch.equal(chain(q.view(*lead, 3), q_selector.view(*lead, 3)), flat.view(lead))


def test_an_action_of_probability_zero_is_not_sampled_even_by_the_largest_draw() -> None:
    q = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0)) * 3
    q[:, 3] = -1e4
    assert (td.sample_action(q.softmax(-1), torch.tensor(1 - 2.0**-24).expand(1000)) < 3).all()
