"""The probes: answers that are known beforehand, layers that are changed and nothing else, the command."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from scd_datasets.config import DataConfig
from scd_world.codec.config import CodecTrainConfig
from scd_world.model.config import ModelConfig
from scd_world.model.decoder import attend_with_prefix
from scd_world.probes.activations import between_frames, center, past_share, record_activations, similarity
from scd_world.probes.config import ProbeConfig
from scd_world.probes.finetune import Finetuner, PairedWithNoise
from scd_world.probes.interventions import (
    PassTracker,
    Reused,
    SharedResidual,
    Skipped,
    WithinFrame,
    after,
    denoised,
    everywhere,
    rewrap,
    wrap_layers,
)
from scd_world.probes.measure import LEVELS, at_levels
from scd_world.probes.probe import Probe, middle_half, probe
from scd_world.probes.report import UNKNOWN, verdict
from scd_world.training.trainer import train
from scd_world.world.world import World
from tests.conftest import CONFIG, filled, make_model

DENSE = ("causal_dit", "far", "diffusion_forcing", "far_long")
STEPS = 4


def make(schema, stats, kind: str = "causal_dit"):
    changes = {"patch": 1, "near_window": 2} if kind == "far_long" else {}
    return filled(make_model(replace(CONFIG, architecture=kind, **changes), schema, stats)).eval()


@pytest.fixture
def model(schema, stats):
    return make(schema, stats)


def rollout(model, clip, num_steps: int = STEPS) -> torch.Tensor:
    """Three imagined frames behind one that is known."""
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    generator, frames = torch.Generator().manual_seed(0), []
    for i in range(3):
        noise = torch.randn(clip.obs[:, 0].shape, generator=generator)
        s = model.imagine(s, clip.action[:, i], noise, num_steps)
        frames.append(s.obs)
    return torch.stack(frames)


def loss(model, clip) -> float:
    with torch.no_grad():
        _, losses = model.loss(clip, model.sample_noise(clip, torch.Generator().manual_seed(0)))
    return losses["pixels"].item()


# ---- what is recorded --------------------------------------------------------------------------------


def test_similarity_of_what_does_not_change_is_exactly_one():
    features = torch.randn(1, 3, 5, 8).expand(4, -1, -1, -1)
    assert (similarity(features) == 1).all()
    orthogonal = torch.zeros(2, 1, 1, 2)
    orthogonal[0, ..., 0], orthogonal[1, ..., 1] = 3.0, 0.5  # whatever their lengths
    torch.testing.assert_close(similarity(orthogonal), torch.eye(2))
    opposite = torch.stack([features[0], -2 * features[0]])
    torch.testing.assert_close(similarity(opposite), torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))


def test_a_common_part_makes_everything_similar_and_is_taken_out():
    features = torch.randn(4, 6, 5, 32) + 20 * torch.randn(1, 1, 5, 32)
    assert similarity(features).min() > 0.99
    assert between_frames(features) > 0.99
    assert similarity(center(features))[0, 1:].abs().max() < 0.5


def attend(model, past_frames: int, mask=None):
    """Layer 1's attention over random past frames and the frame itself: (share, uniform share)."""
    attention = model.core.net.blocks[0].attention
    B, M, h, d = 2, model.core.num_tokens, attention.heads, CONFIG.width // attention.heads
    past = torch.randn(2, B, h, past_frames * M, d)
    rotary = model.core.net.rotary(torch.tensor([7]))

    def memory(k, v):
        keys, values, _ = attend_with_prefix(*past)(k, v)
        return keys, values, mask

    with torch.no_grad():
        return past_share(attention, torch.randn(B, 1, M, CONFIG.width), rotary, memory)


def test_attention_without_preference_gives_the_past_its_share_of_the_keys(model):
    attention = model.core.net.blocks[0].attention
    for parameter in attention.q_norm.parameters():
        parameter.data.zero_()  # all queries are zero
    share, uniform = attend(model, past_frames=3)
    torch.testing.assert_close(share, torch.full((2,), 0.75))
    assert uniform == 0.75


def test_attention_on_a_hidden_past_is_exactly_zero(model):
    M = model.core.num_tokens
    mask = (torch.arange(4 * M) >= 3 * M)[None, None, None]
    share, uniform = attend(model, past_frames=3, mask=mask)
    assert (share == 0).all()
    assert uniform == 0
    share, _ = attend(model, past_frames=3)
    assert (share > 0.01).all()


