"""Many imagined episodes at once: a Gymnasium vector environment whose rows are one batch of the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.error import ClosedEnvironmentError
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from scd_envs import spaces
from scd_envs.env_state import EnvState, check_state
from scd_envs.episodes import ImaginedEpisodes
from scd_envs.settings import (
    Settings,
    as_options,
    is_whole,
    open_world,
    requested_starts,
    requested_tasks,
    row_seeds,
)
from scd_envs.world_env import world_metadata
from scd_world.world.world import World

Infos = dict[str, Any]


class WorldVectorEnv(VectorEnv):
    """Runs `num_envs` episodes of one world in one batched model: one encoder pass per step for all of them.

    Row i with seed s + i imagines what a `WorldEnv` with that seed does, whatever `num_envs` is.

    ## Observation space, action space, rewards, episode end, info
    Those of `WorldEnv` with a leading axis B = `num_envs`, as numpy arrays: `pixels` uint8 (B, H, W, 3),
    actions float32 (B, A) in raw units, rewards float64 (B,), ends bool (B,). Info has, with each key, a
    mask `_key`.

    ## Starting state
    `options` of `reset` may hold one `episode`, `frame` and `task` for all rows, or one per row, and a
    `reset_mask` (B,) bool of the rows to reset.

    ## Arguments
    `world`, `device`, `render_mode` and the settings: as for `WorldEnv`. `num_envs`: rows, 1 or more.
    `autoreset_mode`: NEXT_STEP (Gymnasium's default), SAME_STEP (a finished episode's last observation and
    info are in `final_obs` and `final_info`) or DISABLED. With DISABLED, a finished row freezes until it is
    reset: its last observation, reward 0, constant flags and info. So a sum over time is the return of one
    episode, which is what LeRobot's evaluation computes.

    ## Errors
    Those of `WorldEnv`; ClosedEnvironmentError after `close()`.
    """

    def __init__(
        self,
        world: World | str | Path,
        num_envs: int = 1,
        device: str | None = None,
        render_mode: str | None = "rgb_array",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **settings: Any,
    ) -> None:
        super().__init__()
        if not is_whole(num_envs) or num_envs < 1:
            raise ValueError(f"num_envs must be a whole number ≥ 1; got {num_envs!r}")
        limit = settings.pop("max_episode_steps", None)  # what gym.make and LeRobot call the horizon
        if limit is not None and settings.setdefault("horizon", limit) != limit:
            raise ValueError(f"max_episode_steps={limit} and horizon={settings['horizon']}: give one of them")
        options = Settings.from_kwargs(settings)
        self.num_envs = int(num_envs)
        modes = [mode.value for mode in AutoresetMode]
        if autoreset_mode not in [*AutoresetMode, *modes]:
            raise ValueError(f"autoreset_mode is one of {modes}; got {autoreset_mode!r}")
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.world = open_world(world, device)
        self.schema = self.world.schema
        self.episodes = ImaginedEpisodes(self.world, num_envs, options)
        self.clip_actions = options.clip_actions
        self.metadata = {**world_metadata(self.world, render_mode), "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.single_observation_space = spaces.observation_space(self.schema)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.single_action_space = spaces.action_space(self.schema)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs, self._seeds = map(list, zip(*(seeding.np_random() for _ in range(num_envs)), strict=True))

    # ---- Gymnasium -----------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], Infos]:
        """Begins an episode in every row, or in the rows of options["reset_mask"] (B,) bool.

        Gives the observation and the infos. Raises ValueError for unknown options, starts or tasks, and
        TypeError for a mask that is not a bool array.
        """
        self._check_open()
        options = dict(as_options(options))
        mask = options.pop("reset_mask", None)
        rows = np.arange(self.num_envs) if mask is None else self._masked_rows(mask)
        addresses = requested_starts(options, self.num_envs)
        tasks = requested_tasks(options, self.num_envs, self.schema.tasks)
        seeds = row_seeds(seed, self.num_envs)
        for row in rows:
            if seeds[row] is not None:
                self._rngs[row], self._seeds[row] = seeding.np_random(seeds[row])
        return self._begin(rows, addresses, {}, tasks)

    def step(self, actions: Any) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Takes `actions` (B, A) in raw units; imagines the next frames. Finished rows ignore theirs.

        Gives observation, reward (B,), terminated (B,), truncated (B,) and infos. Raises ValueError for
        actions of another shape, that are not finite, or far outside the recorded range.
        """
        self._check_open()
        finished, shape = self.episodes.finished, (self.num_envs, len(self.schema.action))
        checked = spaces.check_action(actions, shape, self.schema, self.clip_actions, acting=~finished)
        self.episodes.step(checked, acting=~finished)
        now = self.episodes.state
        reward, terminated, truncated = now.reward.copy(), now.terminated.copy(), now.truncated.copy()
        if self.autoreset_mode is AutoresetMode.DISABLED:
            self.episodes.drop_finished()
            obs, infos = self._observation(), self._infos({}, range(self.num_envs))
        elif self.autoreset_mode is AutoresetMode.SAME_STEP:
            obs, infos = self._reset_finished(terminated | truncated)
        else:
            terminated[finished] = truncated[finished] = False
            infos = self._infos({}, np.flatnonzero(~finished))
            obs, infos = self._begin(np.flatnonzero(finished), [None] * self.num_envs, infos)
        return obs, reward, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Gives the rows' current frames, each uint8 (H, W, 3)."""
        if self.render_mode is None:
            return None
        self._check_open()
        return tuple(spaces.tile_cameras(pixels) for pixels in self.episodes.state.pixels)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Gives one result per row of `render`, or of an attribute: see `get_attr`."""
        if name == "render":
            return self.render(*args, **kwargs) or (None,) * self.num_envs
        return self.get_attr(name)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Gives each row's attribute of this name, as a single environment has it; else AttributeError."""
        if name in ("np_random", "np_random_seed"):
            return getattr(self, name)
        if name in ("observation_space", "action_space"):
            return (getattr(self, f"single_{name}"),) * self.num_envs
        if name in ("world", "schema", "metadata", "render_mode", "clip_actions", "spec"):
            return (getattr(self, name),) * self.num_envs
        if name == "_max_episode_steps":  # this and the next are names that LeRobot asks for
            return (self.episodes.horizon,) * self.num_envs
        if name in ("task_description", "task"):
            return self.episodes.task_texts
        raise AttributeError(f"WorldVectorEnv's rows have no {name!r}")

    def close_extras(self) -> None:
        self.episodes.batch = None  # frees the cache; the world may be shared

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        return tuple(self._rngs)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(self._seeds)

    # ---- saving and branching ------------------------------------------------------------------------------

    def get_state(self) -> EnvState:
        """Gives all that the rows' future depends on: save it, and branch from it as often as you like."""
        self._check_open()
        rng_states = [dict(rng.bit_generator.state) for rng in self._rngs]
        return EnvState(self.episodes.state.copy(), rng_states, self.world.fingerprint)

    def set_state(self, state: EnvState) -> None:
        """Goes on exactly from where `get_state` was called, in an environment of the same world and size.

        All rows, or none: TypeError for anything else, ValueError for a state of another world or number of
        rows, or with a row that holds what no episode does, named.
        """
        self._check_open()
        check_state(state, self.episodes)
        self.episodes.batch = state.batch.copy()
        for rng, saved in zip(self._rngs, state.rng_states, strict=True):
            rng.bit_generator.state = saved

    # ---- pieces --------------------------------------------------------------------------------------------

    def _begin(
        self, rows: np.ndarray, addresses: list, infos: Infos, tasks: list[int | None] | None = None
    ) -> tuple[dict[str, Any], Infos]:
        tasks = tasks or [None] * self.num_envs
        if len(rows):
            starts = [self.episodes.sample_start(self._rngs[row], addresses[row], tasks[row]) for row in rows]
            self.episodes.start_rows(rows, starts)
        return self._observation(), self._infos(infos, rows)

    def _reset_finished(self, finished: np.ndarray) -> tuple[dict[str, Any], Infos]:
        """SAME_STEP: puts the finished rows' last observations into the infos, then begins them again."""
        infos: Infos = {}
        now = self.episodes.state
        for row in np.flatnonzero(finished):
            last = spaces.observation(self.schema, now.pixels[row], now.state[row])
            infos = self._add_info(infos, {"final_obs": last, "final_info": self.episodes.info(row)}, row)
        infos = self._infos(infos, np.flatnonzero(~finished))
        return self._begin(np.flatnonzero(finished), [None] * self.num_envs, infos)

    def _infos(self, infos: Infos, rows: Sequence[int] | np.ndarray) -> Infos:
        for row in rows:
            infos = self._add_info(infos, self.episodes.info(row), row)
        return infos

    def _observation(self) -> dict[str, Any]:
        now = self.episodes.state
        return spaces.observation(self.schema, now.pixels, now.state)

    def _masked_rows(self, mask: Any) -> np.ndarray:
        expected = f"a numpy array of {self.num_envs} bools with at least one True"
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"options['reset_mask'] must be {expected}; got {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"options['reset_mask'] must be {expected}; got {mask!r}")
        return np.flatnonzero(mask)

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("this environment was closed: make a new one")
