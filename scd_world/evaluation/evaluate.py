"""Fidelity of a world on episodes that it was not trained with: a report, curves, a picture strip, a film.

report.json · report.md · curves.png · sweep.png · strip_0.png … · worst.png · film.mp4 · film.webp
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from scd_datasets.preparation.open_store import open_store
from scd_datasets.store.store import WindowStore
from scd_world.benchmark.timing import dummy_state, interleave
from scd_world.evaluation import action_response, figures
from scd_world.evaluation.config import EvaluateConfig
from scd_world.evaluation.curves import (
    all_curves,
    as_lists,
    curve_report,
    outcomes,
    time_to_failure,
    uncertainty,
    worst_windows,
)
from scd_world.evaluation.open_loop import (
    OpenLoopResults,
    RowNoise,
    Window,
    WindowBatch,
    WindowVideo,
    film,
    imagine_steps,
    load_batch,
    look,
    spread_windows,
    start_windows,
)
from scd_world.evaluation.outcome_prediction import predict_outcomes, score
from scd_world.evaluation.report import HORIZONS, markdown
from scd_world.evaluation.splits import select_eval_episodes
from scd_world.metrics.image import psnr
from scd_world.metrics.perceptual import load_networks, perceptual_metrics
from scd_world.metrics.statistics import summarise
from scd_world.reporting import video
from scd_world.reporting.tables import write_json
from scd_world.robot_data.compatibility import check_schema, scored_schema
from scd_world.robot_data.schema import DataSchema
from scd_world.utils.devices import machine_info, pick_device
from scd_world.world.world import World

log = logging.getLogger(__name__)
SPEED_SECONDS = 3.0
WORST = 5  # windows that the report lists as its worst


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measures `config.world`, writes the report under `config.out`, prints it, and gives it back."""
    out = Path(config.out)
    world = World.load(config.world, device=pick_device(config.device))
    store = open_store(config.data, out, world.config.patch)
    out.mkdir(parents=True, exist_ok=True)
    report, films, worst = measure(world, store, config)
    write_json(out / "report.json", report)
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    write_figures(out, report, films, store)
    if worst is not None:
        draw_strip(out / "worst.png", worst)
    print(markdown(report))
    print(f"Written to {out}: {', '.join(sorted(path.name for path in out.iterdir() if path.is_file()))}")
    return report


def measure(
    world: World, store: WindowStore, config: EvaluateConfig
) -> tuple[dict[str, Any], list[WindowVideo], WindowVideo | None]:
    """The report as plain data, the films of the windows that are shown, and of the worst one."""
    check_schema(world.schema, store)
    schema = scored_schema(world.schema, store.schema)
    chosen = select_eval_episodes(world.provenance, store, config.episodes)
    windows = spread_windows(store, chosen.episodes, config)
    run = Evaluator(world, store, windows, config)
    loop, shuffled, losses, films = run.open_loop()
    starts = [[int(store.episode_index[w.episode]), w.frame, w.steps] for w in windows]

    curves = all_curves(loop, schema)
    means = curve_report(curves, loop.episodes, config.horizon)
    sweeps, still = run.actions(chosen.episodes)
    report = {
        "world": describe(world, config),
        "data": {
            "source": config.data.repo_id or config.data.root,
            "fingerprint": store.fingerprint,
            "held_out": chosen.held_out,
            "warning": chosen.warning,
            "episodes": len({window.episode for window in windows}),
            "windows": len(windows),
            "starts": starts,
        },
        "settings": asdict(config),
        "curves": means,
        "time_to_failure": time_to_failure(curves, means),
        "worst": [row | {"start": starts[row["window"]]} for row in worst_windows(loop, curves, WORST)],
        **outcomes(loop, schema),
        "uncertainty": uncertainty(loop) if schema.state else {},
        "told": run.outcomes(chosen.episodes, schema),
        "actions": {"loss_ratio": action_response.loss_ratio(losses), "psnr_shuffled": shuffled},
        "sweep": sweeps,
        "null_action": still,
        "perceptual": perceptual_metrics(run.networks, run.pairs),
        "speed": speed(world, config.num_steps),
    }
    return report, films, run.worst


# ---- measuring -----------------------------------------------------------------------------------


