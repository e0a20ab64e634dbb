"""A world as a Gymnasium environment: one imagined episode at a time."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded

from scd_envs import spaces
from scd_envs.env_state import EnvState, check_state
from scd_envs.episodes import ImaginedEpisodes
from scd_envs.settings import Settings, checked_seed, open_world, requested_starts, requested_tasks
from scd_world.world.world import World

log = logging.getLogger(__name__)


class WorldEnv(gymnasium.Env):
    """Steps an episode that a world model imagines, one frame per step, from a recorded frame on.

    ## Observation space
    `pixels` uint8 (H, W, 3) in [0, 255], with several cameras a Dict of them by name; `agent_pos` (P,) and
    `environment_state` (E,) float32 in raw units, where the data has them. No `pixels` with
    `render_images=False`.

    ## Action space
    Box (A,) with the bounds of the recorded actions, float32 in raw units. A dimension that never moved has a
    little room around its value, which is what the world takes whatever is sent: nobody knows what others do
    (`metadata["constant_actions"]`: name → value).

    ## Rewards
    What the reward head predicts, float; 0 where the data had no reward (`metadata["predicts_reward"]` is
    False).

    ## Starting state
    A recorded frame, with the frames recorded before it as context: sampled with the seed, or the one that
    `reset(options={"episode": 3, "frame": 10})` names. Where the data has several tasks, the episode's task
    is the recorded one, or the one that `reset(options={"task": "push the cube"})` names.

    ## Episode end
    Terminated when the predicted success probability exceeds `success_threshold` (never where the data had no
    success: `metadata["predicts_success"]` is False then). Truncated after `horizon` steps, and where
    `uncertainty` exceeds `max_uncertainty`, or `image_uncertainty` `max_image_uncertainty`.

    ## Info
    `is_success` bool; `success_probability` in [0, 1]; `uncertainty`, the expected error of the state as a
    share of the recorded ranges, 0 or more (missing where the data has no state or the world no state
    prior); `image_uncertainty`, the expected root mean square error of the pictures as a share of the range
    from black to white, in [0, 1] (missing where the world has no filter); the start's address,
    `start_episode` and `start_frame`; and, in a world that finds objects by sight, `objects` float32 (N,),
    where they are in the pictures, px (`metadata["objects"]`: the N names).

    ## Arguments
    `world`: folder, Hub id or World. `device`: where a world is loaded; None: CPU; "auto": CUDA if available.
    `render_mode`: "rgb_array" or None. The rest: `scd_envs.settings.Settings`.

    ## Errors
    An action that is no array of numbers raises TypeError; one of a wrong shape, not finite, or outside the
    range by more than a tenth of it, ValueError (`clip_actions=True` clips instead). Unknown arguments raise
    TypeError, impossible ones ValueError; stepping before `reset`, or after the episode's end,
    ResetNeeded; anything but rendering after `close`, ClosedEnvironmentError.

    ## Version history
    v0: first version.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (gymnasium declares it so)

    def __init__(
        self,
        world: World | str | Path | None = None,
        device: str | None = None,
        render_mode: str | None = "rgb_array",
        **settings: Any,
    ) -> None:
        options = Settings.from_kwargs(settings)
        self.world = open_world(world, device)
        self.schema = self.world.schema
        self.episodes = ImaginedEpisodes(self.world, 1, options)
        self.clip_actions = options.clip_actions
        self._clip_warning = spaces.ClipWarning()
        self.metadata = world_metadata(self.world, render_mode)
        self.render_mode = render_mode if options.render_images else None
        self.observation_space = spaces.observation_space(self.schema, options.render_images)
        self.action_space = spaces.action_space(self.schema)
        self._closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begins an episode: sampled, or from options={"episode": e, "frame": f}; perhaps with a "task".

        Gives the observation and the info. Raises ValueError for unknown options, starts or tasks.
        """
        self._check_open()
        super().reset(seed=checked_seed(seed))
        (address,) = requested_starts(options, 1)
        (task,) = requested_tasks(options, 1, self.schema.tasks)
        self.episodes.start_rows(np.arange(1), [self.episodes.sample_start(self.np_random, address, task)])
        return self._observation(), self.episodes.info(0)

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Takes `action` (A,) in raw units and imagines the next frame.

        Gives observation, reward, terminated, truncated and info.
        """
        self._check_open()
        if self.episodes.finished[0]:
            raise ResetNeeded("the episode is over: call reset() before the next step()")
        shape = (len(self.schema.action),)
        checked = spaces.check_action(
            action, shape, self.schema, self.clip_actions, np.array(True), self._clip_warning
        )
        self.episodes.step(checked[None], np.ones(1, bool))
        now = self.episodes.state
        ends = bool(now.terminated[0]), bool(now.truncated[0])
        return self._observation(), float(now.reward[0]), *ends, self.episodes.info(0)

    def render(self) -> np.ndarray | None:
        """Gives the current frame, uint8 (H, W, 3); several cameras side by side."""
        if self.render_mode is None:
            return None
        return spaces.tile_cameras(self.episodes.state.pixels[0].numpy())

    def get_state(self) -> EnvState:
        """Gives all that the future depends on: save it, and branch from it as often as you like."""
        self._check_open()
        rng_states = [dict(self.np_random.bit_generator.state)]
        return EnvState(self.episodes.state.copy(), rng_states, self.world.fingerprint)

    def set_state(self, state: EnvState) -> None:
        """Goes on exactly from where `get_state` was called (in an environment of the same world).

        Raises TypeError for anything else, and ValueError for a state of another world, or one that holds
        what no episode does; then nothing was changed.
        """
        self._check_open()
        check_state(state, self.episodes)
        self.episodes.go_on_from(state.batch)
        self.np_random.bit_generator.state = state.rng_states[0]

    def close(self) -> None:
        """Ends the environment; a second time changes nothing. Its world may serve others."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedEnvironmentError("this environment was closed: make a new one")

    # ---- names that LeRobot asks for -----------------------------------------------------------------------

    @property
    def _max_episode_steps(self) -> int:
        return self.episodes.horizon

    @property
    def task(self) -> str:
        return self.episodes.task_texts[0]

    @property
    def task_description(self) -> str:
        return self.episodes.task_texts[0]

    def _observation(self) -> dict[str, Any]:
        now = self.episodes.state
        return spaces.observation(self.schema, now.pixels[0].numpy(), now.state[0])


def world_metadata(world: World, render_mode: str | None) -> dict[str, Any]:
    """Gives the frame rate, what this world can predict, and how its images were made.

    `views`: camera → (top, left, height, width) of its image in the frame; around it, letterboxed frames are
    black. `recorded`: camera → (height, width) in which it was recorded. `constant_actions`: name → value of
    each action that never moved, of which a line is logged. `camera_keys`: camera → what its dataset calls it
    (LeRobot's key). `objects`: what the numbers of `info["objects"]` are.
    """
    if render_mode not in (None, *WorldEnv.metadata["render_modes"]):
        raise ValueError(f"render_mode is 'rgb_array' or None; got {render_mode!r}")
    schema = world.schema
    constant = {schema.action[d]: schema.action_low[d] for d in schema.constant_actions}
    if constant:
        named = ", ".join([*constant][:5]) + (", …" if len(constant) > 5 else "")
        log_once(
            f"{len(constant)} of {len(schema.action)} actions never moved in the recordings ({named}): what "
            "is sent there is taken for the recorded value"
        )
    return {
        **WorldEnv.metadata,
        "render_fps": max(1, round(schema.fps)),
        "predicts_reward": schema.reward,
        "predicts_success": schema.success,
        "objects": tuple(world.codec.config.found),
        "views": schema.views,
        "recorded": schema.recorded_sizes,
        "constant_actions": constant,
        "camera_keys": schema.lerobot_keys,
    }


@cache
def log_once(line: str) -> None:
    """Logs a line that every further environment of the same world would only repeat."""
    log.warning(line)
