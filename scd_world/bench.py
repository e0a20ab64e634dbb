"""How fast a world steps: milliseconds, passes, floating-point operations, bytes."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from scd_datasets.bench import measure as reading_speed
from scd_world.evaluate_config import BenchConfig
from scd_world.model_config import ModelConfig
from scd_world.report import table, write_json
from scd_world.schema import DataSchema
from scd_world.stats import Stats
from scd_world.world import World
from scd_world.world_model import Imagined, WorldModel

WARM_UP, FEWEST = 3, 10  # steps before the clock starts; steps that are measured at least


def bench(config: BenchConfig) -> dict[str, Any]:
    """Measures, prints a table, and writes bench.json and bench.md where `out` is given."""
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    model = load_model(config).to(device).eval()
    report: dict[str, Any] = {"machine": machine(device), "model": describe(model, config)}
    if config.store:
        report["store"] = {"path": config.store, "frames_per_s": reading_speed(config.store, config.seconds)}
    report["steps"] = []
    pairs = [(n, b) for b in config.batch_sizes for n in config.num_steps]
    for num_steps, batch in tqdm(pairs, desc="steps", unit="setting"):
        report["steps"].append(measure(model, batch, num_steps, config.seconds))
    text = markdown(report)
    if config.out:
        out = Path(config.out)
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "bench.json", report)
        (out / "bench.md").write_text(text, encoding="utf-8")
    print(text)
    return report


def pick_device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but torch finds no CUDA device; use device=auto or device=cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def load_model(config: BenchConfig) -> WorldModel:
    if config.world:
        return World.load(config.world).model
    return random_model(config.model, plain_schema(config))


def plain_schema(config: BenchConfig) -> DataSchema:
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


def random_model(config: ModelConfig, schema: DataSchema) -> WorldModel:
    """Untrained weights step as fast as trained ones."""
    return WorldModel(config, schema, Stats.neutral(schema)).requires_grad_(False)


# ---- steps ---------------------------------------------------------------------------------------


def measure(model: WorldModel, batch: int, num_steps: int, seconds: float) -> dict[str, Any]:
    """Times, passes, operations and memory of steps with `batch` rows and `num_steps` denoising steps."""
    times = step_times(model, batch, num_steps, seconds)
    passes, flops, s = count_work(model, batch, num_steps)
    return {
        "num_steps": num_steps,
        "batch": batch,
        "p50_ms": float(np.quantile(times, 0.5) * 1e3),
        "p95_ms": float(np.quantile(times, 0.95) * 1e3),
        "frames_per_s": float(batch / np.median(times)),
        "steps_measured": len(times),
        "gflop_per_frame": flops / batch / 1e9,
        "cache_bytes": s.cache.nbytes,
        "encoder_passes": passes["encoder"],
        "decoder_passes": passes["decoder"],
    }


def step_times(model: WorldModel, batch: int, num_steps: int, seconds: float) -> np.ndarray:
    """Seconds of each step, after a warm-up that also fills the window: early steps must not look cheap."""
    s, device = start(model, batch), model.ctx_scale.device
    act, noise = inputs(s, len(model.schema.action))
    for _ in range(WARM_UP + model.config.window):
        s = model.imagine(s, act, noise, num_steps)
    times: list[float] = []
    while len(times) < FEWEST or sum(times) < seconds:
        synchronise(device)
        before = time.perf_counter()
        s = model.imagine(s, act, noise, num_steps)
        synchronise(device)
        times.append(time.perf_counter() - before)
    return np.array(times)


def count_work(model: WorldModel, batch: int, num_steps: int) -> tuple[dict[str, int], int, Imagined]:
    """(encoder and decoder passes, floating-point operations, what it led to) of one step."""
    s = start(model, batch)
    act, noise = inputs(s, len(model.schema.action))
    with count_passes(model) as passes, FlopCounterMode(display=False) as counter:
        s = model.imagine(s, act, noise, num_steps)
    return passes, counter.get_total_flops(), s


@contextmanager
def count_passes(model: WorldModel) -> Iterator[dict[str, int]]:
    """Counts how often the encoder's first block and the decoder run."""
    passes = {"encoder": 0, "decoder": 0}

    def counter(name: str):
        def count(*_: object) -> None:
            passes[name] += 1

        return count

    hooks = [
        model.encoder.blocks[0].register_forward_hook(counter("encoder")),
        model.decoder.blocks[0].register_forward_hook(counter("decoder")),
    ]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


def start(model: WorldModel, batch: int) -> Imagined:
    schema, device = model.schema, model.ctx_scale.device
    obs = torch.zeros(batch, schema.channels, schema.height, schema.width, device=device)
    return model.initial(obs, torch.zeros(batch, len(schema.state), device=device))


def inputs(s: Imagined, action_size: int) -> tuple[Tensor, Tensor]:
    """An action and the noise of a frame: drawing it costs next to nothing beside a step."""
    noise = torch.randn(s.obs.shape, generator=torch.Generator().manual_seed(0))
    return torch.zeros(len(s.obs), action_size, device=s.obs.device), noise.to(s.obs.device)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---- words ---------------------------------------------------------------------------------------


def machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def cpu_name() -> str:
    """Linux says more in /proc/cpuinfo than through platform."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def describe(model: WorldModel, config: BenchConfig) -> dict[str, Any]:
    c, schema = model.config, model.schema
    return {
        "source": config.world or "random weights",
        "parameters": sum(p.numel() for p in model.parameters()),
        "encoder_layers": c.encoder_layers,
        "decoder_layers": c.decoder_layers,
        "width": c.width,
        "patch": c.patch,
        "window": c.window,
        "frame": [len(schema.cameras), schema.height, schema.width],
    }


def markdown(report: dict[str, Any]) -> str:
    m, machine = report["model"], report["machine"]
    V, H, W = m["frame"]
    head = [
        "batch",
        "num_steps",
        "p50, ms",
        "p95, ms",
        "frames/s",
        "GFLOP/frame",
        "cache, MiB",
        "passes enc + dec",
    ]
    rows = [
        [
            str(r["batch"]),
            str(r["num_steps"]),
            f"{r['p50_ms']:.1f}",
            f"{r['p95_ms']:.1f}",
            f"{r['frames_per_s']:.1f}",
            f"{r['gflop_per_frame']:.2f}",
            f"{r['cache_bytes'] / 2**20:.1f}",
            f"{r['encoder_passes']} + {r['decoder_passes']}",
        ]
        for r in report["steps"]
    ]
    lines = [
        f"{m['source']}: {m['parameters'] / 1e6:.1f} M parameters, "
        f"{m['encoder_layers']} + {m['decoder_layers']} layers of width {m['width']}, "
        f"patch {m['patch']}, window {m['window']}, {V} × {H} × {W} pixels; "
        f"{machine['device']} {machine['name']}, {machine['threads']} threads, torch {machine['torch']}",
        "",
        table(head, rows),
    ]
    if store := report.get("store"):
        read = ", ".join(f"{speed:,.0f} {how}" for how, speed in store["frames_per_s"].items())
        lines += ["", f"{store['path']}, frames/s per core in random windows: {read}"]
    return "\n".join(lines) + "\n"
