"""Any Gymnasium environment, any policy → a LeRobotDataset v3 on disk, ready for LeRobot and for scd-data."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import Any

import gymnasium
import numpy as np
from tqdm import tqdm

from scd_datasets.config import PolicyShare, RecordConfig
from scd_datasets.lerobot_features import (
    ACTION,
    DONE,
    ENVIRONMENT_STATE,
    IMAGE,
    IMAGES,
    REWARD,
    STATE,
    SUCCESS,
    camera_feature,
    vector_feature,
)
from scd_datasets.lerobot_writer import LeRobotWriter

STATE_KEYS = {"agent_pos": STATE, "environment_state": ENVIRONMENT_STATE}


def record(config: RecordConfig) -> list[dict[str, Any]]:
    """Record until the dataset has `config.episodes` episodes; a note on each, as in meta/recording.json.

    SIGINT and SIGTERM end the recording early and keep every whole episode.
    """
    from scd_envs import simulators

    env = simulators.make(config.env, **config.env_kwargs)
    features = make_features(env, config.seed, config.videos)
    policies = PolicyMix(env.action_space, config.shares)
    fps = env.metadata["render_fps"]
    with (
        closing(env),
        LeRobotWriter(config.out, fps, features, make_recipe(config), config.videos) as writer,
        interruption() as interrupted,
        tqdm(total=config.episodes, initial=writer.num_episodes, unit="episode", dynamic_ncols=True) as bar,
    ):
        frames, started = 0, time.perf_counter()
        while writer.num_episodes < config.episodes:
            index = writer.num_episodes
            name, policy = policies.of_episode(index)
            steps = run_episode(env, policy, config.seed + index, config.max_steps)
            total, success, length = 0.0, False, 0
            for step in steps:
                if interrupted.is_set():
                    return writer.notes
                writer.add_frame({key: step[key] for key in features} | {"task": config.task or config.env})
                if frames == length == 0:
                    started = time.perf_counter()  # importing lerobot took longer than an episode
                total, success, length = total + float(step[REWARD][0]), bool(step[SUCCESS][0]), length + 1
            outcome = {"length": length, "return": total, "success": success}
            writer.save_episode(name | {"seed": config.seed + index} | outcome)
            frames += length
            bar.set_postfix_str(f"{frames / (time.perf_counter() - started):.0f} frames/s")
            bar.update()
            if index == 0 or writer.num_episodes % config.publish_every == 0:
                writer.publish()
    return writer.notes


def run_episode(
    env: gymnasium.Env, policy: Any, seed: int, max_steps: int
) -> Iterator[dict[str, np.ndarray]]:
    """One episode in LeRobot's frames: the observation, the action taken at it, and what that brought."""
    obs, _ = env.reset(seed=seed)
    policy.reset([seed])
    for step in range(1, max_steps + 1):
        action = policy.act(_batch_of_one(obs))[0]
        # Before the step: some environments write the next observation into the same arrays.
        frame = observation_frame(obs) | {ACTION: np.array(action, np.float32)}
        obs, reward, terminated, truncated, info = env.step(action)
        done = terminated or truncated or step == max_steps
        yield frame | {
            REWARD: np.array([reward], np.float32),
            SUCCESS: np.array([info.get("is_success", False)], bool),
            DONE: np.array([done], bool),
        }
        if done:
            return


def observation_frame(obs: dict[str, Any]) -> dict[str, np.ndarray]:
    """A gymnasium observation under LeRobot's keys."""
    pixels = obs["pixels"]
    several = isinstance(pixels, dict)
    # Copies: pictures are written by other threads, and the environment may use its arrays again.
    frame = (
        {IMAGES + name: np.array(p) for name, p in pixels.items()} if several else {IMAGE: np.array(pixels)}
    )
    for key, lerobot_key in STATE_KEYS.items():
        if key in obs:
            frame[lerobot_key] = np.array(obs[key], np.float32).reshape(-1)
    return frame


def make_features(env: gymnasium.Env, seed: int, videos: bool) -> dict[str, Any]:
    """LeRobot's features of what `env` observes and says; one step shows whether it knows success."""
    obs, _ = env.reset(seed=seed)
    *_, info = env.step(env.action_space.sample())
    features = {}
    for key, value in observation_frame(obs).items():
        if key in STATE_KEYS.values():
            features[key] = vector_feature([f"{key.rsplit('.', 1)[-1]}_{i}" for i in range(len(value))])
        else:
            features[key] = camera_feature(value, videos)
    features[ACTION] = vector_feature([f"action_{i}" for i in range(env.action_space.shape[0])])
    features[REWARD] = {"dtype": "float32", "shape": (1,), "names": None}
    features[DONE] = {"dtype": "bool", "shape": (1,), "names": None}
    if "is_success" in info:
        features[SUCCESS] = {"dtype": "bool", "shape": (1,), "names": None}
    return features


class PolicyMix:
    """Who acts in which episode: a fixed round, so that a continued recording equals an uninterrupted one."""

    def __init__(self, action_space: gymnasium.Space, shares: list[PolicyShare]) -> None:
        self.action_space = action_space
        self.round = [part for part in shares for _ in range(part.share)]
        self.made: dict[str, Any] = {}

    def of_episode(self, index: int) -> tuple[dict[str, Any], Any]:
        """({policy, policy_kwargs} in plain JSON, the policy)."""
        from scd_policies import make

        part, kwargs = self.plan(index)
        name = {"policy": part.policy, "policy_kwargs": kwargs}
        key = json.dumps(name, sort_keys=True)
        if key not in self.made:
            self.made[key] = make(part.policy, self.action_space, **kwargs)
        return name, self.made[key]

    def plan(self, index: int) -> tuple[PolicyShare, dict[str, Any]]:
        """The part of the mixture that acts in episode `index`, and its arguments there."""
        rounds, place = divmod(index, len(self.round))
        part = self.round[place]
        turn = rounds * part.share + sum(earlier is part for earlier in self.round[:place])
        kwargs = {
            key: value[turn % len(value)] if isinstance(value, list) else value
            for key, value in part.policy_kwargs.items()
        }
        return part, kwargs


def make_recipe(config: RecordConfig) -> dict[str, Any]:
    """What must not change when a recording is continued."""
    own = ("env", "env_kwargs", "max_steps", "seed", "task", "videos")
    recipe = {key: value for key, value in asdict(config).items() if key in own}
    return recipe | {"policies": [asdict(part) for part in config.shares]}


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one acts as ever."""
    event = threading.Event()
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: object) -> None:
        event.set()
        signal.signal(number, usual[number])

    for number in usual:
        signal.signal(number, note)
    try:
        yield event
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def summary(notes: list[dict[str, Any]]) -> str:
    """Episodes and success by policy, for people."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for note in notes:
        kwargs = " ".join(f"{key}={value}" for key, value in note["policy_kwargs"].items())
        groups.setdefault(f"{note['policy']} {kwargs}".strip(), []).append(note)
    width = max(map(len, groups), default=0)
    return "\n".join(
        f"{name:<{width}}  {len(group):>5} episodes  {sum(note['length'] for note in group):>7,} frames  "
        f"success {np.mean([note['success'] for note in group]):>4.0%}  "
        f"return {np.mean([note['return'] for note in group]):.4g}"
        for name, group in groups.items()
    )


def _batch_of_one(obs: dict[str, Any]) -> dict[str, Any]:
    return {k: _batch_of_one(v) if isinstance(v, dict) else np.asarray(v)[None] for k, v in obs.items()}
