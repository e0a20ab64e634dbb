"""What scd-train settles where the command line leaves it open: by what was recorded, and by the device.

Each choice is a setting that could have been typed, and is said with its reason. A run that lies in `out`
goes on as it was begun. From Python, settings are what they are said to be.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from scd_datasets.config import CheckConfig, DataConfig
from scd_world.codec.config import SHRINK, CodecSettings
from scd_world.model.config import ModelConfig
from scd_world.prior.config import PriorSettings
from scd_world.training.config import TrainConfig
from scd_world.utils.checks import patch_sizes
from scd_world.utils.settings_diff import flat

log = logging.getLogger(__name__)
TOKENS = {"cpu": 64, "cuda": 192}  # per camera and frame, about: what a step costs goes by them
PATCHES = (2, 4, 8, 16)  # cells of a latent
FEW = 4.0  # times fewer tokens, or more, are no choice
WORTH_COMPILING = 600.0  # s of training
SHORT = 7200.0  # s of training: on a CPU so few updates that larger steps serve (docs/cameras.md 30)
PASSES = (
    60  # over the recordings: the held-out loss of two robots is lowest after 47 and 78 (docs/cameras.md)
)
FEWEST, MOST = 3000, 20_000  # updates
# Two of three robots are drawn better still after so many updates; more features draw no better than these,
# narrower networks worse (docs/cameras.md 17, 20).
DRAWN, SCENE, WIDE, MOTION = 12_000, 12, 192, 64


class Recording(NamedTuple):
    """What is known of a recording before anything is decoded."""

    height: int  # of the frames that are learnt from
    width: int
    environment_state: bool  # of things that no robot knows by itself
    frames: int  # that are learnt from
    cameras: int = 1
    # A patch in pixels, and data.image_size → (H, W), where frames are still to be read.
    resized: Callable[[int, int | None], tuple[int, int]] | None = None
    image_size: int | None = None

    def is_divided_by(self, patch: int) -> bool:
        """Says whether a patch, in pixels, divides the frames that are learnt from with it."""
        size = self.resized(patch, self.image_size) if self.resized else (self.height, self.width)
        return all(side % patch == 0 for side in size)


class Choice(NamedTuple):
    """The value of a setting, and why it is that."""

    value: Any
    why: str


def choose_settings(config: TrainConfig, given: Mapping[str, str]) -> TrainConfig:
    """Gives the settings with those chosen that were not `given` (name → value, as typed); says which."""
    device, choices = device_kind(config.device), begun(config, given)
    new: dict[str, Choice] = {}
    if choices is None:
        try:
            data = recording(config)
        # Whoever reads it will say what is wrong, with all else that is.
        except (OSError, ValueError, ArithmeticError):
            return config
        if not data.cameras:  # so does a world, which predicts images
            return config
        new = choose_divided(config, data, given, device)
        if config.model.head != "conv":  # as model=nano: nothing is mixed that could have been moved
            for mixed in ("warp", "anchor_frame", "skip_connection", "state_filter", "measured_share"):
                new.pop(f"model.{mixed}", None)
            new.pop("prior.scene_features", None)
            new.pop("prior.static_layer", None)
            new.pop("prior.motion_channels", None)
            new.pop("prior.dynamics.time_share", None)
            new.pop("prior.renderer_width", None)
        if "optimizer.lr" in new and device == "cpu" and (config.time_budget or math.inf) <= SHORT:
            new["optimizer.lr"] = Choice(1e-3, "of a small model, and of the few updates that are to come")
        settled = with_choices(config, values(new))
        if settled.codec.kind == "autoencoder" and "steps" not in given:
            new["steps"] = enough_steps(data.frames, settled)
    new |= choose_speed(config, given, device)
    if new:
        told = [f"\n  {name}={shown(choice.value)} ({choice.why})" for name, choice in new.items()]
        log.info("not given, so chosen:%s", "".join(told))
    return with_choices(config, values((choices or {}) | new))


def values(choices: Mapping[str, Choice]) -> dict[str, Any]:
    return {name: choice.value for name, choice in choices.items()}


def choose_speed(config: TrainConfig, given: Mapping[str, str], device: str) -> dict[str, Choice]:
    """Gives what the machine does fastest, on which nothing else depends: chosen anew where a run goes on."""
    seconds = min(config.time_budget or math.inf, config.time_limit or math.inf)
    if device != "cuda" or "compile" in given or seconds < WORTH_COMPILING or not can_compile():
        return {}
    return {"compile": Choice(True, "an update is about twice as fast, after two minutes of set-up")}


def can_compile() -> bool:
    """Says whether this process trains alone, and finds what torch.compile needs for a GPU."""
    compiler = any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang"))
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    return alone and compiler and importlib.util.find_spec("triton") is not None


def choose(data: Recording, given: Mapping[str, str], device: str) -> dict[str, Choice]:
    """Gives the choices for a recording on a device, cpu or cuda; some follow from what was `given`."""
    kind = given.get("codec", given.get("codec.kind"))
    found = given.get("codec.objects", "0") != "0"
    known = data.environment_state or (found and data.cameras == 1)  # where all things are that are seen
    if kind is None and "model.patch" in given and not known:
        return {"codec.kind": Choice("identity", "model.patch counts pixels; without it, latents are learnt")}
    if (kind or ("identity" if known else "autoencoder")) == "identity":
        return {}
    why = "nobody tells where things are: pictures are learnt as latents"
    if found:
        why = "what is found is known in one camera's picture, and here are several: latents"
    patch = min(PATCHES, key=lambda p: abs(math.log(tokens(data, p) / TOKENS[device])))
    choices = {
        "codec.kind": Choice("autoencoder", why),
        "codec.objects": Choice(0, "1 looks for a rigid object that is moved before a still camera"),
        "model.patch": Choice(patch, f"{tokens(data, patch):.0f} tokens for {data.height}×{data.width}"),
        "model.change_weight": Choice(0.0, "of pixels, not of latents"),
        "model.foreground_weight": Choice(0.0, "of pixels, not of latents"),
        "model.warp": Choice(True, "what was seen can be moved instead of drawn anew"),
        "model.anchor_frame": Choice(True, "what was shown last stays in view"),
        "model.skip_connection": Choice(True, "what is settled of a frame is kept between denoising steps"),
        "model.t_shift": Choice(0.15, "what a few frames leave open is small beside the noise"),
        "model.sees_commands": Choice(False, "what moves a joint is not drawn by, but where the joint is"),
        "model.frame_blend": Choice(0.0, "a blend of frames would hide how things move"),
        "optimizer.lr": Choice(5e-4, "of a small model"),
    }
    filters = corrects(given)
    why = "what the joints draw does not drift: it corrects what is imagined"
    otherwise = "what the joints draw, seen, blurs what was just shown"
    choices |= {
        "model.state_filter": Choice(filters, why if filters else "as asked, or nothing is drawn"),
        "prior.renderer_parts": Choice(
            PriorSettings().renderer_parts if filters else 0, why if filters else otherwise
        ),
    }
    if filters:
        choices |= {
            "model.measured_share": Choice(0.5, "frames are drawn on from what a filter measures"),
            "prior.renderer_width": Choice(WIDE, "what a robot's pictures take"),
            "prior.scene_features": Choice(SCENE, "what no joint knows is read off the last shown frame"),
            "prior.renderer.steps": Choice(DRAWN, "small things are learnt late"),
            "prior.renderer.weight_decay": Choice(0.3, "against what is learnt by heart"),
        }
    if filters and given.get("prior.scene_features") != "0":
        choices["prior.static_layer"] = Choice(True, "what lies about stays where it was shown")
        if yes(given.get("prior.static_layer", "true")):
            choices["prior.motion_channels"] = Choice(MOTION, "what is held is brought along")
            if given.get("prior.motion_channels") != "0":
                why = "a camera's part of a time_budget is longer"
                choices["prior.dynamics.time_share"] = Choice(0.35, why)
    if device == "cuda" and "model" not in given:
        why = "a GPU"
        choices |= {
            "model.width": Choice(512, why),
            "model.heads": Choice(8, why),
            "model.decoder_layers": Choice(3, why),
            "model.window": Choice(16, why),
            "sequence_length": Choice(16, why),
            "optimizer.lr": Choice(3e-4, "of a larger model"),
        }
    return without(choices, given)


def choose_divided(
    config: TrainConfig, data: Recording, given: Mapping[str, str], device: str
) -> dict[str, Choice]:
    """Gives the choices for a recording, with a patch that divides its frames, or a size that one divides."""
    new = choose(data, given, device)
    kind = new["codec.kind"].value if "codec.kind" in new else config.codec.kind
    patch = new["model.patch"].value if "model.patch" in new else config.model.patch
    cell, wanted = 1 if kind == "identity" else SHRINK, TOKENS[device]
    if "model.patch" in given or data.is_divided_by(cell * patch):
        return new
    if data.resized is None:  # a store is as it was built: slowly is better than not at all
        return new | fitting_patch(data, cell, wanted, math.inf)
    if (fit := fitting_patch(data, cell, wanted)) or "data.image_size" in given:
        return new | fit
    from scd_datasets.sources.images import MULTIPLE, USUAL

    height, width = data.resized(MULTIPLE, USUAL)
    why = f"no patch divides frames of {data.height}×{data.width} into about {wanted}"
    if kind != "identity":
        why += "; codec=identity, that of pixels, may keep their size"
    data = data._replace(height=height, width=width, image_size=USUAL)
    return {"data.image_size": Choice(USUAL, why), **choose(data, given, device)}


def choose_image_size(config: CheckConfig, given: Mapping[str, str]) -> CheckConfig:
    """Gives scd-data the size in which scd-train would read a recording on this machine, where none was
    `given` and no patch divides the frames as they are; says so. A store in another size would be of no use
    to what was trained from the recording itself."""
    if "data.image_size" in given or not (config.data.root or config.data.repo_id):
        return config
    settings = TrainConfig(data=DataConfig(**asdict(config.data)), out="")
    try:
        data = recording(settings)
    except (OSError, ValueError, ArithmeticError):  # as will be said where it is read
        return config
    if not data.cameras:
        return config

    def size_for(device: str) -> Choice | None:
        return choose_divided(settings, data, {}, device).get("data.image_size")

    # A GPU takes nearly all that a CPU does, and whether one is there torch takes seconds to say.
    if size_for("cpu") is None or (choice := size_for(device_kind("auto"))) is None:
        return config
    log.info("not given, so chosen, as scd-train does here:\n  data.image_size=%s (%s)", *choice)
    return replace(config, data=replace(config.data, image_size=choice.value))


def enough_steps(frames: int, config: TrainConfig) -> Choice:
    """Gives the updates after which recordings have been seen often enough: then they are learnt by heart."""
    steps = round(frames * PASSES / max(config.batch_size * config.sequence_length, 1))
    why = f"{PASSES} passes over {frames:,} frames, within {FEWEST:,} to {MOST:,} updates"
    return Choice(min(max(steps, FEWEST), MOST), why)


def corrects(given: Mapping[str, str]) -> bool:
    """Says whether nothing was given that leaves out a filter, or what it needs: the drawing of a state, and
    the frame that was shown."""
    kind = given.get("prior", given.get("prior.kind", "state"))
    asked = all(yes(given.get(f"model.{name}", "true")) for name in ("state_filter", "anchor_frame"))
    return kind == "state" and given.get("prior.renderer_parts") != "0" and asked


def yes(typed: str) -> bool:
    return typed.lower() in ("true", "1", "yes", "on")


def without(choices: Mapping[str, Choice], given: Mapping[str, str]) -> dict[str, Choice]:
    """Gives those choices that are left open: a codec may be given by its name alone."""
    closed = {*given, *(["codec.kind"] if "codec" in given else [])}
    return {name: choice for name, choice in choices.items() if name not in closed}


def fitting_patch(data: Recording, cell: int, wanted: int, few: float = FEW) -> dict[str, Choice]:
    """Gives a patch, in cells of so many pixels, that divides the frames into about as many as wanted, up to
    so many times more or less; none where there is none."""
    counts = {
        patch: data.height * data.width / (cell * patch) ** 2
        for patch in patch_sizes(min(data.height, data.width), cell)
        if data.is_divided_by(cell * patch)
    }
    off = {patch: abs(math.log(count / wanted)) for patch, count in counts.items()}
    patch = min(off, key=lambda patch: off[patch], default=None)
    if patch is None or off[patch] > math.log(few):
        return {}
    why = f"it divides {data.height}×{data.width}, into {counts[patch]:.0f} tokens"
    if off[patch] > math.log(FEW):
        why += f" for {wanted}: another size suits this device better, scd-data … data.image_size=96"
    return {"model.patch": Choice(patch, why)}


def tokens(data: Recording, patch: int) -> float:
    """Counts the patches of one camera's latent, whose cells are 4 × 4 pixels."""
    return data.height * data.width / (SHRINK * patch) ** 2


