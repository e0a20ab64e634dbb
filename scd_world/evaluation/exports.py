"""Windows for other programs: recordings for the rerun viewer, and the folders that worldproof reports on.

k context frames, n imagined ones that were also recorded, F = k + n frames, V cameras, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scd_datasets.store.store import WindowStore
from scd_world.evaluation.config import EvaluateConfig
from scd_world.evaluation.curves import image_error
from scd_world.evaluation.open_loop import OpenLoopResults, WindowBatch, WindowVideo, load_batch
from scd_world.reporting.rerun_file import Plot, write_recording
from scd_world.reporting.video import GAIN, difference
from scd_world.reporting.worldproof_folder import Prediction, write_prediction
from scd_world.robot_data.schema import DataSchema

FOLDER = "worldproof"  # within an evaluation's own


# ---- worldproof -----------------------------------------------------------------------------------


def write_predictions(
    store: WindowStore,
    config: EvaluateConfig,
    first: int,
    batch: WindowBatch,
    draws: Sequence[Sequence[np.ndarray]],
) -> None:
    """Writes a batch's windows, a folder for each camera of each. first: the number of the first window.

    draws: of each draw the frames uint8 (B, V, H, W, 3) per step.
    """
    for row, window in enumerate(batch.windows):
        k, n = batch.context, int(batch.valid[row].sum())
        recorded = batch.pixels[row].cpu().numpy()
        imagined = [np.stack([step[row] for step in draw[:n]]) for draw in draws]
        for view, camera in enumerate(store.schema.cameras):
            prediction = Prediction(
                context=recorded[:k, view],
                truth=recorded[k : k + n, view],
                draws=[frames[:, view] for frames in imagined],
                actions=batch.future[row, :n].cpu().numpy(),
                fps=store.schema.fps,
                model=config.world,
                camera=camera,
                start=f"episode {store.episode_index[window.episode]}, frame {window.frame}",
                seed=config.seed,
            )
            # Cameras by number in the folder's name: theirs may hold any character.
            write_prediction(Path(config.out) / FOLDER / f"window_{first + row:04d}_{view}", prediction)


# ---- rerun ----------------------------------------------------------------------------------------


def write_recordings(
    store: WindowStore,
    schema: DataSchema,
    config: EvaluateConfig,
    loop: OpenLoopResults,
    videos: Sequence[WindowVideo],
) -> None:
    """Writes window_0.rrd … of the windows that are shown, in the report's folder.

    schema: the store's, less the outcomes that the world has not learnt.
    """
    for i, video in enumerate(videos):
        window = video.window
        batch = load_batch(store, [window], video.context, "cpu")
        pictures = {
            camera: {
                "recorded": video.true[:, view],
                "imagined": video.imagined[:, view],
                f"difference × {GAIN}": difference(video.true[:, view], video.imagined[:, view]),
            }
            for view, camera in enumerate(schema.cameras)
        }
        plots = window_plots(loop, loop.windows.index(window), batch, len(video.true), schema)
        about = (
            f"**{config.world}**, open loop\n\nepisode {store.episode_index[window.episode]} of "
            f"{config.data.repo_id or config.data.root}\n\nframes 0 to {video.context - 1} are given "
            f"(recorded frame {window.frame} is the last of them), the others imagined with the recorded "
            "actions\n\nreward and success stand at the frame of their action"
        )
        write_recording(Path(config.out) / f"window_{i}.rrd", schema.fps, pictures, plots, about)


def window_plots(
    loop: OpenLoopResults, row: int, batch: WindowBatch, length: int, schema: DataSchema
) -> dict[str, dict[str, Plot]]:
    """Gives the curves of a window over its F = `length` frames; batch: that window alone.

    The first imagined values stand at the last given frame (state) and at its action (reward, success).
    """
    k = batch.context
    pair = ("recorded", "imagined")

    def over(first: int, values: np.ndarray) -> np.ndarray:
        """Places values from frame `first` on; NaN before and after them, where there are none."""
        line = np.full(length, np.nan)
        kept = values[: length - first]
        line[first : first + len(kept)] = kept
        return line

    imagined_state = np.concatenate([loop.start_state[row, None], loop.state[row]])
    given = batch.state[0].numpy()
    states = {
        name: Plot(pair, np.stack([over(0, given[:, i]), over(k - 1, imagined_state[:, i])], 1))
        for i, name in enumerate(schema.state)
    }
    action = batch.action[0].numpy()
    lines = np.stack([over(0, action[:, i]) for i in range(len(schema.action))], 1)
    plots = {"state": states, "action": {"action": Plot(schema.action, lines)}}
    outcome = {}
    if schema.reward:
        outcome["reward"] = Plot(
            pair, np.stack([over(0, batch.reward[0].numpy()), over(k - 1, loop.reward[row])], 1)
        )
    if schema.success:
        outcome["success"] = Plot(
            ("recorded", "predicted probability"),
            np.stack([over(0, batch.success[0].numpy()), over(k - 1, loop.success[row])], 1),
        )
    if schema.state and np.isfinite(loop.uncertainty[row]).any():
        expected = np.stack([over(k, loop.uncertainty[row]), over(k, loop.state_error[row])], 1)
        outcome["error of the state"] = Plot(("uncertainty", "true error"), expected)
    if np.isfinite(loop.image_uncertainty[row]).any():
        observed = image_error(loop)[row]
        expected = np.stack([over(k, loop.image_uncertainty[row]), over(k, observed)], 1)
        outcome["error of the picture"] = Plot(("uncertainty", "true error"), expected)
    plots["outcome"] = outcome
    return {group: found for group, found in plots.items() if found}