class Evaluator:
    """One evaluation's passes through the model, with one progress bar over all imagined frames."""

    def __init__(
        self, world: World, store: WindowStore, windows: list[Window], config: EvaluateConfig
    ) -> None:
        self.world, self.store, self.windows, self.config = world, store, windows, config
        at = np.linspace(0, len(windows) - 1, min(config.num_videos, len(windows))).round().astype(int)
        self.shown = set(at.tolist())  # by position, not by result
        self.worst, self.worst_psnr = None, np.inf  # the film of the lowest mean PSNR so far, and that
        at = np.linspace(0, len(windows) - 1, min(config.sweep_starts, len(windows))).round().astype(int)
        self.moments = [windows[i] for i in at] if config.sweep_starts else []
        self.networks = load_networks(config.lpips_weights, config.fvd_weights, world.device)
        self.pairs: list[tuple[torch.Tensor, torch.Tensor]] = []  # true and imagined uint8 frames per batch

    def open_loop(self) -> tuple[OpenLoopResults, dict | None, list, list[WindowVideo]]:
        """Every window with its own actions, and the first steps with another one's."""
        longest = max(window.steps for window in self.windows)
        loop = OpenLoopResults(self.windows, longest, len(self.store.schema.state))
        shuffled = loop.empty(min(longest - 1, self.config.shuffled_horizon))  # the last one has no truth
        losses, films = [], []
        with self.progress(sum(w.steps for w in self.windows), "open loop") as bar:
            for first in range(0, len(self.windows), self.config.batch_size):
                rows = slice(first, min(first + self.config.batch_size, len(self.windows)))
                batch = load_batch(self.store, self.windows[rows], self.config.context, self.world.device)
                imagined = self.true_actions(loop, rows, batch, bar.update)
                films += [
                    film(batch, i - first, imagined)
                    for i in sorted(self.shown)
                    if rows.start <= i < rows.stop
                ]
                self.look_for_worst(loop, rows, batch, imagined)
                if len(batch.windows) > 1 and shuffled.shape[1]:
                    losses.append(
                        action_response.losses_true_and_shuffled(self.world, batch, self.config.seed)
                    )
                    shuffled[rows] = self.other_actions(batch, shuffled.shape[1])
        known = np.isfinite(shuffled).any()
        summary = as_lists(summarise(shuffled.astype(np.float64), loop.episodes)) if known else None
        return loop, summary, losses, films

    @torch.no_grad()
    def true_actions(
        self, loop: OpenLoopResults, rows: slice, batch: WindowBatch, done: Callable[[int], object]
    ) -> list[np.ndarray]:
        world, config = self.world, self.config
        loop.start_state[rows] = batch.true_state(0).cpu().numpy()
        noise, imagined = RowNoise(batch.windows, world.frame_shape, config.seed), []
        steps = imagine_steps(world, start_windows(world, batch), batch.future, noise, config.num_steps)
        for h, s in enumerate(steps, start=1):
            loop.record(world, rows, h, s, batch, config.changed_threshold)
            imagined.append(look(s))
            done(int(batch.recorded[:, h - 1].sum()))
        if self.networks:
            self.keep_pair(batch, imagined)
        return imagined

    def look_for_worst(
        self, loop: OpenLoopResults, rows: slice, batch: WindowBatch, imagined: list[np.ndarray]
    ) -> None:
        means = np.nanmean(loop.frames["psnr_imagined"][rows], axis=1)
        at = int(means.argmin())
        if means[at] < self.worst_psnr:
            self.worst, self.worst_psnr = film(batch, at, imagined), means[at]

    @torch.no_grad()
    def other_actions(self, batch: WindowBatch, horizon: int) -> np.ndarray:
        """(B, horizon) PSNR of each window driven by another one's actions, same noise."""
        actions = batch.future[action_response.other_rows(batch.windows), :horizon]
        noise = RowNoise(batch.windows, self.world.frame_shape, self.config.seed)
        steps = imagine_steps(
            self.world, start_windows(self.world, batch), actions, noise, self.config.num_steps
        )
        found = np.full((len(batch.windows), horizon), np.nan, np.float32)
        for h, s in enumerate(steps, start=1):
            value = psnr(s.obs, batch.truth(h))
            found[:, h - 1] = torch.where(batch.valid[:, h - 1], value, torch.nan).cpu().numpy()
        return found

    def keep_pair(self, batch: WindowBatch, imagined: list[np.ndarray]) -> None:
        """As many frames as half of the windows have: perceptual distances compare whole films."""
        horizon = min(self.config.horizon, int(np.median([w.steps for w in self.windows])) - 1)
        if not 0 < horizon <= batch.steps:
            return
        whole = batch.valid[:, :horizon].all(1).cpu()
        if whole.any():
            true = batch.pixels[:, batch.context : batch.context + horizon].cpu()[whole]
            drawn = torch.from_numpy(np.stack(imagined[:horizon], axis=1))[whole]
            self.pairs.append((true, drawn))

    def actions(self, episodes: np.ndarray) -> tuple[dict[str, dict], dict]:
        """The sweep of every action dimension and the null action, from the same moments."""
        if not self.moments:
            return {}, {}
        config, names = self.config, self.store.schema.state
        batch = load_batch(self.store, self.moments, config.context, self.world.device)
        in_data = action_response.slopes_in_data(self.store, episodes, config.sweep_steps)
        total = len(self.moments) * len(self.store.schema.action) * config.sweep_values * config.sweep_steps
        with self.progress(total + 16 * len(self.moments), "actions") as bar:
            sweeps = action_response.sweep_actions(
                self.world, batch, config.sweep_steps, config.sweep_values, config.num_steps, config.seed,
                in_data, bar.update,
            )  # fmt: skip
            kind = action_response.find_null_action(self.store, episodes)
            still = action_response.null_action_drift(
                self.world, batch, kind, config.num_steps, config.seed, bar.update
            )
        of = np.array([window.episode for window in self.moments])
        return {sweep.action: sweep.report(names, of) for sweep in sweeps}, still

    def outcomes(self, episodes: np.ndarray, schema: DataSchema) -> dict[str, Any]:
        """Reward and success of every step of whole episodes, told from the recorded past."""
        count = min(len(episodes), self.config.outcome_episodes)
        if not count or not (schema.reward or schema.success):
            return {}
        kept = episodes[np.linspace(0, len(episodes) - 1, count).round().astype(int)].tolist()
        with self.progress(int(self.store.lengths[kept].sum()), "reward and success") as bar:
            told = predict_outcomes(self.world, self.store, kept, self.config.batch_size, bar.update)
        return score(told, schema.reward, schema.success)

    @staticmethod
    def progress(total: int, what: str) -> tqdm:
        return tqdm(total=total, desc=what, unit="frame")


