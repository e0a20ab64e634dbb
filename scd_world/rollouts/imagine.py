"""A policy in a world → a LeRobotDataset v3 that is marked as imagined: `scd-rollout`.

What is written is a pure function of world, policy, seed and `num_envs`: batches are always whole and begin
at multiples of `num_envs`, so a continued dataset equals one that was written in one go.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorWrapper

from scd_datasets.config import SourceConfig
from scd_datasets.sources.lerobot.features import (
    ACTION,
    DONE,
    ENVIRONMENT_STATE,
    REWARD,
    STATE,
    SUCCESS,
    camera_feature,
    vector_feature,
)
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.open_source import open_source
from scd_datasets.sources.strided import Strided
from scd_datasets.writing.episodes import (
    Frame,
    print_summary,
    to_lerobot_frame,
    write_episodes,
)
from scd_datasets.writing.lerobot_writer import LeRobotWriter
from scd_envs.spaces import taken_action
from scd_envs.vector_env import WorldVectorEnv
from scd_policies import Policy, check_name, make, open_policy
from scd_policies.rollout import EpisodeRollout, episodes
from scd_world.reporting import video
from scd_world.reporting.rerun_file import load_rerun
from scd_world.robot_data.compatibility import check_rate
from scd_world.robot_data.schema import DataSchema
from scd_world.robot_data.stride import SAME_RATE, stride_between
from scd_world.rollouts.config import RolloutConfig
from scd_world.rollouts.recordings import write_recordings
from scd_world.utils.atomic_folder import MANIFEST, sha256
from scd_world.utils.devices import pick_device
from scd_world.utils.interruption import StopSignal
from scd_world.world.world import World, find_folder

log = logging.getLogger(__name__)
SCALAR = {"dtype": "float32", "shape": (1,), "names": None}
FLAG = {"dtype": "bool", "shape": (1,), "names": None}


def run_rollout(config: RolloutConfig) -> None:
    """Imagines a dataset, and prints a summary (`scd-rollout`)."""
    stop = StopSignal()
    print_summary(imagine_dataset(config, stop), config.episodes, stop)
    print(f"imagined: {config.out} (LeRobotDataset v3; meta/imagined.json and its robot_type name the world)")


def imagine_dataset(config: RolloutConfig, stop: StopSignal | None = None) -> list[dict[str, Any]]:
    """Imagines until the dataset has `config.episodes` episodes; a note on each, as in meta/imagined.json.

    SIGINT and SIGTERM end it early and keep every whole episode; `stop` then knows which it was. ValueError:
    rerun=true without its package.
    """
    stop = StopSignal() if stop is None else stop
    check_name(config.policy)
    if config.rerun:
        load_rerun()
    folder, device = find_folder(config.world), pick_device(config.device).type
    env = WorldVectorEnv(
        World.load(folder, device),
        config.num_envs,
        autoreset_mode=AutoresetMode.DISABLED,
        num_steps=config.num_steps,
        horizon=config.horizon,
        success_threshold=config.success_threshold,
        clip_actions=config.clip_actions,
        task=config.task,
    )
    schema = env.schema
    plan = RolloutPlan.of(config, env)
    scalars = info_scalars(env)
    marks = imagined_marks(config.world, folder)
    recipe = make_recipe(config) | {"world_sha256": marks["world_sha256"], "device": device}
    features = world_features(schema, scalars, config.store_as_video)
    with (
        LeRobotWriter(
            config.out, schema.fps, features, recipe, config.store_as_video, imagined=marks
        ) as writer,
        stop,
    ):
        imagined = imagined_episodes(config, env, plan, writer.num_episodes, scalars, stop)
        write_episodes(writer, imagined, config.episodes, config.num_envs, stop)
    notes = writer.notes
    if notes and config.num_videos:
        write_previews(Path(config.out), notes[: config.num_videos])
    if config.rerun:
        write_recordings(Path(config.out), notes[: config.num_videos])
    return notes


def imagined_marks(name: str, folder: Path) -> dict[str, Any]:
    """Gives what marks a dataset as imagined by the world in a folder, which the user called by `name`."""
    return {"imagined": True, "world": name, "world_sha256": sha256(folder / MANIFEST)}


def make_recipe(config: RolloutConfig) -> dict[str, Any]:
    """Gives what must not change when a dataset is continued; a world counts by its manifest."""
    free = ("world", "out", "episodes", "num_videos", "rerun", "device")
    return {key: value for key, value in asdict(config).items() if key not in free}


# ---- which policy acts, and from where --------------------------------------------------------------


@dataclass(frozen=True)
class RolloutPlan:
    """Plans each episode: policy, start, length; of a list, episode i takes entry i % length."""

    policy: Policy
    name: dict[str, Any]  # of the policy, with its arguments, in plain JSON
    starts: Sequence[Sequence[int]] | None = None  # (episode, frame) of each; None: sampled with the seed
    limits: Sequence[int] | None = None  # steps at most: as many as there are actions to repeat

    @classmethod
    def of(cls, config: RolloutConfig, env: WorldVectorEnv) -> RolloutPlan:
        """Makes the policy that the config names. Raises ValueError where it does not fit the world."""
        space, kwargs = env.single_action_space, config.policy_kwargs
        name = {"policy": config.policy, "policy_kwargs": kwargs}
        if config.policy == "replay":
            starts, actions = recorded_actions(str(config.replay), env.world, config.starts)
            limits = [len(each) for each in actions]
            return cls(make("replay", space, actions=actions), name, starts, limits)
        for episode, frame in config.starts or ():
            env.world.starts.get(episode, frame)  # ValueError where the world has none there
        tasks = (config.task,) if config.task else env.schema.tasks
        policy = open_policy(config.policy, kwargs, space, env.metadata, tasks, config.device, config.task)
        return cls(policy, name, config.starts)

    def options(self, index: int) -> dict[str, Any]:
        """Gives the reset options of an episode."""
        if self.starts is None:
            return {}
        episode, frame = self.starts[index % len(self.starts)]
        return {"episode": int(episode), "frame": int(frame)}

    def policy_seed(self, index: int, seed: int) -> int:
        """Gives the policy's seed: a replay's is the index of its recording."""
        return seed if self.limits is None else index % len(self.limits)

    def limit(self, index: int) -> int | None:
        """Gives the steps that an episode may have; None: the environment's horizon."""
        return None if self.limits is None else self.limits[index % len(self.limits)]


