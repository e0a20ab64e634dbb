"""Imagined episodes for the rerun viewer: cameras, state, action and what the world promised, read from disk.

L frames of an episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scd_datasets.sources.lerobot.features import ACTION, DONE, ENVIRONMENT_STATE, STATE
from scd_datasets.sources.lerobot.parquet import read_columns
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.source import EpisodeIndex
from scd_world.reporting.rerun_file import Plot, write_recording


def write_recordings(root: Path, notes: Sequence[dict[str, Any]]) -> None:
    """Writes episode_0.rrd … into an imagined dataset's folder; notes: those of the episodes to show."""
    dataset = LeRobotFolder(root)
    for note in notes:
        episode = dataset.episodes[note["episode_index"]]
        pixels = dataset.pixels(episode)
        pictures = {camera: {"imagined": pixels[:, view]} for view, camera in enumerate(dataset.cameras)}
        start = f"recorded episode {note['start_episode']}, frame {note['start_frame']}"
        about = (
            f"**{dataset.imagined}**\n\nepisode {episode.index}, policy {note['policy']}, seed {note['seed']}"
            f"\n\nframe 0 is given ({start}), the others imagined; what the world predicts of a step stands "
            "at the frame of its action"
        )
        plots = episode_plots(dataset, episode)
        write_recording(root / f"episode_{episode.index}.rrd", dataset.fps, pictures, plots, about)


def episode_plots(dataset: LeRobotFolder, episode: EpisodeIndex) -> dict[str, dict[str, Plot]]:
    """Gives the curves of an episode over its L frames, by the names that the dataset has."""
    vectors = {key: dataset.names(key) for key in (STATE, ENVIRONMENT_STATE, ACTION) if dataset.names(key)}
    scalars = [key for key in dataset.features if key.startswith("next.") and key != DONE]
    columns = read_columns(dataset.root / episode.file, [*vectors, *scalars, "episode_index"])
    mine = columns.pop("episode_index") == episode.index
    values = {key: column[mine].reshape(mine.sum(), -1) for key, column in columns.items()}
    return {
        "state and action": {key: Plot(names, values[key]) for key, names in vectors.items()},
        "outcome": {key: Plot([key], values[key].astype(np.float64)) for key in scalars},
    }