@pytest.mark.parametrize("kind", DENSE)
def test_recording_gets_all_steps_and_changes_nothing(kind, schema, stats, clip):
    model = make(schema, stats, kind)
    plain = rollout(model, clip)
    with record_activations(model) as recorded:
        same = rollout(model, clip)
    assert torch.equal(same, plain)
    assert torch.equal(rollout(model, clip), plain)
    layers = len(model.core.net.blocks)
    assert [len(steps) for steps in recorded.features] == [
        3 * STEPS
    ] * layers  # not the pass over known frames
    assert [len(steps) for steps in recorded.past] == [3 * STEPS] * layers
    past, uniform = torch.stack(recorded.past[0]), torch.stack(recorded.uniform)
    assert ((past > 0) & (past < 1)).all()
    if kind != "far_long":  # one, two, three known frames, and the denoised one
        assert uniform[::STEPS].tolist() == pytest.approx([1 / 2, 2 / 3, 3 / 4])


def test_layers_within_the_frame_attend_to_no_past_and_the_others_do(model, clip):
    model = wrap_layers(model, [3, 4], WithinFrame)
    with record_activations(model) as recorded:
        rollout(model, clip)
    past = torch.stack([torch.stack(steps) for steps in recorded.past])
    assert (past[:2] > 0.01).all()
    assert (past[2:] == 0).all()


# ---- what is changed -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", DENSE)
def test_changing_no_layer_leaves_every_bit(kind, schema, stats, clip):
    model = make(schema, stats, kind)
    plain = rollout(model, clip)
    for wrap in (partial(Skipped, when=everywhere), partial(Reused, when=after(1, STEPS)), WithinFrame):
        assert torch.equal(rollout(wrap_layers(model, [], wrap), clip), plain)
    for wrapper in (Skipped, Reused):  # the layers are wrapped, and all steps are among the first
        model_after = wrap_layers(model, [1, 2, 3, 4], partial(wrapper, when=after(STEPS, STEPS)))
        assert torch.equal(rollout(model_after, clip), plain)
        assert loss(wrap_layers(model, [2], partial(Skipped, when=after(9, 2))), clip) == loss(model, clip)


@pytest.mark.parametrize("kind", DENSE)
@pytest.mark.parametrize("when", [everywhere, denoised])
def test_a_layer_whose_gates_are_closed_is_not_missed(kind, when, schema, stats, clip):
    model = make(schema, stats, kind)
    model.core.net.blocks[1].modulation[-1].weight.data.zero_()
    model.core.net.blocks[1].modulation[-1].bias.data.zero_()
    unchanged = loss(model, clip)
    assert loss(wrap_layers(model, [2], partial(Skipped, when=when)), clip) == unchanged
    assert loss(wrap_layers(model, [3], partial(Skipped, when=when)), clip) != unchanged


def test_a_layer_ablated_in_denoising_still_reads_the_history(model, clip):
    """Skipped where frames are denoised, the known frames' keys and values stay what they were."""
    state = clip.state[:, :-1]
    state_action = torch.cat([state, clip.action], -1)
    features = model.prior(state_action, state, clip.action).delta_features
    read = [
        m.core.net.read(clip.obs[:, :-1], torch.zeros(3, 5), state_action, features)
        for m in (model, *(wrap_layers(model, [2], partial(Skipped, when=w)) for w in (denoised, everywhere)))
    ]
    assert torch.equal(read[0][0], read[1][0])
    assert not torch.equal(read[0][0], read[2][0])
    assert len(read[2][1]) == 4  # a place for each layer


def test_layers_run_in_the_first_steps_alone(model, clip):
    for first in (1, 3):
        skipping = wrap_layers(model, [2, 3], partial(Skipped, when=after(first, STEPS)))
        runs = count_runs(skipping)
        rollout(skipping, clip)
        known = 3  # passes over known frames
        assert runs == [3 * STEPS + known, 3 * first + known, 3 * first + known, 3 * STEPS + known]


def count_runs(model) -> list[int]:
    runs = [0] * len(model.core.net.blocks)

    def count(layer: int) -> None:
        runs[layer] += 1

    for i, block in enumerate(model.core.net.blocks):
        inner = getattr(block, "block", block)
        inner.register_forward_hook(lambda *_, i=i: count(i))
    return runs


def test_a_reused_residual_is_that_of_the_last_step_that_ran(model, clip):
    """By hand: from the second step on, layer 2 adds what it added in the first."""
    reusing = wrap_layers(model, [2], partial(Reused, when=after(1, STEPS)))
    inputs, outputs = [], []
    reusing.core.net.blocks[1].register_forward_hook(
        lambda module, args, out: keep_denoising(module, args, out, inputs, outputs)
    )
    rollout(reusing, clip)
    residual = [out - h for h, out in zip(inputs, outputs, strict=True)]
    for frame in range(3):
        first, *others = residual[frame * STEPS : (frame + 1) * STEPS]
        for other in others:
            torch.testing.assert_close(other, first, rtol=0, atol=1e-4)
    assert not torch.allclose(residual[0], residual[STEPS], atol=1e-3)