def recorded_actions(
    dataset: str, world: World, starts: Sequence[Sequence[int]] | None
) -> tuple[list[Sequence[int]], list[np.ndarray]]:
    """Finds the world's starts in the dataset, or the given ones, and reads the actions from each on.

    Gives (episode, frame) pairs and as many float32 arrays (T, A), in raw units. Raises ValueError where the
    dataset has other actions, another frame rate than the world at any stride, or none of the starts.
    """
    source, wanted = open_source(SourceConfig(root=dataset)), world.schema.action
    if (frames := stride_between(source.fps, world.schema.fps)) > 1:  # the world's steps are longer
        source = Strided(source, frames)
    if (names := source.names(ACTION)) != wanted:
        both = f"{dataset} records {len(names)}: {', '.join(names)}\n  the world takes {len(wanted)}: "
        both = f"\n  {both}{', '.join(wanted)}\n"
        if len(names) != len(wanted) or sorted(names) == sorted(wanted):  # others, or in another order
            raise ValueError(
                f"these actions do not fit this world:{both}Replay a dataset of the world's own robot"
            )
        log.warning("these actions have other names, and are taken in this order:%s", both.rstrip())
    if abs(source.fps / world.schema.fps - 1) > SAME_RATE:
        check_rate(world.schema, source.fps, dataset, use="replay a recording")
    known = {episode.index: episode for episode in source.episodes}
    pool = starts if starts is not None else world.starts.first_frames.tolist()
    kept: list[Sequence[int]] = [(e, f) for e, f in pool if e in known and f < known[e].length]
    if not kept:
        raise ValueError(
            f"{dataset} holds the episodes {min(known)} to {max(known)}, and none of the starts "
            f"{list(map(list, pool))[:8]}: replay the dataset that the world was trained on, or give starts="
        )
    rows = [np.asarray(source.low_dim(known[e])[ACTION], np.float32) for e, _ in kept]
    return kept, [
        row.reshape(len(row), len(wanted))[frame:] for row, (_, frame) in zip(rows, kept, strict=True)
    ]


# ---- what is imagined, and how it is written -------------------------------------------------------


class BatchInterrupted(Exception):
    """Says that a signal came while a batch was being imagined."""


class InterruptibleEnv(VectorWrapper):
    """Raises BatchInterrupted at the next step after a signal."""

    def __init__(self, env: WorldVectorEnv, stop: StopSignal) -> None:
        super().__init__(env)
        self.stop = stop

    def step(self, actions: Any) -> Any:
        if self.stop:
            raise BatchInterrupted
        return super().step(actions)


