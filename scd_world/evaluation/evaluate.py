"""Fidelity of a world on episodes that it was not trained with: a report, curves, image strips, a video.

report.json · report.md · curves.png · sweep.png · strip_0.png … · worst.png · film.mp4 · film.webp, and where
asked for window_0.rrd … · worldproof/
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from scd_datasets.preparation.open_store import open_store
from scd_datasets.store.store import WindowStore
from scd_world.benchmark.timing import dummy_state, interleave, step_turn
from scd_world.evaluation import action_response, figures
from scd_world.evaluation.config import EvaluateConfig
from scd_world.evaluation.curves import (
    all_curves,
    as_lists,
    before_dropped_frames,
    curve_report,
    image_uncertainty,
    outcomes,
    state_uncertainty,
    time_to_failure,
    worst_windows,
)
from scd_world.evaluation.exports import FOLDER, write_predictions, write_recordings
from scd_world.evaluation.open_loop import (
    OpenLoopResults,
    RowNoise,
    Window,
    WindowBatch,
    WindowVideo,
    imagine_steps,
    load_batch,
    spread_windows,
    start_windows,
    window_video,
)
from scd_world.evaluation.outcome_prediction import predict_outcomes, score
from scd_world.evaluation.report import HORIZONS, markdown
from scd_world.evaluation.splits import select_eval_episodes
from scd_world.evaluation.standing_still import find_still_moments, standing_still
from scd_world.evaluation.state_errors import error_units
from scd_world.evaluation.verdict import judge, judge_sharpness
from scd_world.metrics.block_shape import is_pusht
from scd_world.metrics.cvvdp import load_cvvdp, report_quality
from scd_world.metrics.image import psnr
from scd_world.metrics.perceptual import load_networks, perceptual_metrics
from scd_world.metrics.statistics import summarize
from scd_world.reporting import video
from scd_world.reporting.rerun_file import load_rerun
from scd_world.reporting.tables import write_json
from scd_world.reporting.worldproof_folder import clear
from scd_world.robot_data.compatibility import check_schema, scored_schema
from scd_world.robot_data.normalizer import decode_pixels
from scd_world.robot_data.schema import DataSchema
from scd_world.utils.devices import machine_info, pick_device
from scd_world.utils.output_folder import claimed_folder, remove_older, written_since
from scd_world.world.model_card import (
    what_it_draws,
    what_it_finds,
    what_it_is_given,
    what_its_doubts_are,
)
from scd_world.world.world import World

log = logging.getLogger(__name__)
SPEED_SECONDS = 3.0
FILES = (  # beside a report
    *("curves.png", "success.png", "uncertainty.png", "image_uncertainty.png", "sweep.png", "worst.png"),
    *("strip_[0-9]*.png", "film.mp4", "film.webp", "window_[0-9]*.rrd"),
)
WORST = 5  # windows that the report lists as its worst


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measures `config.world`, writes the report under `config.out`, prints it, and gives it back.

    ValueError: the data does not fit the world, has no such episodes, or only too short ones; an extra that a
    setting needs is not installed.
    """
    if config.rerun:
        load_rerun()
    load_networks(config.lpips_weights, config.fvd_weights, torch.device("cpu"))  # what is missing shows now
    if config.cvvdp:
        load_cvvdp(torch.device("cpu"))
    began, world = time.time(), World.load(config.world, device=pick_device(config.device))
    with claimed_folder(config.out, "scd-evaluate", ("report.json", ("world", "settings"))) as out:
        store = open_store(config.data, out, world=world.schema)
        report, videos, worst = measure(world, store, config)
    write_json(out / "report.json", report)
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    write_figures(out, report, videos, store)
    if worst is not None:
        write_strip(out / "worst.png", worst)
    remove_older(out, FILES, began)
    print(markdown(report))
    print(f"Written to {out}: {', '.join(written_since(out, began))}")
    return report


