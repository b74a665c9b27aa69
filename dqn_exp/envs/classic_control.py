"""CartPole, Acrobot and MountainCar as pure tensor functions, equal to Gymnasium's.

A system says how states [..., D] (float64, as Gymnasium computes) start, move and are observed; the
leading dimensions are free. `native_env.py` makes environments of them.
Sources: Barto, Sutton, Anderson 1983 (CartPole); Sutton 1996 (Acrobot); Moore 1990 (MountainCar); the
constants and the order of operations are those of gymnasium.envs.classic_control.
"""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dqn_exp.compiled.kernels import stack


class Outcome(NamedTuple):
    """What a step leads to."""

    state: Tensor  # [..., D]
    reward: Tensor  # [...] float32
    terminated: Tensor  # [...] bool


class System(Protocol):
    """The physics of an environment."""

    n_state: int  # D, at most 4
    n_obs: int  # features of an observation
    n_actions: int

    def start(self, unit: Tensor) -> Tensor:
        """Uniform numbers [..., 4] in [0, 1) -> first states [..., D]."""
        ...

    def step(self, state: Tensor, action: Tensor) -> Outcome:
        """States [..., D] after int64 actions [...]."""
        ...

    def observe(self, state: Tensor) -> Tensor:
        """States [..., D] -> observations [..., features], float32."""
        ...


class CartPole:
    """Push a cart left or right so that its pole stays up; +1 for every step."""

    n_state, n_obs, n_actions = 4, 4, 2
    gravity, cart_mass, pole_mass, half_length = 9.8, 1.0, 0.1, 0.5
    force, dt = 10.0, 0.02
    max_angle, max_position = 12 * 2 * math.pi / 360, 2.4

    def start(self, unit: Tensor) -> Tensor:
        """All four within 0.05 of 0."""
        return 0.1 * unit - 0.05

    def step(self, state: Tensor, action: Tensor) -> Outcome:
        """One Euler step."""
        x, x_dot, theta, theta_dot = state.unbind(-1)
        total_mass, mass_length = self.cart_mass + self.pole_mass, self.pole_mass * self.half_length
        force = torch.where(action == 1, self.force, -self.force)
        cos, sin = theta.cos(), theta.sin()
        push = (force + mass_length * theta_dot.square() * sin) / total_mass
        theta_acc = (self.gravity * sin - cos * push) / (
            self.half_length * (4.0 / 3.0 - self.pole_mass * cos.square() / total_mass)
        )
        x_acc = push - mass_length * theta_acc * cos / total_mass
        x, x_dot = x + self.dt * x_dot, x_dot + self.dt * x_acc
        theta, theta_dot = theta + self.dt * theta_dot, theta_dot + self.dt * theta_acc
        fallen = (x.abs() > self.max_position) | (theta.abs() > self.max_angle)
        reward = torch.ones_like(x, dtype=torch.float32)
        return Outcome(stack([x, x_dot, theta, theta_dot], -1), reward, fallen)

    def observe(self, state: Tensor) -> Tensor:
        """The state itself."""
        # The same strides always, whatever those of the state: compiled loops insist on that.
        return state.to(torch.float32, memory_format=torch.contiguous_format)


