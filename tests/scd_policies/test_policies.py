"""Random walk and replay: bounded, seeded, each row on its own; wrong use is answered in words."""

import gymnasium
import numpy as np
import pytest

from scd_policies import check_name, is_checkpoint, make

BOX = gymnasium.spaces.Box(np.array([0, -2], np.float32), np.array([512, 2], np.float32))


def obs_of(rows: int) -> dict[str, np.ndarray]:
    return {"agent_pos": np.zeros((rows, 3), np.float32)}


def walk(seeds, steps=200, **kwargs) -> np.ndarray:
    policy = make("random_walk", BOX, **kwargs)
    policy.reset(seeds)
    return np.stack([policy.act(obs_of(len(seeds))) for _ in range(steps)])


def test_the_walk_stays_inside_and_covers_the_box():
    actions = walk(range(8), steps=2000)
    assert actions.dtype == BOX.dtype
    assert all(BOX.contains(action) for action in actions.reshape(-1, 2))
    part = (actions - BOX.low) / (BOX.high - BOX.low)
    assert (np.histogram(part, bins=10, range=(0, 1))[0] > 0.05 * part.size).all()


def test_the_walk_is_smooth():
    part = (walk(range(8)) - BOX.low) / (BOX.high - BOX.low)
    assert 0.03 < np.sqrt((np.diff(part, axis=0) ** 2).mean()) < 0.06


def test_the_walk_is_seeded_and_rows_are_independent():
    together = walk([3, 4, 5])
    np.testing.assert_array_equal(together[:, 1:2], walk([4]))
    assert not np.allclose(together[:, 0], together[:, 1])


def test_the_walk_samples_otherwise_than_an_environment_with_its_seed():
    assert not np.allclose(walk([0])[0, 0, 0] / 512, np.random.default_rng(0).uniform())


def test_replay_plays_its_recordings_and_holds_the_last_action():
    actions = [np.full((2, 2), 0.5), np.arange(6).reshape(3, 2) / 10]
    policy = make("replay", BOX, actions=actions)
    policy.reset([1, 0])
    played = np.stack([policy.act(obs_of(2)) for _ in range(4)])
    np.testing.assert_allclose(played[:, 0], [[0, 0.1], [0.2, 0.3], [0.4, 0.5], [0.4, 0.5]], atol=1e-6)
    np.testing.assert_allclose(played[:, 1], 0.5)
    with pytest.raises(ValueError, match="index of an episode"):
        policy.reset([2])


def test_wrong_use_is_answered_in_words():
    with pytest.raises(
        ValueError,
        match="there are random_walk, scripted_pusht, scripted_so101, replay, nearest_neighbor, lerobot",
    ):
        make("expert", BOX)
    with pytest.raises(ValueError, match="'clone' is called 'nearest_neighbor' now"):
        make("clone", BOX)
    assert not is_checkpoint("clone")  # nor is it looked for on the Hub
    with pytest.raises(ValueError, match="bounded"):
        make("random_walk", gymnasium.spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(ValueError, match=r"expected actions \(T ≥ 1, 2\)"):
        make("replay", BOX, actions=[np.zeros((4, 3))])
    policy = make("random_walk", BOX)
    policy.reset([0, 1])
    with pytest.raises(ValueError, match="3 rows"):
        policy.act(obs_of(3))


def test_a_users_own_policy_is_named_by_module_and_class(tmp_path, monkeypatch):
    (tmp_path / "my_robot.py").write_text(
        "import numpy as np\n"
        "class Still:\n"
        "    def __init__(self, action_space, at): self.at = np.float32([at] * action_space.shape[0])\n"
        "    def reset(self, seeds): self.rows = len(seeds)\n"
        "    def act(self, obs): return np.stack([self.at] * self.rows)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    policy = make("my_robot:Still", BOX, at=1.5)
    policy.reset([0, 1])
    assert policy.act(obs_of(2)).tolist() == [[1.5, 1.5]] * 2
    assert not is_checkpoint("my_robot:Still")
    assert is_checkpoint("user/name")
    for name in ("user/name", "my_robot:Still", "random_walk", str(tmp_path)):
        check_name(name)
    with pytest.raises(ValueError, match=r"no policy is called 'random_wlk'; there are random_walk"):
        check_name("random_wlk")
    with pytest.raises(ValueError, match=r"my_robot has no 'Moving'"):
        make("my_robot:Moving", BOX)
    with pytest.raises(ValueError, match=r"expected a class with reset"):
        make("os:system", BOX)
    with pytest.raises(ValueError, match=r"no module 'their_robot'.*PYTHONPATH"):
        make("their_robot:Still", BOX)
    with pytest.raises(ValueError, match=r"no policy is called 'still'.*module:name"):
        make("still", BOX)
    with pytest.raises(ValueError, match=r"policy 'lerobot' needs path=…"):
        make("lerobot", BOX)
    with pytest.raises(ValueError, match=r"policy 'my_robot:Still' needs at=…"):
        make("my_robot:Still", BOX)
