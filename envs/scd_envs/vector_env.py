"""Many imagined episodes at once: a Gymnasium vector environment whose rows are one batch of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.error import ClosedEnvironmentError
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from scd_envs import infos, spaces
from scd_envs.env_state import EnvState, check_state
from scd_envs.episodes import ImaginedEpisodes
from scd_envs.infos import Infos
from scd_envs.settings import (
    CHANGEABLE,
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

OBSERVATIONS = ("numpy", "torch")


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
    `observations`: "numpy"; or "torch": observations, rewards (float32), ends and infos are tensors on the
    world's device, the caller's own, and images never come to the host; `final_obs` and `final_info` hold all
    rows then, of which `_final_obs` tells those that are over. Actions may be tensors in either case.

    ## Errors
    Those of `WorldEnv`; ClosedEnvironmentError after `close()`. FloatingPointError where rows imagined what
    is no number: these are over, the others have taken their step, and what it gave, ends among it, is lost.
    """

    def __init__(
        self,
        world: World | str | Path | None = None,
        num_envs: int = 1,
        device: str | None = None,
        render_mode: str | None = "rgb_array",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        observations: str = "numpy",
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
        if observations not in OBSERVATIONS:
            raise ValueError(f"observations is one of {list(OBSERVATIONS)}; got {observations!r}")
        self.on_device = observations == "torch"
        self.world = open_world(world, device)
        self.schema = self.world.schema
        self.episodes = ImaginedEpisodes(self.world, num_envs, options, self.on_device)
        self.options = options
        self._clip_warning = spaces.ClipWarning()
        self.metadata = {**world_metadata(self.world, render_mode), "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode if options.render_images else None
        self.single_observation_space = spaces.observation_space(self.schema, options.render_images)
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
        self._begin(rows, addresses, tasks)
        return self._observation(), self._given(infos.batched(self.episodes.columns(), rows))

    def step(self, actions: Any) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Takes `actions` (B, A) in raw units; imagines the next frames. Finished rows ignore theirs.

        Gives observation, reward (B,), terminated (B,), truncated (B,) and infos. Raises ValueError for
        actions of another shape, that are not finite, or far outside the recorded range.
        """
        self._check_open()
        finished, shape = self.episodes.finished, (self.num_envs, len(self.schema.action))
        checked = spaces.check_action(
            actions, shape, self.schema, self.options.clip_actions, ~finished, self._clip_warning
        )
        self.episodes.step(checked, acting=~finished)
        now, final = self.episodes.state, {}
        reward, terminated, truncated = now.reward.copy(), now.terminated.copy(), now.truncated.copy()
        if self.autoreset_mode is AutoresetMode.DISABLED:
            self.episodes.drop_finished()
        elif self.autoreset_mode is AutoresetMode.SAME_STEP:
            over = np.flatnonzero(terminated | truncated)
            final = self._final(over)
            self._begin(over)
        else:
            terminated[finished] = truncated[finished] = False
            self._begin(np.flatnonzero(finished))
        found = final | infos.batched(self.episodes.columns(), np.arange(self.num_envs))
        ends = self._given(terminated), self._given(truncated)
        return self._observation(), self._given(reward), *ends, self._given(found)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Gives the rows' current frames, each uint8 (H, W, 3)."""
        if self.render_mode is None:
            return None
        self._check_open()
        return tuple(spaces.tile_cameras(pixels) for pixels in self.episodes.state.pixels.cpu().numpy())

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
        if name in CHANGEABLE:
            own = {"horizon": self.episodes.horizon}  # the one that counts, where none was given
            return (own.get(name, getattr(self.options, name)),) * self.num_envs
        if name in ("world", "schema", "metadata", "render_mode", "spec"):
            return (getattr(self, name),) * self.num_envs
        if name == "_max_episode_steps":  # this and the next are names that LeRobot asks for
            return (self.episodes.horizon,) * self.num_envs
        if name in ("task_description", "task"):
            return self.episodes.task_texts
        raise AttributeError(f"WorldVectorEnv's rows have no {name!r}")

    def set_attr(self, name: str, values: Any) -> None:
        """Changes a setting of all rows, from the next step on: `num_steps`, `horizon`, `clip_actions`,
        `success_threshold`, `max_uncertainty` or `max_image_uncertainty`.

        values: the new one, or a list with it once per row. AttributeError for other names, ValueError for
        values that are impossible or not the same in all rows: they share one model.
        """
        if name not in CHANGEABLE:
            raise AttributeError(f"rows of one model have {', '.join(CHANGEABLE)} to set; got {name!r}")
        each = list(values) if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(each) != self.num_envs or any(value != each[0] for value in each):
            raise ValueError(f"{name}: one value for all {self.num_envs} rows, who share it; got {values!r}")
        options = replace(self.options, **{name: each[0]})
        self.episodes.follow(options)
        self.options = options

    def close_extras(self) -> None:
        self.episodes.batch = None  # frees the cache; the world may be shared

    @property
    def clip_actions(self) -> bool:
        return self.options.clip_actions

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
        self.episodes.go_on_from(state.batch)
        for rng, saved in zip(self._rngs, state.rng_states, strict=True):
            rng.bit_generator.state = saved

    # ---- pieces --------------------------------------------------------------------------------------------

    def _begin(
        self, rows: np.ndarray, addresses: Sequence[Any] = (), tasks: Sequence[int | None] = ()
    ) -> None:
        """Begins episodes in these rows; addresses and tasks: one per row of all, or none at all."""
        if not len(rows):
            return
        self.episodes.start_rows(
            rows,
            [
                self.episodes.sample_start(
                    self._rngs[row], addresses[row] if addresses else None, tasks[row] if tasks else None
                )
                for row in rows
            ],
        )

    def _final(self, over: np.ndarray) -> Infos:
        """Gives what SAME_STEP says of the rows that are over, before they begin again."""
        if not len(over):
            return {}
        now, columns = self.episodes.state, self.episodes.columns()
        if not self.on_device:
            last = spaces.observation(self.schema, now.pixels.numpy()[over], now.state[over])
            return infos.final(columns, last, over)
        over_mask = infos.mask_of(over, self.num_envs)
        return {
            "final_obs": self._observation(),
            "_final_obs": over_mask,
            "final_info": infos.batched(columns, over),
            "_final_info": over_mask,
        }

    def _observation(self) -> dict[str, Any]:
        now = self.episodes.state
        if self.on_device:
            return spaces.observation(self.schema, now.pixels, self._given(now.state))
        return spaces.observation(self.schema, now.pixels.numpy(), now.state)

    def _given(self, values: Any) -> Any:
        """Gives arrays (in dicts, perhaps) as they are, or as tensors on the device, real ones float32."""
        if not self.on_device or isinstance(values, torch.Tensor):
            return values
        if isinstance(values, dict):
            return {key: self._given(value) for key, value in values.items()}
        real = torch.float32 if values.dtype.kind == "f" else None
        return torch.tensor(values, dtype=real, device=self.world.device)

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
