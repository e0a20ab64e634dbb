"""What the model sees of a recording: its pixels, or the latents of a codec that was learnt from it first.

A codec is pretrained on the training episodes, kept in the run's folder, and never learns on. Then all frames
are encoded once, into a window store beside it: what trains on pixels trains on latents unchanged.

F frames, L steps, V cameras, H W pixels.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.known_stores import find, link, remember
from scd_datasets.store.loader import WindowLoader, prefetch
from scd_datasets.store.store import WindowStore
from scd_datasets.store.writer import StoreWriter, store_lock
from scd_world.codec.autoencoder import Autoencoder
from scd_world.codec.codec import AutoencoderCodec, Codec, Identity, make_codec
from scd_world.codec.config import CodecConfig
from scd_world.codec.fit_codec import decoder_steps, fit_codec, fit_decoder, fit_unchanged, reconstruction
from scd_world.robot_data.normalizer import decode_pixels, encode_pixels
from scd_world.robot_data.schema import DataSchema
from scd_world.training.found_objects import find_objects, follow_objects
from scd_world.training.pretrain import BAR_SECONDS, Pretraining
from scd_world.training.run_folder import RunFolder
from scd_world.utils.atomic_folder import DamagedFolder, verify, write_folder
from scd_world.utils.precision import use_bf16
from scd_world.world import weights
from scd_world.world.world import find_folder
from scd_world.world.world_config import read_config

log = logging.getLogger(__name__)
MEASURED = 96  # held-out frames
POOR = 25.0  # dB: an imagination through such a codec hides what a robot works with
DECODER_SHARE = 0.3  # of the codec's time, that the decoder learns on in
PART = 256  # frames that are read together
IMAGINED = 2  # an imagined latent is about so many times as far off as the codec was taught to forgive


@dataclass(frozen=True)
class TrainedCodec:
    """A codec, and how close held-out frames come back through it: {} where it changes nothing."""

    codec: Codec
    quality: dict[str, float]
    seconds: float = 0.0  # that it was learnt for


def codec_of(pretraining: Pretraining, run: RunFolder, resuming: bool) -> TrainedCodec:
    """Gives the codec of a training: what its folder keeps, that of the world that it starts from, or one
    that is learnt now. Every process comes to the same.

    ValueError where the world that it starts from has another kind of codec.
    """
    config, store = pretraining.config, pretraining.recorded
    depends_on = {
        "codec": asdict(config.codec), "store": store.fingerprint, "seed": config.seed, "init": config.init,
        "episodes": [int(i) for i in pretraining.episodes],
    }  # fmt: skip
    kept_at_all = config.codec.kind != "identity" or config.codec.objects > 0
    if kept_at_all and (kept := read_codec(run.codec, store, depends_on, resuming)):
        pretraining.earlier_seconds += kept.seconds
        return kept
    if config.init is not None and not resuming:
        made = codec_of_world(config.init, config.codec.kind, store.schema)
    elif config.codec.kind == "identity":
        made = TrainedCodec(Identity(store.schema), {})
    else:
        made = learn_codec(pretraining)
    if config.codec.objects and config.init is None:
        made = with_finder(made, pretraining)
    if kept_at_all and pretraining.main:
        write_folder(run.codec, lambda folder: write_codec(folder, made, depends_on))
    return made


def codec_of_world(world: str, kind: str, schema: DataSchema) -> TrainedCodec:
    """Gives the codec of the world, a folder or name, that a training of this `kind` of codec starts from,
    for the frames of the data at hand."""
    folder = find_folder(world)
    config = read_config(folder)
    if (theirs := config.codec.kind) != kind:
        raise ValueError(f"{world} has codec={theirs} and this training codec={kind}: set codec={theirs}")
    codec = weights.read_codec(folder / weights.CODEC, replace(config, schema=schema))
    return TrainedCodec(codec, config.provenance.get("codec") or {})


def with_finder(made: TrainedCodec, pretraining: Pretraining) -> TrainedCodec:
    """Looks for objects in the training episodes, and gives a codec that knows them by sight."""
    store, settings, began = pretraining.recorded, pretraining.config, time.monotonic()
    finder = find_objects(store, pretraining.episodes, settings.codec.objects, settings.seed)
    config = replace(made.codec.config, found=finder.names(store.schema.cameras))
    codec = make_codec(config, store.schema)
    known = {f"finder.{name}": value for name, value in finder.state_dict().items()}
    codec.load_state_dict({**made.codec.state_dict(), **known})
    codec = codec.eval().requires_grad_(False)
    return TrainedCodec(codec, made.quality, made.seconds + time.monotonic() - began)


def learn_codec(pretraining: Pretraining) -> TrainedCodec:
    """Learns an autoencoder from the frames of the training episodes; says how held-out ones come back."""
    config, store, held_out = pretraining.config, pretraining.recorded, pretraining.held_out
    settings = replace(config.codec, steps=min(config.codec.steps, config.steps))
    device, seed = pretraining.accelerator.device, config.seed
    torch.manual_seed(seed)
    codec = AutoencoderCodec(settings.architecture, store.schema).to(device)
    frames = frames_of(store, pretraining.episodes, settings.batch_size, seed, device)
    bf16, seconds = use_bf16(config.precision, device), 0.0
    for name, fit, steps, share in (
        ("codec", fit_codec, settings.steps, 1 - DECODER_SHARE),
        ("decoder", fit_decoder, decoder_steps(settings.steps), DECODER_SHARE),
    ):
        stage = pretraining.stage(name, share * settings.time_share)
        losses = fit(codec.network, frames, seed, settings, bf16, stage)
        pretraining.run_stage(stage, name, losses, steps)
        seconds += stage.elapsed
    codec = codec.eval().requires_grad_(False)
    find_unchanged(codec, store, pretraining.episodes, settings.noise, seed)
    quality = measure(codec.network, store, held_out, pretraining) if len(held_out) else {}
    return TrainedCodec(codec, quality, seconds)


def frames_of(
    store: WindowStore, episodes: np.ndarray, batch_size: int, seed: int, device: torch.device
) -> Callable[[int], Generator[Tensor]]:
    """Gives what a codec learns from: single frames of these episodes, from batch number `first` on."""
    loader = WindowLoader(store, episodes, batch_size, 1, seed, motion_share=0.0)

    def frames(first: int) -> Generator[Tensor]:
        with closing(prefetch(loader, first)) as batches:
            for windows in batches:
                yield single_frames(windows["pixels"], device)

    return frames


def find_unchanged(
    codec: AutoencoderCodec, store: WindowStore, episodes: np.ndarray, noise: float, seed: int
) -> None:
    """Finds by pairs of frames of these episodes what counts as unchanged (`fit_unchanged`). noise: that the
    codec learned to forgive."""
    pairs = WindowLoader(store, episodes, MEASURED, 1, seed, motion_share=0.0, anchors=True).batch(0)
    now, earlier = (pairs[name].to(codec.unchanged.device) for name in ("pixels", "anchor"))
    fit_unchanged(codec, now[:, 0], earlier, IMAGINED * noise, seed)


def measure(
    network: Autoencoder, store: WindowStore, episodes: np.ndarray, pretraining: Pretraining
) -> dict[str, float]:
    """Measures how frames of held-out episodes come back, and says so; warns where they hardly do."""
    loader = WindowLoader(store, episodes, MEASURED, 1, pretraining.config.seed, motion_share=0.0)
    frames = single_frames(loader.batch(0)["pixels"], next(network.parameters()).device)
    quality = reconstruction(network, frames)
    said = (
        f"codec, held-out episodes: frames come back at {quality['psnr']:.1f} dB (worst "
        f"{quality['worst_psnr']:.1f}), SSIM {quality['ssim']:.3f}: no imagination can be closer than that"
    )
    if quality["psnr"] < POOR:
        log.warning(
            "%s. Below %.0f dB small things are lost: give it longer (codec.steps, codec.time_share), more "
            "channels (codec.width), or set codec=identity", said, POOR,
        )  # fmt: skip
    else:
        pretraining.log_main(said)
    return quality


def single_frames(pixels: Tensor, device: torch.device) -> Tensor:
    """Windows' pixels uint8 (B, T+1, V, H, W, 3) → the first frame of each, cameras apart: (B·V, 3, H, W)."""
    first = encode_pixels(pixels[:, 0].to(device))
    return first.unflatten(1, (-1, 3)).flatten(0, 1)