def measure(
    world: World, store: WindowStore, config: EvaluateConfig
) -> tuple[dict[str, Any], list[WindowVideo], WindowVideo | None]:
    """Gives the report as plain data, videos of the windows that are shown, and one of the worst."""
    check_schema(world.schema, store.schema, store.path)
    schema = scored_schema(world.schema, store.schema)
    chosen = select_eval_episodes(world.provenance, store, config.episodes)
    windows = spread_windows(store, chosen.episodes, config)
    run = Evaluator(world, store, windows, config)
    loop, shuffled, losses, videos = run.open_loop()
    starts = [[int(store.episode_index[w.episode]), w.frame, w.steps] for w in windows]

    if config.rerun:
        write_recordings(store, schema, config, loop, videos)
    curves = all_curves(loop, schema)
    means = curve_report(curves, loop.episodes, config.horizon)
    sweeps, drift = run.actions(chosen.episodes)
    verdict = judge(means, curves["largest_change"], curves["changed_share"], len(np.unique(loop.episodes)))
    verdict["lines"] += judge_sharpness(means["sharpness_imagined"], means["sharpness_copy"]["mean"])
    report = {
        "verdict": verdict,
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
        "dropped_frames": before_dropped_frames(loop, schema, config.horizon),
        "units": error_units(schema),
        "time_to_failure": time_to_failure(curves, means),
        "worst": [row | {"start": starts[row["window"]]} for row in worst_windows(loop, curves, WORST)],
        **outcomes(loop, schema),
        "uncertainty": state_uncertainty(loop) if schema.state else {},
        "image_uncertainty": image_uncertainty(loop),
        "outcomes": run.outcomes(chosen.episodes, schema),
        "actions": {"loss_ratio": action_response.loss_ratio(losses), "psnr_shuffled": shuffled},
        "sweep": sweeps,
        "never_varied": action_response.never_varied(world),
        "own_numbers": action_response.own_numbers(world),
        "hardly_moved": action_response.hardly_moved(store, chosen.episodes),
        "null_action": drift,
        "standing_still": run.standing_still(chosen.episodes),
        "perceptual": run.perceptual(),
        "speed": speed(world, config.num_steps),
    }
    return report, videos, run.worst


# ---- measuring -----------------------------------------------------------------------------------


