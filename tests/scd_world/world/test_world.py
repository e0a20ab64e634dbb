"""A world on disk is exact, or refused; its rows begin and restart as fresh episodes do."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scd_envs import G1_WORLD
from scd_world.codec.codec import AutoencoderCodec
from scd_world.codec.config import CodecConfig
from scd_world.utils.atomic_folder import write_manifest
from scd_world.world.world import World, find_folder, init_from
from tests.conftest import CONFIG, filled, make_model


def walk(world, s, steps=4, rows=slice(None), seed=0):
    """Steps with each row's own action and noise; the last look."""
    g = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        action = torch.rand(8, 2, generator=g)[rows] * torch.tensor([4.0, 512]) - torch.tensor([2.0, 0])
        s = world.step(s, action, torch.randn(8, *world.frame_shape, generator=g)[rows])
    return s


def assert_same(a: dict, b: dict, rows=slice(None)):
    for name, value in a.items():
        np.testing.assert_allclose(
            value[rows].astype(float), b[name].astype(float), atol=1 if name == "pixels" else 1e-4
        )


def test_save_and_load_are_exact(world, tmp_path):
    world.provenance = {"steps": 3}
    loaded = World.load(world.save(tmp_path / "world"))
    for name, value in world.model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name]), name
    assert (loaded.schema, loaded.config, loaded.card, loaded.provenance) == (
        world.schema, world.config, world.card, world.provenance,
    )  # fmt: skip
    moments = [world.starts.get(4, 3, 3)]
    a = world.outputs(walk(world, world.reset(moments), rows=slice(1)))
    b = loaded.outputs(walk(loaded, loaded.reset(moments), rows=slice(1)))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_file_that_names_no_bound_of_its_gate_draws_as_it_did(world, schema, stats, tmp_path):
    """Its gate had none; and its weights mean another thing to a model whose gate has one."""
    config = replace(CONFIG, head="patch", bounded_gate=False)
    old = World(filled(make_model(config, schema, stats)).eval(), stats, world.starts)
    folder = old.save(tmp_path / "world")
    written = json.loads((folder / "config.json").read_text())
    assert written["model"].pop("bounded_gate") is False
    (folder / "config.json").write_text(json.dumps(written))
    write_manifest(folder)
    loaded = World.load(folder)
    assert loaded.config == config
    moments = [world.starts.get(4, 3, 3)]
    a, b = (w.outputs(walk(w, w.reset(moments), rows=slice(1))) for w in (old, loaded))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    bounded = make_model(replace(config, bounded_gate=True), schema, stats)
    with pytest.raises(ValueError, match=r"set model\.bounded_gate=false"):
        init_from(bounded, folder)


def test_a_model_with_a_filter_says_what_a_world_without_one_lacks(world, schema, stats):
    """Not a name that nobody knows: its own loading must not be the first to look for it."""
    filtered = make_model(replace(CONFIG, state_filter=True, anchor_frame=True), schema, stats)
    plain = make_model(CONFIG, schema, stats).state_dict()
    with pytest.raises(RuntimeError, match=r"Missing key.*filter\.farthest"):
        filtered.load_state_dict(plain)


