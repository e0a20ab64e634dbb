"""One person in one world: acting, letting a policy act, rewinding, saving, branching. No web in it.

V cameras, A action size, S state size.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scd_envs.env_state import EnvState
from scd_envs.settings import is_whole
from scd_envs.spaces import observation, taken_action
from scd_envs.world_env import WorldEnv
from scd_policies import Policy
from scd_world.play.pictures import to_png
from scd_world.play.tape import Address, Moment, Tape
from scd_world.play.truth import Simulator
from scd_world.world.world import World

log = logging.getLogger(__name__)
PERSON = "person"
POLICY = "policy"
MOST_SAVES = 24  # save points of one player; the oldest make room
LARGEST_NUM_STEPS = 64  # denoising steps that a page may ask for


class Refused(ValueError):
    """Says why what a person asked for cannot be done; nothing was changed."""


@dataclass(frozen=True)
class SavePoint:
    """A moment to come back to, with all that led there."""

    name: str
    tape: Tape


class PlaySession:
    """Drives one imagined episode after the other in a world.

    world: may be shared; each session has an environment of its own.
    settings: of that environment (`scd_envs.settings`).
    seed: the n-th episode starts, and its policy acts, from seed + n.
    make_policy, policy_name: what acts while `driver` is "policy"; made when it first does.
    simulator: the truth beside the world, or None.
    keep: called with a tape that would otherwise be gone, where `recording` is on.
    """

    def __init__(
        self,
        world: World,
        settings: dict[str, Any],
        seed: int = 0,
        make_policy: Callable[[str | None], Policy] | None = None,
        policy_name: str = "",
        simulator: Simulator | None = None,
        keep: Callable[[Tape], None] | None = None,
        recording: bool = False,
    ) -> None:
        self.world, self.schema = world, world.schema
        self.settings = {**settings, "clip_actions": True}
        self.num_steps: int = settings.get("num_steps") or world.config.num_steps
        self.env = self._make_env()
        self._make_policy, self.policy_name = make_policy, policy_name
        self.policy: Policy | None = None
        self.policy_task: str | None = None  # that it was made for
        self.simulator, self.compares = simulator, simulator is not None
        self._keep, self.recording = keep, recording
        self.next_seed = seed
        self.driver = PERSON
        self.saves: dict[str, SavePoint] = {}
        self.saves_made = 0
        self.step_seconds = 0.0  # of the last step, the model's and the simulator's together
        self.obs: dict[str, Any] = {}
        self.here = 0  # the step that is looked at
        self.unsaid = ""  # what went wrong before there was anybody to be told
        self.tape: Tape = self._begin(self._sampled_start())
        try:
            self._arrive()
        except Refused as error:
            self.unsaid = str(error)

    # ---- looking ---------------------------------------------------------------------------------------

    @property
    def moment(self) -> Moment:
        return self.tape.moments[self.here]

    # ---- acting ----------------------------------------------------------------------------------------

    def step(self, action: Any = None) -> Moment:
        """Imagines the next frame: under `action` (A,) in raw units, or under the policy's where it drives.

        From an earlier moment the episode goes on from there, and what came after it is gone. Raises Refused
        where the episode is over, for an action of another size or that is not finite, and where the policy
        cannot act here (the person drives then); FloatingPointError where the world imagines what is no
        number. No step was taken then. A simulator that fails is switched off, and Refused says so later.
        """
        if self.moment.over:
            raise Refused("this episode is over: rewind, go back to a save point, or start again")
        began, before = time.perf_counter(), (self.tape, self.here)
        by_policy = self.driver == POLICY
        values = np.zeros(0) if by_policy else self._checked(action)
        try:
            self._go_on_from_here()
            if by_policy:
                values = self._policy_action()
            self.obs, reward, terminated, truncated, info = self.env.step(values)
        except (Refused, FloatingPointError):
            self.tape, self.here = before
            self._restore(len(self.tape))
            raise
        taken = taken_action(values, self.schema, clip=True)
        moment = Moment(
            self._pictures(),
            self.env.episodes.state.state[0].copy(),
            reward=reward,
            scalars={key: info[key] for key in predicted_scalars(self.env.world)},
            success=info["is_success"] and self.schema.success,
            terminated=terminated,
            truncated=truncated,
            action=taken,
            driver=self.policy_name if by_policy else PERSON,
            num_steps=self.num_steps,
        )
        self.tape.add(moment, self.env.get_state() if self.tape.wants_state() else None)
        self.here = len(self.tape)
        if moment.over and self.recording:
            self.keep()
        if self.compares:
            self._show_truth()
        self.step_seconds = time.perf_counter() - began
        return self.moment

    def drive_by(self, driver: str) -> None:
        """Lets the "person" or the "policy" act from now on."""
        if driver not in (PERSON, POLICY):
            raise Refused(f"{PERSON} or {POLICY} can drive; got {driver!r}")
        if driver == POLICY:
            self._wake_policy()
        self.driver = driver

    def set_num_steps(self, num_steps: Any) -> None:
        """Changes the denoising steps of each frame from now on."""
        if not is_whole(num_steps) or not 1 <= num_steps <= LARGEST_NUM_STEPS:
            expected = f"a whole number from 1 to {LARGEST_NUM_STEPS}"
            raise Refused(f"denoising steps are {expected}; got {num_steps!r}")
        if num_steps != self.num_steps:
            self._use_num_steps(num_steps)

    def compare(self, on: bool) -> None:
        """Shows the simulator beside the world from now on, or not."""
        if on and self.simulator is None:
            raise Refused("there is no simulator of this world")
        self.compares = on
        if on:
            self._show_truth()

    # ---- going elsewhere -------------------------------------------------------------------------------

    def reset(self, episode: Any = None, frame: Any = None, task: Any = None) -> Moment:
        """Begins an episode at a recorded moment, sampled where none is named; keeps the one before it.

        Raises Refused for a moment or a task that this world does not have.
        """
        if episode is None:
            start = self._sampled_start(task)
        else:
            start = {"episode": episode, "frame": frame or 0} | ({"task": task} if task else {})
        tape = self._begin(start)
        if self.recording:
            self.keep()
        self.tape, self.here = tape, 0
        self._arrive()
        return self.moment

    def look_at(self, step: Any) -> Moment:
        """Shows an earlier or later moment of the episode; going on from there cuts off what comes after."""
        if not is_whole(step) or not 0 <= step <= len(self.tape):
            raise Refused(f"this episode has the steps 0 to {len(self.tape)}; got {step!r}")
        self.here = step
        return self.moment

    def save(self) -> SavePoint:
        """Makes a save point of the moment that is looked at."""
        self.saves_made += 1
        saved = SavePoint(str(self.saves_made), self.tape.branch(self.here))
        self.saves[saved.name] = saved
        if len(self.saves) > MOST_SAVES:
            del self.saves[next(iter(self.saves))]
        return saved

    def load(self, name: Any) -> Moment:
        """Goes back to a save point, as often as you like; keeps the episode that is left.

        What is played on from there is an episode of its own; without a step, it is none.
        """
        if not isinstance(name, str) or name not in self.saves:
            raise Refused(f"there is no save point {name!r}; there are {', '.join(self.saves) or 'none'}")
        if self.recording:
            self.keep()
        saved = self.saves[name].tape
        self.tape, self.here = saved.branch(len(saved)), len(saved)
        self.tape.kept = len(self.tape)
        self._restore(self.here)
        if self.driver == POLICY:
            self._wake_policy()
        return self.moment

    def keep(self) -> bool:
        """Hands the episode that is played to the dataset, once; says whether it did."""
        tape = self.tape
        if self._keep is None or len(tape) <= tape.kept:
            return False
        tape.kept = len(tape)
        self._keep(tape.branch(len(tape)))
        return True

    def leave(self) -> None:
        """Ends the session, as if for good: what was played is kept where recording is on."""
        if self.recording:
            self.keep()

    def close(self) -> None:
        self.leave()
        if self.simulator is not None:
            self.simulator.close()

    # ---- pieces ----------------------------------------------------------------------------------------

    def _make_env(self) -> WorldEnv:
        return WorldEnv(self.world, **(self.settings | {"num_steps": self.num_steps}))

    def _use_num_steps(self, num_steps: int) -> None:
        """Goes on in an environment with so many denoising steps, from the same state."""
        state = self.env.get_state()
        self.num_steps = num_steps
        self.env = self._make_env()
        self.env.set_state(state)

    def _sampled_start(self, task: str | None = None) -> dict[str, Any]:
        return {"task": task} if task else {}

    def _begin(self, start: dict[str, Any]) -> Tape:
        """Begins an episode in the environment; gives its tape. Refused where there is no such start."""
        seed = self.next_seed
        try:
            self.obs, info = self.env.reset(seed=seed, options=start)
        except (ValueError, TypeError) as error:
            raise Refused(str(error)) from error
        self.next_seed += 1
        moment = Moment(self._pictures(), self.env.episodes.state.state[0].copy())
        task = self.env.task if self.schema.tasks else None
        address = Address(info["start_episode"], info["start_frame"], seed, task)
        return Tape(address, moment, self.env.get_state())

    def _arrive(self) -> None:
        """Brings the simulator and the policy, where there are any, to a new episode's start."""
        if self.driver == POLICY:
            self._wake_policy()
        if self.compares:
            self._show_truth()

    def _go_on_from_here(self) -> None:
        """Makes the moment that is looked at the last one, in the environment too."""
        if self.here < len(self.tape):
            self.tape = self.tape.branch(self.here)
            self._restore(self.here)
            if self.driver == POLICY:
                self._wake_policy()

    def _restore(self, step: int) -> None:
        """Brings the environment to a step of the tape: from a kept state, by the actions since."""
        chosen = self.num_steps
        kept, state = self.tape.state_before(step)
        self._set_state(state)
        for moment in self.tape.moments[kept + 1 : step + 1]:
            if moment.num_steps != self.num_steps:
                self._use_num_steps(int(moment.num_steps or chosen))
            self.obs, *_ = self.env.step(moment.action)
        if chosen != self.num_steps:
            self._use_num_steps(chosen)

    def _set_state(self, state: EnvState) -> None:
        self.env.set_state(state)
        now = self.env.episodes.state
        self.obs = observation(self.schema, now.pixels[0].numpy(), now.state[0])

    def _show_truth(self) -> None:
        """Brings the simulator to the moment that is looked at, and puts there what it says."""
        assert self.simulator is not None
        actions = [m.action for m in self.tape.moments[1 : self.here + 1] if m.action is not None]
        try:
            truth = self.simulator.follow(self.tape.moments[0].state, actions)
        except Exception as error:  # of anybody's own code
            log.warning("the simulator failed", exc_info=True)
            self.compares = False
            raise Refused(f"the simulator failed, and is off now: {error!r}") from error
        self.tape.moments[self.here] = replace(self.moment, truth=truth)

    def _wake_policy(self) -> None:
        """Lets the policy begin at the moment that is looked at, made anew for another task than the last
        one's; Refused where it cannot be made."""
        if self._make_policy is None:
            raise Refused("no policy was named: start the page with policy=…")
        try:
            task = self.tape.address.task
            if self.policy is None or task != self.policy_task:
                self.policy, self.policy_task = self._make_policy(task), task
            self.policy.reset([self.tape.address.seed + self.here])
        except Exception as error:  # of anybody's own code
            log.warning("%s cannot begin", self.policy_name, exc_info=True)
            self.driver = PERSON
            raise Refused(f"{self.policy_name} cannot drive this world: {error!r}") from error

    def _policy_action(self) -> np.ndarray:
        assert self.policy is not None
        try:
            return self._checked(self.policy.act(batch_of_one(self.obs))[0])
        except Exception as error:  # of anybody's own code
            log.warning("%s cannot drive", self.policy_name, exc_info=True)
            self.driver = PERSON
            raise Refused(f"{self.policy_name} cannot drive here, so you do: {error!r}") from error

    def _checked(self, action: Any) -> np.ndarray:
        try:
            values = np.asarray(action, np.float64)
        except (TypeError, ValueError):
            values = np.zeros(0)
        if values.shape != (len(self.schema.action),) or not np.isfinite(values).all():
            raise Refused(
                f"an action is {len(self.schema.action)} finite numbers, one for each of "
                f"{', '.join(self.schema.action)}; got {action!r:.80}"
            )
        return np.clip(values, *map(np.array, self.schema.action_bounds))

    def _pictures(self) -> tuple[bytes, ...]:
        return tuple(map(to_png, self.env.episodes.state.pixels[0].numpy()))


def batch_of_one(obs: dict[str, Any]) -> dict[str, Any]:
    """Gives an observation with a leading axis of one row, as policies take it."""
    return {k: batch_of_one(v) if isinstance(v, dict) else np.asarray(v)[None] for k, v in obs.items()}


def predicted_scalars(world: World) -> list[str]:
    """Names what a world's `info` tells of every step, beside the reward."""
    told = {
        "success_probability": world.schema.success,
        "uncertainty": bool(world.schema.state) and world.model.prior.has_uncertainty,
        "image_uncertainty": world.model.tells_image_error,
    }
    return [name for name, tells in told.items() if tells]