class Evaluator:
    """One evaluation's passes through the model, with one progress bar over all imagined frames."""

    def __init__(
        self, world: World, store: WindowStore, windows: list[Window], config: EvaluateConfig
    ) -> None:
        self.world, self.store, self.windows, self.config = world, store, windows, config
        at = np.linspace(0, len(windows) - 1, min(config.num_videos, len(windows))).round().astype(int)
        self.shown = set(at.tolist())  # by position, not by result
        self.worst: WindowVideo | None = None  # of the lowest mean PSNR so far
        self.worst_psnr = np.inf
        at = np.linspace(0, len(windows) - 1, min(config.sweep_starts, len(windows))).round().astype(int)
        self.swept = [windows[i] for i in at] if config.sweep_starts else []
        self.networks = load_networks(config.lpips_weights, config.fvd_weights, world.device)
        self.cvvdp = load_cvvdp(world.device) if config.cvvdp else None
        if config.worldproof:
            clear(Path(config.out) / FOLDER)
        self.shows_block = is_pusht(first_frames(store, windows))
        self.pairs: list[tuple[torch.Tensor, torch.Tensor]] = []  # true and imagined videos per batch
        self.copies: list[tuple[torch.Tensor, torch.Tensor]] = []  # the same true ones, last frames copied

    def open_loop(self) -> tuple[OpenLoopResults, dict | None, list, list[WindowVideo]]:
        """Imagines every window with its own actions, and the first steps with another one's.

        Gives the results, PSNR with the other actions, losses with both, and the videos that are shown.
        """
        longest = max(window.steps for window in self.windows)
        loop = OpenLoopResults(self.windows, longest, len(self.store.schema.state), self.config.draws)
        other_steps = min(longest - 1, self.config.shuffled_horizon)  # the last one has no true frame
        shuffled = np.full((len(self.windows), other_steps), np.nan, np.float32)
        losses, videos = [], []
        with self.progress(loop.draws * sum(w.steps for w in self.windows), "open loop") as bar:
            for first in range(0, len(self.windows), self.config.batch_size):
                rows = slice(first, min(first + self.config.batch_size, len(self.windows)))
                batch = self.load(self.windows[rows])
                imagined = self.true_actions(loop, rows, batch, bar.update)
                videos += [
                    window_video(batch, i - first, imagined)
                    for i in sorted(self.shown)
                    if rows.start <= i < rows.stop
                ]
                self.update_worst(loop, rows, batch, imagined)
                if len(batch.windows) > 1 and shuffled.shape[1]:
                    losses.append(
                        action_response.losses_true_and_shuffled(self.world, batch, self.config.seed)
                    )
                    shuffled[rows] = self.other_actions(batch, shuffled.shape[1])
        known = np.isfinite(shuffled).any()
        summary = as_lists(summarize(shuffled.astype(np.float64), loop.episodes)) if known else None
        if summary is not None:  # beside the same windows: one that was alone in its batch has no other
            own = loop.by_draw(loop.frames["psnr_imagined"]).mean(0)[:, :other_steps]
            own = np.where(np.isfinite(shuffled), own, np.nan).astype(np.float64)
            summary["own"] = as_lists(summarize(own, loop.episodes))["mean"]
        return loop, summary, losses, videos

    @torch.no_grad()
    def true_actions(
        self, loop: OpenLoopResults, rows: slice, batch: WindowBatch, done: Callable[[int], object]
    ) -> list[np.ndarray]:
        """Imagines a batch with its own actions and records it, all draws side by side.

        Gives the first draw's frames (B, V, H, W, 3) per step.
        """
        world, config, imagined = self.world, self.config, []
        start = start_windows(world, batch)
        starts = [start, *(start.fork() for _ in range(1, loop.draws))]
        draws = []
        every_draw: list[list[np.ndarray]] = [[] for _ in starts]  # kept for worldproof alone
        for draw, s in enumerate(starts):
            loop.start_state[loop.rows_of(draw, rows)] = batch.true_state(0).cpu().numpy()
            noise = RowNoise(batch.windows, world.frame_shape, config.seed, draw)
            draws.append(imagine_steps(world, s, batch.future, noise, config.num_steps))
        for h, states in enumerate(zip(*draws, strict=True), start=1):
            images = [
                loop.record(world, loop.rows_of(draw, rows), h, s, batch, config.changed_threshold)
                for draw, s in enumerate(states)
            ]
            drawn = [decode_pixels(image).cpu().numpy() for image in images]
            imagined.append(drawn[0])
            if config.worldproof:
                for kept, frames in zip(every_draw, drawn, strict=True):
                    kept.append(frames)
            if loop.draws > 1:
                loop.record_spread(rows, h, drawn, batch, config.changed_threshold)
            if self.shows_block:
                loop.record_block(rows, h, drawn, batch)
            done(loop.draws * int(batch.recorded[:, h - 1].sum()))
        if self.networks or self.cvvdp:
            self.keep_pair(batch, imagined)
        if config.worldproof:
            write_predictions(self.store, config, rows.start, batch, every_draw)
        return imagined

    def update_worst(
        self, loop: OpenLoopResults, rows: slice, batch: WindowBatch, imagined: list[np.ndarray]
    ) -> None:
        means = np.nanmean(loop.by_draw(loop.frames["psnr_imagined"])[:, rows].mean(0), axis=1)
        at = int(means.argmin())
        if means[at] < self.worst_psnr:
            self.worst, self.worst_psnr = window_video(batch, at, imagined), means[at]

    @torch.no_grad()
    def other_actions(self, batch: WindowBatch, horizon: int) -> np.ndarray:
        """Computes PSNR (B, horizon) of each window driven by another one's actions, with the same noise."""
        actions = batch.future[action_response.other_rows(batch.windows), :horizon]
        noise = RowNoise(batch.windows, self.world.frame_shape, self.config.seed)
        steps = imagine_steps(
            self.world, start_windows(self.world, batch), actions, noise, self.config.num_steps
        )
        values = np.full((len(batch.windows), horizon), np.nan, np.float32)
        for h, s in enumerate(steps, start=1):
            value = psnr(self.world.images(s), batch.truth(h))
            values[:, h - 1] = torch.where(batch.valid[:, h - 1], value, torch.nan).cpu().numpy()
        return values

    def keep_pair(self, batch: WindowBatch, imagined: list[np.ndarray]) -> None:
        """Keeps as many frames as half of the windows have: perceptual distances compare whole videos."""
        horizon = min(self.config.horizon, int(np.median([w.steps for w in self.windows])) - 1)
        if not 0 < horizon <= batch.steps:
            return
        whole = batch.valid[:, :horizon].all(1).cpu()
        if whole.any():
            true = batch.pixels[:, batch.context : batch.context + horizon].cpu()[whole]
            generated = torch.from_numpy(np.stack(imagined[:horizon], axis=1))[whole]
            self.pairs.append((true, generated))
            last = batch.pixels[:, batch.context - 1, None].cpu()[whole]
            self.copies.append((true, last.expand_as(true)))

    def load(self, windows: list[Window]) -> WindowBatch:
        world = self.world
        return load_batch(self.store, windows, self.config.context, world.device, world.codec)

    def actions(self, episodes: np.ndarray) -> tuple[dict[str, dict], dict]:
        """Measures the sweep of every action dimension and the null action, from the same starts."""
        if not self.swept:
            return {}, {}
        config, names = self.config, self.store.schema.state
        batch = self.load(self.swept)
        in_data = action_response.slopes_in_data(self.store, episodes, config.sweep_steps)
        moving = int((~self.world.stats.constant_actions).sum())
        total = len(self.swept) * moving * config.sweep_values * config.sweep_steps
        with self.progress(total + 16 * len(self.swept), "actions") as bar:
            sweeps = action_response.sweep_actions(
                self.world, batch, config.sweep_steps, config.sweep_values, config.num_steps, config.seed,
                in_data, bar.update,
            )  # fmt: skip
            kind = action_response.find_null_action(self.store, episodes)
            drift = action_response.null_action_drift(
                self.world, batch, kind, config.num_steps, config.seed, bar.update
            )
        of = np.array([window.episode for window in self.swept])
        return {sweep.action: sweep.report(names, of) for sweep in sweeps}, drift

    def standing_still(self, episodes: np.ndarray) -> dict[str, Any] | None:
        """Measures the drift where the recordings stand still; None: nowhere, {}: not asked for."""
        config = self.config
        if not config.still_moments:
            return {}
        moments = find_still_moments(
            self.store, episodes, config.context, config.horizon, config.still_moments
        )
        with self.progress(len(moments) * config.horizon, "standing still") as bar:
            return standing_still(self.world, self.store, moments, config, bar.update)

    def perceptual(self) -> dict[str, dict[str, Any]]:
        """Computes those of the perceptual metrics that were asked for, of each window's first draw."""
        found = perceptual_metrics(self.networks, self.pairs)
        if self.cvvdp and self.pairs:
            found["CVVDP"] = report_quality(self.cvvdp, self.pairs, self.copies, self.store.schema.fps)
        return found

    def outcomes(self, episodes: np.ndarray, schema: DataSchema) -> dict[str, Any]:
        """Scores reward and success of every step of whole episodes, predicted from the recorded past."""
        count = min(len(episodes), self.config.outcome_episodes)
        if not count or not (schema.reward or schema.success):
            return {}
        kept = episodes[np.linspace(0, len(episodes) - 1, count).round().astype(int)].tolist()
        with self.progress(int(self.store.lengths[kept].sum()), "reward and success") as bar:
            predicted = predict_outcomes(self.world, self.store, kept, self.config.batch_size, bar.update)
        return score(predicted, schema.reward, schema.success)

    @staticmethod
    def progress(total: int, what: str) -> tqdm:
        return tqdm(total=total, desc=what, unit="frame")


