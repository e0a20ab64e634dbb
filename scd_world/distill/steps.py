"""Quality against denoising steps: several worlds on the same held-out windows from the same noise.

steps.json · steps.md · steps.png. `likeness` is measured at the first imagined step: PSNR to the first
world's frame with the most steps from the same noise, so how well its path is kept, whatever was recorded.
`sharpness` there: mean difference of neighboring pixels over that of the recorded frame, 1 where the
windows are as sharp as recorded. Means over the windows, one imagination each. `ms` of one step of one row
are the processor's on a CPU (a busy machine does not count), the clock's on a GPU; all in turn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from scd_datasets.store.store import WindowStore
from scd_world.benchmark.timing import dummy_state, interleave_steps
from scd_world.distill.config import DistillConfig
from scd_world.evaluation.config import EvaluateConfig
from scd_world.evaluation.open_loop import (
    RowNoise,
    WindowBatch,
    imagine_steps,
    load_batches,
    spread_windows,
    start_windows,
)
from scd_world.evaluation.splits import select_eval_episodes
from scd_world.metrics.image import psnr, sharpness
from scd_world.reporting.plotting import new_figure
from scd_world.reporting.tables import number, table, write_json
from scd_world.utils.devices import machine_info, pick_device
from scd_world.world.world import World

HORIZONS = (1, 4, 16, 32, 64)
ROUNDS = 5  # of timing


def compare_steps(worlds: Mapping[str, str], store: WindowStore, config: DistillConfig) -> str:
    """Measures worlds (name → folder), writes the report into the run folder, and gives its table. What was
    measured of the same worlds before is not measured again."""
    out, device = Path(config.out), pick_device(config.device)
    loaded = {name: World.load(source, device=device) for name, source in worlds.items()}
    first = next(iter(loaded.values()))
    choice = EvaluateConfig(
        world=config.world,
        out=config.out,
        windows=config.report_windows,
        horizon=config.report_horizon,
        context=config.eval_context,
        seed=config.seed,
    )
    # A student may have held out other episodes than its teacher.
    others = [world.provenance for world in loaded.values() if world is not first]
    chosen = select_eval_episodes(first.provenance, store, None, compared=others)
    windows = spread_windows(store, chosen.episodes, choice)
    asked = {
        "worlds": dict(worlds),
        "weights": {name: world.fingerprint for name, world in loaded.items()},
        "windows": len(windows),
        "horizon": config.report_horizon,
        "context": config.eval_context,
        "seed": config.seed,
        "steps": list(config.report_steps),
        "held_out": chosen.held_out,
        "fingerprint": store.fingerprint,
        "machine": machine_info(device),
    }
    if (out / "steps.json").exists() and (out / "steps.md").exists():
        with suppress(ValueError):  # of a call that was killed while it wrote
            earlier = json.loads((out / "steps.json").read_text(encoding="utf-8"))
            if {name: earlier.get(name) for name in asked} == asked:
                return (out / "steps.md").read_text(encoding="utf-8")
    batches = load_batches(store, windows, choice.context, choice.batch_size, first)
    reference = [first_frames(first, batch, max(config.report_steps), config.seed) for batch in batches]
    measured: dict[str, dict[int, dict[str, float]]] = {}
    for name, world in tqdm(loaded.items(), "steps", unit="world"):
        ms = step_ms(world, config.report_steps)
        measured[name] = {
            n: measure(world, batches, reference, n, choice) | {"ms": ms[n]} for n in config.report_steps
        }
    text = steps_table(measured, f"{len(windows)} windows, {chosen.held_out}")
    (out / "steps.md").write_text(text, encoding="utf-8")
    plot_steps(out / "steps.png", measured)
    write_json(out / "steps.json", asked | {"measured": measured})
    return text


@torch.no_grad()
def first_frames(world: World, batch: WindowBatch, num_steps: int, seed: int) -> Tensor:
    """Imagines the first step, (B, C, H, W)."""
    noise = RowNoise(batch.windows, world.frame_shape, seed)
    s = next(imagine_steps(world, start_windows(world, batch), batch.future, noise, num_steps))
    return world.images(s)


@torch.no_grad()
def measure(
    world: World,
    batches: Sequence[WindowBatch],
    reference: Sequence[Tensor],
    num_steps: int,
    choice: EvaluateConfig,
) -> dict[str, float]:
    """Measures `psnr_h…` and `likeness`, each a mean over the windows that reach so far, how many these are,
    `windows_h…`, and `sharpness`, what imagined frames have of the recorded ones' in all windows."""
    values: dict[str, list[Tensor]] = {}
    for batch, path_end in zip(batches, reference, strict=True):
        noise = RowNoise(batch.windows, world.frame_shape, choice.seed)
        actions = batch.future[:, : choice.horizon]
        for h, s in enumerate(
            imagine_steps(world, start_windows(world, batch), actions, noise, num_steps), start=1
        ):
            if h not in HORIZONS:
                continue
            valid, truth, drawn = batch.valid[:, h - 1], batch.truth(h), world.images(s)
            measures = {f"psnr_h{h}": psnr(drawn, truth)}
            if h == 1:
                measures |= {
                    "likeness": psnr(drawn, path_end),
                    "sharpness": sharpness(drawn),
                    "recorded": sharpness(truth),
                }
            for name, value in measures.items():
                values.setdefault(name, []).append(value[valid])
    means = {name: torch.cat(parts).mean().item() for name, parts in values.items()}
    means |= {f"windows_h{h}": sum(map(len, values[f"psnr_h{h}"])) for h in horizons_of(means)}
    recorded = means.pop("recorded")
    return means | {"sharpness": means["sharpness"] / recorded if recorded else math.nan}


