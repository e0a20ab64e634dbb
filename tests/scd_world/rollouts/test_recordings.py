"""An imagined episode's curves are its own, in files that hold several; rerun gets pictures and numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_world.rollouts.imagine import imagine_dataset
from scd_world.rollouts.recordings import episode_plots
from tests.scd_world.rollouts.test_imagine import config, play

__all__ = ["config"]


@pytest.mark.slow
def test_the_curves_are_the_episodes_own(config, world):
    """Both episodes lie in one file: rows of the other would be a plausible picture of nothing."""
    imagine_dataset(config(episodes=2, num_envs=4))
    dataset = LeRobotFolder(config().out)
    for episode, played in zip(dataset.episodes, play(world, 0.97), strict=False):
        plots = episode_plots(dataset, episode)
        moves, outcome = plots["state and action"], plots["outcome"]
        np.testing.assert_array_equal(moves["observation.state"].values, played.obs["agent_pos"][:-1])
        block = moves["observation.environment_state"]
        assert block.lines == ("block",)
        np.testing.assert_array_equal(block.values, played.obs["environment_state"][:-1])
        np.testing.assert_allclose(moves["action"].values, played.action, rtol=1e-6)
        np.testing.assert_allclose(outcome["next.reward"].values[:, 0], played.reward, rtol=1e-5)
        for key in ("success_probability", "uncertainty"):
            np.testing.assert_allclose(outcome[f"next.{key}"].values[:, 0], played.info[key], rtol=1e-5)
        assert set(outcome) == {"next.reward", "next.success", "next.success_probability", "next.uncertainty"}


@pytest.mark.slow
def test_a_dataset_that_exists_gets_its_recordings_later(config):
    """rerun=true is no other dataset: what was imagined is kept, and its first episodes are recorded."""
    pytest.importorskip("rerun", reason="rerun is an extra: pip install '.[rerun]'")
    from tests.scd_world.reporting.test_rerun_file import read

    notes = imagine_dataset(config(episodes=2, num_envs=2))
    assert imagine_dataset(config(episodes=2, num_envs=2, num_videos=1, rerun=True)) == notes
    root = Path(config().out)
    assert {path.name for path in root.glob("*.rrd")} == {"episode_0.rrd"}
    dataset = LeRobotFolder(root)
    found = read(root / "episode_0.rrd")
    for view, camera in enumerate(("top", "wrist")):
        pictures = np.stack([row[2] for row in found[f"/camera/{camera}/imagined"]])
        np.testing.assert_array_equal(pictures, dataset.pixels(dataset.episodes[0])[:, view])
