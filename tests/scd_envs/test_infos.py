"""Infos built for all rows at once are those that Gymnasium collects row by row, in content and in type."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, VectorEnv

from scd_envs import infos

ENDS = {"success_threshold": 0.93, "horizon": 5}
COLUMNS = {
    "is_success": np.array([True, False, True, True]),
    "success_probability": np.array([0.1, 0.2, 0.3, 0.4]),
    "start_episode": np.array([3, 5, 8, 3]),
}
FINAL = ("final_obs", "_final_obs", "final_info", "_final_info")
LAST = {"pixels": np.arange(24, dtype=np.uint8).reshape(4, 6), "cameras": {"top": np.ones((4, 2))}}


def collected(rows, last=None) -> dict:
    """As Gymnasium's SyncVectorEnv does it, from each row's own info; last: the last observations of all."""
    envs, found = VectorEnv(), {}
    envs.num_envs = 4
    for row in rows:
        info = {key: values[row].item() for key, values in COLUMNS.items()}
        if last is not None:
            info = {"final_obs": infos.row_of(last, row), "final_info": info}
        found = envs._add_info(found, info, row)
    return found


@pytest.mark.parametrize("rows", [[], [2], [0, 1, 2, 3], [3, 1]], ids=str)
def test_infos_are_those_that_gymnasium_collects(rows):
    chosen = np.array(rows, int)
    assert data_equivalence(infos.batched(COLUMNS, chosen), collected(rows), exact=True)
    last = {"pixels": LAST["pixels"][chosen], "cameras": {"top": LAST["cameras"]["top"][chosen]}}
    ours, theirs = infos.final(COLUMNS, last, chosen), collected(rows, LAST)
    assert ours.keys() == theirs.keys()
    for key in ours:
        if key != "final_obs":
            assert data_equivalence(ours[key], theirs[key], exact=True), key
    for one, other in zip(ours.get("final_obs", ()), theirs.get("final_obs", ()), strict=True):
        assert data_equivalence(one, other, exact=True)


def test_infos_are_the_callers_own():
    kept = COLUMNS["start_episode"].copy()
    found = infos.batched(COLUMNS, np.arange(4))
    found["start_episode"][:] = 0
    found["_start_episode"][:] = False
    assert (COLUMNS["start_episode"] == kept).all()
    assert found["_is_success"].all()


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda m: m.name)
def test_an_environments_infos_are_its_rows_own(world, actions, mode):
    """Of each step, from the state behind it, collected row by row as Gymnasium does it."""
    envs = gymnasium.make_vec(
        "scd_world/World-v0", num_envs=6, world=world, autoreset_mode=mode, **ENDS
    ).unwrapped
    envs.reset(seed=5)
    for i, action in enumerate(actions[:14]):
        *_, found = envs.step(action)
        theirs: dict = {}
        for row in range(6):
            theirs = envs._add_info(theirs, envs.episodes.info(row), row)
        ended = {key: found.pop(key) for key in FINAL if key in found}
        assert data_equivalence(found, theirs, exact=True)
        assert bool(ended) == (mode is AutoresetMode.SAME_STEP and (envs.episodes.state.steps == 0).any()), i
        if ended:
            over = envs.episodes.state.steps == 0
            np.testing.assert_array_equal(ended["_final_obs"], over)
            np.testing.assert_array_equal(ended["final_info"]["_is_success"], over)
            assert [obs is not None for obs in ended["final_obs"]] == over.tolist()
            np.testing.assert_array_equal(
                ended["final_info"]["is_success"], ended["final_info"]["success_probability"] > 0.93
            )