def test_half_precision_weights_are_rounded_once(world, tmp_path):
    once = World.load(world.save(tmp_path / "a", weights="float16"))
    twice = World.load(once.save(tmp_path / "b", weights="float16"))
    for (name, full), half in zip(
        world.model.state_dict().items(), once.model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(full, half, rtol=1e-3, atol=1e-4)
        assert torch.equal(half, twice.model.state_dict()[name])


def test_weights_in_eight_bits_are_near_row_by_row_and_a_row_without_its_scale_is_damage(world, tmp_path):
    world.model.core.encoder.blocks[0].mlp[0].weight.data[0] *= 1e-4  # a small row among large ones
    small = World.load(world.save(tmp_path / "small", weights="int8"))
    again = World.load(small.save(tmp_path / "again", weights="int8"))
    for (name, full), value in zip(
        world.model.state_dict().items(), small.model.state_dict().values(), strict=True
    ):
        largest = (
            full.abs().flatten(1).amax(1, keepdim=True) if full.ndim > 1 and full.numel() else full.abs()
        )
        off = (value - full).abs()
        assert ((off.flatten(1) if off.ndim > 1 else off) <= largest / 250 + 1e-6).all(), name
        torch.testing.assert_close(again.model.state_dict()[name], value, atol=1e-6, rtol=1e-3)
    file = tmp_path / "small" / "model.safetensors"
    tensors = load_file(file)
    matrices = {name for name, w in tensors.items() if name.startswith("core.") and w.ndim > 1 and w.numel()}
    assert {tensors[name].dtype for name in matrices} == {torch.int8}
    del tensors["core.encoder.blocks.0.mlp.0.weight.row_scales"]
    save_file(tensors, file)
    write_manifest(tmp_path / "small")
    with pytest.raises(ValueError, match=r"no real numbers, in core\.encoder\.blocks\.0\.mlp\.0\.weight"):
        World.load(tmp_path / "small")
    with pytest.raises(ValueError, match="weights='int4'"):
        world.save(tmp_path / "none", weights="int4")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "stats.safetensors", "config.json", "starts/pixels/zarr.json"]
)
def test_a_flipped_byte_is_caught(world, tmp_path, name):
    folder = world.save(tmp_path / "world")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ValueError, match=name):
        World.load(folder)


@pytest.mark.parametrize("listed", [{}, [], ["README.md"]])
def test_a_manifest_that_does_not_list_the_world_is_no_proof(world, tmp_path, listed):
    folder = world.save(tmp_path / "world")
    manifest = json.loads((folder / "manifest.json").read_text())
    if listed:  # one file alone, and rightly
        listed = {name: manifest["sha256"][name] for name in listed}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": listed}))
    with pytest.raises(ValueError, match=r"does not list .*config\.json, .*never checked"):
        World.load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_world_of_nan_is_refused(world, tmp_path, value):
    next(world.model.core.heads.parameters()).data.view(-1)[0] = value
    with pytest.raises(ValueError, match=r"not finite, in core\.heads"):
        World.load(world.save(tmp_path / "world"))


@pytest.mark.parametrize("name", ["obs", "state", "reward", "success"])
def test_a_row_that_is_no_number_is_named(world, name):
    s = world.reset([world.starts.get(*address, context=1) for address in world.starts.addresses[:2]])
    getattr(s, name)[1].fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=rf"{name} of rows \[1\] is not finite"):
        world.outputs(s)


def test_statistics_of_nan_are_refused(world, tmp_path):
    world.stats.action_low[0] = float("nan")
    with pytest.raises(ValueError, match="not finite, in action_low"):
        World.load(world.save(tmp_path / "world"))


def test_foreign_folders_are_refused_with_a_hint(world, tmp_path):
    folder = world.save(tmp_path / "run" / "world")
    with pytest.raises(ValueError, match=r"did you mean .*world"):
        World.load(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="no world"):
        World.load(tmp_path / "nowhere")
    (folder / "manifest.json").write_text(json.dumps({"sha256": {"../../secret": "0"}}))
    with pytest.raises(ValueError, match="outside"):
        World.load(folder)
    shutil.rmtree(folder / "starts")
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"manifest\.json"):
        World.load(folder)


def test_the_folder_of_a_training_leads_to_its_world(world, tmp_path):
    inside = world.save(tmp_path / "world")
    (tmp_path / "config.json").write_text("{}")  # the training's own
    with pytest.raises(ValueError, match=f"is the folder of a training; did you mean {inside}"):
        World.load(tmp_path)


def test_a_world_of_another_format_says_what_to_do(world, tmp_path, monkeypatch):
    monkeypatch.setattr("scd_world.world.world.FORMAT", 1)
    folder = world.save(tmp_path / "old")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"of format 1; .* reads formats 3 and 4: train it again"):
        World.load(folder)


