"""A policy in an environment: whole episodes as arrays, from a single or a vector environment alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium
import numpy as np

from scd_policies.policy import Policy, ReportingPolicy, end_rows

Observation = dict[str, Any]  # arrays by key; under `pixels` perhaps a dict of arrays by camera


@dataclass(frozen=True)
class EpisodeRollout:
    """Holds an episode of L steps: observation i, the action taken at it and its reward; observation L is the
    last."""

    seed: int
    obs: Observation  # every array (L + 1, ...); `pixels` only if frames were asked for
    action: np.ndarray  # (L, A)
    reward: np.ndarray  # (L,)
    terminated: bool
    truncated: bool  # by the environment, or here after `max_steps`
    success: bool  # is_success of any step; False where the environment does not report it
    # (L,) each scalar and flag of the info after each step, and of what the policy said; NaN or False: none
    info: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.action)

    @property
    def decisions(self) -> dict[str, float]:
        """Gives, of a planner, the mean `plan_value` (what its plans promised, raw reward per step) and the
        mean `plan_seconds` of a decision; of another policy nothing."""
        if "plan_seconds" not in self.info:
            return {}
        seconds = self.info["plan_seconds"]
        value = float(self.info["plan_value"].mean())
        return {"plan_value": value, "plan_seconds": float(seconds[seconds > 0].mean())}

    def at(self, i: int) -> Observation:
        """Gives observation i, 0 ≤ i ≤ L."""
        return _map(lambda array: array[i], self.obs)


@dataclass(frozen=True)
class Rollouts:
    """Holds E episodes side by side, padded to the longest, T: by the last observation, else by zeros."""

    seed: np.ndarray  # (E,)
    length: np.ndarray  # (E,)
    obs: Observation  # every array (E, T + 1, ...)
    action: np.ndarray  # (E, T, A)
    reward: np.ndarray  # (E, T)
    terminated: np.ndarray  # (E,) bool
    truncated: np.ndarray  # (E,) bool
    success: np.ndarray  # (E,) bool

    @property
    def valid(self) -> np.ndarray:
        """Gives (E, T) bool: the steps that were taken."""
        return np.arange(self.action.shape[1]) < self.length[:, None]


def rollout(
    env: gymnasium.Env | gymnasium.vector.VectorEnv, policy: Policy, seeds: Sequence[int], **how: Any
) -> Rollouts:
    """Plays one episode per seed and gives their arrays; `how` as for `episodes`."""
    done = list(episodes(env, policy, seeds, **how))
    longest = max(len(episode) for episode in done)
    return Rollouts(
        seed=np.array([episode.seed for episode in done]),
        length=np.array([len(episode) for episode in done]),
        obs=_stack([_map(lambda a: _pad(a, longest + 1, "edge"), episode.obs) for episode in done]),
        action=np.stack([_pad(episode.action, longest, "constant") for episode in done]),
        reward=np.stack([_pad(episode.reward, longest, "constant") for episode in done]),
        terminated=np.array([episode.terminated for episode in done]),
        truncated=np.array([episode.truncated for episode in done]),
        success=np.array([episode.success for episode in done]),
    )


def episodes(
    env: gymnasium.Env | gymnasium.vector.VectorEnv,
    policy: Policy,
    seeds: Sequence[int],
    options: Sequence[dict[str, Any]] | None = None,
    policy_seeds: Sequence[int] | None = None,
    max_steps: int | Sequence[int | None] | None = None,
    frames: bool = False,
) -> Iterator[EpisodeRollout]:
    """Plays one episode per seed, in their order; a vector environment plays num_envs of them at once.

    seeds: of environment and policy, so that two policies, or two environments, meet the same starts.
    options: one dict of reset options per episode.
    policy_seeds: other seeds for the policy (a replay's are the indices of its recordings).
    max_steps: truncates; one for all, or one per episode.
    frames: keep the images.

    Raises ValueError where these lists are not of one length, and where an episode would have no step.
    """
    policy_seeds = seeds if policy_seeds is None else policy_seeds
    options = [{}] * len(seeds) if options is None else options
    limits = list(max_steps) if isinstance(max_steps, Sequence) else [max_steps] * len(seeds)
    if not len(seeds) == len(options) == len(policy_seeds) == len(limits) > 0:
        raise ValueError(
            f"expected as many seeds (≥ 1) as options, policy seeds and max_steps; got {len(seeds)}, "
            f"{len(options)}, {len(policy_seeds)} and {len(limits)}"
        )
    if few := [limit for limit in limits if limit is not None and limit < 1]:
        raise ValueError(f"max_steps={few[0]}: an episode has 1 step or more; None leaves it to its end")
    batched = env if isinstance(env, gymnasium.vector.VectorEnv) else _BatchOfOne(env)
    for first in range(0, len(seeds), batched.num_envs):
        # The last batch is filled up with copies of the last episode, which are played and dropped.
        rows = [min(first + row, len(seeds) - 1) for row in range(batched.num_envs)]
        played = _play(
            batched,
            policy,
            [int(seeds[row]) for row in rows],
            [options[row] for row in rows],
            [int(policy_seeds[row]) for row in rows],
            [limits[row] for row in rows],
            frames,
        )
        yield from played[: len(seeds) - first]


@dataclass
class _Recording:
    """Collects one row while it runs."""

    seed: int
    obs: list[Observation]
    action: list[np.ndarray] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    info: list[dict[str, Any]] = field(default_factory=list)
    episode: EpisodeRollout | None = None

    def add(self, obs: Observation, action: np.ndarray, reward: float, info: dict[str, Any]) -> None:
        self.obs.append(obs)
        self.action.append(np.array(action))
        self.reward.append(float(reward))
        self.info.append(info)

    def close(self, terminated: bool) -> None:
        self.episode = EpisodeRollout(
            seed=self.seed,
            obs=_stack(self.obs),
            action=np.stack(self.action),
            reward=np.array(self.reward, dtype=np.float32),
            terminated=terminated,
            truncated=not terminated,
            success=any(bool(info.get("is_success", False)) for info in self.info),
            info=_columns(self.info),
        )


def _play(
    env: gymnasium.vector.VectorEnv | _BatchOfOne,
    policy: Policy,
    seeds: list[int],
    options: list[dict[str, Any]],
    policy_seeds: list[int],
    limits: list[int | None],
    frames: bool,
) -> list[EpisodeRollout]:
    obs = _reset(env, seeds, options)
    policy.reset(policy_seeds)
    rows = [_Recording(seed, [_row(obs, i, frames)]) for i, seed in enumerate(seeds)]
    step = 0
    while any(row.episode is None for row in rows):
        end_rows(policy, np.array([row.episode is not None for row in rows]))
        action = policy.act(obs)
        decision = policy.decision_info if isinstance(policy, ReportingPolicy) else {}
        obs, reward, terminated, truncated, info = env.step(action)
        step += 1
        for i, row in enumerate(rows):
            if row.episode is not None:
                continue  # the environment may have begun another episode here: it is not wanted
            ended = bool(terminated[i] or truncated[i])
            # With same-step autoreset, an ended row's last observation is in the info.
            autoreset = ended and "final_obs" in info
            last = _picked(info["final_obs"][i], frames) if autoreset else _row(obs, i, frames)
            scalars = _scalars(info["final_info"] if autoreset else info, i)
            row.add(last, action[i], reward[i], scalars | {key: value[i] for key, value in decision.items()})
            if ended or step == limits[i]:
                row.close(bool(terminated[i]))
    return [row.episode for row in rows if row.episode is not None]


def _reset(
    env: gymnasium.vector.VectorEnv | _BatchOfOne, seeds: list[int], options: list[dict[str, Any]]
) -> Observation:
    """Resets all rows from their seeds; then, one by one, the rows that have reset options of their own.

    A world's start states, one for each row, are reset together: one batch encodes all their contexts.
    """
    if isinstance(env, _BatchOfOne):
        return env.reset(seeds[0], options[0])
    if all(own.keys() == {"episode", "frame"} for own in options):
        starts = {key: [own[key] for own in options] for key in ("episode", "frame")}
        return env.reset(seed=seeds, options=starts)[0]  # type: ignore[arg-type]  # Gymnasium takes lists
    obs, _ = env.reset(seed=seeds)  # type: ignore[arg-type]
    for i, own in enumerate(options):
        if own:
            only = np.arange(env.num_envs) == i
            obs, _ = env.reset(seed=seeds, options={"reset_mask": only, **own})  # type: ignore[arg-type]
    return obs


class _BatchOfOne:
    """Gives a single environment the batch axis of a vector environment."""

    num_envs = 1

    def __init__(self, env: gymnasium.Env) -> None:
        self._env = env

    def reset(self, seed: int, options: dict[str, Any]) -> Observation:
        obs, _ = self._env.reset(seed=seed, options=options or None)
        return _map(lambda array: np.asarray(array)[None], obs)

    def step(self, action: np.ndarray) -> tuple[Observation, list, list, list, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self._env.step(action[0])
        info = {key: np.asarray(value)[None] for key, value in info.items() if np.isscalar(value)}
        return _map(lambda array: np.asarray(array)[None], obs), [reward], [terminated], [truncated], info


def _scalars(info: dict[str, Any], i: int) -> dict[str, Any]:
    """Gives the scalars and flags of row i's info; Gymnasium keeps in `_key` which rows have `key`."""
    return {
        key: value[i]
        for key, value in info.items()
        if not key.startswith("_")
        and isinstance(value, np.ndarray)
        and value.ndim == 1
        and value.dtype.kind in "bif"
        and info.get(f"_{key}", [True] * len(value))[i]
    }


def _columns(infos: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Stacks the infos of L steps to (L,) by key; missing flags are False, missing scalars NaN."""
    kinds = {key: np.asarray(value).dtype.kind for step in infos for key, value in step.items()}
    return {
        key: np.array([step.get(key, False if kind == "b" else np.nan) for step in infos])
        for key, kind in kinds.items()
    }


def _map(change: Callable[[Any], Any], obs: Observation) -> Observation:
    """Applies `change` to every array of an observation."""
    return {
        key: _map(change, value) if isinstance(value, dict) else change(value) for key, value in obs.items()
    }


def _picked(obs: Observation, frames: bool) -> Observation:
    """Copies what is kept of one observation: environments may reuse their buffers."""
    return _map(np.array, {key: value for key, value in obs.items() if frames or key != "pixels"})


def _row(obs: Observation, i: int, frames: bool) -> Observation:
    return _picked(_map(lambda array: array[i], obs), frames)


def _stack(observations: Sequence[Observation]) -> Observation:
    first = observations[0]
    return {
        key: _stack([obs[key] for obs in observations])
        if isinstance(value, dict)
        else np.stack([obs[key] for obs in observations])
        for key, value in first.items()
    }


def _pad(array: np.ndarray, length: int, mode: Literal["edge", "constant"]) -> np.ndarray:
    """Pads (L, ...) to `length` rows: by its last row (edge) or by zeros (constant)."""
    return np.pad(array, [(0, length - len(array))] + [(0, 0)] * (array.ndim - 1), mode=mode)