def describe(world: World, config: EvaluateConfig) -> dict[str, Any]:
    return {
        "source": config.world,
        "num_steps": config.num_steps or world.config.num_steps,
        "model": asdict(world.config),
        "parameters": sum(p.numel() for p in world.model.parameters()),
        "provenance": world.provenance,
    }


def speed(world: World, num_steps: int | None) -> dict[str, Any]:
    num_steps = num_steps or world.config.num_steps
    models, standing = {"": world.model}, {"": dummy_state(world.model, 1, full=True)}
    rounds = interleave(models, standing, {"": num_steps}, SPEED_SECONDS)
    times = np.array([taken[""][0] for taken in rounds]) * 1e3
    p50, p95 = np.quantile(times, (0.5, 0.95))
    machine = machine_info(world.device)
    return {"num_steps": num_steps, "batch": 1, "p50_ms": p50, "p95_ms": p95, "steps": len(times), **machine}


# ---- pictures ------------------------------------------------------------------------------------


def write_figures(out: Path, report: dict[str, Any], films: list[WindowVideo], store: WindowStore) -> None:
    data = report["data"]
    title = f"{data['windows']} windows of {data['episodes']} episodes ({data['held_out']})"
    figures.plot_curves(out / "curves.png", report["curves"], report["actions"]["psnr_shuffled"], title)
    if "success" in report["told"]:
        figures.plot_reliability(out / "success.png", report["told"]["success"], report["told"]["episodes"])
    if report["uncertainty"]:
        figures.plot_uncertainty(out / "uncertainty.png", report["uncertainty"])
    if report["sweep"]:
        held = f"each action dimension held for {report['settings']['sweep_steps']} steps"
        figures.plot_sweep(
            out / "sweep.png", report["sweep"], f"{held}, others as recorded; mean over the moments"
        )
    shown = [film for film in films if len(film.true) > film.context]
    if not shown:
        return
    context, places = shown[0].context, [f.window for f in shown]
    names = [f"episode {store.episode_index[at.episode]}, from frame {at.frame}" for at in places]
    for i, f in enumerate(shown):
        draw_strip(out / f"strip_{i}.png", f)
    pictures = video.compare([f.true for f in shown], [f.imagined for f in shown], context, names)
    video.write_mp4(out / "film.mp4", pictures, store.schema.fps)
    video.write_animation(out / "film.webp", pictures, store.schema.fps)


def draw_strip(path: Path, f: WindowVideo) -> None:
    horizons = [h for h in HORIZONS if h <= len(f.true) - f.context]
    video.write_png(path, video.strip(f.true, f.imagined, f.context, horizons))
