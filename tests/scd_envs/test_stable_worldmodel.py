"""stable-worldmodel's World takes the single environment as it is, and what it records becomes a store."""

import gymnasium
import numpy as np
import pytest

import scd_envs  # noqa: F401 (registers the ids)
from scd_datasets.preparation.check import check_dataset
from scd_datasets.sources.hdf5.recording import Hdf5Recording

EXTRA = "stable-worldmodel is an extra: pip install 'lerobot_env_scd_world[swm]'"
swm = pytest.importorskip("stable_worldmodel", reason=EXTRA)

ID, STEPS, ROWS = "scd_world/World-v0", 8, 2


class Counting(swm.policy.BasePolicy):
    """The k-th action of an episode, from 1, is k hundredths. Remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.observed = []

    def get_action(self, obs, **kwargs):
        self.observed.append({key: obs[key][:, 0].copy() for key in ("pixels", "agent_pos")})
        return np.full(self.env.action_space.shape, len(self.observed) / 100, np.float32)


@pytest.fixture
def settings(build_world):
    return {"world": build_world(height=40, width=48), "horizon": STEPS + 4, "success_threshold": 1.0}


@pytest.fixture
def their_world(settings):
    """Our observation has `pixels` already: theirs are not added."""
    world = swm.World(ID, ROWS, max_episode_steps=STEPS, add_pixels=False, **settings)
    yield world
    world.close()


@pytest.fixture
def played(settings):
    """(row, step, …): what our environment shows by itself from those seeds after those actions."""
    played = []
    for seed in range(ROWS):
        env = gymnasium.make(ID, **settings)
        env.reset(seed=seed)
        steps = [env.step(np.full(2, (k + 1) / 100, np.float32)) for k in range(STEPS)]
        played.append([(step[0]["pixels"], step[0]["agent_pos"], step[1]) for step in steps])
    return [[np.stack(column) for column in zip(*row, strict=True)] for row in played]


def test_their_policies_see_what_our_environment_shows(their_world, played):
    policy = Counting()
    their_world.set_policy(policy)
    their_world.evaluate(episodes=ROWS, seed=0)
    assert len(policy.observed) == STEPS
    for row, (pixels, agent, _) in enumerate(played):
        assert np.array_equal(np.stack([step["pixels"][row] for step in policy.observed[1:]]), pixels[:-1])
        assert np.array_equal(np.stack([step["agent_pos"][row] for step in policy.observed[1:]]), agent[:-1])


def test_their_evaluation_counts_our_successes(build_world):
    settings = {"world": build_world(height=40, width=48), "horizon": STEPS}
    for threshold, rate in ((1.0, 0.0), (0.0, 100.0)):
        world = swm.World(
            ID, ROWS, max_episode_steps=STEPS, add_pixels=False, success_threshold=threshold, **settings
        )
        world.set_policy(swm.policy.RandomPolicy(seed=0))
        result = world.evaluate(episodes=3, seed=0)
        assert result["success_rate"] == rate
        assert len(result["episode_successes"]) == 3


def test_what_their_world_records_of_ours_becomes_a_store(their_world, played, tmp_path):
    """An action one row off would be learned without a word."""
    pytest.importorskip("h5py", reason=EXTRA)
    their_world.set_policy(Counting())
    their_world.collect(tmp_path / "ours.h5", episodes=ROWS, seed=0, format="hdf5", progress=False)
    store = check_dataset(Hdf5Recording(tmp_path / "ours.h5", fps=10), tmp_path / "ours.zarr").store
    assert store.lengths.tolist() == [STEPS - 1] * ROWS
    windows = store.windows(np.arange(ROWS), np.zeros(ROWS, int), STEPS - 2)
    for row, (pixels, agent, reward) in enumerate(played):
        assert np.array_equal(windows["pixels"][row, :, 0], pixels[: STEPS - 1])
        assert np.allclose(windows["state"][row, :, :2], agent[: STEPS - 1])
        # pixels[i] is what action i + 1 led to; the one taken there is action i + 2
        assert np.allclose(windows["action"][row, :, 0], np.arange(2, STEPS) / 100)
        assert np.allclose(windows["reward"][row], reward[1 : STEPS - 1])
