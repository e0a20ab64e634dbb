"""The README.md of a world's folder: what it was taught, by whom, how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scd_world.robot_data.schema import DataSchema


def model_card(schema: DataSchema, made: Mapping[str, Any]) -> str:
    """The README.md of the world's folder; `made`: its provenance."""
    measured = made["measured"]
    rows = [
        f"| {h} | {measured[f'eval/psnr_h{h}']:.2f} | {measured[f'eval/psnr_copy_h{h}']:.2f} |"
        for h in (1, 4, 16)
        if f"eval/psnr_h{h}" in measured
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
        f"per second; agent_pos ({len(schema.agent_pos)} numbers), environment_state "
        f"({len(schema.environment_state)}); action {', '.join(schema.action)}.{data_notes(schema)}",
        "",
        f"Trained for {made['steps']} updates of {made['batch_size']} windows of {made['clip_steps']} steps "
        f"in {training_hours(made)}, on {made['episodes']} episodes of {made['data']}, "
        f"{len(made['held_out_episodes'])} of them held out."
        + (
            f" Its body learnt from the numbers of {' and '.join(made['more'])} as well."
            if made.get("more")
            else ""
        )
        + (f" It started from the weights of {made['init']}." if made.get("init") else "")
        + (f" Distilled by {made['distilled']['method']}." if made.get("distilled") else "")
        + (f" Changed since: {made['refined']}." if made.get("refined") else ""),
        "",
        *(["On held-out episodes, open loop:", "", *table, ""] if rows else []),
        "It was taught by these recordings alone: what they do not hold is outside its envelope.",
        "",
        "```python",
        "import gymnasium, scd_envs",
        'env = gymnasium.make("scd_world/World-v0", world="<this folder>")',
        "```",
    ]
    return "\n".join(lines) + "\n"


def training_hours(made: Mapping[str, Any]) -> str:
    """Of its own training, and of those that its weights come from."""
    own, whole, ancestor = made["training_seconds"], 0, made
    while ancestor:
        whole, ancestor = whole + ancestor["training_seconds"], ancestor.get("init_provenance")
    said = f"{own / 3600:.1f} hours"
    return said if whole == own else f"{said} ({whole / 3600:.1f} with those of the worlds before it)"


def data_notes(schema: DataSchema) -> str:
    """What was not recorded, and what was done to the pictures."""
    missing = [name for name in ("reward", "success") if not getattr(schema, name)]
    said = [f" No {name} was recorded: it is 0." for name in missing]
    if schema.recorded:
        sizes = ", ".join(f"{c} {h}×{w}" for c, (h, w) in schema.recorded_sizes.items())
        said.append(f" Recorded as {sizes}; {schema.resize} to one size.")
    return "".join(said)
