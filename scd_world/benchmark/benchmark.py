"""How fast models step and learn: milliseconds, operations, bytes; as tables, as JSON, and as figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from scd_datasets.store.read_speed import measure as reading_speed
from scd_datasets.store.store import WindowStore
from scd_world.benchmark import async_envs, environment, figures, quality, stepping, training
from scd_world.benchmark.config import BenchConfig
from scd_world.codec.codec import Codec, make_codec
from scd_world.model.config import ModelConfig
from scd_world.prior.config import PriorConfig
from scd_world.reporting.tables import write_json
from scd_world.robot_data.schema import DataSchema
from scd_world.utils.devices import machine_info, pick_device
from scd_world.utils.output_folder import claimed_folder
from scd_world.world.world import World


def bench(config: BenchConfig) -> dict[str, Any]:
    """Measures, prints tables, and writes bench.json, bench.md and figures where `out` is given."""
    if not config.out:
        return measure(config)
    with claimed_folder(config.out, "scd-bench", ("bench.json", ("machine", "steps"))):
        return measure(config)


def measure(config: BenchConfig) -> dict[str, Any]:
    """Measures and prints, and writes after each part."""
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    model, prior, codec = what_to_measure(config)
    codec = codec.to(device)
    schema = codec.model_schema
    learned = schema
    if config.training and config.store:
        learned = of_windows(config.store, schema, config.world is None and codec.is_plain)
    report: dict[str, Any] = {"machine": machine_info(device), "model": describe(model, codec, config)}
    if config.store:
        report["store"] = {"path": config.store, "frames_per_s": reading_speed(config.store, config.seconds)}
    report["steps"] = stepping.compare_models(
        model,
        prior,
        config.baselines,
        codec,
        device,
        config.contexts or [model.window],
        config.batch_sizes,
        config.num_steps,
        config.seconds,
        config.max_round_seconds,
        config.compile,
    )
    write(report, config.out)
    if config.training:
        models = stepping.build_models(model, prior, config.baselines, learned, device)
        report["training"] = training.compare_training(
            models, config.store, config.train_batch_size, config.sequence_length, config.seconds
        )
        write(report, config.out)
    if config.evaluations:
        report["quality"] = quality.quality(config.evaluations, device, config.seconds)
    if config.compare == "environment":
        world = World.load(str(config.world), device)
        rows = environment.compare_environments(
            world, config.batch_sizes, config.num_steps, config.precision, config.seconds
        )
        report["environment"] = []
        for row in rows:
            report["environment"].append(row)
            write(report, config.out)
    if config.compare == "async":
        report["async"] = async_envs.compare_async(
            str(config.world),
            config.num_envs,
            config.seconds * async_envs.ROUNDS,
            device.type,
            config.precision,
        )
    write(report, config.out)
    if config.out:
        write_figures(
            Path(config.out), json.loads((Path(config.out) / "bench.json").read_text(encoding="utf-8"))
        )
    print(markdown(report))
    return report


def of_windows(store: str, schema: DataSchema, any_size: bool) -> DataSchema:
    """Gives what a store's windows hold; ValueError where that is not what the measured model trains on.

    schema: what that sees; any_size: it is untrained and may be of whatever the store has.
    """
    found = WindowStore.open(store, in_memory=False).schema
    if any_size:
        return found
    sizes = [(len(s.cameras), s.height, s.width, len(s.state), len(s.action)) for s in (schema, found)]
    if sizes[0] != sizes[1]:
        form = "{} cameras of {}×{}, {} numbers of a state, {} of an action"
        words = [form.format(*size) for size in sizes]
        raise ValueError(
            f"training=true: the model that is measured sees {words[0]}, and {store} has {words[1]}. Of a "
            "world of latents that is the latents.zarr of its training's folder; without store=, windows are "
            "made up"
        )
    return found


def write(report: dict[str, Any], out: str | None) -> None:
    """Writes what was measured so far: whoever stops the command loses what was still to come, no more."""
    if out:
        write_json(Path(out) / "bench.json", report)
        (Path(out) / "bench.md").write_text(markdown(report), encoding="utf-8")


def write_figures(out: Path, report: dict[str, Any]) -> None:
    """Writes the figures of a report, be it one read back from bench.json."""
    figures.plot_latency(out / "latency.png", report["steps"])
    if "quality" in report:
        figures.plot_quality(out / "quality.png", report["quality"])


def what_to_measure(config: BenchConfig) -> tuple[ModelConfig, PriorConfig, Codec]:
    """Gives what is measured: a world's own model and codec, or the configured ones for data of the
    configured shape."""
    if config.world:
        world = World.load(config.world)
        return world.config, world.prior_config, world.codec
    codec = make_codec(config.codec.architecture, plain_schema(config))
    return config.model, config.prior.architecture(), codec


def plain_schema(config: BenchConfig) -> DataSchema:
    """Describes data of the configured shape, without reward and success."""

    def names(prefix: str, count: int) -> tuple[str, ...]:
        return tuple(f"{prefix}{i}" for i in range(count))

    A = config.action_size
    return DataSchema(
        cameras=names("camera", config.cameras),
        height=config.height,
        width=config.width,
        agent_pos=names("state", config.state_size),
        environment_state=(),
        action=names("action", A),
        action_low=(-1.0,) * A,
        action_high=(1.0,) * A,
        fps=10,
        tasks=(),
        reward=False,
        success=False,
        horizon=100,
    )


# ---- the report -------------------------------------------------------------------------------------


def describe(model: ModelConfig, codec: Codec, config: BenchConfig) -> dict[str, Any]:
    """Names what is measured, as plain data."""
    schema = codec.model_schema
    return {
        "source": config.world or "random weights",
        "width": model.width,
        "patch": model.patch,
        "head": model.head,
        "codec": codec.config.kind,
        "frame": [len(schema.cameras), schema.height, schema.width],
    }


def markdown(report: dict[str, Any]) -> str:
    """Writes the report as a page; also what the terminal shows."""
    m, machine = report["model"], report["machine"]
    V, H, W = m["frame"]
    unit = "pixels" if m["codec"] == "identity" else "cells of a latent"
    tokens = V * (H // m["patch"]) * (W // m["patch"])
    parts = [
        f"{m['source']}: width {m['width']}, {V} × {H} × {W} {unit} in {tokens} patches of {m['patch']}, "
        f"head {m['head']}; {machine['device']} {machine['name']}, {machine['threads']} threads, "
        f"torch {machine['torch']}, fp32",
        stepping.markdown(report["steps"]),
    ]
    if rows := report.get("training"):
        parts.append(training.markdown(rows))
    if rows := report.get("quality"):
        parts.append(quality.markdown(rows))
    if store := report.get("store"):
        read = ", ".join(f"{speed:,.0f} {how}" for how, speed in store["frames_per_s"].items())
        parts.append(f"{store['path']}, frames/s per core in random windows: {read}")
    if rows := report.get("environment"):
        parts.append(environment.markdown(rows))
    if ways := report.get("async"):
        parts.append(async_envs.markdown(ways))
    return "\n\n".join(parts) + "\n"
