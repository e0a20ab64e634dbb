"""What was typed is checked with what was chosen beside it."""

from __future__ import annotations

import pytest
from hydra import compose, initialize

import scd_world.cli.run_command  # noqa: F401 (registers the configs)
from scd_world.cli import choose_settings as choosing
from scd_world.cli.choose_settings import Recording, choose_settings
from scd_world.cli.hydra_config import to_settings
from scd_world.training.config import TrainConfig


def typed(*words: str) -> TrainConfig:
    with initialize(version_base="1.3", config_path=None):
        config = compose("train", list(words))
    given = dict(word.split("=", 1) for word in words)
    return to_settings(config, TrainConfig, "scd-train", choose_settings, given)


@pytest.mark.parametrize(
    ("word", "needed"),
    [
        ("model.state_filter=true", "anchor_frame"),
        ("model.measured_share=0.25", "state_filter"),
        ("model.anchor_attention=true", "anchor_frame"),
        ("prior.scene_features=6", "state_filter"),
    ],
)
def test_what_needs_a_choice_may_be_typed_without_it(slide_store, tmp_path, word, needed):
    begin = (f"out={tmp_path}/run", "data=zarr", f"data.root={slide_store}", "codec=autoencoder")
    config = typed(*begin, word)
    assert getattr(config.model, needed)
    name, value = word.split("=")
    group, _, name = name.partition(".")
    assert str(getattr(getattr(config, group), name)).lower() == value
    with pytest.raises(ValueError, match=needed):
        typed(*begin, word, f"model.{needed}=false")


def test_what_no_choice_cures_is_said_at_once(slide_store, tmp_path):
    begin = (f"out={tmp_path}/run", "data=zarr", f"data.root={slide_store}")
    with pytest.raises(ValueError, match=r"2 things are wrong:\n.*batch_size=0.*\n.*head='round'"):
        typed(*begin, "codec=autoencoder", "batch_size=0", "model.head=round")
    with pytest.raises(ValueError, match=r"give data\.root"):
        typed("out=x", "batch_size=3", "codec=autoencoder")


@pytest.mark.parametrize("word", ["device=gpu", "batch_size=0", "time_budget=-1", "sequence_length=-3"])
def test_a_slip_that_nothing_can_be_chosen_by_is_said_as_any_other(slide_store, tmp_path, word):
    begin = (f"out={tmp_path}/run", "data=zarr", f"data.root={slide_store}", "codec=autoencoder")
    with pytest.raises(ValueError, match=rf"{word.split('=')[0]}=.*expected"):
        typed(*begin, word)


def test_a_recording_without_cameras_is_left_to_whoever_reads_it(monkeypatch, slide_store, tmp_path):
    nothing = Recording(0, 0, environment_state=False, frames=100, cameras=0)
    monkeypatch.setattr(choosing, "recording", lambda config: nothing)
    typed(f"out={tmp_path}/run", "data=zarr", f"data.root={slide_store}")