class Acrobot:
    """Swing a two-link pendulum's tip above a line by torque at its joint; -1 until then."""

    n_state, n_obs, n_actions = 4, 6, 3
    dt, gravity = 0.2, 9.8
    max_velocity = (4 * math.pi, 9 * math.pi)

    def start(self, unit: Tensor) -> Tensor:
        """All four within 0.1 of 0."""
        return (0.2 * unit - 0.1).float().to(unit.dtype)  # Gymnasium rounds the first state

    def step(self, state: Tensor, action: Tensor) -> Outcome:
        """One Runge-Kutta step of fourth order."""
        torque = (action - 1).to(state.dtype)
        k1 = self._derivative(state, torque)
        k2 = self._derivative(state + self.dt / 2.0 * k1, torque)
        k3 = self._derivative(state + self.dt / 2.0 * k2, torque)
        k4 = self._derivative(state + self.dt * k3, torque)
        moved = state + self.dt / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)
        theta1, theta2, velocity1, velocity2 = moved.unbind(-1)
        theta1, theta2 = _wrap(theta1), _wrap(theta2)
        limit1, limit2 = self.max_velocity
        velocity1 = velocity1.clamp(-limit1, limit1)
        velocity2 = velocity2.clamp(-limit2, limit2)
        above = -theta1.cos() - (theta2 + theta1).cos() > 1.0
        reward = torch.where(above, 0.0, -1.0)
        return Outcome(torch.stack([theta1, theta2, velocity1, velocity2], -1), reward, above)

    def _derivative(self, state: Tensor, torque: Tensor) -> Tensor:
        """Equations of motion of Sutton & Barto's book, all lengths, masses and inertias being 1
        and the centres of mass halfway.
        """
        theta1, theta2, velocity1, velocity2 = state.unbind(-1)
        cos2, sin2 = theta2.cos(), theta2.sin()
        d1 = 0.25 + (1.25 + cos2) + 2.0
        d2 = (0.25 + 0.5 * cos2) + 1.0
        phi2 = 0.5 * self.gravity * (theta1 + theta2 - math.pi / 2.0).cos()
        phi1 = (
            -0.5 * velocity2.square() * sin2
            - velocity2 * velocity1 * sin2
            + 1.5 * self.gravity * (theta1 - math.pi / 2.0).cos()
            + phi2
        )
        acceleration2 = (torque + d2 / d1 * phi1 - 0.5 * velocity1.square() * sin2 - phi2) / (
            1.25 - d2.square() / d1
        )
        acceleration1 = -(d2 * acceleration2 + phi1) / d1
        return torch.stack([velocity1, velocity2, acceleration1, acceleration2], -1)

    def observe(self, state: Tensor) -> Tensor:
        """Cosine and sine of both angles, and the velocities."""
        theta1, theta2, velocity1, velocity2 = state.unbind(-1)
        angles = [theta1.cos(), theta1.sin(), theta2.cos(), theta2.sin()]
        return torch.stack([*angles, velocity1, velocity2], -1).float()


class MountainCar:
    """Rock a weak car out of a valley; -1 for every step."""

    n_state, n_obs, n_actions = 2, 2, 3
    force, gravity = 0.001, 0.0025
    min_position, max_position, goal, max_speed = -1.2, 0.6, 0.5, 0.07

    def start(self, unit: Tensor) -> Tensor:
        """Somewhere in the valley, at rest."""
        position = 0.2 * unit[..., 0] - 0.6
        return torch.stack([position, torch.zeros_like(position)], -1)

    def step(self, state: Tensor, action: Tensor) -> Outcome:
        """One step."""
        position, velocity = state.unbind(-1)
        velocity = velocity + (
            (action - 1).to(state.dtype) * self.force + (3 * position).cos() * -self.gravity
        )
        velocity = velocity.clamp(-self.max_speed, self.max_speed)
        position = (position + velocity).clamp(self.min_position, self.max_position)
        at_wall = (position == self.min_position) & (velocity < 0)
        velocity = torch.where(at_wall, 0.0, velocity)
        arrived = (position >= self.goal) & (velocity >= 0)
        reward = -torch.ones_like(position, dtype=torch.float32)
        return Outcome(torch.stack([position, velocity], -1), reward, arrived)

    def observe(self, state: Tensor) -> Tensor:
        """The state itself."""
        return state.to(torch.float32, memory_format=torch.contiguous_format)


def _wrap(angle: Tensor) -> Tensor:
    """Into [-pi, pi]; a step turns by less than a full circle."""
    angle = torch.where(angle > math.pi, angle - 2 * math.pi, angle)
    return torch.where(angle < -math.pi, angle + 2 * math.pi, angle)