def horizons_of(measures: Mapping[str, float]) -> list[int]:
    """Gives the steps at which PSNR was measured."""
    return [h for h in HORIZONS if f"psnr_h{h}" in measures]


def step_ms(world: World, steps: Sequence[int]) -> dict[int, float]:
    """Times a step of one row, its image included, in ms, for each number of denoising steps."""
    model, names = world.model, {str(n): n for n in steps}
    states = {name: dummy_state(model, 1, full=True) for name in names}
    codecs = dict.fromkeys(names, world.codec)
    steps_taken = interleave_steps(dict.fromkeys(names, model), states, names, codecs, seconds=float("inf"))
    rounds = list(islice(steps_taken, ROUNDS))
    which = "processor" if world.device.type == "cpu" else "clock"
    return {n: float(np.median([getattr(r[name], which) for r in rounds])) * 1e3 for name, n in names.items()}


# ---- the report ----------------------------------------------------------------------------------


def steps_table(measured: dict[str, dict[int, dict[str, float]]], what: str) -> str:
    """Tabulates the measures by world and number of denoising steps, under the line `what`."""
    some = next(iter(next(iter(measured.values())).values()))
    reach = {h: some[f"windows_h{h}"] for h in horizons_of(some)}
    columns = {f"psnr_h{h}": 2 for h in reach} | {"likeness": 1, "sharpness": 3, "ms": 1}
    fewer = {h: "" if n == max(reach.values()) else f" ({n} of them)" for h, n in reach.items()}
    head = ["world", "steps", *(f"PSNR at {h}{fewer[h]}" for h in reach)]
    head += ["likeness, dB", "sharpness", "ms per step"]
    rows = [
        [name, str(n), *(number(row[key], digits) for key, digits in columns.items())]
        for name, by_steps in measured.items()
        for n, row in by_steps.items()
    ]
    return f"{what}\n\n{table(head, rows)}\n"


def plot_steps(path: Path, measured: dict[str, dict[int, dict[str, float]]]) -> None:
    """Plots one panel per measure, one line per world, over the denoising steps."""
    some: dict[str, Any] = next(iter(next(iter(measured.values())).values()))
    titles = {n: f"PSNR at {n.removeprefix('psnr_h')}, dB" for n in some if n.startswith("psnr_h")}
    titles |= {
        "likeness": "likeness to the first world's path, dB",
        "sharpness": "sharpness, 1 as recorded",
    }
    with new_figure(path, 3.7 * len(titles), 3.4) as figure:
        for ax, (measure_name, title) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
            ax.set_title(title)
            for name, by_steps in measured.items():
                ax.plot(list(by_steps), [row[measure_name] for row in by_steps.values()], "o-", label=name)
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter("{x:g}")
            ax.set_xlabel("denoising steps")
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
