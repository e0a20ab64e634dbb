"""A person's episode: what is rewound, saved and branched is to the bit what was; nothing that was played is
lost; a mistake changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from scd_envs.world_env import WorldEnv
from scd_world.play.session import MOST_SAVES, Refused
from scd_world.play.tape import MOST_STATES


def actions(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 2)).astype(np.float32)


def seen(session) -> list:
    return [(moment.pictures, moment.state.tolist(), moment.reward) for moment in session.tape.moments]


def test_an_episode_is_the_environment_s(world, play):
    """The person sees what `scd-rollout` would write under the same actions and seed."""
    session = play(world, seed=3)
    env = WorldEnv(world, horizon=1000, success_threshold=1.0)
    env.reset(seed=3)
    for action in actions(5):
        moment = session.step(action)
        obs, reward, *_, info = env.step(action)
        assert np.array_equal(moment.state, np.concatenate([obs["agent_pos"], obs["environment_state"]]))
        assert (moment.reward, moment.scalars["uncertainty"]) == (reward, info["uncertainty"])
    assert (session.tape.address.episode, session.tape.address.frame) == (
        info["start_episode"],
        info["start_frame"],
    )


def test_going_on_from_an_earlier_moment_imagines_the_same(world, play):
    """Also where the environment was kept long before, and with other denoising steps on the way there."""
    session = play(world)
    taken = actions(2 * MOST_STATES + 7)
    for step, action in enumerate(taken):
        if step in (10, 30):
            session.set_num_steps(1 if step == 10 else 3)
        session.step(action)
    before = seen(session)
    assert len(session.tape.states) <= MOST_STATES
    here = len(taken) - 6
    assert here not in session.tape.states
    session.look_at(here)
    for action in taken[here:]:
        session.step(action)
    assert seen(session) == before
    session.look_at(20)  # where there was one denoising step; now there are three
    session.step(taken[20])
    assert len(session.tape) == 21
    assert seen(session)[:21] == before[:21]
    assert seen(session)[21] != before[21]
    assert session.moment.num_steps == 3


def test_a_save_point_can_be_gone_on_from_again_and_again(world, play):
    session = play(world)
    for action in actions(4):
        session.step(action)
    saved = session.save()
    session.step([1, 1])
    first = seen(session)
    session.look_at(1)
    session.step([0, 0])  # cuts off what the save point remembers
    session.reset(5, 2)
    for _ in range(2):
        session.load(saved.name)
        assert len(session.tape) == 4
        session.step([1, 1])
        assert seen(session) == first
    with pytest.raises(Refused, match="no save point '9'; there are 1"):
        session.load("9")
    for _ in range(MOST_SAVES):
        session.save()
    assert len(session.saves) == MOST_SAVES
    assert saved.name not in session.saves


def test_every_recorded_moment_is_a_start(world, play):
    session = play(world)
    for episode, frame in world.starts.addresses[[0, 7, -1]].tolist():
        moment = session.reset(episode, frame)
        assert np.array_equal(moment.state, world.starts.get(episode, frame).state[-1])
        assert len(moment.pictures) == 2
    assert session.reset(8, 0, task="push").reward == 0
    assert session.tape.address.task == "push"


def test_mistakes_change_nothing(world, play):
    session = play(world)
    for action in actions(3):
        session.step(action)
    before, state = seen(session), session.env.get_state()
    for wrong in (None, [1], [1, float("nan")], ["a", "b"], {"x": 1}, [[1, 1]]):
        with pytest.raises(Refused, match="an action is 2 finite numbers"):
            session.step(wrong)
    with pytest.raises(Refused, match="no start at episode 3, frame 99"):
        session.reset(3, 99)
    with pytest.raises(Refused, match="not trained on the task 'fly'"):
        session.reset(task="fly")
    for wrong in (-1, 4, 1.5, None, "2"):
        with pytest.raises(Refused, match="steps 0 to 3"):
            session.look_at(wrong)
    for wrong in (0, 65, 2.0, True, None):
        with pytest.raises(Refused, match="from 1 to 64"):
            session.set_num_steps(wrong)
    with pytest.raises(Refused, match="no policy"):
        session.drive_by("policy")
    with pytest.raises(Refused, match="no simulator"):
        session.compare(True)
    assert seen(session) == before
    assert np.array_equal(session.env.get_state().batch.pixels, state.batch.pixels)
    assert session.driver == "person"


def test_far_outside_the_range_is_clipped(world, play):
    assert play(world).step([1e9, -1e9]).action.tolist() == [1, -1]


class Pusher:
    """Pushes by its seed; stops understanding when it is told to."""

    def __init__(self) -> None:
        self.lost = ""

    def reset(self, seeds):
        self.seeds = list(seeds)

    def act(self, obs):
        if self.lost == "blind":
            raise RuntimeError("I see nothing")
        if self.lost == "mad":
            return np.full((1, 2), np.nan)
        assert obs["pixels"]["wrist"].shape == (1, 16, 24, 3)
        return np.full((1, 2), 0.25 * len(self.seeds))


def test_a_policy_drives_until_the_person_takes_over(world, play):
    pusher = Pusher()
    session = play(world, make_policy=lambda task: pusher, policy_name="pusher")
    session.drive_by("policy")
    session.step([1, 1])
    session.drive_by("person")
    session.step([1, 1])
    assert [(m.driver, m.action.tolist()) for m in session.tape.moments[1:]] == [
        ("pusher", [0.25, 0.25]),
        ("person", [1, 1]),
    ]
    for pusher.lost, why in (("blind", "I see nothing"), ("mad", "2 finite numbers")):
        session.drive_by("policy")
        with pytest.raises(Refused, match=rf"pusher cannot drive here, so you do: .*{why}"):
            session.step()
        assert session.driver == "person"
        assert len(session.tape) == 2
    session.step([0, 0])  # and nothing is stuck


def test_a_policy_that_cannot_be_made_is_said(world, play):
    def make(task):
        raise ValueError("no such folder")

    session = play(world, make_policy=make, policy_name="p")
    with pytest.raises(Refused, match=r"p cannot drive this world: .*no such folder"):
        session.drive_by("policy")
    assert session.driver == "person"


@pytest.mark.parametrize("lost", ["blind", "mad", "gone"])
def test_a_step_that_a_policy_refuses_from_an_earlier_moment_cuts_nothing(world, play, lost):
    class Forgetful(Pusher):
        def reset(self, seeds):
            if self.lost == "gone":
                raise RuntimeError("out of memory")
            super().reset(seeds)

    pusher = Forgetful()
    session, again = play(world, make_policy=lambda task: pusher, policy_name="p"), play(world)
    for action in actions(6):
        session.step(action)
        again.step(action)
    session.drive_by("policy")
    session.look_at(2)
    pusher.lost = lost
    with pytest.raises(Refused):
        session.step()
    assert (len(session.tape), session.here) == (6, 2)
    session.look_at(6)
    for one in (session, again):
        one.step([1, -1])
    assert seen(session) == seen(again)


def test_a_policy_is_made_for_the_task_of_the_episode_that_it_drives(world, play):
    made = []
    session = play(world, make_policy=lambda task: made.append(task) or Pusher(), policy_name="p")
    session.reset(task="pull")
    session.drive_by("policy")
    session.reset(task="pull")
    session.reset(task="push")
    session.step()
    assert made == ["pull", "push"]


def test_what_was_played_is_kept_once(world, play):
    kept = []
    session = play(world, keep=lambda tape: kept.append(len(tape)), recording=True)
    session.reset()  # nothing was played
    for action in actions(3):
        session.step(action)
    session.save()
    session.step([0, 0])
    session.reset()
    assert kept == [4]
    for _ in range(2):
        session.load("1")
    session.leave()
    assert kept == [4]  # nothing was played from there
    session.step([0, 0])
    session.leave()
    session.leave()
    assert kept == [4, 4]
    session.step([0, 0])
    assert session.keep()
    assert not session.keep()
    session.look_at(2)  # undone: what follows is another episode
    session.step([1, 0])
    session.leave()
    assert kept == [4, 4, 5, 3]


def test_without_recording_only_what_is_asked_for_is_kept(world, play):
    kept = []
    session = play(world, keep=lambda tape: kept.append(len(tape)))
    session.step([0, 0])
    session.reset()
    session.leave()
    assert kept == []
    session.step([0, 0])
    assert session.keep()
    assert kept == [1]


def test_an_episode_ends_and_can_be_rewound(world, play):
    kept = []
    session = play(world, settings={"horizon": 3}, keep=kept.append, recording=True)
    for action in actions(3):
        moment = session.step(action)
    assert moment.truncated
    assert len(kept) == 1
    with pytest.raises(Refused, match="over"):
        session.step([0, 0])
    session.look_at(1)
    assert not session.step([0, 0]).over


def test_a_world_of_pictures_alone_can_be_played(bare_world, play):
    session = play(bare_world)
    moment = session.step([0, 1])
    assert (moment.reward, moment.scalars, moment.success) == (0, {}, False)
    assert len(moment.state) == 0
    assert session.tape.address.task is None


def test_a_world_that_imagines_no_number_says_so_and_stays(world, play, monkeypatch):
    session = play(world)
    session.step([0, 0])
    monkeypatch.setattr(world, "readout", lambda s: (_ for _ in ()).throw(FloatingPointError("not finite")))
    with pytest.raises(FloatingPointError):
        session.step([0, 0])
    monkeypatch.undo()
    assert len(session.tape) == 1
    again = play(world)
    again.step([0, 0])
    again.step([1, 1])
    session.step([1, 1])
    assert seen(session) == seen(again)