def first_frames(store: WindowStore, windows: list[Window]) -> np.ndarray:
    """Reads the first camera's frames at which some windows begin, uint8 (≤ 8, H, W, 3)."""
    some = windows[:8]
    episodes, frames = (np.array([getattr(w, name) for w in some]) for name in ("episode", "frame"))
    return store.windows(episodes, frames, 1)["pixels"][:, 0, 0]


def describe(world: World, config: EvaluateConfig) -> dict[str, Any]:
    """Names the world and its model, as plain data."""
    return {
        "source": config.world,
        "given": what_it_is_given(world.schema)
        + what_it_finds(world.codec.config.found)
        + what_its_doubts_are(world.provenance)
        + what_it_draws(world.provenance.get("codec") or {}),
        "codec": asdict(world.codec.config),
        "num_steps": config.num_steps or world.config.num_steps,
        "model": asdict(world.config),
        "parameters": sum(p.numel() for p in world.model.parameters()),
        "provenance": world.provenance,
    }


def speed(world: World, num_steps: int | None) -> dict[str, Any]:
    """Times one step of one row, its picture included, ms."""
    num_steps = num_steps or world.config.num_steps
    turn = step_turn(world.model, dummy_state(world.model, 1, full=True), num_steps, world.codec)
    times = np.array([taken[""].clock for taken in interleave({"": turn}, SPEED_SECONDS)]) * 1e3
    p50, p95 = np.quantile(times, (0.5, 0.95))
    machine = machine_info(world.device)
    return {"num_steps": num_steps, "batch": 1, "p50_ms": p50, "p95_ms": p95, "steps": len(times), **machine}


