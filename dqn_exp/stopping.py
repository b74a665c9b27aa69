"""When a run may end before `total_steps`. Letters: S seeds."""

from collections.abc import Iterable

from dqn_exp.types import Episode, State


class StopRule:
    """Met when every seed has met it at some time; seeds that are early go on with the others.

    Args:
        n_seeds: S.
        episodes: finished episodes of a seed; None: they do not matter.
        successes: episodes in a row with returns of at least `success_return`; None: likewise.
    """

    def __init__(
        self,
        n_seeds: int,
        *,
        episodes: int | None,
        successes: int | None,
        success_return: float | None,
    ):
        self._episodes, self._successes = episodes, successes
        self._success_return = success_return
        self._streaks = [0] * n_seeds
        self.met_at: list[Episode | None] = [None] * n_seeds  # each seed's first episode to meet it

    @property
    def met(self) -> bool:
        """Whether every seed has met the rule."""
        return None not in self.met_at

    def state_dict(self) -> State:
        """What has been seen."""
        return {"streaks": self._streaks, "met_at": self.met_at}

    def load_state_dict(self, state: State) -> None:
        """Go on from a state of `state_dict`."""
        self._streaks = state["streaks"]
        self.met_at = [episode and Episode(*episode) for episode in state["met_at"]]

    def see(self, finished: Iterable[Episode]) -> None:
        """Take note of finished episodes, in order."""
        for episode in finished:
            i = episode.seed_index
            success = self._success_return is not None and episode.reward_sum >= self._success_return
            self._streaks[i] = self._streaks[i] + 1 if success else 0
            if self.met_at[i] is None and (
                episode.number + 1 == self._episodes or self._streaks[i] == self._successes
            ):
                self.met_at[i] = episode
