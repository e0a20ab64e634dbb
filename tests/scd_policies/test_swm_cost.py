"""A world as stable-worldmodel's cost model: minus the value of plans, one for each environment and plan."""

import gymnasium
import numpy as np
import pytest
import torch

from scd_policies.planners import swm_cost
from scd_policies.planners.imagination import open_imagination
from scd_policies.planners.swm_cost import WorldCost
from scd_world.world.world import World


def cost_of(world: World) -> WorldCost:
    world.model.requires_grad_(False)
    return WorldCost(world)


def info_of(world: World, frames: list[int], copies: int) -> dict[str, torch.Tensor]:
    """Two environments at recorded frames of episode 7: (B, N, D) as solvers repeat it."""
    state = np.stack([world.starts.get(7, frame, 1).state[-1] for frame in frames])
    rows = torch.from_numpy(state)[:, None].expand(-1, copies, -1)
    return {"agent_pos": rows[..., :2], "environment_state": rows[..., 2:]}


def test_costs_are_each_plans_own(world):
    cost, plans = cost_of(world), torch.rand(2, 5, 4, 2) * 2 - 1
    costs = cost.get_cost(info_of(world, [3, 5], 5), plans)
    assert costs.shape == (2, 5)
    alone = cost.get_cost(info_of(world, [5], 2), plans[1:, 3:])
    torch.testing.assert_close(costs[1:, 3:], alone, atol=1e-5, rtol=0)
    assert costs.std() > 1e-4
    blocks = cost.get_cost(info_of(world, [3, 5], 5), plans.reshape(2, 5, 2, 4))  # two actions per block
    torch.testing.assert_close(blocks, costs)


def test_with_a_frame_before_the_velocity_counts(world):
    cost, plans = cost_of(world), torch.zeros(1, 2, 3, 2)
    at = [info_of(world, [frame], 2) for frame in (4, 5)]
    moving = {key: torch.stack([each[key] for each in at], dim=2) for key in at[0]}
    raw = world.starts.action[world.starts.rows[7, 4]]
    scaled = torch.from_numpy(cost.process["action"].transform(raw)).expand(1, 2, 2, 2)
    rested, moved = cost.get_cost(at[1], plans), cost.get_cost(moving | {"action": scaled}, plans)
    assert (rested - moved).abs().min() > 1e-5
    start = cost.start(moving | {"action": scaled}, 0)
    np.testing.assert_allclose(start.last_prev, world.starts.get(7, 5, 2).last_prev, atol=1e-4)


def test_costs_have_gradients(world):
    plans = torch.zeros(1, 2, 3, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(cost_of(world).get_cost(info_of(world, [3], 2), plans).sum(), plans)
    assert (slope != 0).any(dim=-1).all()


def test_the_scaler_goes_back_and_forth_and_stays_inside(world):
    scaler = cost_of(world).process["action"]
    raw = np.array([[-2.0, 0.0], [1.0, 512.0]], np.float32)
    np.testing.assert_allclose(scaler.inverse_transform(scaler.transform(raw)), raw, atol=1e-4)
    np.testing.assert_allclose(scaler.inverse_transform(np.array([[9.0, -9.0]])), [[2.0, 0.0]], atol=1e-4)


def test_wrong_use_is_answered_in_words(world, plain_world):
    cost = cost_of(world)
    with pytest.raises(ValueError, match=r"\(B, N, H, k·2\)"):
        cost.get_cost(info_of(world, [3], 2), torch.zeros(1, 2, 3, 3))
    with pytest.raises(ValueError, match=r"lacks \['environment_state'\]"):
        cost.get_cost({"agent_pos": torch.zeros(1, 2, 2)}, torch.zeros(1, 2, 3, 2))
    with pytest.raises(ValueError, match="no state prior"):
        WorldCost(plain_world)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["CEMSolver", "GradientSolver"])
def test_their_solvers_run_on_it_unchanged(world, name):
    reason = "stable-worldmodel is not installed: pip install '.[swm]'"
    swm = pytest.importorskip("stable_worldmodel", reason=reason)
    cost = cost_of(world)
    how = {"num_samples": 16, "topk": 4} if name == "CEMSolver" else {"num_samples": 2}
    policy = swm.policy.WorldModelPolicy(
        getattr(swm.solver, name)(cost, n_steps=2, **how),
        swm.PlanConfig(horizon=4, receding_horizon=2),
        cost.process,
    )
    box = gymnasium.spaces.Box(np.float32([-2, 0]), np.float32([2, 512]))
    envs = gymnasium.vector.SyncVectorEnv([lambda: Still(box)] * 2)
    policy.set_env(envs)
    obs = {key: value[:, :1].numpy() for key, value in info_of(world, [3, 5], 1).items()}
    action = policy.get_action(obs | {"action": np.zeros((2, 1, 2), np.float32)})
    assert action.shape == (2, 2)
    assert envs.action_space.contains(action)


class Still(gymnasium.Env):
    """Has spaces, and nothing else is asked of it."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,))

    def __init__(self, box: gymnasium.spaces.Box) -> None:
        self.action_space = box


def test_a_world_that_finds_objects_in_its_pictures_is_refused(world, monkeypatch):
    """Costs are told of the state alone."""

    def seeing(*given, **named):
        imagination = open_imagination(*given, **named)
        imagination.needs_images = True
        return imagination

    monkeypatch.setattr(swm_cost, "open_imagination", seeing)
    with pytest.raises(ValueError, match="finds objects in its pictures"):
        cost_of(world)