# ---- in the run's folder ---------------------------------------------------------------------------


def write_codec(folder: Path, made: TrainedCodec, depends_on: dict[str, Any]) -> None:
    state = {name: w.detach().cpu().contiguous() for name, w in made.codec.state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    kept = {"config": asdict(made.codec.config), "quality": made.quality, "seconds": made.seconds}
    text = json.dumps(kept | {"depends_on": depends_on}, indent=1)
    (folder / "codec.json").write_text(text, encoding="utf-8")


def read_codec(
    folder: Path, store: WindowStore, depends_on: dict[str, Any], needed: bool
) -> TrainedCodec | None:
    """Reads the codec that a run keeps; None where it keeps none, or one of other settings or frames.

    needed: a training goes on with it: whether its settings are still the same is asked elsewhere, and
    DamagedFolder raised where it is gone.
    """
    if not folder.is_dir() and not needed:
        return None
    try:
        verify(folder)
    except DamagedFolder as error:
        if needed:
            raise
        log.warning("%s; the codec is learnt from its beginning", error)
        return None
    kept = json.loads((folder / "codec.json").read_text(encoding="utf-8"))
    kept["depends_on"]["codec"].setdefault("objects", 0)  # none were sought before there was that setting
    if not needed and kept["depends_on"] != json.loads(json.dumps(depends_on)):
        log.warning("%s was made with other settings, or of other frames; it is made anew", folder)
        return None
    codec = make_codec(CodecConfig(**kept["config"]), store.schema)
    codec.load_state_dict(load_file(folder / "weights.safetensors"))
    return TrainedCodec(codec.eval().requires_grad_(False), kept["quality"], kept["seconds"])


# ---- the recording as the model sees it ------------------------------------------------------------


def latent_store(
    store: WindowStore, codec: Codec, out: Path, device: torch.device, episodes: np.ndarray
) -> WindowStore:
    """Gives the store of what the model sees: `store` itself where a codec changes nothing, else its latents
    in 8 bits and what is found in its frames, at `out`, encoded once. An interrupted call goes on where it
    was.

    episodes: the training's; no other tells where the robot is in a picture.
    """
    if codec.is_plain:
        return store
    asked = f" {episodes.tolist()}" if codec.finder else ""  # where the robot is depends on them
    source = hashlib.sha256(f"{store.fingerprint} {codec.fingerprint}{asked}".encode()).hexdigest()
    with store_lock(out):
        if not (out.exists() and WindowStore.open(out, in_memory=False).source == source):
            if known := find(source):
                link(known, out)
            else:
                codec.to(device)
                found = follow_objects(store, codec.finder, episodes, out) if codec.finder else None
                with StoreWriter(out, codec.model_schema, source, store.imagined) as writer:
                    for episode in tqdm(
                        latent_episodes(store, codec, device, writer, found), "encoding", len(store.lengths),
                        unit="episode", mininterval=BAR_SECONDS,
                    ):  # fmt: skip
                        writer.append(episode)
                    writer.finish(source)
            remember(WindowStore.open(out, in_memory=False))
    return WindowStore.open(out)


def latent_episodes(
    store: WindowStore,
    codec: Codec,
    device: torch.device,
    writer: StoreWriter,
    found: np.ndarray | None,
) -> Iterator[EpisodeArrays]:
    """Yields the store's episodes with latents in the place of pixels, and what was found (F, N) beside their
    state; those that the writer kept as they are."""
    state = store.state if found is None else np.concatenate([store.state, found], axis=1)
    for episode, (start, length) in enumerate(zip(store.starts, store.lengths, strict=True)):
        index, rows = int(store.episode_index[episode]), slice(start, start + length)
        latents = (
            writer.pixels(index)
            if index in writer.kept
            else np.concatenate([
                encode(store, codec, device, episode, first, min(PART, length - first))
                for first in range(0, length, PART)
            ])
        )  # fmt: skip
        yield EpisodeArrays(
            latents, state[rows], store.action[rows], store.reward[rows], store.success[rows], index,
            int(store.task[episode]),
        )  # fmt: skip


def encode(
    store: WindowStore, codec: Codec, device: torch.device, episode: int, first: int, count: int
) -> np.ndarray:
    """Encodes `count` frames of an episode: uint8 (count, V, h, w, 3)."""
    pixels = store.windows(np.array([episode]), np.array([first]), count)["pixels"][0, :count]
    if isinstance(codec, Identity):
        return pixels
    return decode_pixels(codec.encode(torch.from_numpy(pixels).to(device))).cpu().numpy()
