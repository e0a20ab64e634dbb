"""Any Gymnasium environment, any policy → a LeRobotDataset v3 on disk, ready for LeRobot and for scd-data."""

from __future__ import annotations

import itertools
import json
import shlex
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

import gymnasium
import numpy as np

from scd_datasets.sources.lerobot.features import (
    ACTION,
    DONE,
    REWARD,
    SUCCESS,
    camera_feature,
    vector_feature,
)
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.writing.episodes import (
    STATE_KEYS,
    Frame,
    print_summary,
    to_lerobot_frame,
    write_episodes,
)
from scd_datasets.writing.lerobot_writer import LeRobotWriter
from scd_world.rollouts.config import PolicyShare, RecordConfig
from scd_world.utils.interruption import StopSignal

FLAG = {"dtype": "bool", "shape": (1,), "names": None}


def run_record(config: RecordConfig) -> None:
    """Records a dataset, and prints a summary and the next command (`scd-record`)."""
    stop = StopSignal()
    print_summary(record(config, stop), config.episodes, stop)
    if LeRobotFolder(config.out).cameras:
        print(f"next: scd-data {shlex.quote(f'data.root={config.out}')}")
    else:
        extra = shlex.quote(f"prior.extra_datasets=[{config.out}]")
        print(f"next, beside recordings with images: scd-train … {extra}")


def record(config: RecordConfig, stop: StopSignal | None = None) -> list[dict[str, Any]]:
    """Records until there are `config.episodes` episodes; gives a note on each, as in meta/recording.json.

    SIGINT and SIGTERM end the recording early and keep every whole episode; `stop` then knows which it was.
    """
    stop = StopSignal() if stop is None else stop
    from scd_envs import simulators

    env = simulators.make(config.env, **config.env_kwargs)
    policies = PolicyMixture(env.action_space, config.shares)
    fps = env.metadata.get("fps", env.metadata["render_fps"])  # the one may be a fraction
    with closing(env):
        features = make_features(env, config.seed, config.max_steps, config.store_as_video)
        writer = LeRobotWriter(config.out, fps, features, make_recipe(config), config.store_as_video)
        with writer, stop:

            def episodes() -> Iterator[tuple[dict[str, Any], Iterator[Frame]]]:
                for index in itertools.count(writer.num_episodes):
                    name, policy = policies.of_episode(index)
                    seed = config.seed + index
                    note = name | {"seed": seed, "task": config.task or config.env}
                    yield note, run_episode(env, policy, seed, config.max_steps)

            return write_episodes(writer, episodes(), config.episodes, config.publish_every, stop)


def run_episode(env: gymnasium.Env, policy: Any, seed: int, max_steps: int) -> Iterator[Frame]:
    """Yields an episode in LeRobot's frames: the observation, the action taken at it, and the outcome."""
    obs, _ = env.reset(seed=seed)
    policy.reset([seed])
    for step in range(1, max_steps + 1):
        action = checked(policy.act(_batch_of_one(obs)), env.action_space, type(policy).__name__)
        # Before the step: some environments write the next observation into the same arrays.
        frame = to_lerobot_frame(obs) | {ACTION: np.array(action, np.float32)}
        obs, reward, terminated, truncated, info = env.step(action)
        done = terminated or truncated or step == max_steps
        yield frame | {
            REWARD: np.array([reward], np.float32),
            SUCCESS: np.array([info.get("is_success", False)], bool),
            DONE: np.array([done], bool),
        }
        if done:
            return


