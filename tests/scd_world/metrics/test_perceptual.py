"""LPIPS and FVD: right sums with a random extractor, neither metric without weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from scd_world.metrics.i3d import I3D
from scd_world.metrics.perceptual import (
    Lpips,
    frechet,
    load,
    load_networks,
    lpips,
    perceptual_metrics,
    video_frechet,
)


def videos(count: int = 3, frames: int = 10, cameras: int = 1, seed: int = 0) -> Tensor:
    shape = (count, frames, cameras, 16, 24, 3)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


@pytest.fixture(scope="module")
def random_lpips() -> Lpips:
    torch.manual_seed(0)
    return Lpips().eval().requires_grad_(False)


def random_extractor(video: Tensor) -> Tensor:
    """(B, 3, T, H, W) → (B, 4): a fixed random projection of means over time."""
    weight = torch.randn(3 * 16, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.adaptive_avg_pool3d(video, (1, 4, 4)).flatten(1) @ weight


def test_without_weights_there_is_no_figure():
    networks = load_networks(None, None, torch.device("cpu"))
    assert perceptual_metrics(networks, [(videos(), videos())]) == {}


def test_a_figure_says_what_it_compared_with_which_weights(tmp_path, random_lpips, caplog):
    save_file(random_lpips.state_dict(), tmp_path / "alex.safetensors")
    networks = load_networks(str(tmp_path / "alex.safetensors"), None, torch.device("cpu"))
    networks["FVD"] = networks["LPIPS"]  # too few frames: never called
    found = perceptual_metrics(networks, [(videos(2, 3), videos(2, 3, seed=1))])
    assert set(found) == {"LPIPS"}
    assert found["LPIPS"]["what"].endswith("2 videos of 3 imagined frames")
    assert len(found["LPIPS"]["sha256"]) == 64
    assert "no FVD of 2 videos of 3 frames" in caplog.text


@pytest.mark.parametrize("name", ["lpips_weights", "fvd_weights"])
def test_missing_and_foreign_weights_are_refused_with_the_recipe(tmp_path, name):
    def ask(path):
        paths = {"lpips_weights": None, "fvd_weights": None} | {name: str(path)}
        return load_networks(**paths, device=torch.device("cpu"))

    with pytest.raises(FileNotFoundError, match=r"no weights at .*; wanted: "):
        ask(tmp_path / "none.safetensors")
    save_file({"something": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match=r"lacks .*; wanted: "):
        ask(tmp_path / "foreign.safetensors")
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04 not safetensors")
    with pytest.raises(ValueError, match="not a safetensors file"):
        ask(tmp_path / "pickle.pt")


def test_lpips_is_zero_for_equal_frames_and_mean_over_all(random_lpips):
    a, b = videos(2, 3, cameras=2), videos(2, 3, cameras=2, seed=1)
    assert lpips(random_lpips, [(a, a)]) == 0
    distance = lpips(random_lpips, [(a, b)])
    assert distance != 0
    halves = [lpips(random_lpips, [(a[i : i + 1], b[i : i + 1])]) for i in (0, 1)]
    assert distance == pytest.approx(np.mean(halves), rel=1e-4)


def test_lpips_reads_the_public_names(tmp_path, random_lpips):
    names = set(random_lpips.state_dict())
    assert {"features.0.weight", "features.10.bias", "lin4.model.1.weight"} <= names
    save_file(random_lpips.state_dict(), tmp_path / "alex.safetensors")
    again = load(Lpips(), str(tmp_path / "alex.safetensors"), "")
    pair = [(videos(1, 2), videos(1, 2, seed=1))]
    assert lpips(again, pair) == lpips(random_lpips, pair)


def test_frechet_distance_by_hand():
    """Diagonal Gaussians: |Δμ|² + Σ (σ_a − σ_b)²."""
    x = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).double()
    a, b = x * torch.tensor([1.0, 2.0]), x * torch.tensor([3.0, 1.0]) + torch.tensor([1.0, 0.0])
    scale = (4 / 3) ** 0.5  # of a sample deviation with n − 1
    assert frechet(a, b) == pytest.approx(1 + scale**2 * (2**2 + 1**2))
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="at least 2 videos"):
        frechet(a[:1], b)


def test_frechet_distance_of_videos_grows_with_the_difference():
    true = videos(4)
    near, far = (true // 16 * 16), (true // 2 + 100)
    assert video_frechet(random_extractor, [(true, true)]) == pytest.approx(0, abs=1e-6)
    a, b = (video_frechet(random_extractor, [(true, other)]) for other in (near, far))
    assert 0 < a < b


def test_i3d_has_the_public_shapes():
    with torch.device("meta"):
        network = I3D().eval()
        assert network(torch.zeros(2, 3, 10, 224, 224)).shape == (2, 400)
    weights = network.state_dict()
    assert weights["Conv3d_1a_7x7.conv3d.weight"].shape == (64, 3, 7, 7, 7)
    assert weights["Mixed_4f.b2b.conv3d.weight"].shape == (128, 32, 3, 3, 3)
    assert weights["Mixed_5c.b1b.bn.running_var"].shape == (384,)
    assert weights["logits.conv3d.bias"].shape == (400,)
    assert sum(p.numel() for p in network.parameters()) == 12_697_264