def keep_denoising(module, args, out, inputs, outputs) -> None:
    if module.passes.denoising:
        inputs.append(args[0])
        outputs.append(out)


def test_what_is_shared_in_training_is_what_is_reused_when_stepping(model, clip):
    """One noisy frame behind its own pure noise, in training's way and in stepping's."""
    noise = PairedWithNoise(model).sample_noise(clip, torch.Generator().manual_seed(0))
    assert torch.equal(noise.x[0], noise.x[1])
    shared = wrap_layers(model, [2, 3], SharedResidual)
    x_t, t = shared.core.noisy_frames(clip, noise)
    assert (t[0] == 1).all()
    assert torch.equal(x_t[0], noise.x[0])
    out = denoise_frame(shared, clip, x_t[:, :, 0].flatten(0, 1), t[:, :, 0].flatten(), rows=2)
    rewrap(shared, partial(Reused, when=lambda p: p.t < 1))
    first = denoise_frame(shared, clip, x_t[0, :, 0], t[0, :, 0])
    second = denoise_frame(shared, clip, x_t[1, :, 0], t[1, :, 0])
    torch.testing.assert_close(out, torch.cat([first, second]), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(second, denoise_frame(model, clip, x_t[1, :, 0], t[1, :, 0]), atol=1e-2)


def denoise_frame(model, clip, x_t, t, rows: int = 1):
    """Tokens of the frame after frame 0 behind the last layer, (rows·B, 1, M, D)."""
    net, state_action = model.core.net, torch.cat([clip.state[:, 1], clip.action[:, 0]], -1).repeat(rows, 1)
    past = torch.Generator().manual_seed(5)
    rotary = net.rotary(torch.tensor([1]))
    with torch.no_grad():
        h, c = net.embed_noisy(x_t, t, state_action)
        for block in net.blocks:
            heads, d = CONFIG.heads, CONFIG.width // CONFIG.heads
            kv = torch.randn(2, 3, heads, model.core.num_tokens, d, generator=past).repeat(1, rows, 1, 1, 1)
            h = block(h, c, rotary, attend_with_prefix(*kv))
    return h


@pytest.mark.parametrize("kind", DENSE)
def test_within_all_layers_the_past_is_out_of_reach(kind, schema, stats, clip):
    """By gradients: what the frames before the last one show reaches no denoised frame."""
    model = wrap_layers(make(schema, stats, kind), [1, 2, 3, 4], WithinFrame)
    obs = clip.obs.clone().requires_grad_()
    noise = model.sample_noise(clip, torch.Generator().manual_seed(0))
    noise = replace(noise, corruption_level=torch.zeros_like(noise.corruption_level))
    x, T = torch.randn(1, *clip.obs[:, 1:].shape), clip.num_steps
    state = clip.state[:, :-1]
    state_action = torch.cat([state, clip.action], -1)
    features = model.prior(state_action, state, clip.action).delta_features
    shown = model.core.show_history(obs[:, :-1], noise)
    _, memory = model.core.net.read(*shown, state_action, features)
    state_action = torch.cat([clip.state[:, 1:], clip.action], -1)
    pixel_inputs = model.pixel_inputs(
        clip.obs[:, :-1], clip.state[:, 1:], clip.anchor
    )  # these go past the layers
    out = model.core.net.denoise_clip(x, torch.rand(x.shape[:3]), state_action, pixel_inputs, memory)
    assert len(out) == len(clip.action) * T
    assert not out.requires_grad or torch.autograd.grad(out.sum(), obs, allow_unused=True)[0] is None


def test_the_original_is_never_touched(model, clip):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = rollout(model, clip)
    other = wrap_layers(model, [2, 3], WithinFrame)
    for parameter in other.parameters():
        parameter.data.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(rollout(model, clip), plain)


def test_passes_tell_reading_from_denoising(model, clip):
    passes, calls = PassTracker(model.core.net), []
    model.core.net.blocks[0].register_forward_pre_hook(
        lambda *_: calls.append((passes.denoising, passes.t[0].item()))
    )
    rollout(model, clip)
    step = [(False, 0.0), *((True, 1 - i / STEPS) for i in range(STEPS))]
    assert calls == step * 3


# ---- what is measured ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", DENSE)
def test_the_five_levels(kind, schema, stats, clip):
    """The mean over one noise per level is the mean of the losses at each level alone."""
    model = make(schema, stats, kind)
    noise = at_levels(model, clip, model.sample_noise(clip, torch.Generator().manual_seed(0)))
    t = model.core.noisy_frames(clip, noise)[1]
    assert t[:, 0, 0].tolist() == pytest.approx(LEVELS)
    assert torch.equal(noise.x[0], noise.x[4])
    with torch.no_grad():
        _, at_once = model.loss(clip, noise)
        alone = [model.loss(clip, replace(noise, t=noise.t[i : i + 1], x=noise.x[:1]))[1] for i in range(5)]
    mean = torch.stack([losses["pixels"] for losses in alone]).mean()
    torch.testing.assert_close(at_once["pixels"], mean, rtol=1e-4, atol=1e-6)
    if kind == "far":
        assert torch.equal(model.core.show_history(clip.obs, replace(
            noise,
            history_clean=torch.zeros(clip.obs.shape[:2]),
            history_t=torch.zeros(clip.obs.shape[:2]),
            history_x=torch.zeros_like(clip.obs),
        ))[0], clip.obs)  # fmt: skip


def test_the_middle_half():
    assert middle_half(3) == [2]
    assert middle_half(8) == [3, 4, 5, 6]
    assert middle_half(12) == [4, 5, 6, 7, 8, 9]


# ---- the whole command ---------------------------------------------------------------------------

TINY = ModelConfig(
    architecture="causal_dit",
    width=16,
    heads=2,
    encoder_layers=2,
    decoder_layers=1,
    patch=8,
    window=3,
)


@pytest.fixture
def config(training, slide_store, tmp_path):
    def build(**changes) -> ProbeConfig:
        model = replace(TINY, **changes.pop("model", {}))
        prior, codec = replace(training().prior, layers=0), changes.pop("codec", CodecTrainConfig())
        world = train(training(model=model, prior=prior, codec=codec, steps=2, eval_windows=2))
        values = {
            "world": str(world),
            "out": str(tmp_path / "probe"),
            "data": DataConfig(kind="zarr", root=str(slide_store)),
            "windows": 3,
            "batch_size": 2,
            "num_steps": 3,
            "horizon": 4,
            "first_steps": [1, 2],
            "finetune_updates": 2,
            "finetune_batch_size": 2,
            "finetune_length": 3,
            "device": "cpu",
        }
        return ProbeConfig(**(values | changes))

    return build


@pytest.mark.slow
def test_the_command_writes_its_files_and_reports_what_it_found(config):
    settings = config()
    report = probe(settings)
    out = Path(settings.out)
    names = {"probe.json", "report.md"}
    names |= {f"{name}.png" for name in ("similarity", "attention", "skip", "within_frame", "ablate_layer")}
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == names
    written = json.loads((out / "probe.json").read_text())
    assert [row["layer"] for row in written["ablate_layer"]] == [1, 2, 3]
    assert [row["layer"] for row in written["similarity"]] == [0, 1, 2, 3]
    assert len(written["attention"]["past"]) == 3
    assert [row["last"] for row in written["within_frame"]] == [1, 2, 3]
    assert len(written["skip"]) == 8
    assert set(written["finetuned"]) == {"control", "skipped", "reused", "within_frame"}
    text = (out / "report.md").read_text()
    assert ("Train it longer" in text) == (report["unchanged"]["h1"] < report["copy_last"]["h1"])
    for claim in report["verdict"]:
        assert f": {claim['conclusion']}.**" in text
    assert text.count("|\n| ") > 20


def invented_report(
    cosine: float, share: float, cost: float, quality: float = 1.0, finetuned: float | None = None
) -> dict:
    """What the verdict reads of a report of three layers."""
    change = {"h1": {"change": -cost}}
    rows = [{"layers": layers, "how": "reused", "first_steps": 1} | change for layers in ("middle", "all")]
    rows_finetuned = {}
    if finetuned is not None:
        rows_finetuned = {name: {"h1": {"change": -finetuned}} for name in ("reused", "within_frame")}
    return {
        "world": {"layers": 3},
        "middle_layers": [2],
        "finetune_last": 1,
        "unchanged": {"h1": 30 + quality},
        "copy_last": {"h1": 30.0},
        "similarity": [{"mean": 0.1}, {"mean": 0.1}, {"mean": cosine}, {"mean": 0.1}],
        "attention": {"past": [[0.7] * 2, [0.7] * 2, [share] * 2], "uniform": 0.8},
        "skip": rows,
        "within_frame": [{"last": 1} | change, {"last": 3, "h1": {"change": -9.0}}],
        "finetuned": rows_finetuned,
    }


def test_the_verdict_weighs_its_evidence():
    """Each piece of evidence counts; where frames are worse than a copy the verdict is unknown."""

    def conclusions(*figures: float, **more: float) -> list[str]:
        return [claim["conclusion"] for claim in verdict(invented_report(*figures, **more))]

    assert conclusions(0.99, 0.1, 0.1) == ["holds"] * 2
    assert conclusions(0.5, 0.1, 0.1) == ["holds in part", "holds"]
    assert conclusions(0.99, 0.7, 0.1) == ["holds", "holds in part"]
    assert conclusions(0.5, 0.7, 2.0) == ["does not hold"] * 2
    assert conclusions(0.5, 0.7, 2.0, finetuned=0.1) == ["holds in part"] * 2
    assert conclusions(0.99, 0.1, 0.1, quality=-1.0) == [UNKNOWN] * 2


@pytest.mark.slow
def test_the_numbers_depend_on_neither_batches_nor_chance(config):
    settings = config(finetune_updates=0)
    torch.manual_seed(1)
    one = probe(settings)
    torch.manual_seed(2)
    other = probe(replace(settings, batch_size=3, out=settings.out + "2"))
    for row, same in zip(
        one["skip"] + one["within_frame"], other["skip"] + other["within_frame"], strict=True
    ):
        assert row["h1"]["mean"] == pytest.approx(same["h1"]["mean"], abs=1e-3)
    for row, same in zip(one["similarity"], other["similarity"], strict=True):
        assert row["mean"] == pytest.approx(same["mean"], abs=1e-4)
    assert one["finetuned"] == {}


@pytest.mark.slow
def test_a_fine_tuning_depends_on_its_seed_alone_and_leaves_the_world_alone(config, slide_store):
    from scd_datasets.store.store import WindowStore

    settings = config()
    world, store = World.load(settings.world), WindowStore.open(slide_store)
    held_out = store.split(0.25)[1]
    before = {name: value.clone() for name, value in world.model.state_dict().items()}
    weights = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        model = Finetuner(world, store, held_out, settings).finetune(
            wrap_layers(world.model, [3], WithinFrame)
        )
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert any(not torch.equal(value, before[name]) for name, value in weights[0].items() if name in before)
    assert all(torch.equal(value, before[name]) for name, value in world.model.state_dict().items())
    model = wrap_layers(world.model, [2], SharedResidual)
    Finetuner(world, store, held_out, settings).finetune(model, PairedWithNoise(model))
    with pytest.raises(ValueError, match="none is left to fine-tune with"):
        Finetuner(world, store, range(len(store.lengths)), settings)


@pytest.mark.slow
def test_a_world_of_latents_is_fine_tuned_on_latents(config):
    """It was given pixels, after all other probes, and all was lost."""
    codec = CodecTrainConfig(kind="autoencoder", width=8, steps=2)
    settings = config(codec=codec, model={"patch": 2}, first_steps=[1], last_layers=[3])
    report = probe(settings)
    assert report["finetuned"]
    assert (Path(settings.out) / "latents.zarr").exists()


def test_a_world_that_is_not_dense_is_refused(config):
    with pytest.raises(
        ValueError, match=r"architecture=scd, .* train one with scd-train … model.architecture=causal_dit"
    ):
        probe(config(model={"architecture": "scd"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"middle_layers": [9]}, r"middle_layers=\[9\]: this world has the layers 1 to 3"),
        ({"finetune_last": 9}, r"finetune_last=\[9\]: this world has the layers 1 to 3"),
        ({"model": {"encoder_layers": 1}}, "has 2 layers: a first, a middle and a last"),
    ],
)
def test_layers_that_are_not_there_are_refused_and_nothing_stays_behind(config, changes, message):
    asked = config(**changes)
    with pytest.raises(ValueError, match=message):
        probe(asked)
    assert not Path(asked.out).exists()


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(
        ValueError, match=r"first_steps=\[12\]: expected numbers of denoising steps from 1 to"
    ):
        ProbeConfig(world="w", out="o", first_steps=[12])


@pytest.mark.slow
def test_a_probe_of_other_windows_is_still_held_out(config, slide_store):
    """The windows are those of the episodes that training held out."""
    from scd_datasets.store.store import WindowStore

    settings = config()
    world, store = World.load(settings.world), WindowStore.open(slide_store)
    probing = Probe(world, store, settings)
    kept = store.episode_index[probing.episodes].tolist()
    assert set(kept) <= set(world.provenance["held_out_episodes"])
    trained_on = set(probing.finetuner.loader.windows[:, 0].tolist())
    assert not trained_on & set(probing.episodes.tolist())
