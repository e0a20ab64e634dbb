"""The README.md of a world's folder: what it was given, what it learnt from, how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scd_world.prior.config import PriorConfig
from scd_world.robot_data.schema import DataSchema


def model_card(schema: DataSchema, prior: PriorConfig, made: Mapping[str, Any]) -> str:
    """Writes the README.md of a world's folder. made: its provenance."""
    found = made["eval"]
    rows = [
        f"| {h} | {found[f'eval/psnr_h{h}']:.2f} | {found[f'eval/psnr_copy_h{h}']:.2f} |"
        for h in (1, 4, 16)
        if f"eval/psnr_h{h}" in found
    ]
    table = ["| imagined step | PSNR, dB | copying the last frame |", "|---|---|---|", *rows]
    lines = [
        "---",
        "library_name: scd_world",
        "tags: [world-model, robotics, lerobot]",
        "---",
        f"# A world of {', '.join(schema.tasks) or 'recorded episodes'}",
        "",
        f"{len(schema.cameras)} camera(s) of {schema.height}×{schema.width} pixels at {schema.fps} frames "
        f"per second; action {', '.join(schema.action)}.{data_notes(schema)}",
        "",
        what_it_is_given(schema)
        + what_it_finds(made.get("found") or ())
        + " "
        + what_its_prior_is(prior)
        + what_its_doubts_are(made)
        + what_it_draws(made.get("codec") or {}),
        "",
        f"Trained for {made['steps']} updates of {made['batch_size']} windows of "
        f"{made['sequence_length']} steps in {training_hours(made)}, on {made['episodes']} episodes of "
        f"{made['data']}, {len(made['held_out_episodes'])} of them held out."
        + (f" **None of it was recorded: it was {made['imagined']}.**" if made.get("imagined") else "")
        + (
            f" Its state prior learnt from {' and '.join(made['extra_datasets'])} as well."
            if made.get("extra_datasets")
            else ""
        )
        + (f" It started from the weights of {made['init']}." if made.get("init") else "")
        + (f" Distilled by {made['distilled']['method']}." if made.get("distilled") else "")
        + (f" Changed since: {made['edited']}." if made.get("edited") else ""),
        "",
        *(["On held-out episodes, open loop:", "", *table, ""] if rows else []),
        "It learnt from these recordings alone: what they do not hold is outside its envelope.",
        "",
        "```python",
        "import gymnasium, scd_envs",
        'env = gymnasium.make("scd_world/World-v0", world="<this folder>")',
        "```",
    ]
    return "\n".join(lines) + "\n"


def what_it_is_given(schema: DataSchema) -> str:
    """Says plainly what a user's robot must know to step this world."""
    robot, rest = len(schema.agent_pos), len(schema.environment_state)
    if rest:
        return (
            f"**It is given the state of its environment**: besides the cameras and {robot} numbers of "
            f"proprioception, {rest} numbers of `environment_state`, which a simulator or a tracker knows "
            "and a robot by itself does not. Its figures are not comparable with those of worlds that see "
            "cameras alone."
        )
    if robot:
        return (
            f"It is given cameras and proprioception ({robot} numbers), which every robot has, and no more."
        )
    return "It is given cameras alone."


def what_it_finds(found: Sequence[str]) -> str:
    """Says what is read off the pictures, by the names of the numbers; "" where nothing is."""
    if not found:
        return ""
    objects = sorted({name.rsplit(" ", 2)[0] for name in found})
    return (
        f" It finds objects in its pictures by itself, by sight ({', '.join(objects)}): {len(found)} numbers "
        "of where they are, which nobody tells it."
    )


def what_its_prior_is(prior: PriorConfig) -> str:
    if prior.kind == "none":
        return "It has no state prior: the next state is read off the model's own encoding."
    return (
        "A state prior, pretrained on recorded state alone, predicts the next state before a frame is drawn."
    )


def what_its_doubts_are(made: Mapping[str, Any]) -> str:
    """Says so where its uncertainty was measured on what it had learned; "" where not, or nobody knows."""
    if made.get("episodes_apart", 1):
        return ""
    return (
        " How far to trust it was measured on episodes that it learned from, for none was set apart: its "
        "uncertainty is too small."
    )


def what_it_draws(codec: Mapping[str, float]) -> str:
    """Says how close frames come back through a learnt codec; "" where there is none, or nothing held out."""
    if not codec:
        return ""
    return (
        " It draws latents of an autoencoder that was learnt from these recordings; through it held-out "
        f"frames come back at {codec['psnr']:.1f} dB (worst {codec['worst_psnr']:.1f}), SSIM "
        f"{codec['ssim']:.3f}: the ceiling of all that it imagines."
    )


def training_hours(made: Mapping[str, Any]) -> str:
    """Gives the hours of its own training, and with those of the worlds that its weights come from."""
    own, whole = made["training_seconds"], 0
    world: Mapping[str, Any] | None = made
    while world:
        whole, world = whole + world["training_seconds"], world.get("parent")
    hours = f"{own / 3600:.1f} hours"
    return hours if whole == own else f"{hours} ({whole / 3600:.1f} with those of the worlds before it)"


def data_notes(schema: DataSchema) -> str:
    """Says what was not recorded, and what was done to the images."""
    missing = [name for name in ("reward", "success") if not getattr(schema, name)]
    notes = [f" No {name} was recorded: it is 0." for name in missing]
    if schema.recorded:
        sizes = ", ".join(f"{c} {h}×{w}" for c, (h, w) in schema.recorded_sizes.items())
        notes.append(f" Recorded as {sizes}; {schema.resize} to one size.")
    return "".join(notes)
