"""A recorded step does what the step does, to the bit, whoever else steps between; and nothing in it waits.

No GPU is needed: what stands for the recording here runs the step itself on the same fixed tensors, and what
a GPU would have to wait for shows on tensors that only claim to lie on one.
"""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scd_world.model.filter import STEPS
from scd_world.model.rollout_state import RolloutState
from scd_world.prior.config import PriorConfig
from scd_world.world.compiled_step import StepGraph, Stepper
from tests.conftest import CONFIG, PRIOR, filled, make_clip, make_model, make_stats

SCENE = PriorConfig(renderer_parts=2, scene_features=3, static_layer=True)


def again(step):
    """In place of a recording: it runs three times, as a warm-up does, and then whenever it is replayed."""
    for _ in range(3):
        step()
    return step


def begin(model, clip, rows=slice(None)) -> RolloutState:
    return model.initial(clip.obs[rows, 0], clip.state[rows, 0])


def equal(one: RolloutState, other: RolloutState) -> bool:
    names = [*RolloutState.PER_ROW]
    same = [torch.equal(getattr(one, name), getattr(other, name)) for name in names]
    caches = [torch.equal(getattr(one.cache, name), getattr(other.cache, name)) for name in ("keys", "first")]
    return all(same + caches) and one.steps == other.steps


def noise_of(clip, i):
    return torch.randn(clip.obs[:, 0].shape, generator=torch.Generator().manual_seed(i))


def test_a_recorded_step_equals_a_step_also_past_the_window_and_leaves_what_is_shown_alone(model, clip):
    plain, s = begin(model, clip), begin(model, clip)
    step = StepGraph(model, s, 2, again)
    for i in range(clip.num_steps):
        shown = s.obs
        kept = shown.clone()
        plain = model.imagine(plain, clip.action[:, i], noise_of(clip, i), 2)
        s = step(s, clip.action[:, i], noise_of(clip, i))
        assert equal(s, plain)
        assert torch.equal(shown, kept)


@pytest.mark.parametrize("prior", [SCENE, replace(SCENE, motion_channels=8)])
def test_a_step_that_corrects_its_frame_is_recorded_too(schema, stats, clip, prior):
    config = replace(CONFIG, state_filter=True, anchor_frame=True)
    model = filled(make_model(config, schema, stats, prior))
    model.filter.strength.copy_(torch.linspace(0.1, 0.9, STEPS)[:, None])
    model.filter.farthest.fill_(1e6)
    model.prior.renderer.cameras.set_moves(torch.tensor([1.0, 0.0]))
    plain, s = begin(model, clip), begin(model, clip)
    step = StepGraph(model, s, 2, again)
    for i in range(clip.num_steps):
        plain = model.imagine(plain, clip.action[:, i], noise_of(clip, i), 2)
        s = step(s, clip.action[:, i], noise_of(clip, i))
        assert equal(s, plain)


def test_two_that_step_in_turn_do_not_meet(model, clip):
    s, act = begin(model, clip), clip.action
    step = StepGraph(model, s, 1, again)
    branch = s.fork()
    one = step(s, act[:, 0], noise_of(clip, 0))
    other = step(branch, -act[:, 0], noise_of(clip, 1))
    expected = begin(model, clip)
    for i, now in enumerate((one, step(one, act[:, 1], noise_of(clip, 2)))):
        expected = model.imagine(expected, act[:, i], noise_of(clip, 2 * i), 1)
        assert i == 0 or equal(now, expected)
    assert equal(other, model.imagine(begin(model, clip), -act[:, 0], noise_of(clip, 1), 1))


def test_who_steps_on_copies_no_cache_and_whoever_is_displaced_keeps_its_own(model, clip):
    s, act = begin(model, clip), clip.action
    step = StepGraph(model, s, 1, again)
    s = step(s, act[:, 0], noise_of(clip, 0))
    keys = s.cache.keys
    branch = s.fork()
    assert branch.cache.keys is not keys
    s = step(s, act[:, 1], noise_of(clip, 1))
    assert s.cache.keys is keys  # it was copied neither in nor out
    kept = s.fork()
    for i in range(3):  # another has the memory now, and overwrites it
        branch = step(branch, -act[:, i], noise_of(clip, 9 + i))
    assert branch.cache.keys is keys
    assert s.cache.keys is not keys
    assert torch.equal(s.cache.keys, kept.cache.keys)
    assert torch.equal(s.cache.first, kept.cache.first)
    other_graph = StepGraph(model, kept, 2, again)  # of other settings: it takes the same rollout over
    for i, (graph, num_steps) in enumerate([(other_graph, 2), (step, 1)]):
        s = graph(s, act[:, 2 + i], noise_of(clip, i))
        kept = model.imagine(kept, act[:, 2 + i], noise_of(clip, i), num_steps)
    assert equal(s, kept)