def checked(actions: Any, box: gymnasium.Space, policy: str) -> np.ndarray:
    """Gives the one action of a policy's batch; ValueError unless it is one of finite numbers that the
    environment takes. One that lies outside its range is recorded as it was sent, and warned of."""
    actions = np.asarray(actions)
    assert isinstance(box, gymnasium.spaces.Box)
    if actions.shape != (1, *box.shape) or actions.dtype.kind not in "biuf" or not np.isfinite(actions).all():
        raise ValueError(
            f"{policy} gives actions {actions!r:.80} of shape {actions.shape} for one observation; expected "
            f"finite numbers of shape {(1, *box.shape)}"
        )
    action = actions[0]
    room = 1e-3 * (box.high - box.low)
    for d in np.flatnonzero((action < box.low - room) | (action > box.high + room)):
        warnings.warn(
            f"{policy} sends actions outside [{box.low[d]:g}, {box.high[d]:g}], which the environment takes "
            f"in dimension {d}: they are recorded as they were sent",
            stacklevel=2,
        )
    return action


def make_features(env: gymnasium.Env, seed: int, max_steps: int, videos: bool) -> dict[str, Any]:
    """Gives LeRobot's features of what `env` observes and reports."""
    obs, _ = env.reset(seed=seed)
    features = {}
    for key, value in to_lerobot_frame(obs).items():
        if key in STATE_KEYS.values():
            features[key] = vector_feature([f"{key.rsplit('.', 1)[-1]}_{i}" for i in range(len(value))])
        else:
            features[key] = camera_feature(value, videos)
    (size,) = env.action_space.shape or ()
    features[ACTION] = vector_feature([f"action_{i}" for i in range(size)])
    features[REWARD] = {"dtype": "float32", "shape": (1,), "names": None}
    features[DONE] = FLAG
    if reports_success(env, max_steps):
        features[SUCCESS] = FLAG
    return features


def reports_success(env: gymnasium.Env, max_steps: int) -> bool:
    """Says whether `env`, which was just reset, reports success: some do so at an episode's end alone."""
    env.action_space.seed(0)
    for _ in range(max_steps):
        *_, terminated, truncated, info = env.step(env.action_space.sample())
        if "is_success" in info:
            return True
        if terminated or truncated:
            break
    return False


class PolicyMixture:
    """Gives each episode its policy, in a fixed round: a continued recording equals a straight one."""

    def __init__(self, action_space: gymnasium.Space, shares: list[PolicyShare]) -> None:
        self.action_space = action_space
        self.round = [part for part in shares for _ in range(part.weight)]
        self.policies: dict[str, Any] = {}

    def of_episode(self, index: int) -> tuple[dict[str, Any], Any]:
        """Gives ({policy, policy_kwargs} in plain JSON, the policy)."""
        from scd_policies import make
        from scd_policies.degraded import Degradation, DegradedPolicy

        part, kwargs, degrade = self.plan(index)
        name = {"policy": part.policy, "policy_kwargs": kwargs} | ({"degrade": degrade} if degrade else {})
        key = json.dumps(name, sort_keys=True)
        if key not in self.policies:
            policy = make(part.policy, self.action_space, **kwargs)
            if degrade:
                policy = DegradedPolicy(policy, self.action_space, Degradation(**degrade))
            self.policies[key] = policy
        return name, self.policies[key]

    def plan(self, index: int) -> tuple[PolicyShare, dict[str, Any], dict[str, Any]]:
        """Gives the part of the mixture that acts in episode `index`, its arguments and degradation there."""
        rounds, place = divmod(index, len(self.round))
        part = self.round[place]
        turn = rounds * part.weight + sum(earlier is part for earlier in self.round[:place])
        kwargs, degrade = (
            {key: value[turn % len(value)] if isinstance(value, list) else value for key, value in of.items()}
            for of in (part.policy_kwargs, part.degrade)
        )
        return part, kwargs, degrade


def make_recipe(config: RecordConfig) -> dict[str, Any]:
    """Gives what must not change when a recording is continued."""
    kept = ("env", "env_kwargs", "max_steps", "seed", "task", "store_as_video")
    recipe = {key: value for key, value in asdict(config).items() if key in kept}
    return recipe | {"policies": [asdict(part) for part in config.shares]}


def _batch_of_one(obs: dict[str, Any]) -> dict[str, Any]:
    return {k: _batch_of_one(v) if isinstance(v, dict) else np.asarray(v)[None] for k, v in obs.items()}