def test_a_failed_save_leaves_the_old_world(world, tmp_path, monkeypatch):
    folder = world.save(tmp_path / "world")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(world.starts), "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        world.save(folder)
    World.load(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_a_folder_that_is_no_world_is_not_replaced(world, tmp_path):
    """A run's folder instead of the world in it would take all checkpoints with it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"run exists and is not a world"):
        world.save(tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_text() == "{}"


def test_rows_begin_with_contexts_of_different_lengths(world):
    moments = [world.starts.get(7, 0, 3), world.starts.get(7, 1, 3), world.starts.get(4, 5, 3)]
    assert [len(moment.action) for moment in moments] == [0, 1, 2]
    together = world.outputs(walk(world, world.reset(moments), rows=slice(3)))
    for i, moment in enumerate(moments):
        alone = world.outputs(walk(world, world.reset([moment]), rows=slice(i, i + 1)))
        assert_same(together, alone, slice(i, i + 1))


def test_context_is_remembered(world):
    """The frames before the start make a difference: speed cannot be seen in one picture."""
    short, long = (world.starts.get(7, 5, k) for k in (1, 3))
    a, b = (world.outputs(walk(world, world.reset([m]), 1, slice(1))) for m in (short, long))
    assert not np.array_equal(a["pixels"], b["pixels"])


def test_a_restarted_row_is_a_fresh_episode_and_the_others_go_on(world):
    moments = [world.starts.get(7, f, 3) for f in (2, 4)]
    s = walk(world, world.reset(moments), 7, slice(2))
    fresh = world.starts.get(4, 4, 3)
    going_on = s.fork()
    world.reset_rows(s, [1], [fresh])
    together = world.outputs(walk(world, s, 4, slice(2), seed=5))
    alone = world.outputs(walk(world, world.reset([fresh]), 4, slice(1, 2), seed=5))
    assert_same(together, alone, slice(1, 2))
    unhindered = world.outputs(walk(world, going_on, 4, slice(2), seed=5))
    assert np.array_equal(together["pixels"][0], unhindered["pixels"][0])


def test_each_row_keeps_the_last_frame_that_its_start_shows(world, schema, stats):
    config = replace(CONFIG, anchor_frame=True, anchor_attention=True)
    world = World(filled(make_model(config, schema, stats)).eval(), stats, world.starts)
    moments = [world.starts.get(7, f, 3) for f in (2, 4)]
    s = walk(world, world.reset(moments), 2, slice(2))
    shown = world.codec.encode(torch.from_numpy(np.stack([moment.pixels[-1] for moment in moments])))
    assert torch.equal(s.anchor, shown)
    shown_state = torch.cat(world.last_states(moments), dim=-1)  # and state and action one frame earlier
    assert torch.equal(s.anchor_state, shown_state)
    fresh = world.starts.get(4, 4, 3)
    world.reset_rows(s, [1], [fresh])
    assert torch.equal(s.anchor[0], shown[0])
    assert torch.equal(s.anchor_state[0], shown_state[0])
    size = len(schema.state)
    assert torch.equal(s.anchor_state[1, :size], stats.encode_state(torch.from_numpy(fresh.state[-1])))
    last = stats.encode_prev(torch.from_numpy(np.r_[fresh.state[-2], fresh.action[-1]]))
    assert torch.equal(s.anchor_state[1, size:], last)
    assert torch.equal(s.anchor[1], world.codec.encode(torch.from_numpy(fresh.pixels[-1:]))[0])
    together = world.outputs(walk(world, s, 4, slice(2), seed=5))
    alone = world.outputs(walk(world, world.reset([fresh]), 4, slice(1, 2), seed=5))
    assert_same(together, alone, slice(1, 2))


def test_a_start_looks_just_as_it_was_recorded(world, schema, stats):
    """Whatever its codec loses: at each start that comes back, of the last frame of several that moved."""
    codec = AutoencoderCodec(CodecConfig("autoencoder", width=8), replace(schema, height=32, width=48))
    codec.unchanged.fill_(0.1)
    pixels = np.random.default_rng(0).integers(0, 256, (len(world.starts.pixels), 2, 32, 48, 3), np.uint8)
    starts = replace(world.starts, pixels=pixels)
    model = filled(make_model(replace(CONFIG, anchor_frame=True), schema, stats)).eval()
    world = World(model, stats, starts, codec=codec)
    moments = [starts.get(7, frame, 3) for frame in (2, 4)]
    s = world.reset(moments)
    assert np.array_equal(world.outputs(s)["pixels"], np.stack([moment.pixels[-1] for moment in moments]))
    assert not np.array_equal(codec.decode_pixels(s.obs).numpy(), world.outputs(s)["pixels"])
    fresh = starts.get(4, 4, 3)
    world.reset_rows(s, [1], [fresh])
    assert np.array_equal(world.outputs(s)["pixels"][1], fresh.pixels[-1])


def test_starts_are_addressed(world):
    moment = world.starts.get(7, 6, 3)
    row = world.starts.rows[7, 6]
    assert np.array_equal(moment.pixels, world.starts.pixels[row - 2 : row + 1])
    assert np.array_equal(moment.action, world.starts.action[row - 2 : row])
    assert len(world.starts.get(7, 1, 3).pixels) == 2  # never across an episode's start
    with pytest.raises(ValueError, match="frames 0 to 8"):
        world.starts.get(7, 9)
    with pytest.raises(ValueError, match="episodes 4, 7"):
        world.starts.get(5, 0)


def test_a_manifest_that_is_somebody_elses_is_no_world(world, tmp_path):
    """A web page has a manifest.json too: its folder was deleted, with all that lay there."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "manifest.json").write_text(json.dumps({"name": "my app", "icons": []}))
    (site / "index.html").write_text("mine")
    with pytest.raises(ValueError, match="site exists and is not a world"):
        world.save(site)
    (site / "manifest.json").write_text(json.dumps({"sha256": {"index.html": "0"}}))
    with pytest.raises(ValueError, match="site exists and is not a world"):
        world.save(site)
    assert (site / "index.html").read_text() == "mine"


def test_a_world_with_something_else_in_it_is_not_replaced(world, tmp_path):
    folder = world.save(tmp_path / "world")
    world.save(folder)  # its own, as it was written
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds what was not written with it \(notes\.txt\)"):
        world.save(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_backup_beside_a_world_stays(world, tmp_path):
    """world.old and world.tmp are names that a user gives, too."""
    folder = world.save(tmp_path / "world")
    for name in ("world.old", "world.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    world.save(folder)
    assert {path.name for path in tmp_path.rglob("*")} >= {"world.old", "world.tmp", "mine"}
    assert (tmp_path / "world.old" / "mine").exists()
    assert (tmp_path / "world.tmp" / "mine").exists()


def test_a_world_that_was_being_replaced_when_all_ended_is_not_looked_for_elsewhere(
    world, tmp_path, monkeypatch
):
    """Though its name might be one on a hub."""
    monkeypatch.chdir(tmp_path)
    world.save(tmp_path / "runs" / "world").rename(tmp_path / "runs" / ".world.scd-old")
    with pytest.raises(FileNotFoundError, match=r"being replaced .* lies in runs/\.world\.scd-old"):
        find_folder("runs/world")


def test_a_shipped_world_is_found_by_its_environments_id(tmp_path):
    """Wherever a world is named, and no hub is asked for what begins like one."""
    assert find_folder("scd_world/G1-v0") == G1_WORLD
    World.load("scd_world/PushT-v0")
    for slip in ("scd_world/PushTT-v0", "scd_world/World-v0"):
        with pytest.raises(FileNotFoundError, match=rf"{slip}.*scd_world/G1-v0, scd_world/PushT-v0"):
            find_folder(slip)


def test_a_world_from_the_hub_can_be_pinned_wherever_it_is_named(world, tmp_path, monkeypatch):
    asked, folder = [], world.save(tmp_path / "world")

    def snapshot(name: str, revision: str | None = None) -> str:
        asked.append((name, revision))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    for source, revision in (
        ("user/name", None),
        ("user/name@abc", None),
        ("user/name", "abc"),
        ("user/name@abc", "abc"),
    ):
        World.load(source, revision=revision)
    assert asked == [("user/name", None)] + 3 * [("user/name", "abc")]
    with pytest.raises(ValueError, match="names the revision abc, and revision=def another"):
        World.load("user/name@abc", revision="def")