# ---- images --------------------------------------------------------------------------------------


def write_figures(out: Path, report: dict[str, Any], videos: list[WindowVideo], store: WindowStore) -> None:
    """Writes the figures of what the report has, an image strip of each video, and all videos in one."""
    data = report["data"]
    title = f"{data['windows']} windows of {data['episodes']} episodes ({data['held_out']})"
    figures.plot_curves(
        out / "curves.png", report["curves"], report["units"], report["actions"]["psnr_shuffled"], title
    )
    if success := report["outcomes"].get("success"):
        figures.plot_reliability(out / "success.png", success, report["outcomes"]["episodes"])
    if report["uncertainty"]:
        figures.plot_uncertainty(out / "uncertainty.png", report["uncertainty"], "the state")
    if report["image_uncertainty"]:
        figures.plot_uncertainty(out / "image_uncertainty.png", report["image_uncertainty"], "the picture")
    if report["sweep"]:
        held = f"each action dimension held for {report['settings']['sweep_steps']} steps"
        figures.plot_sweep(
            out / "sweep.png", report["sweep"], f"{held}, others as recorded; mean over the starts"
        )
    shown = [v for v in videos if len(v.true) > v.context]
    if not shown:
        return
    context, places = shown[0].context, [v.window for v in shown]
    names = [f"episode {store.episode_index[at.episode]}, from frame {at.frame}" for at in places]
    for i, v in enumerate(shown):
        write_strip(out / f"strip_{i}.png", v)
    images = video.compare([v.true for v in shown], [v.imagined for v in shown], context, names)
    try:
        video.write_mp4(out / "film.mp4", images, store.schema.fps)
    except ImportError as missing:  # as on a node that has torch and little else
        log.warning("no film.mp4 (%s): film.webp shows the same", missing)
    video.write_animation(out / "film.webp", images, store.schema.fps)


def write_strip(path: Path, v: WindowVideo) -> None:
    """Writes a window's frames at the report's horizons as one image."""
    horizons = [h for h in HORIZONS if h <= len(v.true) - v.context]
    video.write_png(path, video.strip(v.true, v.imagined, v.context, horizons))
