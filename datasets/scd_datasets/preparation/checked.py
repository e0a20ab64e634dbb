"""An episode whose numbers are good: where it lies, and those numbers.

L steps of an episode, S state size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scd_datasets.sources.lerobot.features import ENVIRONMENT_STATE, STATE
from scd_datasets.sources.source import EpisodeIndex


@dataclass(frozen=True)
class CheckedEpisode:
    """An episode whose low-dimensional data is good: where it lies, and that data."""

    episode: EpisodeIndex
    low_dim: dict[str, np.ndarray]  # {key: (L, …)}

    def matrix(self, key: str) -> np.ndarray:
        """Gives (L, n) float32; n = 0 where the key is not recorded."""
        length = self.episode.length
        return self.low_dim.get(key, np.zeros((length, 0))).reshape(length, -1).astype(np.float32)

    @property
    def state(self) -> np.ndarray:
        """Gives (L, S) float32, as `DataSchema.state` names it."""
        return np.concatenate([self.matrix(STATE), self.matrix(ENVIRONMENT_STATE)], axis=1)
