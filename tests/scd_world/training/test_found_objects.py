"""A training that finds out by itself where objects lie; what goes in and out is as recorded."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import scd_envs  # noqa: F401 registers the environments
from scd_datasets.config import DataConfig
from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.store import WindowStore
from scd_datasets.store.writer import write_store
from scd_policies.planners.imagination import StateImagination
from scd_world.codec.config import CodecTrainConfig
from scd_world.distill.config import DistillConfig
from scd_world.distill.distill import distill
from scd_world.evaluation.config import EvaluateConfig
from scd_world.evaluation.evaluate import evaluate
from scd_world.prior.config import PriorTrainConfig
from scd_world.training import found_objects
from scd_world.training.config import TrainConfig
from scd_world.training.found_objects import RobotPictures, find_objects, follow_objects
from scd_world.training.trainer import train
from scd_world.world.state_path import StatePath
from scd_world.world.world import World
from tests.scd_world.conftest import SLIDE, TINY

pytestmark = pytest.mark.usefixtures("hasty_discovery")
SIDE, LENGTH, EPISODES = 32, 16, 24
TABLE = replace(SLIDE, height=SIDE, width=SIDE, agent_pos=("row", "column"), horizon=LENGTH)
QUICK = {
    name: replace(getattr(PriorTrainConfig(), name), steps=2) for name in ("dynamics", "outcome", "renderer")
}
PRIOR = replace(PriorTrainConfig(), layers=1, width=32, renderer_parts=2, **QUICK)
PUSHED = replace(TABLE, action=("down", "right"), action_low=(-1.0, -1.0), action_high=(1.0, 1.0))


def pushing_episode(index: int) -> EpisodeArrays:
    """A bar of two colors that creeps about, upright or not; a small robot that goes where it likes."""
    rng = np.random.default_rng(index)
    action = rng.uniform(-1, 1, (LENGTH, 2)).astype(np.float32)
    robot, bar = rng.uniform(4, SIDE - 5, 2), rng.integers(8, SIDE - 8, 2)
    upright = index % 2
    pixels = np.full((LENGTH, 1, SIDE, SIDE, 3), 200, np.uint8)
    state = np.zeros((LENGTH, 2), np.float32)
    for i in range(LENGTH):
        height, width = (9, 5) if upright else (5, 9)
        y, x = bar
        body = pixels[i, 0, y - height // 2 : y + height // 2 + 1, x - width // 2 : x + width // 2 + 1]
        body[:] = (30, 60, 90)
        (body[:3] if upright else body[:, :3])[:] = (220, 40, 40)
        at = robot.round().astype(int)
        pixels[i, 0, at[0] : at[0] + 2, at[1] : at[1] + 2] = (0, 160, 0)
        state[i] = robot
        robot = (robot + action[i]).clip(1, SIDE - 3)
        bar = (bar + rng.integers(-1, 2, 2)).clip(6, SIDE - 7)
    return EpisodeArrays(pixels, state, action, np.zeros(LENGTH, np.float32), np.zeros(LENGTH, bool), index)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "table.zarr"
    write_store(path, PUSHED, map(pushing_episode, range(EPISODES)))
    return path


@pytest.fixture
def seeing(training, table) -> Callable[..., TrainConfig]:
    """As `training`, of the table, with one object that is sought."""

    def build(out: str = "run", **changes: object) -> TrainConfig:
        data = DataConfig(kind="zarr", root=str(table), holdout=0.25)
        values = {"data": data, "codec": CodecTrainConfig(objects=1), "model": replace(TINY, patch=16)}
        return training(out, **(values | changes))

    return build


@pytest.fixture(scope="module")
def once(table, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The config of a training of two updates that seeks an object."""
    return TrainConfig(
        data=DataConfig(kind="zarr", root=str(table), holdout=0.25), codec=CodecTrainConfig(objects=1),
        model=replace(TINY, patch=16, state_weight=0.0, reward_weight=0.0, success_weight=0.0),
        prior=PRIOR, steps=2, batch_size=2, sequence_length=4, device="cpu", num_start_states=4,
        out=str(tmp_path_factory.mktemp("found") / "run"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(once) -> Path:
    """A world that finds an object."""
    return train(once)


@pytest.fixture
def world(folder: Path) -> World:
    return World.load(folder)


def true_middle(pixels: np.ndarray) -> np.ndarray:
    """(…, 2): the middle of what is red or blue in pictures (…, H, W, 3), px."""
    body = (pixels[..., 1] < 100) & (pixels[..., 0] != 0)
    rows, columns = np.arange(SIDE)[:, None] + 0.5, np.arange(SIDE) + 0.5
    count = body.sum((-2, -1))
    return np.stack([(body * rows).sum((-2, -1)) / count, (body * columns).sum((-2, -1)) / count], -1)


def test_in_a_single_episode_nothing_is_taken_for_an_object(table):
    store = WindowStore.open(table)
    with pytest.raises(ValueError, match=r"in 1 training episode.*set codec\.objects=0"):
        find_objects(store, np.arange(1), 1, 0)


def test_what_goes_in_and_out_is_as_recorded(world, folder):
    assert world.schema == PUSHED
    assert world.model.schema.environment_state == world.codec.config.found
    assert [name.rsplit(" ", 2)[0] for name in world.codec.config.found] == ["top object 0"] * 4
    env = gymnasium.make("scd_world/World-v0", world=str(folder), device="cpu")
    obs, _ = env.reset(seed=0)
    assert set(obs) == {"pixels", "agent_pos"}
    obs, *_ = env.step(env.action_space.sample())
    assert env.observation_space.contains(obs)
    assert "finds objects in its pictures by itself" in (folder / "README.md").read_text()


def test_an_environment_says_where_the_objects_are(world):
    """At the start as they were found, then as they are imagined; alike in one row and in many."""
    many = gymnasium.make_vec("scd_world/World-v0", 2, world=world)
    one = gymnasium.make("scd_world/World-v0", world=world)
    assert one.metadata["objects"] == world.codec.config.found
    start = dict(zip(("episode", "frame"), map(int, world.starts.addresses[3]), strict=True))
    _, first = one.reset(seed=3, options=start)
    shown = world.starts.get(*start.values())
    np.testing.assert_allclose(first["objects"], shown.found[-1], atol=1e-3)
    _, infos = many.reset(seed=[3, 4], options={key: [value] * 2 for key, value in start.items()})
    action = one.action_space.sample()
    _, _, _, _, then = one.step(action)
    *_, thens = many.step(np.stack([action] * 2))
    assert infos["objects"].shape == thens["objects"].shape == (2, 4)
    np.testing.assert_allclose(infos["objects"][0], first["objects"], atol=1e-4)
    np.testing.assert_allclose(thens["objects"][0], then["objects"], atol=1e-3)
    imagined = one.unwrapped.episodes.state.rollout.state
    np.testing.assert_array_equal(then["objects"], world.stats.decode_state(imagined)[0, 2:])
    saved = one.unwrapped.get_state()
    one.step(action)
    one.unwrapped.set_state(saved)
    np.testing.assert_array_equal(one.unwrapped.episodes.info(0)["objects"], then["objects"])


def test_what_is_found_is_where_it_lies(world):
    found, pixels = world.starts.found[:, :2], world.starts.pixels[:, 0]
    off = found - true_middle(pixels)
    assert np.abs(off - np.median(off, 0)).max() < 0.5


def test_a_start_whose_things_nobody_looked_for_begins_in_the_same_place(world):
    address = world.starts.addresses[3]
    known = world.starts.get(*address, context=4)
    unknown = replace(known, found=None)
    states = [world.stats.decode_state(world.reset([start]).state) for start in (known, unknown)]
    assert (states[0] - states[1]).abs().max() < 0.5


def test_rows_and_the_state_alone_start_from_the_same(world):
    start = replace(world.starts.get(*world.starts.addresses[3], context=3), found=None)
    s = world.reset([start])
    again = world.reset([world.starts.get(*world.starts.addresses[0])])
    world.reset_rows(again, [0], [start])
    alone = StatePath(world).reset([start])
    planned = StateImagination(world, with_uncertainty=False)
    assert planned.needs_images
    for other in (again.state, alone.state, planned.begin(start, 1, 0).state):
        assert torch.equal(other, s.state)
    assert world.outputs(s)["state"].shape == (1, 2)
    observed = planned.observation(planned.begin(start, 1, 0))
    assert observed["agent_pos"].shape == (1, 2)
    assert np.abs(observed["objects"][0, :2] - true_middle(start.pixels[-1, 0])).max() < 3


def test_an_environment_s_state_is_saved_and_taken_up(folder):
    env = gymnasium.make("scd_world/World-v0", world=str(folder), device="cpu").unwrapped
    env.reset(seed=0)
    saved, action = env.get_state(), env.action_space.sample()
    first = env.step(action)[0]
    env.set_state(saved)
    assert np.array_equal(env.step(action)[0]["pixels"], first["pixels"])


def test_an_evaluation_reads_pictures_and_says_how_far_things_are_off(folder, table, tmp_path):
    config = EvaluateConfig(
        world=str(folder), out=str(tmp_path / "evaluation"), windows=2, horizon=3, context=2,
        data=DataConfig(kind="zarr", root=str(table)), sweep_starts=1, sweep_values=2, sweep_steps=2,
        num_videos=1, device="cpu", still_moments=0,
    )  # fmt: skip
    evaluate(config)
    report = json.loads((tmp_path / "evaluation" / "report.json").read_text())
    assert len(report["curves"]["object_distance_imagined"]["mean"]) == 3
    assert "finds objects in its pictures" in report["world"]["given"]
    assert "objects found, px" in (tmp_path / "evaluation" / "report.md").read_text()


def test_a_student_finds_what_its_teacher_finds(folder, table, tmp_path):
    config = DistillConfig(
        world=str(folder), data=DataConfig(kind="zarr", root=str(table), holdout=0.25), steps=1, batch_size=2,
        out=str(tmp_path / "student"), device="cpu", report_windows=1, report_horizon=2, report_steps=(1,),
        sequence_length=4,
    )  # fmt: skip
    student, teacher = World.load(distill(config)), World.load(folder)
    assert student.codec.fingerprint == teacher.codec.fingerprint
    assert student.model.schema == teacher.model.schema


def test_a_training_that_starts_from_a_world_finds_what_it_finds(folder, seeing, caplog):
    world = World.load(folder)
    config = seeing("on", init=str(folder), model=world.config, prior=PRIOR, steps=1)
    on = World.load(train(config))
    assert on.codec.fingerprint == world.codec.fingerprint
    assert on.model.schema == world.model.schema
    assert torch.equal(on.stats.state_low, world.stats.state_low)
    assert "outside the range" not in caplog.text  # it learns from the same episodes


def test_a_run_that_was_killed_while_it_looked_goes_on_where_it_was(world, table, tmp_path, monkeypatch):
    store, out, finder = WindowStore.open(table), tmp_path / "latents.zarr", world.codec.finder
    episodes, _ = store.split(0.25)
    monkeypatch.setattr(found_objects, "TOGETHER", 8)
    whole = follow_objects(store, finder, episodes, out)
    calls: list[int] = []
    follow = found_objects.follow_episodes

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return follow(*arguments)

    monkeypatch.setattr(found_objects, "follow_episodes", killed)
    with pytest.raises(KeyboardInterrupt):
        follow_objects(store, finder, episodes, out)
    assert np.array_equal(follow_objects(store, finder, episodes, out), whole)
    assert len(calls) == 4  # two of three had been kept
    assert not list(tmp_path.iterdir())


def test_no_held_out_episode_tells_what_to_expect(table):
    store = WindowStore.open(table)
    episodes, held_out = store.split(0.25)
    pictures = RobotPictures(store, episodes, 0)
    assert not set(pictures.recorded[0].episode.tolist()) & set(held_out.tolist())


def test_pictures_without_a_thing_are_refused_before_anything_is_learnt(training):
    with pytest.raises(ValueError, match=r"nothing rigid was found that moves on its own.*codec\.objects=0"):
        train(training(codec=CodecTrainConfig(objects=1)))


def test_a_camera_that_moves_is_left_alone_and_said(table, tmp_path, caplog):
    """Its background is nobody's; the other camera's objects are found all the same."""
    caplog.set_level(logging.INFO)
    schema = replace(PUSHED, cameras=("top", "wrist"))

    def with_wrist(index: int) -> EpisodeArrays:
        episode = pushing_episode(index)
        rows = np.arange(SIDE)[:, None] + np.arange(SIDE)
        shift = np.random.default_rng(index).integers(0, SIDE, LENGTH)
        wrist = (8 * ((rows + shift[:, None, None]) % SIDE))[:, None, :, :, None].astype(np.uint8)
        return replace(episode, pixels=np.concatenate([episode.pixels, wrist.repeat(3, -1)], 1))

    store = write_store(tmp_path / "two.zarr", schema, map(with_wrist, range(EPISODES)))
    finder = find_objects(store, np.arange(EPISODES), 1, 0)
    assert [known.camera for known in finder.objects] == [0]
    assert "wrist does not stand still" in caplog.text
    assert "top: found an object" in caplog.text


def test_recordings_without_images_are_refused_beside_it(seeing):
    config = seeing()
    with pytest.raises(ValueError, match=r"were recorded without images.*codec\.objects=1"):
        replace(config, prior=replace(config.prior, extra_datasets=["data/blind"]))


def test_a_run_goes_on_with_the_things_that_it_began_with(once, folder, world, tmp_path):
    run = shutil.copytree(folder.parent, tmp_path / "run", symlinks=True)
    longer = World.load(train(replace(once, out=str(run), steps=3)))
    assert longer.codec.fingerprint == world.codec.fingerprint
    assert longer.provenance["steps"] == 3
