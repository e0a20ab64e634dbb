"""A world to ship says how good it is, and is half the size."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import torch

from scd_world.prior.config import PriorConfig
from scd_world.training.export import export_world
from scd_world.world.model_card import model_card
from scd_world.world.world import World


def test_a_packaged_world_is_half_the_size_and_carries_its_report(world, tmp_path):
    measured = {"eval/psnr_h1": 30.0, "eval/psnr_copy_h1": 20.0}
    data = {"data": "d", "episodes": 9, "held_out_episodes": [2], "batch_size": 4, "sequence_length": 8}
    world.provenance = data | {"steps": 5, "planned_steps": 5, "training_seconds": 60, "eval": measured}
    world.card = model_card(world.schema, world.prior_config, world.provenance)
    assert "30.00" in world.card
    assert "the weights of first." in model_card(
        world.schema, world.prior_config, world.provenance | {"init": "first"}
    )
    bare = replace(world.schema, success=False, recorded=((480, 640), (90, 90)), resize="letterbox")
    notes = "No success was recorded: it is 0. Recorded as top 480×640, wrist 90×90; letterbox to one size."
    assert notes in model_card(bare, world.prior_config, world.provenance)
    full = world.save(tmp_path / "world")
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/report.md").write_text(
        "# Fidelity of it\n\n| step | PSNR |\n\n## Where it fails\n"
    )
    (tmp_path / "evaluation/worst.png").write_bytes(b"picture")
    small = export_world(full, tmp_path / "evaluation", tmp_path / "shipped")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (small, full)]
    assert sizes[0] < 0.6 * sizes[1]
    shipped = World.load(small)
    assert "```\n\n## Fidelity of it\n\n| step | PSNR |\n\n### Where it fails\n" in shipped.card
    assert "](worst.png)" in shipped.card
    assert "strip_0.png" not in shipped.card  # nobody drew it
    assert (small / "worst.png").read_bytes() == b"picture"
    assert "# A world of push" in shipped.card
    assert "30.00" not in shipped.card  # one table of PSNRs, the report's
    for name, weight in world.model.state_dict().items():
        torch.testing.assert_close(shipped.model.state_dict()[name], weight, rtol=1e-3, atol=1e-4)


def test_a_packaged_world_says_whose_recordings_it_learned_from_in_every_generation(world, tmp_path):
    data = {"data": "/home/me/d", "episodes": 9, "held_out_episodes": [2], "batch_size": 4}
    data |= {"sequence_length": 8, "steps": 5, "planned_steps": 5, "training_seconds": 60, "eval": {}}
    world.provenance = data | {"parent": data | {"parent": None}}
    (tmp_path / "report.md").write_text("# Fidelity of it\n")
    (tmp_path / "LICENSE").write_text("as you like")
    some = replace(world.starts, **{f.name: getattr(world.starts, f.name)[:3] for f in fields(world.starts)})
    made = export_world(
        world.save(tmp_path / "world"), tmp_path, tmp_path / "shipped", "int8", "her robot (MIT)", some,
        beside=[tmp_path / "LICENSE"],
    )  # fmt: skip
    shipped = World.load(made)
    assert "on 9 episodes of her robot (MIT)" in shipped.card
    assert "/home/me" not in json.dumps(shipped.provenance)
    assert len(shipped.starts.addresses) == 3
    assert (made / "LICENSE").read_text() == "as you like"


def test_the_card_says_what_a_world_is_given(world):
    """A figure that was reached by giving the model what no robot knows must not pass for another."""
    data = {"data": "d", "episodes": 9, "held_out_episodes": [2], "batch_size": 4, "sequence_length": 8}
    made = data | {"steps": 5, "planned_steps": 5, "training_seconds": 60, "eval": {}}
    cards = [
        model_card(schema, prior, made)
        for schema in (world.schema, replace(world.schema, environment_state=()))
        for prior in (world.prior_config, PriorConfig(kind="none"))
    ]
    assert ["given the state of its environment" in card for card in cards] == [True, True, False, False]
    assert ["cameras and proprioception (2 numbers), which every robot has" in c for c in cards[2:]] == [
        True
    ] * 2
    assert ["It has no state prior" in card for card in cards] == [False, True, False, True]
