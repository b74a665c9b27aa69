"""Films of a trained agent: greedy episodes of one env, frame by frame, with the Q-values beside them.

Letters: A actions, H W height and width in pixels.
"""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from dqn_exp import rng
from dqn_exp.config import schema
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.envs import single
from dqn_exp.extras import extra

PANEL = 220  # pixels of the Q-values' panel
GIF_FPS = 25  # at most; browsers slow faster ones down
BACKGROUND, TEXT, BAR, CHOSEN = "#16181d", "#e8e8e8", "#5b6472", "#f2a541"


class Moment(NamedTuple):
    """What happens in one step: the Q-values before it, and the frame that they belong to."""

    frame: np.ndarray | None  # uint8 [H, W, 3]
    q: np.ndarray  # [A]
    action: int  # the greedy one, in [0, A)
    episode_return: float  # before the step, undiscounted, as the wrappers make it


class Film:
    """Greedy episodes of one seed in one env.

    Args:
        q: observations [1, B, *obs] -> Q-values [1, B, A].
        seed: keys the random streams of the episodes.
        render_mode: of Gymnasium; "rgb_array" gives frames, "human" opens a window.

    Raises:
        ConfigError: the env cannot be made, or cannot be rendered this way.
    """

    def __init__(self, config: schema.Env, q: Callable[[Tensor], Tensor], seed: int, render_mode: str):
        if render_mode == "rgb_array":
            for library in ("imageio", "PIL"):
                extra(library, "video")
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # envs draw frames without a window
        self._q, self._seed = q, seed
        self.env = single.make(config, render_mode=render_mode)
        modes = self.env.metadata.get("render_modes", [])
        if self.env.render_mode != render_mode:
            self.env.close()
            message = f"cannot be rendered as {render_mode}, only as: {', '.join(modes) or 'nothing'}"
            raise ConfigError([Problem("env.id", message, config.id)])
        self.fps: float = self.env.metadata.get("render_fps", 30)
        self._first_action = int(getattr(self.env.action_space, "start", 0))

    def play(self, episode: int, frames: bool) -> Iterator[Moment]:
        """The steps of an episode, and a last one without a choice: the Q-values of its end.

        Args:
            frames: whether the steps have frames, which takes time.
        """
        seed, number = torch.tensor([self._seed]), torch.tensor([episode])
        draw = rng.integers(seed, "env/film", number, (1,), 2**31)
        obs, _ = self.env.reset(seed=int(draw))
        total, ended = 0.0, False
        while True:
            with torch.no_grad():
                q = self._q(torch.as_tensor(np.asarray(obs))[None, None])[0, 0].numpy()
            action = int(q.argmax())
            yield Moment(_frame(self.env) if frames else None, q, action, total)
            if ended:
                return
            obs, reward, terminated, truncated, _ = self.env.step(action + self._first_action)
            total, ended = total + float(reward), bool(terminated or truncated)

    def returns(self, episodes: int) -> list[float]:
        """The returns of the first episodes."""
        return [list(self.play(n, frames=False))[-1].episode_return for n in range(episodes)]

    def close(self) -> None:
        """Close the env."""
        self.env.close()


def picked(returns: list[float], pick: str) -> int:
    """The episode with the best, the median or the worst of the returns."""
    order = np.argsort(returns, kind="stable")
    return int(order[{"worst": 0, "median": len(order) // 2, "best": -1}[pick]])


def drawn(film: Film, episode: int, title: str) -> Iterator[np.ndarray]:
    """The frames of an episode, uint8 [H, W', 3], with the Q-values as bars at their right.

    The bars share one scale for the whole episode.
    """
    moments = list(film.play(episode, frames=False))
    low, high = min(m.q.min() for m in moments), max(m.q.max() for m in moments)
    for step, moment in enumerate(film.play(episode, frames=True)):
        assert moment.frame is not None
        lines = [title, f"step {step}", f"return {moment.episode_return:.1f}"]
        yield _beside(moment.frame, moment, lines, low, max(high, low + 1e-6))


def as_gif(frames: list[np.ndarray], fps: float) -> bytes:
    """Frames, uint8 [H, W, 3], as an animated GIF that repeats."""
    every = max(1, round(fps / GIF_FPS))
    options = {"duration": 1000 * every / fps, "loop": 0}
    return extra("imageio.v3", "video").imwrite("<bytes>", frames[::every], extension=".gif", **options)


def _frame(env: gymnasium.Env) -> np.ndarray:
    frame = env.render()
    assert isinstance(frame, np.ndarray)
    return frame


def _beside(frame: np.ndarray, moment: Moment, lines: list[str], low: float, high: float) -> np.ndarray:
    """The frame with a panel; both sizes are even, as video codecs need them."""
    from PIL import Image, ImageDraw, ImageFont  # of an extra

    image = Image.fromarray(frame)
    height = max(240, image.height)
    canvas = Image.new("RGB", ((image.width + PANEL + 1) // 2 * 2, (height + 1) // 2 * 2), BACKGROUND)
    canvas.paste(image, (0, (height - image.height) // 2))
    pen, left = ImageDraw.Draw(canvas), image.width + 12
    for row, line in enumerate(lines):
        pen.text((left, 10 + 20 * row), line, TEXT, ImageFont.load_default(14))
    top, size = 10 + 20 * len(lines) + 14, 12.0
    pen.text((left, top), "Q-values", TEXT, ImageFont.load_default(size))
    space = min(26.0, (height - top - 30) / len(moment.q))
    for action, value in enumerate(moment.q):
        y, is_chosen = top + 22 + action * space, action == moment.action
        length = (PANEL - 24) * (value - low) / (high - low)
        fill = CHOSEN if is_chosen else BAR
        pen.rectangle((left, y, left + max(1.0, length), y + space - 4), fill=fill)
        if space >= size + 4:
            # Dark letters on the bright bar, if it is long enough to be behind them.
            colour = BACKGROUND if is_chosen and length > PANEL / 2 else TEXT
            pen.text((left + 6, y + 3), f"{action}: {value:.2f}", colour, ImageFont.load_default(size))
    return np.asarray(canvas)
