"""A world that somebody else made, or changed, is refused before anything of its size is allocated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file, save_file

import scd_envs
from scd_world.codec.config import CodecConfig
from scd_world.model.config import ARCHITECTURES
from scd_world.prior.config import PriorConfig
from scd_world.robot_data.schema import DataSchema
from scd_world.utils.atomic_folder import DamagedFolder, write_manifest
from scd_world.world.build_model import build_model
from scd_world.world.world import World
from scd_world.world.world_config import WorldConfig, fewest_weights, read_config
from tests.conftest import CONFIG, PRIOR, SCHEMA, make_stats

NONE = PriorConfig(kind="none")


@pytest.fixture
def folder(world, tmp_path) -> Path:
    return world.save(tmp_path / "world")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes config.json, and the manifest with it: as one who can write the folder would."""
    file = folder / "config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(change(values) or values))
    write_manifest(folder)


def setting(part: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config[part].update(values)


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda config: config.pop(name) and None


def parents(count: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for _ in range(count):
        made = {"parent": made or None, "steps": 1}
    return made


NAN = float("nan")
IMPOSSIBLE = {
    "width -2": (setting("model", width=-2), r"model\.width=-2: .*between 2 and 16384"),
    "width 0": (setting("model", width=0), r"model\.width=0: .*between 2 and 16384"),
    "heads 0": (setting("model", heads=0), r"model\.heads=0: .*between 1 and 256"),
    "window 0": (setting("model", window=0), r"model\.window=0: .*between 1 and 4096"),
    "window 1e9": (setting("model", window=10**9), r"model\.window=1000000000: .*between 1 and 4096"),
    "patch 0": (setting("model", patch=0), r"model\.patch=0: .*between 1 and"),
    "num_steps 0": (setting("model", num_steps=0), r"model\.num_steps=0: .*between 1 and 1000"),
    "num_steps 1e9": (setting("model", num_steps=10**9), r"model\.num_steps=1000000000: .*1 and 1000"),
    "a million layers": (setting("model", encoder_layers=10**6), r"model\.encoder_layers=1000000: "),
    "a prior of a million layers": (setting("prior", layers=10**6), r"prior\.layers=1000000: .*0 and 256"),
    "a prior a million wide": (setting("prior", width=10**6), r"prior\.width=1000000: .*1 and 16384"),
    "a million parts": (setting("prior", renderer_parts=10**6), r"prior\.renderer_parts=1000000: "),
    "a text for a number": (setting("model", width="8"), r"model\.width='8': expected a whole number"),
    "a bool for a number": (setting("model", heads=True), r"model\.heads=True: expected a whole number"),
    "a real for a number": (setting("model", heads=2.0), r"model\.heads=2\.0: expected a whole number"),
    "a number for a bool": (setting("model", copy_last=1), r"model\.copy_last=1: expected true or false"),
    "NaN": (setting("model", guidance=NAN), r"model\.guidance=nan: expected a finite number"),
    "more than a float": (setting("model", t_std=10**400), r"model\.t_std=1000.*: expected a finite number"),
    "null": (setting("model", width=None), r"model\.width=None: expected a whole number"),
    "an unknown setting": (setting("model", depth=3), r"unknown settings \['depth'\]; known are"),
    "a patch that does not fit": (setting("model", patch=5), r"patch=5 does not divide the frame 8×12"),
    "fps 0": (setting("schema", fps=0), r"schema\.fps=0: expected a number above 0"),
    "fps NaN": (setting("schema", fps=NAN), r"schema\.fps=nan: expected"),
    "horizon -5": (setting("schema", horizon=-5), r"schema\.horizon=-5: .*between 1 and"),
    "height 1e9": (setting("schema", height=10**9), r"schema\.height=1000000000: .*between 1 and 65536"),
    "tasks 5": (setting("schema", tasks=5), r"schema\.tasks=5: expected a list of texts"),
    "tasks of numbers": (setting("schema", tasks=[5]), r"schema\.tasks=\(5,\): expected a list of texts"),
    "a text of tasks": (setting("schema", tasks="push"), r"schema\.tasks='push': expected a list of texts"),
    "a bound of NaN": (setting("schema", action_low=[NAN, 0]), r"schema\.action_low=.*a list of finite num"),
    "bounds the wrong way": (setting("schema", action_low=[3.0, 0.0]), r"action_low of 'ax' is 3\.0, above"),
    "reward 1": (setting("schema", reward=1), r"schema\.reward=1: expected true or false"),
    "an object of cameras": (setting("schema", cameras={"top": 1}), r"schema\.cameras=.*a list of texts"),
    "recorded sizes of three": (
        setting("schema", recorded=[[8, 12, 3]] * 2),
        r"schema\.recorded=.*lists of 2",
    ),
    "recorded sizes of zero": (setting("schema", recorded=[[8, 0], [8, 12]]), r"schema\.recorded=0: .*1 and"),
    "no schema": (without("schema"), "schema is missing"),
    "no model": (without("model"), "model is missing"),
    "no prior": (without("prior"), "prior is missing"),
    "no provenance": (without("provenance"), "provenance is missing"),
    "a list of settings": (lambda config: config.update(model=[1]), r"model is \[1\]: expected an object"),
    "a list as schema": (lambda config: config.update(schema=[1]), r"schema is \[1\]: expected an object"),
    "a parent of text": (setting("provenance", parent="x"), r"provenance\.parent is 'x': expected an object"),
    "500 parents": (lambda c: c.update(provenance=parents(500)), "provenance names more than 100 worlds"),
    "a huge guidance": (setting("model", guidance=10**30), r"model\.guidance=1000.*: .*between 0 and 100"),
    "a huge bound": (setting("schema", action_high=[1e300, 512]), r"action_high of 'ax'=1e\+300: .*between"),
    "a list": (lambda config: [config], r"holds \[.*: expected a JSON object"),
}


@pytest.mark.parametrize(("change", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_no_world_has_is_refused_by_name(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(DamagedFolder, match=r"config\.json.*" + message):
        World.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a":' * 100_000, "\xff"])
@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
def test_what_is_no_json_is_refused(folder, name, text):
    (folder / name).write_bytes(text.encode("latin-1"))
    if name == "config.json":
        write_manifest(folder)
    with pytest.raises(DamagedFolder, match=rf"{name}"):
        World.load(folder)


@pytest.mark.parametrize("name", ["nowhere", "", ".", "starts", "a\0b", "x" * 5000])
def test_a_manifest_of_names_that_are_no_files_is_refused(folder, name):
    hashes = json.loads((folder / "manifest.json").read_text())["sha256"]
    (folder / "manifest.json").write_text(json.dumps({"sha256": hashes | {name: "0"}}))
    with pytest.raises(DamagedFolder, match="is missing"):
        World.load(folder)


def test_a_config_in_bounds_that_asks_for_a_machine_s_memory_is_refused(folder, monkeypatch):
    """Each setting is within its bounds; together they are 2·10¹² weights, in a file of 10⁵."""
    rewrite(folder, setting("model", width=16384, heads=256, encoder_layers=256, decoder_layers=256))
    monkeypatch.setattr("scd_world.world.weights.build_model", lambda *_: pytest.fail("it was built"))
    with pytest.raises(DamagedFolder, match=r"weights, and the model of config\.json has 2,474,\S+ or more"):
        World.load(folder)


@pytest.mark.parametrize("head", ["conv", "patch"])
@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_model_has_fewer_weights_than_are_counted(architecture, layers, head):
    """Or a world as it should be would be refused; and the count is no tenth of them, or it would be idle."""
    model = replace(
        CONFIG, architecture=architecture, head=head, encoder_layers=layers, decoder_layers=1, width=64,
        patch=2 if architecture == "far_long" else 4, action_in="both",
    )  # fmt: skip
    schema = replace(SCHEMA, height=8, width=16)
    for prior in (PRIOR, replace(PRIOR, layers=0), PriorConfig(kind="none")):
        built = build_model(model, prior, schema, make_stats(schema))
        count = sum(weights.numel() for weights in built.state_dict().values())
        assert fewest_weights(WorldConfig(4, model, prior, CodecConfig(), schema, {})) <= count
    if architecture != "copy_last":
        assert fewest_weights(WorldConfig(4, model, NONE, CodecConfig(), schema, {})) > count / 10


def test_the_weights_of_another_model_are_refused(folder):
    rewrite(folder, setting("model", window=4))  # on which no weight depends
    World.load(folder)
    rewrite(folder, setting("model", fourier_octaves=1))
    with pytest.raises(DamagedFolder, match=r"model\.safetensors holds the weights of another model"):
        World.load(folder)


@pytest.mark.parametrize(
    ("file", "name", "change", "message"),
    [
        ("stats", "action_low", lambda t: t[:1], r"action_low is torch.float32 of shape \(1,\); .*\(2,\)"),
        ("stats", "background", lambda t: t.int(), r"no real numbers, in background \(torch.int32\)"),
        ("model", "core.ctx_scale", lambda t: t.long(), r"no real numbers, in core.ctx_scale \(torch.int"),
        ("model", "prior.dynamics.linear.weight", lambda t: t * NAN, r"not finite, in prior.dynamics.linear"),
    ],
)  # fmt: skip
def test_tensors_that_are_not_this_world_s_are_refused(folder, file, name, change, message):
    path = folder / f"{file}.safetensors"
    tensors = load_file(path)
    save_file(tensors | {name: change(tensors[name]).contiguous()}, path)
    write_manifest(folder)
    with pytest.raises(DamagedFolder, match=rf"{file}\.safetensors.*{message}"):
        World.load(folder)


@pytest.mark.parametrize("lost", ["stats", "model"])
def test_files_that_hold_no_tensors_are_refused(folder, lost):
    (folder / f"{lost}.safetensors").write_bytes(b"\xff" * 100)
    write_manifest(folder)
    with pytest.raises(DamagedFolder, match=rf"{lost}\.safetensors cannot be read"):
        World.load(folder)
    save_file({"other": torch.zeros(3)}, folder / f"{lost}.safetensors")
    write_manifest(folder)
    with pytest.raises(DamagedFolder, match=rf"{lost}\.safetensors"):
        World.load(folder)


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed[3, 0] = value
    return changed


BAD_STARTS = {
    "NaN": (lambda s: {"state": with_value(s.state, NAN)}, "state of episode 4, frame 3 is not finite"),
    "infinity": (lambda s: {"action": with_value(s.action, 1e39)}, "action of episode 4, frame 3 is not fin"),
    "a camera less": (
        lambda s: {"pixels": s.pixels[:, :1]},
        r"pixels is uint8 of shape \(15, 1, 8, 12, 3\); .*expected bytes of shape \(15, 2, 8, 12, 3\)",
    ),
    "a frame less": (lambda s: {"action": s.action[1:]}, r"action is float32 of shape \(14, 2\)"),
    "whole numbers": (lambda s: {"state": s.state.astype(int)}, "state is int64 .*expected real numbers"),
    "unknown tasks": (
        lambda s: {"task": np.arange(15) // 14 * 7},
        r"task holds \[0, 7\]; expected numbers of",
    ),
    "nothing": (lambda s: {name: array[:0] for name, array in s.arrays().items()}, "there is one or more"),
}


@pytest.mark.parametrize(("change", "message"), BAD_STARTS.values(), ids=BAD_STARTS)
def test_starts_that_cannot_be_begun_from_are_refused(world, tmp_path, change, message):
    with np.errstate(over="ignore"):
        world.starts = replace(world.starts, **change(world.starts))
    with pytest.raises(DamagedFolder, match=rf"starts: .*{message}"):
        World.load(world.save(tmp_path / "world"))


def a_terabyte(starts: Path) -> None:
    file = starts / "pixels" / "zarr.json"
    array = json.loads(file.read_text())
    file.write_text(json.dumps(array | {"shape": [10**12, *array["shape"][1:]]}))


def an_array_of_nobody(starts: Path) -> None:
    zarr.open_group(str(starts), mode="r+").create_array("more", data=np.ones(3))


BAD_FILES = {
    "a terabyte": (a_terabyte, r"pixels of shape \(1000000000000, .* would take .* GB"),
    "an array of nobody": (an_array_of_nobody, r"holds the arrays \['action', 'addresses', 'more'"),
    "an array that is lost": (lambda starts: (starts / "state" / "zarr.json").unlink(), "holds the arrays"),
    "no JSON": (lambda starts: (starts / "zarr.json").write_text("[" * 100_000), "cannot be read as zarr"),
    "no shape": (lambda starts: (starts / "state" / "zarr.json").write_text("{}"), "'node_type' is missing"),
    "a lost chunk": (lambda starts: (starts / "state" / "c" / "0" / "0").unlink(), "chunk"),
}


@pytest.mark.filterwarnings("ignore:Object at state is not recognized")
@pytest.mark.parametrize(("change", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_files_of_starts_that_cannot_be_read_are_refused(folder, change, message):
    change(folder / "starts")
    write_manifest(folder)
    with pytest.raises(DamagedFolder, match=rf"starts: .*{message}"):
        World.load(folder)


def test_a_start_that_the_manifest_does_not_list_was_never_checked(folder):
    (folder / "starts" / "state" / "c" / "9").mkdir()
    (folder / "starts" / "state" / "c" / "9" / "0").write_bytes(b"1")
    with pytest.raises(DamagedFolder, match=r"does not list starts/state/c/9/0: what is there was never"):
        World.load(folder)


def test_worlds_as_they_should_be_are_read(folder):
    assert read_config(folder).schema == SCHEMA
    rewrite(folder, setting("schema", fps=29.97))
    assert read_config(folder).schema == replace(SCHEMA, fps=29.97)
    shipped = read_config(scd_envs.PUSHT_WORLD)
    assert (shipped.format, shipped.model.patch, shipped.schema.fps) == (4, 16, 10)
    old = read_config(Path(__file__).parents[2] / "assets" / "world_format3")
    assert (old.format, old.prior.kind) == (3, "state")


def test_a_schema_of_a_store_is_checked_alike():
    with pytest.raises(ValueError, match=r"not a data schema: \[\]"):
        DataSchema.from_dict([])
    with pytest.raises(
        ValueError, match=r"schema\.action_high=\('1', 1\): expected a list of finite numbers"
    ):
        DataSchema.from_dict(SCHEMA.to_dict() | {"action_high": ["1", 1]})
    assert DataSchema.from_dict(json.loads(json.dumps(SCHEMA.to_dict()))) == SCHEMA
