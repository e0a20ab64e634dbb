"""The paper's probes (its section 4) on a trained dense world: is thinking separable from denoising here?

report.md · probe.json · similarity.png · attention.png · skip.png · within_frame.png · leave_out.png

(a) does a layer say the same at every denoising step; (b) how much does it look at the past; what does it
cost (c) to run the middle layers in the first steps only, (d) to hide the past from the last layers, (e) to
leave a layer out. Layers are counted from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from scd_datasets.preparation.open_store import open_store
from scd_datasets.store.store import WindowStore
from scd_world.baselines.causal_dit import CausalDiT
from scd_world.evaluation.config import EvaluateConfig
from scd_world.evaluation.open_loop import RowNoise, WindowBatch, load_batch, spread_windows, start_windows
from scd_world.evaluation.splits import EvalEpisodes, select_eval_episodes
from scd_world.probes import figures
from scd_world.probes.activations import Activations, between_frames, centred, similarity, watch
from scd_world.probes.config import ProbeConfig
from scd_world.probes.finetune import Finetuner, PairedWithNoise
from scd_world.probes.interventions import (
    Reused,
    SharedResidual,
    Skipped,
    WithinFrame,
    after,
    changed,
    drawn,
    everywhere,
    rewrap,
)
from scd_world.probes.measure import HeldOutWindows, Quality, against, mean
from scd_world.probes.report import markdown, verdict
from scd_world.reporting.tables import write_json
from scd_world.robot_data.compatibility import check_schema
from scd_world.utils.devices import pick_device
from scd_world.world.world import World

LEAST = 3  # layers: first, middle, last


def probe(config: ProbeConfig) -> dict[str, Any]:
    """Probes `config.world`, writes the report under `config.out`, prints it, and gives it back."""
    out, world = Path(config.out), World.load(config.world, device=pick_device(config.device))
    check_dense(world, config.world)
    store = open_store(config.data, out, world.config.patch)
    check_schema(world.schema, store)
    report = Probe(world, store, config).report()
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "probe.json", report)
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    figures.write_figures(out, report)
    print(markdown(report))
    print(f"Written to {out}: {', '.join(sorted(path.name for path in out.iterdir() if path.is_file()))}")
    return report


def check_dense(world: World, source: str) -> None:
    kind = world.config.architecture
    if not isinstance(world.model, CausalDiT):
        raise ValueError(
            f"{source} is a world of kind={kind}, and the probes ask of dense causal diffusion whether it "
            "could be separated: train one with scd-train … model.architecture=causal_dit (or far, far_long, "
            "diffusion_forcing) and probe that"
        )
    if len(world.model.net.blocks) < LEAST:
        raise ValueError(
            f"{source} has {len(world.model.net.blocks)} layers: a first, a middle and a last one are needed "
            "(model.encoder_layers + model.decoder_layers of at least 3)"
        )


class Probe:
    def __init__(self, world: World, store: WindowStore, config: ProbeConfig) -> None:
        self.world, self.store, self.config, self.model = world, store, config, world.model
        self.layers = len(self.model.net.blocks)
        self.chosen = select_eval_episodes(world.provenance, store, config.episodes)
        self.held_out = HeldOutWindows(world, self.batches(), config)
        self.episodes = self.held_out.episodes
        tuned = config.finetune_last or world.config.decoder_layers or 1
        self.middle = self.named("middle_layers", config.middle_layers) or middle_half(self.layers)
        self.lasts = self.named("last_layers", config.last_layers) or list(range(1, self.layers + 1))
        (self.tuned_last,) = self.named("tuned_last", [min(tuned, self.layers - 1)])
        self.tuner = (
            Finetuner(world, store, self.chosen.episodes, config) if config.finetune_updates else None
        )

    def named(self, setting: str, layers: Sequence[int]) -> list[int]:
        if any(not 1 <= layer <= self.layers for layer in layers):
            raise ValueError(
                f"{setting}={list(layers)}: this world has the layers 1 to {self.layers}, counted from 1"
            )
        return list(layers)

    def batches(self) -> list[WindowBatch]:
        config = self.config
        context = config.context or self.world.config.window
        choice = EvaluateConfig(
            world=config.world,
            out=config.out,
            windows=config.windows,
            horizon=config.horizon,
            context=context,
        )
        windows, size = spread_windows(self.store, self.chosen.episodes, choice), config.batch_size
        parts = [windows[i : i + size] for i in range(0, len(windows), size)]
        return [load_batch(self.store, part, context, self.world.device) for part in parts]

    # ---- all of it -------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        with tqdm(total=self.models, desc="probe", unit="model") as self.bar:
            whole, loss, seen = self.measure(self.model), self.held_out.loss(self.model), self.watch()
            report = {
                "world": describe(self.world, self.config),
                "data": describe_data(self.store, self.chosen, self.held_out, self.config),
                "settings": asdict(self.config),
                "middle_layers": self.middle,
                "tuned_last": self.tuned_last,
                "whole": of_whole(whole) | {"loss": loss},
                "copied": {name: mean(values) for name, values in self.held_out.copied().items()},
                "similarity": similarities(seen),
                "attention": attentions(seen),
                "skip": self.skip(whole),
                "within_frame": self.within_frame(whole, loss),
                "leave_out": self.leave_out(loss),
                "tuned": self.tuned(),
            }
        return report | {"verdict": verdict(report)}

    @property
    def models(self) -> int:
        """How many models are measured."""
        return 1 + 4 * len(self.config.first_steps) + len(self.lasts) + 2 * self.layers + 4 * bool(self.tuner)

    def measure(self, model: CausalDiT) -> Quality:
        quality = self.held_out.measure(model)
        self.bar.update()
        return quality

    @torch.no_grad()
    def watch(self) -> Activations:
        """What the layers do while the first imagined frame of every window is drawn."""
        parts = []
        for batch in self.held_out.batches:
            s = start_windows(self.world, batch)
            noise = RowNoise(batch.windows, self.world.frame_shape, self.config.seed)
            with watch(self.model) as seen:
                self.world.step(s, batch.future[:, 0], noise.draw(self.world.device), self.config.num_steps)
            parts.append(seen)
        return Activations.joined(parts)

    # ---- (c) the middle layers in the first steps only ---------------------------------------------------

    def skip(self, whole: Quality) -> list[dict[str, Any]]:
        """Also of all layers: what the same does where there is nothing left that could redo it."""
        rows = []
        for first in self.config.first_steps:
            for which, layers in {"middle": self.middle, "all": range(1, self.layers + 1)}.items():
                for how, wrapper in {"skipped": Skipped, "reused": Reused}.items():
                    model = changed(self.model, layers, partial(wrapper, when=self.after(first)))
                    row = against(self.measure(model), whole, self.episodes)
                    passes = self.passes(len(layers), first)
                    rows.append(
                        {"layers": which, "how": how, "first_steps": first, "layer_passes": passes} | row
                    )
        return rows

    def after(self, first_steps: int):
        return after(first_steps, self.config.num_steps)

    def passes(self, skipped: int, first_steps: int) -> int:
        """Runs of a layer per drawn frame, denoising alone."""
        n = self.config.num_steps
        return self.layers * n - skipped * (n - first_steps)

    # ---- (d) no past for the last layers -----------------------------------------------------------------

    def within_frame(self, whole: Quality, loss: float) -> list[dict[str, Any]]:
        rows = []
        for last in self.lasts:
            model = changed(self.model, self.last(last), WithinFrame)
            row = against(self.measure(model), whole, self.episodes)
            rows.append({"last": last} | row | {"loss_ratio": self.held_out.loss(model) / loss})
        return rows

    def last(self, count: int) -> range:
        return range(self.layers - count + 1, self.layers + 1)

    # ---- (e) one layer less ------------------------------------------------------------------------------

    def leave_out(self, whole_loss: float) -> list[dict[str, Any]]:
        rows = []
        for layer in range(1, self.layers + 1):
            row: dict[str, Any] = {"layer": layer}
            for where, when in {"everywhere": everywhere, "drawn": drawn}.items():
                loss = self.held_out.loss(changed(self.model, [layer], partial(Skipped, when=when)))
                row |= {where: loss, f"{where}_ratio": loss / whole_loss}
                self.bar.update()
            rows.append(row)
        return rows

    # ---- with a short fine-tune --------------------------------------------------------------------------

    def tuned(self) -> dict[str, Any]:
        """Each beside the unchanged world after the same updates on the same windows (`control`)."""
        if self.tuner is None:
            return {}
        model = self.taught(self.tuner, changed(self.model, [], WithinFrame))
        control, loss = self.measure(model), self.held_out.loss(model)
        rows: dict[str, Any] = {"control": of_whole(control) | {"loss": loss}}

        when = self.after(1)
        model = self.taught(self.tuner, changed(self.model, self.middle, partial(Skipped, when=when)))
        rows["skipped"] = against(self.measure(model), control, self.episodes)

        model = changed(self.model, self.middle, SharedResidual)
        model = self.taught(self.tuner, model, PairedWithNoise(model))
        rewrap(model, partial(Reused, when=when))
        rows["reused"] = against(self.measure(model), control, self.episodes)

        model = self.taught(self.tuner, changed(self.model, self.last(self.tuned_last), WithinFrame))
        rows["within_frame"] = against(self.measure(model), control, self.episodes)
        rows["within_frame"]["loss_ratio"] = self.held_out.loss(model) / loss
        return rows

    def taught(self, tuner: Finetuner, model: CausalDiT, objective: nn.Module | None = None) -> CausalDiT:
        with tqdm(total=self.config.finetune_updates, desc="fine-tune", unit="update", leave=False) as bar:
            return tuner.tune(model, objective, bar.update)


def middle_half(layers: int) -> list[int]:
    edge = max(1, layers // 4)
    return list(range(edge + 1, layers - edge + 1))


# ---- plain data ----------------------------------------------------------------------------------


def describe(world: World, config: ProbeConfig) -> dict[str, Any]:
    return {
        "source": config.world,
        "model": asdict(world.config),
        "layers": len(world.model.net.blocks),
        "parameters": sum(p.numel() for p in world.model.parameters()),
        "provenance": world.provenance,
    }


def describe_data(
    store: WindowStore, chosen: EvalEpisodes, held_out: HeldOutWindows, config: ProbeConfig
) -> dict[str, Any]:
    return {
        "source": config.data.repo_id or config.data.root,
        "fingerprint": store.fingerprint,
        "held_out": chosen.held_out,
        "warning": chosen.warning,
        "windows": len(held_out.episodes),
        "episodes": len(set(held_out.episodes.tolist())),
        "context": held_out.batches[0].context,
    }


def of_whole(quality: Quality) -> dict[str, float]:
    return {name: mean(values) for name, values in quality.psnr.items()}


def similarities(seen: Activations) -> list[dict[str, Any]]:
    """Layer 0 is what enters the first one. `added`: of what the layer adds to it, not of the sum."""
    rows, before = [], None
    for layer, features in enumerate([seen.inputs, *seen.features]):
        matrix = similarity(features)
        off = ~torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)
        rows.append(
            {
                "layer": layer,
                "matrix": matrix.tolist(),
                "mean": matrix[off].mean().item(),
                "first_to_last": matrix[0, -1].item(),
                "centred": similarity(centred(features))[off].mean().item(),
                "added": None if before is None else similarity(features - before)[off].mean().item(),
                "between_frames": between_frames(features),
            }
        )
        before = features
    return rows


def attentions(seen: Activations) -> dict[str, Any]:
    """`past` (layers × steps): share of attention on the past; `uniform`: were all keys worth the same."""
    return {"past": seen.past.mean(-1).tolist(), "uniform": seen.uniform}
