"""Episodes into a dataset, one after another until a signal comes: what recording and imagining share.

LeRobot's frames of Gymnasium's observations, whole episodes or none, and a summary table by policy.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from scd_datasets.sources.lerobot.features import ENVIRONMENT_STATE, REWARD, STATE, SUCCESS
from scd_datasets.writing.lerobot_writer import LeRobotWriter
from scd_world.robot_data.camera_keys import LONE, usual_keys
from scd_world.utils.interruption import Interrupted, StopSignal

log = logging.getLogger(__name__)
STATE_KEYS = {"agent_pos": STATE, "environment_state": ENVIRONMENT_STATE}
Frame = dict[str, np.ndarray]


def to_lerobot_frame(obs: Mapping[str, Any], camera_keys: Mapping[str, str] | None = None) -> Frame:
    """Gives a Gymnasium observation under LeRobot's keys: images uint8 (H, W, 3), states float32 (n,).

    camera_keys: camera → key, in a world the recorded ones; None: the usual ones. Without `pixels` there are
    states alone.
    """
    pixels = obs.get("pixels", {})
    keys = camera_keys or usual_keys(pixels if isinstance(pixels, dict) else [LONE])
    images = pixels if isinstance(pixels, dict) else dict.fromkeys(keys, pixels)
    # Copies: images are written by other threads, and the environment may use its arrays again.
    frame = {keys[name]: np.array(image) for name, image in images.items()}
    for key, lerobot_key in STATE_KEYS.items():
        if key in obs:
            frame[lerobot_key] = np.array(obs[key], np.float32).reshape(-1)
    return frame


def write_episodes(
    writer: LeRobotWriter,
    episodes: Iterator[tuple[dict[str, Any], Iterator[Frame]]],
    wanted: int,
    publish_every: int,
    stop: StopSignal,
) -> list[dict[str, Any]]:
    """Writes (note, frames) after (note, frames) until the dataset has `wanted` episodes.

    A note says in plain JSON which policy acts, and the `task` in words. An interruption drops the episode
    that is being written and keeps all before it. Gives all notes, with `length`, `return` and `success`
    (None where they are not recorded) in them.
    """
    records_reward, records_success = (key in writer.features for key in (REWARD, SUCCESS))
    if writer.num_episodes < wanted:
        writer.open()  # importing LeRobot takes longer than an episode: before the clock starts
    total, started = 0, time.perf_counter()
    with tqdm(total=wanted, initial=writer.num_episodes, unit="episode", dynamic_ncols=True) as bar:
        while writer.num_episodes < wanted:
            following = next(episodes, None)
            if following is None:
                break
            note, frames = following
            episode_return, success, length = 0.0, False, 0
            for frame in frames:
                if stop:
                    return writer.notes
                writer.add_frame({key: frame[key] for key in writer.features} | {"task": note["task"]})
                episode_return += float(frame[REWARD][0])
                success = bool(frame[SUCCESS][0])
                length += 1
            if success and not records_success:
                log.warning(
                    "WARNING: episode %d ends in success, of which the environment had not spoken when the "
                    "dataset began: it is not recorded. Have every step() give info['is_success'], and "
                    "record anew",
                    writer.num_episodes,
                )
            outcome = {
                "return": episode_return if records_reward else None,
                "success": success if records_success else None,
            }
            writer.save_episode(note | {"length": length} | outcome)
            total += length
            bar.set_postfix_str(f"{total / (time.perf_counter() - started):.0f} frames/s")
            bar.update()
            if writer.num_episodes == 1 or writer.num_episodes % publish_every == 0:
                writer.publish()
    return writer.notes


def print_summary(notes: list[dict[str, Any]], wanted: int, stop: StopSignal) -> None:
    """Prints what was recorded; raises Interrupted where a signal came before `wanted` episodes were."""
    print(summary(notes))
    if len(notes) < wanted:
        raise Interrupted(
            f"stopped: {len(notes)} of {wanted} episodes are safe; the same command continues",
            stop.number or signal.SIGINT,
        )


def _mean(group: list[dict[str, Any]], key: str, layout: str) -> str:
    known = [note[key] for note in group if note[key] is not None]
    return f"{np.mean(known):{layout}}" if known else "–"  # not recorded: no 0


def summary(notes: list[dict[str, Any]]) -> str:
    """Tabulates episodes, success and return by policy, for people."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for note in notes:
        kwargs = " ".join(f"{key}={value}" for key, value in note["policy_kwargs"].items())
        groups.setdefault(f"{note['policy']} {kwargs}".strip(), []).append(note)
    width = max(map(len, groups), default=0)
    return "\n".join(
        f"{name:<{width}}  {len(group):>5} episodes  {sum(note['length'] for note in group):>7,} frames  "
        f"success {_mean(group, 'success', '4.0%')}  return {_mean(group, 'return', '.4g')}{_means(group)}"
        for name, group in groups.items()
    )


def _means(group: list[dict[str, Any]]) -> str:
    """Gives the means of what a world predicts of its own episodes: probability of success, uncertainty."""
    names = group[0].get("means", {})
    return "".join(f"  mean {name} {np.mean([note['means'][name] for note in group]):.3g}" for name in names)
