"""Between recorded frames and those that a model knows: the only place where one becomes the other.

A model's frames are what SCD reads, draws and keeps in its memory. With the identity they are the pixels;
with an autoencoder they are latents, and its decoder runs once per imagined frame, not once per denoising
step ("High-Resolution Image Synthesis with Latent Diffusion Models", arXiv 2112.10752, §3.1).

What coding loses of a frame, its *detail*, is known of one that was shown: it is given back wherever an
imagined latent is still what was shown there.

And a model's state is the recorded one with where the objects in the pictures are, if any were found
(`scd_world.objects`).

F frames, V cameras, C = 3·V channels, H W pixels, h w cells of a model's frame; B recordings, S state, N
numbers that are found.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd_world.codec.autoencoder import Autoencoder
from scd_world.codec.config import SHRINK, CodecConfig, model_schema
from scd_world.objects.finder import ObjectFinder
from scd_world.robot_data.normalizer import decode_pixels, encode_pixels
from scd_world.robot_data.schema import DataSchema
from scd_world.robot_data.unchanged import unchanged

UNCHANGED = "unchanged"  # name of the one number that is fitted beside the network
PART = 64  # frames of one camera that are coded together: their features would fill the memory


class Codec(nn.Module, ABC):
    """Gives a model's frames of pixels, and images of a model's frames."""

    def __init__(self, config: CodecConfig, schema: DataSchema) -> None:
        """schema: of the recorded frames. ValueError where their size does not suit the codec."""
        super().__init__()
        self.config, self.schema = config, schema
        self.model_schema = model_schema(config, schema)
        self.finder: ObjectFinder | None = None
        if config.found:
            self.finder = ObjectFinder(torch.zeros(len(schema.cameras), 3, schema.height, schema.width), [])

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """uint8 (…, V, H, W, 3) as recorded → a model's frames (…, C, h, w) in [-1, 1], same device."""

    @abstractmethod
    def decode(self, obs: Tensor, shown: Tensor | None = None, detail: Tensor | None = None) -> Tensor:
        """A model's frames (…, C, h, w) → images (…, C, H, W) in [-1, 1], or a little beyond: those of pixels
        are as they are, and `decode_pixels` clips.

        shown (…, C, h, w), detail (…, C, H, W): a frame that was shown before, and what `detail` gives of it.
        """

    @property
    def keeps_detail(self) -> bool:
        """Says whether `detail` gives anything."""
        return False

    def detail(self, pixels: Tensor, shown: Tensor) -> Tensor:
        """Gives what coding loses of uint8 (…, V, H, W, 3), whose code is `shown` (…, C, h, w): what is to be
        added to the images of `shown`, (…, C, H, W), or (…, 0, h, w) where no detail is kept."""
        return shown[..., :0, :, :]

    @property
    def is_plain(self) -> bool:
        """Says whether a model sees just what was recorded."""
        return False

    def find(self, pixels: Tensor, before: Tensor | None = None) -> Tensor:
        """Follows what is known by sight through frames uint8 (B, T, V, H, W, 3): (B, T, N). before (B, N):
        where it was one frame earlier; None: nobody knows."""
        if self.finder is None:
            return torch.zeros(*pixels.shape[:2], 0, device=pixels.device)
        return self.finder.find(pixels.unbind(1), before=before)

    def complete(self, windows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gives windows as the store has them, what is found in their frames beside the recorded state.

        Each frame's by itself and those before it. One frame before the first, objects are taken to be there.
        """
        if self.finder is None:
            return dict(windows)
        found = self.find(windows["pixels"])
        return {**windows, **with_found(windows["state"], windows["prev"], found)}

    def decode_pixels(self, obs: Tensor, shown: Tensor | None = None, detail: Tensor | None = None) -> Tensor:
        """A model's frames (…, C, h, w) → uint8 (…, V, H, W, 3)."""
        return decode_pixels(self.decode(obs, shown, detail))

    @property
    def fingerprint(self) -> str:
        """A hash of all that coding depends on."""
        config = self.config
        named = f"CodecConfig(kind={config.kind!r}, width={config.width!r})" + repr(config.found or "")[2:]
        digest = hashlib.sha256(named.encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def with_found(state: Tensor, prev: Tensor, found: Tensor) -> dict[str, Tensor]:
    """Puts what was found (B, T, N) beside the recorded state (B, T, S), and into prev (B, S + A), state and
    action one frame before the first: objects are taken to have been where they are then."""
    S = state.shape[-1]
    found = found.to(state)
    return {
        "state": torch.cat([state, found], -1),
        "prev": torch.cat([prev[:, :S], found[:, 0], prev[:, S:]], -1),
    }


class Identity(Codec):
    """A model's frames are the pixels."""

    def __init__(self, schema: DataSchema, found: tuple[str, ...] = ()) -> None:
        super().__init__(CodecConfig(found=found), schema)

    @property
    def is_plain(self) -> bool:
        return self.finder is None

    def encode(self, pixels: Tensor) -> Tensor:
        return encode_pixels(pixels)

    def decode(self, obs: Tensor, shown: Tensor | None = None, detail: Tensor | None = None) -> Tensor:
        return obs


class AutoencoderCodec(Codec):
    """A model's frames are latents. One network for all cameras."""

    unchanged: Tensor

    def __init__(self, config: CodecConfig, schema: DataSchema) -> None:
        """Builds it with random weights."""
        super().__init__(config, schema)
        self.network = Autoencoder(config.width)
        # () how far a latent may be from the one that was shown and still be the same; 0: no detail is kept
        self.register_buffer(UNCHANGED, torch.zeros(()))

    def _load_from_state_dict(self, weights: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Takes weights of older files, too: they keep no detail."""
        weights.setdefault(prefix + UNCHANGED, torch.zeros(()))
        super()._load_from_state_dict(weights, prefix, *rest)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        return by_camera(self.network.encode, encode_pixels(pixels))

    @torch.no_grad()
    def decode(self, obs: Tensor, shown: Tensor | None = None, detail: Tensor | None = None) -> Tensor:
        images = by_camera(self.network.decode, obs.float())
        if shown is not None and detail is not None and detail.numel():
            images = images + unchanged_share(obs.float(), shown.float(), self.unchanged) * detail
        return images.clamp(-1, 1)

    @property
    def keeps_detail(self) -> bool:
        return bool(self.unchanged > 0)

    @torch.no_grad()
    def detail(self, pixels: Tensor, shown: Tensor) -> Tensor:
        if not self.keeps_detail:
            return super().detail(pixels, shown)
        return encode_pixels(pixels) - by_camera(self.network.decode, shown.float())


def unchanged_share(obs: Tensor, shown: Tensor, scale: Tensor) -> Tensor:
    """Gives how surely a pixel is what was shown there, (…, C, H, W) in [0, 1], of latents (…, C, h, w)."""
    same = unchanged(obs.reshape(-1, *obs.shape[-3:]), shown.reshape(-1, *obs.shape[-3:]), scale)
    same = F.interpolate(same, scale_factor=SHRINK, mode="bilinear", align_corners=False)
    return same.repeat_interleave(3, dim=1).reshape(*obs.shape[:-3], -1, *same.shape[-2:])


def by_camera(network: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """Applies what takes (F, 3, h, w) to frames (…, 3·V, h, w): each camera by itself, some at a time."""
    shape = frames.shape[:-3]
    flat = frames.reshape(-1, 3, *frames.shape[-2:])
    done = torch.cat([network(part) for part in flat.split(PART)])
    return done.reshape(*shape, -1, *done.shape[-2:])


def make_codec(config: CodecConfig, schema: DataSchema) -> Codec:
    """Builds the codec that these settings mean, for recorded frames of this schema."""
    if config.kind == "identity":
        return Identity(schema, config.found)
    return AutoencoderCodec(config, schema)
