"""One dataset, several tasks: what the model is given, and that a single task changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.writer import write_store
from scd_world.evaluation.outcome_prediction import predict_outcomes
from scd_world.model.scd import SCD
from scd_world.robot_data.compatibility import check_schema
from scd_world.robot_data.normalizer import Normalizer
from scd_world.world.world import World
from tests.conftest import CONFIG, SCHEMA, filled, make_clip, make_model

TWO = replace(SCHEMA, tasks=("lift", "push"))


@pytest.fixture
def model(stats: Normalizer) -> SCD:
    return filled(make_model(CONFIG, TWO, stats)).eval()


def test_a_single_task_adds_no_weight(stats):
    """Worlds that know no tasks must go on loading."""

    def shapes(tasks):
        model = make_model(CONFIG, replace(SCHEMA, tasks=tasks), stats)
        return {name: weight.shape for name, weight in model.state_dict().items()}

    assert shapes(()) == shapes(("push",))
    assert shapes(("push",)) != shapes(TWO.tasks)


def test_the_loss_knows_the_task(model):
    clip = make_clip(TWO, B=3, T=4)
    noise = model.sample_noise(clip, torch.Generator().manual_seed(0))
    given, _ = model.loss(clip, noise)
    other, _ = model.loss(replace(clip, task=1 - clip.task), noise)
    assert abs(given - other) > 1e-4


def test_a_row_is_imagined_by_its_own_task(model):
    """And a row's task stays with it when rows are picked."""
    clip, task = make_clip(TWO, B=2, T=1), torch.tensor([0, 1])
    obs, state = clip.obs[:1, 0].expand(2, -1, -1, -1), clip.state[:1, 0].expand(2, -1)
    act, noise = clip.action[:1, 0].expand(2, -1), torch.zeros(2, *clip.obs.shape[2:])
    s = model.initial(obs, state, None, task)
    second = model.imagine(s.select(torch.tensor([1])), act[:1], noise[:1])
    s = model.imagine(s, act, noise)
    assert (s.obs[0] - s.obs[1]).abs().max() > 1e-3
    assert (s.state[0] - s.state[1]).abs().max() > 1e-4
    torch.testing.assert_close(second.obs[0], s.obs[1], atol=1e-3, rtol=0)
    assert s.task.tolist() == [0, 1]


def test_stepping_appends_the_task_as_training_does(model):
    """The clip's one pass and the steps of `observe` must say the task in the same place."""
    clip = make_clip(TWO, B=3, T=4)
    noise = model.sample_noise(clip, torch.Generator().manual_seed(0))
    plain = replace(
        noise,
        ctx=torch.zeros_like(noise.ctx),
        corruption_level=torch.zeros_like(noise.corruption_level),
        state=torch.zeros_like(noise.state),
    )
    s, rewards = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev, clip.task), []
    for i in range(clip.num_steps):
        s = model.observe(s, clip.action[:, i], clip.obs[:, i + 1], clip.state[:, i + 1])
        rewards.append(s.reward)
    _, losses = model.loss(clip, plain)
    stepped = torch.nn.functional.mse_loss(torch.stack(rewards, 1), clip.reward)
    torch.testing.assert_close(losses["reward"], stepped, atol=1e-5, rtol=1e-4)


def test_a_world_is_not_judged_on_tasks_by_other_numbers(tmp_path):
    one = replace(TWO, tasks=("push",))
    with pytest.raises(ValueError, match=r"has the tasks \['push'\], this world learnt \['lift', 'push'\]"):
        check_schema(TWO, one, tmp_path)
    check_schema(SCHEMA, one, tmp_path)


def test_an_episode_is_judged_by_its_own_task(model, stats, tmp_path):
    """Reward and success are predicted from the recorded past under the task that was recorded."""

    def episode(index: int, task: int, n: int = 6) -> EpisodeArrays:
        r = np.random.default_rng(5)  # the same, whatever the task
        return EpisodeArrays(
            r.integers(0, 255, (n, 2, 8, 12, 3), dtype=np.uint8),
            r.uniform(-1, 1, (n, 3)).astype(np.float32),
            r.uniform((-2, 0), (2, 512), (n, 2)).astype(np.float32),
            r.uniform(size=n).astype(np.float32),
            r.random(n) > 0.8,
            index,
            task,
        )

    def success(*tasks: int) -> np.ndarray:
        name = tmp_path / ("_".join(map(str, tasks)) + ".zarr")
        store = write_store(name, TWO, [episode(i, task) for i, task in enumerate(tasks)])
        return predict_outcomes(
            World(model, stats, None), store, range(len(tasks)), 2, lambda n: None
        ).success.reshape(-1, 6)

    first, second = success(0, 1)
    assert np.abs(first - second).max() > 1e-4
    np.testing.assert_allclose([second, first], success(1, 0), atol=1e-5)


def test_a_world_is_not_judged_at_another_rate(tmp_path):
    with pytest.raises(ValueError, match="has fps 30, this world was trained with 10"):
        check_schema(SCHEMA, replace(SCHEMA, fps=30), tmp_path)
