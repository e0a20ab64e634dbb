"""The paper's probes (its section 4) on a trained dense world: is causal reasoning separable from denoising?

report.md · probe.json · similarity.png · attention.png · skip.png · within_frame.png · ablate_layer.png

(a) are a layer's features the same at every denoising step; (b) how much does it attend to the past; what
does it cost (c) to run the middle layers in the first steps only, (d) to hide the past from the last layers,
(e) to ablate a layer. Layers are counted from 1.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from scd_datasets.preparation.open_store import open_store
from scd_datasets.store.store import WindowStore
from scd_world.baselines.causal_dit import CausalDiT
from scd_world.evaluation.config import EvaluateConfig
from scd_world.evaluation.open_loop import RowNoise, WindowBatch, load_batches, spread_windows, start_windows
from scd_world.evaluation.splits import EvalEpisodes, select_eval_episodes
from scd_world.model.world_model import WorldModel
from scd_world.probes import figures
from scd_world.probes.activations import Activations, between_frames, center, record_activations, similarity
from scd_world.probes.config import ProbeConfig
from scd_world.probes.finetune import Finetuner, PairedWithNoise
from scd_world.probes.interventions import (
    Reused,
    SharedResidual,
    Skipped,
    When,
    WithinFrame,
    after,
    denoised,
    dense_core,
    everywhere,
    rewrap,
    wrap_layers,
)
from scd_world.probes.measure import HeldOutWindows, Quality, compare_quality, mean
from scd_world.probes.report import markdown, verdict
from scd_world.reporting.tables import write_json
from scd_world.robot_data.compatibility import check_schema
from scd_world.utils.devices import pick_device
from scd_world.utils.output_folder import claimed_folder, written_since
from scd_world.world.world import World

LEAST = 3  # layers: first, middle, last


def probe(config: ProbeConfig) -> dict[str, Any]:
    """Probes `config.world`, writes the report under `config.out`, prints it, and gives it back.

    ValueError: the world is not dense, has too few layers, or does not fit the data.
    """
    began, world = time.time(), World.load(config.world, device=pick_device(config.device))
    check_dense(world, config.world)
    with claimed_folder(config.out, "scd-probe", ("probe.json", ("world",))) as out:
        store = open_store(config.data, out, world=world.schema)
        check_schema(world.schema, store.schema, store.path)
        report = Probe(world, store, config).report()
    write_json(out / "probe.json", report)
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    figures.write_figures(out, report)
    print(markdown(report))
    print(f"Written to {out}: {', '.join(written_since(out, began))}")
    return report


def check_dense(world: World, source: str) -> None:
    """Raises ValueError where the world has no dense core of at least three layers."""
    if not isinstance(world.model.core, CausalDiT):
        raise ValueError(
            f"{source} is a world of architecture={world.config.architecture}, and the probes ask of dense "
            "causal diffusion whether it could be separated: train one with scd-train … "
            "model.architecture=causal_dit (or far, far_long, diffusion_forcing) and probe that"
        )
    if (layers := len(world.model.core.net.blocks)) < LEAST:
        raise ValueError(
            f"{source} has {layers} layers: a first, a middle and a last one are needed "
            "(model.encoder_layers + model.decoder_layers of at least 3)"
        )


class Probe:
    """All probes of one world, on the same windows with the same noise."""

    def __init__(self, world: World, store: WindowStore, config: ProbeConfig) -> None:
        self.world, self.store, self.config, self.model = world, store, config, world.model
        self.layers = len(dense_core(self.model).net.blocks)
        self.chosen = select_eval_episodes(world.provenance, store, config.episodes)
        self.held_out = HeldOutWindows(world, self.batches(), config)
        self.episodes = self.held_out.episodes
        last = config.finetune_last or min(world.config.decoder_layers or 1, self.layers - 1)
        self.middle = self.check_layers("middle_layers", config.middle_layers) or middle_half(self.layers)
        self.lasts = self.check_layers("last_layers", config.last_layers) or list(range(1, self.layers + 1))
        (self.finetune_last,) = self.check_layers("finetune_last", [last])
        self.finetuner = (
            Finetuner(world, store, self.chosen.episodes, config) if config.finetune_updates else None
        )

    def check_layers(self, setting: str, layers: Sequence[int]) -> list[int]:
        """Gives the layers back; ValueError where the world lacks one of them."""
        if any(not 1 <= layer <= self.layers for layer in layers):
            raise ValueError(
                f"{setting}={list(layers)}: this world has the layers 1 to {self.layers}, counted from 1"
            )
        return list(layers)

    def batches(self) -> list[WindowBatch]:
        """Reads the held-out windows."""
        config = self.config
        context = config.context or self.world.config.window
        choice = EvaluateConfig(
            world=config.world,
            out=config.out,
            windows=config.windows,
            horizon=config.horizon,
            context=context,
        )
        windows = spread_windows(self.store, self.chosen.episodes, choice)
        return load_batches(self.store, windows, context, config.batch_size, self.world)

    # ---- all of it -------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Runs all probes, and gives what they found as plain data."""
        with tqdm(total=self.models, desc="probe", unit="model") as self.bar:
            unchanged, loss = self.measure(self.model), self.held_out.loss(self.model)
            activations = self.activations()
            report = {
                "world": describe(self.world, self.config),
                "data": describe_data(self.store, self.chosen, self.held_out, self.config),
                "settings": asdict(self.config),
                "middle_layers": self.middle,
                "finetune_last": self.finetune_last,
                "unchanged": means(unchanged) | {"loss": loss},
                "copy_last": {name: mean(values) for name, values in self.held_out.copy_last().items()},
                "similarity": similarities(activations),
                "attention": attentions(activations),
                "skip": self.skip(unchanged),
                "within_frame": self.within_frame(unchanged, loss),
                "ablate_layer": self.ablate_layer(loss),
                "finetuned": self.finetuned(),
            }
        return report | {"verdict": verdict(report)}

    @property
    def models(self) -> int:
        """How many models are measured."""
        finetuned = 4 * bool(self.finetuner)
        return 1 + 4 * len(self.config.first_steps) + len(self.lasts) + 2 * self.layers + finetuned

    def measure(self, model: WorldModel) -> Quality:
        """Scores a model on the held-out windows."""
        quality = self.held_out.measure(model)
        self.bar.update()
        return quality

    @torch.no_grad()
    def activations(self) -> Activations:
        """Records the layers while the first imagined frame of every window is denoised."""
        parts = []
        for batch in self.held_out.batches:
            s = start_windows(self.world, batch)
            noise = RowNoise(batch.windows, self.world.frame_shape, self.config.seed)
            with record_activations(self.model) as recorded:
                self.world.step(s, batch.future[:, 0], noise.draw(self.world.device), self.config.num_steps)
            parts.append(recorded)
        return Activations.joined(parts)

    # ---- (c) the middle layers in the first steps only ---------------------------------------------------

    def skip(self, unchanged: Quality) -> list[dict[str, Any]]:
        """Skips or reuses the middle layers; and all layers, where none is left to make up for it."""
        rows = []
        for first in self.config.first_steps:
            for which, layers in {"middle": self.middle, "all": range(1, self.layers + 1)}.items():
                for how, wrapper in {"skipped": Skipped, "reused": Reused}.items():
                    model = wrap_layers(self.model, layers, partial(wrapper, when=self.after(first)))
                    row = compare_quality(self.measure(model), unchanged, self.episodes)
                    passes = self.passes(len(layers), first)
                    rows.append(
                        {"layers": which, "how": how, "first_steps": first, "layer_passes": passes} | row
                    )
        return rows

    def after(self, first_steps: int) -> When:
        return after(first_steps, self.config.num_steps)

    def passes(self, skipped: int, first_steps: int) -> int:
        """Counts the runs of layers per imagined frame, in denoising alone."""
        n = self.config.num_steps
        return self.layers * n - skipped * (n - first_steps)

    # ---- (d) no past for the last layers -----------------------------------------------------------------

    def within_frame(self, unchanged: Quality, loss: float) -> list[dict[str, Any]]:
        """Hides the past from the last layers, for several numbers of them."""
        rows = []
        for last in self.lasts:
            model = wrap_layers(self.model, self.last(last), WithinFrame)
            row = compare_quality(self.measure(model), unchanged, self.episodes)
            rows.append({"last": last} | row | {"loss_ratio": self.held_out.loss(model) / loss})
        return rows

    def last(self, count: int) -> range:
        return range(self.layers - count + 1, self.layers + 1)

    # ---- (e) one layer less ------------------------------------------------------------------------------

    def ablate_layer(self, unchanged_loss: float) -> list[dict[str, Any]]:
        """Skips each layer in turn, everywhere and where frames are denoised alone."""
        rows = []
        for layer in range(1, self.layers + 1):
            row: dict[str, Any] = {"layer": layer}
            for where, when in {"everywhere": everywhere, "denoised": denoised}.items():
                loss = self.held_out.loss(wrap_layers(self.model, [layer], partial(Skipped, when=when)))
                row |= {where: loss, f"{where}_ratio": loss / unchanged_loss}
                self.bar.update()
            rows.append(row)
        return rows

    # ---- with a short fine-tuning ------------------------------------------------------------------------

    def finetuned(self) -> dict[str, Any]:
        """Fine-tunes each change, and the unchanged world on the same windows (`control`)."""
        if self.finetuner is None:
            return {}
        model = self.finetune(self.finetuner, wrap_layers(self.model, [], WithinFrame))
        control, loss = self.measure(model), self.held_out.loss(model)
        rows: dict[str, Any] = {"control": means(control) | {"loss": loss}}

        when = self.after(1)
        model = self.finetune(
            self.finetuner, wrap_layers(self.model, self.middle, partial(Skipped, when=when))
        )
        rows["skipped"] = compare_quality(self.measure(model), control, self.episodes)

        model = wrap_layers(self.model, self.middle, SharedResidual)
        model = self.finetune(self.finetuner, model, PairedWithNoise(model))
        rewrap(model, partial(Reused, when=when))
        rows["reused"] = compare_quality(self.measure(model), control, self.episodes)

        model = self.finetune(
            self.finetuner, wrap_layers(self.model, self.last(self.finetune_last), WithinFrame)
        )
        rows["within_frame"] = compare_quality(self.measure(model), control, self.episodes)
        rows["within_frame"]["loss_ratio"] = self.held_out.loss(model) / loss
        return rows

    def finetune(
        self, finetuner: Finetuner, model: WorldModel, objective: nn.Module | None = None
    ) -> WorldModel:
        with tqdm(total=self.config.finetune_updates, desc="fine-tune", unit="update", leave=False) as bar:
            return finetuner.finetune(model, objective, bar.update)