def imagined_episodes(
    config: RolloutConfig,
    env: WorldVectorEnv,
    plan: RolloutPlan,
    done: int,
    scalars: Sequence[str],
    stop: StopSignal,
) -> Iterator[tuple[dict[str, Any], Iterator[Frame]]]:
    """Yields episode after episode from index `done` on: a note, and its frames.

    scalars: keys of the infos that become features.
    """
    interruptible, n = InterruptibleEnv(env, stop), config.num_envs
    for first in itertools.count(done // n * n, n):
        batch = range(first, first + n)
        seeds = [config.seed + i for i in batch]
        try:
            played = list(
                episodes(
                    interruptible,
                    plan.policy,
                    seeds,
                    options=[plan.options(i) for i in batch],
                    policy_seeds=[plan.policy_seed(i, seed) for i, seed in zip(batch, seeds, strict=True)],
                    max_steps=[plan.limit(i) for i in batch],
                    frames=True,
                )
            )
        except BatchInterrupted:
            return
        tasks = env.get_attr("task") if env.schema.tasks else ("imagined",) * n  # LeRobot wants one
        for index, episode, task in zip(batch, played, tasks, strict=True):
            if index >= done:
                note = episode_note(plan, episode, scalars) | {"task": task}
                yield note, frames_of(episode, env, scalars)


def episode_note(plan: RolloutPlan, episode: EpisodeRollout, scalars: Sequence[str]) -> dict[str, Any]:
    """Gives what the dataset keeps of an episode, in plain JSON: policy, seed, start, end, mean scalars."""
    start = {key: int(episode.info[key][0]) for key in ("start_episode", "start_frame")}
    means = {key: float(episode.info[key].mean()) for key in scalars}
    # Of a planner what it promised, not how long it took: the same command gives the same dataset.
    means |= {key: value for key, value in episode.decisions.items() if key == "plan_value"}
    return plan.name | {"seed": episode.seed, **start, "terminated": episode.terminated, "means": means}


def frames_of(episode: EpisodeRollout, env: WorldVectorEnv, scalars: Sequence[str]) -> Iterator[Frame]:
    """Yields LeRobot's frames: an observation, the action as the world took it, and the outcome."""
    action = taken_action(episode.action, env.schema, env.clip_actions)
    for i in range(len(episode)):
        yield to_lerobot_frame(episode.at(i), env.schema.lerobot_keys) | {
            ACTION: action[i].astype(np.float32),
            REWARD: episode.reward[i : i + 1],
            SUCCESS: episode.info["is_success"][i : i + 1],
            DONE: np.array([i == len(episode) - 1]),
            **{f"next.{key}": episode.info[key][i : i + 1].astype(np.float32) for key in scalars},
        }


def info_scalars(env: WorldVectorEnv) -> list[str]:
    """Names the real-valued scalars of the world's info after each step, such as `success_probability`."""
    env.reset(seed=0)
    low, high = (np.array(bound) for bound in (env.schema.action_low, env.schema.action_high))
    *_, info = env.step(np.tile((low + high) / 2, (env.num_envs, 1)))
    real = [key for key, value in info.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
    return [key for key in real if env.schema.success or key != "success_probability"]


def world_features(schema: DataSchema, scalars: Sequence[str], videos: bool) -> dict[str, Any]:
    """Gives LeRobot's features, by the names that the world's own data had."""
    image = np.empty((schema.height, schema.width, 3), np.uint8)
    features = {key: camera_feature(image, videos) for key in schema.lerobot_keys.values()}
    for key, names in ((STATE, schema.agent_pos), (ENVIRONMENT_STATE, schema.environment_state)):
        if names:
            features[key] = vector_feature(list(names))
    features[ACTION] = vector_feature(list(schema.action))
    if schema.reward:
        features[REWARD] = SCALAR
    if schema.success:
        features[SUCCESS] = FLAG
    return features | {DONE: FLAG} | {f"next.{key}": SCALAR for key in scalars}


# ---- for people ------------------------------------------------------------------------------------


def write_previews(root: Path, notes: Sequence[dict[str, Any]]) -> None:
    """Writes film.mp4 and strip.png of these episodes, as the dataset shows them."""
    dataset = LeRobotFolder(root)
    videos = [video.side_by_cameras(dataset.pixels(dataset.episodes[n["episode_index"]])) for n in notes]
    names = [f"episode {n['episode_index']}{' ✓' if n['success'] else ''}" for n in notes]
    longest = max(map(len, videos))
    height = 192

    def panel(frames: np.ndarray, i: int) -> video.Panel:
        color = video.GIVEN if i == 0 else video.IMAGINED
        return video.Panel(frames[min(i, len(frames) - 1)], color)

    images = (
        video.compose([[panel(frames, i) for frames in videos]], names, note=f"step {i}", height=height)
        for i in range(longest)
    )
    video.write_mp4(root / "film.mp4", images, dataset.fps)
    shown = [0, *(step for step in (1, 4, 16, 32, 64, 128, 256) if step < longest)]
    rows = [[panel(frames, i) for i in shown] for frames in videos]
    heading = ["given", *(f"step {step}" for step in shown[1:])]
    video.write_png(root / "strip.png", video.compose(rows, heading, names, height=height, side=True))
