"""`observations="torch"` gives as tensors on the device what numpy's has as arrays, to the bit."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode

from scd_envs.vector_env import WorldVectorEnv

ENDS = {"success_threshold": 0.93, "horizon": 6}


def as_arrays(values):
    """Tensors as arrays, of the types that numpy's observations have."""
    if isinstance(values, dict):
        return {key: as_arrays(value) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(as_arrays(value) for value in values)
    assert isinstance(values, torch.Tensor)
    return values.numpy()


def assert_same(tensors, arrays):
    if isinstance(arrays, dict):
        assert tensors.keys() == arrays.keys()
        for key in arrays:
            if key == "final_obs":  # all rows there, the finished ones here
                for row in np.flatnonzero(arrays["_final_obs"]):
                    mine = {name: value[row] for name, value in as_arrays(tensors[key]).items()}
                    assert data_equivalence(mine, arrays[key][row], exact=True)
            else:
                assert_same(tensors[key], arrays[key])
    else:
        assert isinstance(tensors, torch.Tensor)
        real = arrays.dtype == np.float64
        assert tensors.dtype == (torch.float32 if real else torch.from_numpy(arrays).dtype)
        np.testing.assert_array_equal(tensors.numpy(), arrays.astype(np.float32) if real else arrays)


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda m: m.name)
def test_tensors_hold_what_arrays_hold(world, actions, mode):
    settings = {"num_envs": 6, "world": world, "autoreset_mode": mode, **ENDS}
    theirs = gymnasium.make_vec("scd_world/World-v0", **settings)
    ours = gymnasium.make_vec("scd_world/World-v0", observations="torch", **settings)
    for one, other in zip(ours.reset(seed=5), theirs.reset(seed=5), strict=True):
        assert_same(one, other)
    for i, action in enumerate(actions[:14]):
        # A policy's output has a gradient.
        mine = ours.step(torch.tensor(action, requires_grad=True))
        for one, other in zip(mine, theirs.step(action), strict=True):
            assert_same(one, other)
        if mode is AutoresetMode.DISABLED and i % 4 == 3:
            options = {"reset_mask": np.arange(6) % 2 == 0}
            assert_same(ours.reset(options=options)[0], theirs.reset(options=options)[0])
    np.testing.assert_array_equal(ours.render(), theirs.render())


def test_tensors_are_the_callers_own_and_go_through_dlpack(world, actions):
    envs = WorldVectorEnv(world, 4, autoreset_mode="Disabled", observations="torch", horizon=3)
    envs.reset(seed=0)
    for action in actions[:5]:
        obs, *rest, info = envs.step(action[:4])
        kept = np.from_dlpack(obs["pixels"]).copy()
        for tensor in (*obs.values(), *rest, *info.values()):
            tensor.zero_()
        np.testing.assert_array_equal(envs.episodes.state.pixels[:, 0].numpy(), kept)
    assert envs.episodes.finished.all()
    assert (envs.step(actions[6, :4])[0]["pixels"].numpy() == kept).all()


@pytest.mark.parametrize("kinds", [("numpy", "torch"), ("torch", "numpy")], ids=" to ".join)
def test_a_saved_state_goes_on_in_the_other_kind(world, actions, kinds):
    one, other = (WorldVectorEnv(world, 6, observations=kind, **ENDS) for kind in kinds)
    one.reset(seed=5)
    for action in actions[:8]:
        one.step(action)
    other.set_state(one.get_state())
    for action in actions[8:12]:
        both = {kind: env.step(action) for kind, env in zip(kinds, (one, other), strict=True)}
        assert_same(both["torch"][0], both["numpy"][0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_on_a_gpu_images_stay_there_or_come_through_pinned_memory(build_world, actions, kind):
    on_host = WorldVectorEnv(build_world(), 6, **ENDS)
    on_gpu = WorldVectorEnv(build_world().to("cuda"), 6, observations=kind, **ENDS)
    on_host.reset(seed=5)
    on_gpu.reset(seed=5)
    for action in actions[:14]:
        ours, theirs = on_gpu.step(action)[0]["pixels"], on_host.step(action)[0]["pixels"]
        if kind == "torch":
            assert ours.is_cuda
            ours = ours.cpu().numpy()
        assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_another_kind_is_refused(world):
    with pytest.raises(ValueError, match=r"observations is one of \['numpy', 'torch'\]; got 'jax'"):
        WorldVectorEnv(world, 2, observations="jax")