def middle_half(layers: int) -> list[int]:
    """Lists the middle half of so many layers, counted from 1."""
    edge = max(1, layers // 4)
    return list(range(edge + 1, layers - edge + 1))


# ---- plain data ----------------------------------------------------------------------------------


def describe(world: World, config: ProbeConfig) -> dict[str, Any]:
    """Names the world and its model, as plain data."""
    return {
        "source": config.world,
        "model": asdict(world.config),
        "layers": len(dense_core(world.model).net.blocks),
        "parameters": sum(p.numel() for p in world.model.parameters()),
        "provenance": world.provenance,
    }


def describe_data(
    store: WindowStore, chosen: EvalEpisodes, held_out: HeldOutWindows, config: ProbeConfig
) -> dict[str, Any]:
    """Names the data and the windows, as plain data."""
    return {
        "source": config.data.repo_id or config.data.root,
        "fingerprint": store.fingerprint,
        "held_out": chosen.held_out,
        "warning": chosen.warning,
        "windows": len(held_out.episodes),
        "episodes": len(set(held_out.episodes.tolist())),
        "context": held_out.batches[0].context,
    }


def means(quality: Quality) -> dict[str, float]:
    """Averages a model's PSNR over the windows."""
    return {name: mean(values) for name, values in quality.psnr.items()}


def similarities(activations: Activations) -> list[dict[str, Any]]:
    """Compares features between steps. Layer 0 is the first one's input; `added`: of the layer's residual."""
    rows: list[dict[str, Any]] = []
    inputs = None
    for layer, features in enumerate([activations.inputs, *activations.features]):
        matrix = similarity(features)
        off = ~torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)
        rows.append(
            {
                "layer": layer,
                "matrix": matrix.tolist(),
                "mean": matrix[off].mean().item(),
                "first_to_last": matrix[0, -1].item(),
                "centered": similarity(center(features))[off].mean().item(),
                "added": None if inputs is None else similarity(features - inputs)[off].mean().item(),
                "between_frames": between_frames(features),
            }
        )
        inputs = features
    return rows


def attentions(activations: Activations) -> dict[str, Any]:
    """Gives `past` (layers × steps): share of attention on the past; `uniform`: that of uniform attention."""
    return {"past": activations.past.mean(-1).tolist(), "uniform": activations.uniform}