def test_rows_that_begin_anew_in_lent_memory_equal_fresh_ones(world):
    """What is written into a cache between two recorded steps must be seen by the next one."""
    chosen = [world.starts.get(4, 3, 3), world.starts.get(7, 5, 3), world.starts.get(7, 8, 3)]
    recorded, plain = world.reset(chosen), world.reset(chosen)
    step = StepGraph(world.model, recorded, 1, again)
    for i in range(4):
        if i == 2:
            for s in (recorded, plain):
                world.reset_rows(s, [1], [world.starts.get(4, 4, 3)])
        act = torch.full((3, 2), 0.1 * i)
        noise = torch.randn(3, *world.frame_shape, generator=torch.Generator().manual_seed(i))
        recorded, plain = step(recorded, act, noise), world.model.imagine(plain, act, noise, 1)
        assert equal(recorded, plain)


def test_an_outdated_one_is_refused(model, clip):
    s = begin(model, clip)
    step = StepGraph(model, s, 1, again)
    step(s, clip.action[:, 0], noise_of(clip, 0))
    with pytest.raises(RuntimeError, match="stepped on already"):
        step(s, clip.action[:, 0], noise_of(clip, 0))


@pytest.mark.parametrize(("rows", "policy", "used"), [(1, "passive", 1), (8, "passive", 2), (1, "active", 2)])
def test_few_rows_are_stepped_by_one_thread_where_threads_sleep(model, clip, monkeypatch, rows, policy, used):
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    torch.set_num_threads(2)
    seen = []
    monkeypatch.setattr(model, "imagine", lambda *_: seen.append(torch.get_num_threads()))
    chosen = torch.zeros(rows, dtype=torch.long)
    Stepper(model)(begin(model, clip, chosen), clip.action[chosen, 0], torch.zeros(rows))
    assert seen == [used]
    assert torch.get_num_threads() == 2


class Devices(TorchDispatchMode):
    """Notes every operation whose tensors lie on more than one device: a copy that a GPU waits for."""

    def __init__(self):
        super().__init__()
        self.mixed, self.count = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
        if len({x.device.type for x in tensors}) > 1:
            self.mixed.append(str(func))
        self.count += 1
        return out


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        *("scd", "scd, filtered", "scd, with cameras that ride"),
        *("causal_dit", "far", "far_long", "diffusion_forcing", "regression"),
    ],
)
def test_nothing_in_a_step_waits_for_the_host(schema, kind):
    """`.item()` raises on a tensor without values; an index or constant from the host is a second device."""
    schema = replace(schema, height=16, width=16)
    stats = make_stats(schema)
    square = torch.zeros(1, 1 + 3 + 6)
    square[0, 0], square[0, 4] = -1.0, 1.0
    architecture, _, filtered = kind.partition(", ")
    rides = filtered == "with cameras that ride"
    model = make_model(
        replace(CONFIG, architecture=architecture, state_filter=bool(filtered), anchor_frame=bool(filtered)),
        schema,
        stats,
        replace(SCENE, motion_channels=8) if rides else PRIOR,
    )
    if rides:
        model.prior.renderer.cameras.set_moves(torch.ones(2))
    model.prior.dynamics.constraints.set(torch.zeros(3), torch.eye(3), square)  # one, that a step obeys
    with FakeTensorMode():
        on_gpu(model)
        clip = make_clip(schema, B=2, T=3)
        obs, state, act = (torch.empty(x.shape, device="cuda") for x in (clip.obs, clip.state, clip.action))
        s = model.initial(obs[:, 0], state[:, 0])
        with Devices() as seen:
            s = model.imagine(s, act[:, 0], torch.empty_like(obs[:, 0]), 2)
    assert s.obs.device.type == "cuda"
    assert seen.count > 100
    assert not seen.mixed


def on_gpu(model: torch.nn.Module) -> None:
    def claim(tensor):
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")

    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(claim(parameter), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = claim(buffer)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("bf16", [False, True])
def test_on_a_gpu_a_graph_is_recorded_once_and_steps_like_the_model(model, clip, bf16):
    filled(model).to("cuda")
    clip = type(clip)(
        **{k: v.to("cuda") if isinstance(v, torch.Tensor) else v for k, v in vars(clip).items()}
    )
    plain, s, stepper = begin(model, clip), begin(model, clip), Stepper(model)
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        for i in range(clip.num_steps):
            noise = noise_of(clip, i).to("cuda")
            plain = model.imagine(plain, clip.action[:, i], noise, 2)
            s = stepper(s, clip.action[:, i], noise, 2)
            torch.testing.assert_close(s.obs, plain.obs)
            torch.testing.assert_close(s.state, plain.state)
    assert [graph is not None for graph in stepper.graphs.values()] == [True]
