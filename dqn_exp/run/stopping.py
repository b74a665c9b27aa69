"""When a run may end before `total_steps`. Letters: S seeds."""

from collections.abc import Iterable

from dqn_exp.config import schema
from dqn_exp.interfaces import Episode
from dqn_exp.state import State


class StopRule:
    """Met when every seed has met it at some time; early seeds continue with the others.

    Args:
        n_seeds: S.
        config: episodes to finish, or successes in a row; a seed meets either.
    """

    def __init__(self, n_seeds: int, config: schema.Stop):
        self._episodes, self._successes = config.episodes, config.successes
        self._success_return = config.success_return
        self._streaks = [0] * n_seeds
        self.met_at: list[Episode | None] = [None] * n_seeds  # each seed's first episode to meet it

    @property
    def exists(self) -> bool:
        """Whether the run may end early."""
        return self._episodes is not None or self._successes is not None

    @property
    def met(self) -> bool:
        """Whether every seed has met the rule."""
        return None not in self.met_at

    def state_dict(self) -> State:
        """Successes in a row, and when each seed met the rule."""
        return {"streaks": self._streaks, "met_at": self.met_at}

    def load_state_dict(self, state: State) -> None:
        """Continue from a state of `state_dict`; raises ValueError if it does not fit."""
        streaks, met_at = state["streaks"], state["met_at"]
        if not len(streaks) == len(met_at) == len(self._streaks):
            raise ValueError(f"the stop rule of {len(streaks)} seeds, not of {len(self._streaks)}")
        self._streaks = [int(streak) for streak in streaks]
        self.met_at = [episode and Episode(*episode) for episode in met_at]

    def see(self, finished: Iterable[Episode]) -> None:
        """Count finished episodes, in order."""
        for episode in finished:
            i = episode.seed_index
            success = self._success_return is not None and episode.reward_sum >= self._success_return
            self._streaks[i] = self._streaks[i] + 1 if success else 0
            if self.met_at[i] is None and (
                episode.number + 1 == self._episodes or self._streaks[i] == self._successes
            ):
                self.met_at[i] = episode