# ---- what is asked -----------------------------------------------------------------------------------


def begun(config: TrainConfig, given: Mapping[str, str]) -> dict[str, Choice] | None:
    """Gives the choices of the run that lies in the folder already, or the model of the world whose weights a
    training starts from; None where it begins from nothing."""
    from scd_world.training.check_settings import is_recording
    from scd_world.training.run_folder import RunFolder

    names, run = chosen_names(), RunFolder(config.out)
    try:
        if run.has_checkpoints:  # else it has not begun, and begins anew
            file, why = run.path / "config.json", "as the run began"
            init = json.loads(file.read_text(encoding="utf-8")).get("init")
        elif config.init is not None:
            from scd_world.world.world import find_folder

            init = config.init
            file, why = find_folder(init) / "config.json", f"as {init} has it"
        else:
            return None
        if init is not None and "model" not in given:
            names += of_a_world()
        choices = kept(file, names, why)
        if not run.has_checkpoints and is_recording(config.data):
            schema = json.loads(file.read_text(encoding="utf-8"))["schema"]
            choices["data.image_size"] = Choice(min(schema["height"], schema["width"]), why)
        if init != config.init:
            choices["init"] = Choice(init, why)
        return without(choices, given)
    except (OSError, ValueError, KeyError, TypeError):  # not what it should be, as will be said elsewhere
        return {}


