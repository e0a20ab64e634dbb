"""One policy's paired episodes on one side of a ranking, imagined or simulated; stored in a JSON file."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from scd_envs import simulators
from scd_envs.settings import start_pool, task_index
from scd_envs.simulators.vector import SimulatorVectorEnv
from scd_envs.spaces import action_space
from scd_envs.vector_env import WorldVectorEnv
from scd_policies import Policy, is_checkpoint, open_policy
from scd_policies.degraded import Degradation, DegradedPolicy
from scd_policies.rollout import episodes
from scd_policies.state_estimator import EstimatedStatePolicy
from scd_world.ranking.config import PolicyEntry, RankConfig
from scd_world.utils.atomic_folder import MANIFEST, files_of, replace_text, sha256
from scd_world.utils.precision import use_bf16
from scd_world.world.world import World, find_folder

log = logging.getLogger(__name__)


class NoSuccessReportedError(ValueError):
    """Says that a simulator never tells whether an episode succeeded."""


@dataclass(frozen=True)
class RankedStart:
    """Where an episode begins, on both sides, and the seed of environment and policy."""

    episode: int  # of the world's dataset
    frame: int
    seed: int
    state: dict[str, list[float]]  # what the simulator is reset to


def choose_starts(world: World, count: int, seed: int, task: str | None = None) -> list[RankedStart]:
    """Spreads starts over the episodes' first frames that the world holds; more than there are: they repeat.

    task: only those where it was recorded, if there are any.
    """
    pool = start_pool(world, None)
    if task is not None:
        pool = world.starts.filter_by_task(task_index(task, world.schema.tasks), pool)
    at = np.linspace(0, len(pool) - 1, count).round().astype(int)
    if count > len(pool):
        log.warning(
            "WARNING: %d episodes, but the world holds %d starts: they repeat, and repeated ones are no "
            "further evidence. Intervals count each start once",
            count,
            len(pool),
        )
        at = np.arange(count) % len(pool)
    P = len(world.schema.agent_pos)
    starts = []
    for i, (episode, frame) in enumerate(pool[at].tolist()):
        state = world.starts.get(episode, frame).state[-1]
        parts = {"agent_pos": state[:P].tolist(), "environment_state": state[P:].tolist()}
        starts.append(
            RankedStart(episode, frame, seed + i, {key: value for key, value in parts.items() if value})
        )
    return starts


def build(
    entry: PolicyEntry,
    space: gymnasium.Space,
    metadata: Mapping[str, Any],
    task: str = "",
    device: str = "cpu",
    asked: str | None = None,
) -> Policy:
    """Builds the policy of an entry, with its state estimator and its degradation.

    metadata: the environment's; a LeRobot policy must know what the cameras are called, and a letterbox.
    task, device: what a LeRobot policy is given as its instruction, and where it runs. asked: the task that
    a planner plans for; None: that of its world.
    """
    tasks = (task,) if task else ()
    policy = open_policy(entry.policy, entry.policy_kwargs, space, metadata, tasks, device, asked)
    if entry.state_estimator is not None:
        policy = EstimatedStatePolicy(policy, entry.state_estimator)
    # Others stay as they are: where one leaves the recorded range, the environment clips it and reports that.
    return DegradedPolicy(policy, space, Degradation(**entry.degrade)) if entry.degrade else policy


def values_in(given: Any) -> Iterator[Any]:
    """Lists what stands in dictionaries and lists, one in another."""
    if isinstance(given, Mapping | list | tuple):
        for value in given.values() if isinstance(given, Mapping) else given:
            yield from values_in(value)
    else:
        yield given


class RankingResults:
    """What was played, under `out`/<side>/<policy>.json; a file counts only while its digest still fits."""

    def __init__(self, config: RankConfig, world: World, starts: Sequence[RankedStart]) -> None:
        self.config, self.world, self.starts = config, world, starts
        self.max_steps = config.max_steps or world.schema.horizon
        self.world_identity = identity(str(find_folder(config.world)))

    def path(self, entry: PolicyEntry, side: str) -> Path:
        return Path(self.config.out) / side / f"{entry.name}.json"

    def find(self, entry: PolicyEntry, side: str) -> dict[str, Any] | None:
        """Reads the result that was played with just these settings, or gives None.

        ValueError: the file is not one of scd-rank's.
        """
        path = self.path(entry, side)
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            digest = found["digest"]
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a result of scd-rank ({error}): remove it") from error
        return found if digest == self.digest(entry, side) else None

    def digest(self, entry: PolicyEntry, side: str) -> str:
        """Hashes all that the outcome depends on; the world itself matters to its own side alone."""
        config = self.config
        played = {
            "policy": [entry.policy, entry.policy_kwargs, entry.degrade, entry.state_estimator],
            "files": [
                identity(str(v))
                for v in (source_of(entry.policy), entry.state_estimator, *values_in(entry.policy_kwargs))
            ],
            "starts": [asdict(start) for start in self.starts],
            "max_steps": self.max_steps,
            "batch_size": config.batch_size,  # some policies sample for the whole batch at once
        } | ({"task": config.task} if config.task else {})
        if side == "world":
            played |= {
                "world": self.world_identity,
                "num_steps": config.num_steps or self.world.config.num_steps,
                "success_threshold": config.success_threshold,
                "precision": "bf16" if use_bf16(config.precision, self.world.device) else "fp32",
            }
        else:
            played |= {"simulator": config.simulator, "success": "in any step"}
            played |= {"simulator_kwargs": config.simulator_kwargs} if config.simulator_kwargs else {}
        return hashlib.sha256(json.dumps(played, sort_keys=True).encode()).hexdigest()

    def policy(self, entry: PolicyEntry, metadata: Mapping[str, Any]) -> Policy:
        """Builds the policy of an entry; metadata: of the environment that it acts in."""
        config, schema = self.config, self.world.schema
        task = config.task or "".join(schema.tasks)  # its only one, if any
        metadata = {**metadata, "camera_keys": schema.lerobot_keys}  # the simulator does not know them
        device = str(self.world.device.type)
        return build(entry, action_space(schema), metadata, task, device, config.task)

    def play(self, entry: PolicyEntry, side: str) -> dict[str, Any]:
        """Plays all episodes and writes the file, whole or not at all; gives its contents.

        Raises NoSuccessReportedError, and whatever the policy or the simulator do.
        """
        began = time.perf_counter()
        with closing(self.imagination() if side == "world" else self.simulation(entry)) as envs:
            played = self.outcomes(entry, side, envs)
        if isinstance(envs, SimulatorVectorEnv) and not envs.reports_success:
            raise NoSuccessReportedError(
                f"simulator={self.config.simulator} never reported info['is_success'], so nothing succeeds "
                "there: let its step() report it, or name a file of real outcomes (labels=…)"
            )
        result = {
            "digest": self.digest(entry, side),
            "policy": asdict(entry),
            "side": side,
            "seconds": round(time.perf_counter() - began, 1),
            "episodes": played,
        }
        path = self.path(entry, side)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(result, indent=1) + "\n")
        return result

    def outcomes(self, entry: PolicyEntry, side: str, envs: VectorEnv) -> list[dict[str, Any]]:
        """Plays one episode from each start, and says how each went."""
        policy = self.policy(entry, envs.metadata)
        options: list[dict[str, Any]] = [
            {"episode": s.episode, "frame": s.frame} if side == "world" else s.state for s in self.starts
        ]
        seeds = [start.seed for start in self.starts]
        return [
            {
                "start": [start.episode, start.frame],
                "seed": start.seed,
                "success": bool(episode.success),
                "steps": len(episode),
                "return": float(episode.reward.sum()),
            }
            | episode.decisions
            for start, episode in zip(
                self.starts,
                episodes(envs, policy, seeds, options=options, max_steps=self.max_steps),
                strict=True,
            )
        ]

    def imagination(self) -> VectorEnv:
        """Makes the world's environments."""
        config = self.config
        return WorldVectorEnv(
            self.world,
            num_envs=min(config.batch_size, len(self.starts)),
            autoreset_mode="Disabled",
            num_steps=config.num_steps,
            horizon=self.max_steps,
            success_threshold=config.success_threshold,
            precision=config.precision,
            clip_actions=True,
            task=config.task,
        )

    def simulation(self, entry: PolicyEntry) -> VectorEnv:
        """Makes the simulator's environments; one of ours without images where the policy needs none."""
        blind = self.config.simulator in simulators.NAMES and not entry.needs_images
        settings = self.config.simulator_kwargs | ({"render_images": False} if blind else {})
        rows = min(self.config.batch_size, len(self.starts))
        return SimulatorVectorEnv(self.config.simulator, rows, max_episode_steps=self.max_steps, **settings)


def source_of(policy: str) -> str:
    """Finds the file that a `module:name` is written in; any other policy stays as it is named."""
    if is_checkpoint(policy) or ":" not in policy:
        return policy
    spec = importlib.util.find_spec(policy.partition(":")[0])
    return policy if spec is None or spec.origin is None else spec.origin


def identity(name: str) -> str:
    """Hashes the contents of the file or folder `name`; a name on the Hub stays as it is."""
    path = Path(name)
    if path.is_file():
        return sha256(path)
    if not path.is_dir():
        return name
    if (path / MANIFEST).is_file():
        listed = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["sha256"]
        listed.pop("README.md", None)  # a card changes nothing that is played
        return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    hashes = [f"{file.relative_to(path)} {sha256(file)}" for file in files_of(path)]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