def kept(file: Path, names: Iterable[str], why: str) -> dict[str, Choice]:
    """Reads those of the settings that a config.json has."""
    older = {"codec": asdict(CodecSettings())}  # had no other
    settings = flat({**older, **json.loads(file.read_text(encoding="utf-8"))})
    return {name: Choice(settings[name], why) for name in names if name in settings}


def chosen_names() -> list[str]:
    blind = Recording(96, 96, environment_state=False, frames=0)
    return [*choose(blind, {}, "cuda"), "data.image_size", "steps"]


def of_a_world() -> list[str]:
    """Lists the settings that a world's config.json has."""
    parts: dict[str, Any] = {"codec": CodecSettings(), "model": ModelConfig(), "prior": PriorSettings()}
    return list(flat({name: asdict(part) for name, part in parts.items()}))


def recording(config: TrainConfig) -> Recording:
    """Looks at what was recorded; nothing is decoded."""
    from scd_datasets.sources.images import common_size
    from scd_datasets.sources.lerobot.features import ENVIRONMENT_STATE
    from scd_datasets.sources.open_source import open_source
    from scd_datasets.store.store import WindowStore
    from scd_world.training.check_settings import is_recording

    if is_recording(config.data):
        source = open_source(config.data, config.patch_pixels)
        frames = sum(episode.length for episode in source.episodes)
        size, told = (source.grid.height, source.grid.width), source.names(ENVIRONMENT_STATE)
        cameras, sizes = len(source.sizes), list(source.sizes.values())
    else:
        sizes = []  # they are what they are
        store = WindowStore.open(config.data.root or "", in_memory=False)
        frames, schema = int(store.lengths.sum()), store.schema
        size, told = (schema.height, schema.width), schema.environment_state
        cameras = len(schema.cameras)

    def resized(patch: int, image_size: int | None) -> tuple[int, int]:
        return common_size(sizes, image_size, patch)

    learnt, at = round(frames * (1 - config.data.holdout)), config.data.image_size
    return Recording(*size, bool(told), learnt, cameras, resized if sizes else None, at)


def device_kind(device: str) -> str:
    """Gives cpu or cuda, of a setting that may be auto."""
    if device == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


# ---- nested settings by name ---------------------------------------------------------------------------


def with_choices(config: Any, values: Mapping[str, Any]) -> Any:
    """Gives a config dataclass with other values, by names such as model.patch; all of a group at once, since
    they are checked together."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = value
    changed = {
        group: inner[""] if "" in inner else with_choices(getattr(config, group), inner)
        for group, inner in groups.items()
    }
    return replace(config, **changed) if changed else config


def shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
