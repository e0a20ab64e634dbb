"""What a codec promises: sizes, cameras apart, and frames that come back once it has learnt."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scd_world.codec.autoencoder import Autoencoder
from scd_world.codec.codec import AutoencoderCodec, Identity
from scd_world.codec.config import CodecConfig, CodecTrainConfig
from scd_world.codec.fit_codec import (
    fit_codec,
    fit_decoder,
    fit_unchanged,
    move,
    reconstruction,
    small_motions,
    soften,
)
from scd_world.metrics.image import psnr, sharpness
from scd_world.optim.pretraining import PretrainStage
from scd_world.robot_data.normalizer import encode_pixels
from tests.conftest import SCHEMA

TWO_CAMERAS = replace(SCHEMA, height=16, width=24)
SMALL = CodecConfig("autoencoder", width=8)


def some_pixels(*leading: int) -> Tensor:
    return torch.randint(0, 256, (*leading, 2, 16, 24, 3), dtype=torch.uint8)


def squares(first: int) -> Generator[Tensor]:
    """Bright squares in random places on gray, batch number `first` and on."""
    while True:
        generator = torch.Generator().manual_seed(first)
        frames = torch.full((8, 3, 16, 16), -0.3)
        for frame in frames:
            y, x = torch.randint(0, 12, (2,), generator=generator)
            frame[:, y : y + 4, x : x + 4] = torch.rand(3, 1, 1, generator=generator)
        first += 1
        yield frames


def test_the_identity_changes_no_pixel():
    codec, pixels = Identity(TWO_CAMERAS), some_pixels(3, 2)
    assert torch.equal(codec.encode(pixels), encode_pixels(pixels))
    assert torch.equal(codec.decode_pixels(codec.encode(pixels)), pixels)
    assert codec.model_schema == TWO_CAMERAS
    assert not codec.state_dict()


def test_latents_are_frames_of_a_quarter_of_the_size():
    codec, pixels = AutoencoderCodec(SMALL, TWO_CAMERAS), some_pixels(3, 2)
    latents = codec.encode(pixels)
    small = codec.model_schema
    assert latents.shape == (3, 2, small.channels, small.height, small.width) == (3, 2, 6, 4, 6)
    assert latents.abs().max() <= 1
    images = codec.decode(latents)
    assert images.shape == (3, 2, 6, 16, 24)
    assert images.abs().max() <= 1
    assert codec.decode_pixels(latents).shape == pixels.shape


def test_a_camera_knows_nothing_of_another():
    codec, pixels = AutoencoderCodec(SMALL, TWO_CAMERAS), some_pixels(2)
    other = pixels.clone()
    other[:, 1] = 0
    before, after = codec.encode(pixels), codec.encode(other)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3:], after[:, 3:])


def test_many_frames_are_coded_as_single_ones(monkeypatch):
    codec, pixels = AutoencoderCodec(SMALL, TWO_CAMERAS), some_pixels(5)
    together = codec.encode(pixels)
    monkeypatch.setattr("scd_world.codec.codec.PART", 3)
    torch.testing.assert_close(codec.encode(pixels), together)


def test_what_coding_loses_comes_back_where_nothing_changed_and_only_there():
    codec, pixels = AutoencoderCodec(SMALL, TWO_CAMERAS), some_pixels(2)
    shown = codec.encode(pixels)
    assert not codec.keeps_detail
    assert codec.detail(pixels, shown).numel() == 0
    codec.unchanged.fill_(0.2)
    detail = codec.detail(pixels, shown)
    torch.testing.assert_close(codec.decode(shown, shown, detail), encode_pixels(pixels))
    obs = shown.clone()
    obs[:, :3, :, 3:] = torch.where(shown[:, :3, :, 3:] > 0, -1.0, 1.0)  # half of the first camera changed
    drawn, plain = codec.decode(obs, shown, detail), codec.decode(obs)
    torch.testing.assert_close(drawn[:, 3:], encode_pixels(pixels)[:, 3:])
    torch.testing.assert_close(drawn[:, :3, :, 20:], plain[:, :3, :, 20:], atol=1e-2, rtol=0)
    assert (drawn[:, :3, :, :4] - encode_pixels(pixels)[:, :3, :, :4]).abs().mean() < (
        (plain[:, :3, :, :4] - encode_pixels(pixels)[:, :3, :, :4]).abs().mean()
    )


def test_how_far_the_same_may_be_is_found_from_frames_and_earlier_ones():
    codec, earlier = AutoencoderCodec(SMALL, TWO_CAMERAS), some_pixels(16)
    codec.network.encoder[-2].weight.data *= 20  # no two latents are alike
    pixels = earlier.clone()
    pixels[:, :, :8] = some_pixels(16)[:, :, :8]  # above all is new, below nothing
    fit_unchanged(codec, pixels, earlier, noise=0.02, seed=0)
    assert codec.keeps_detail
    shown = codec.encode(earlier)
    obs, true = codec.encode(pixels), encode_pixels(pixels)
    plain, drawn = codec.decode(obs), codec.decode(obs, shown, codec.detail(earlier, shown))
    before, after = ((x - true).square().mean((0, 1, 3)) for x in (plain, drawn))
    assert (after[12:] < 0.6 * before[12:]).all()
    assert (after[:4] < 1.1 * before[:4]).all()
    fit_unchanged(codec, 255 - earlier, earlier, noise=0.02, seed=0)  # all is the opposite of what it was
    assert codec.unchanged <= 0.05


def test_frames_that_its_cells_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"4×4 pixels, and the frames are 16×18: .*data.image_size"):
        AutoencoderCodec(SMALL, replace(SCHEMA, height=16, width=18))


def test_two_codecs_have_two_fingerprints():
    one, other = AutoencoderCodec(SMALL, TWO_CAMERAS), AutoencoderCodec(SMALL, TWO_CAMERAS)
    assert one.fingerprint != other.fingerprint
    other.load_state_dict(one.state_dict())
    assert one.fingerprint == other.fingerprint


def fitted(
    config: CodecTrainConfig, stage: PretrainStage | None = None, updates: int | None = None, fit=fit_codec
) -> Autoencoder:
    torch.manual_seed(0)
    network = Autoencoder(config.width)
    losses = fit(network, squares, 0, config, bf16=False, stage=stage)
    for i, _ in enumerate(losses, start=1):
        if i == updates:
            losses.close()
            break
    return network


def test_it_learns_to_give_frames_back():
    """Better than the best single color could: squares stand out of the gray."""
    network = fitted(CodecTrainConfig("autoencoder", width=12, steps=250, lr=1e-2))
    unseen = next(squares(10_000))
    quality = reconstruction(network, unseen)
    of_mean = 10 * torch.log10(4 / (unseen - unseen.mean((2, 3), keepdim=True)).square().mean())
    assert quality["psnr"] > of_mean + 4
    assert quality["worst_psnr"] <= quality["psnr"]


def test_latents_move_as_the_pictures_do():
    """A latent that is moved is drawn as the moved picture, better than by one that learnt without motion."""
    unseen = next(squares(10_000))
    motion = small_motions(len(unseen), torch.Generator().manual_seed(1))

    def of_moved() -> float:
        network = fitted(CodecTrainConfig("autoencoder", width=12, steps=250, lr=1e-2))
        drawn = network.decode(move(network.encode(unseen), motion))
        return (drawn - move(unseen, motion)).square().mean().item()

    taught = of_moved()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scd_world.codec.fit_codec.small_motions", lambda count, _: torch.zeros(0, 2, 3))
        assert taught < 0.8 * of_moved()


def test_a_latent_is_softened_by_its_own_share():
    latents = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    soft = soften(latents, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(soft[0], latents[0])
    assert torch.allclose(soften(torch.ones(1, 3, 8, 8), torch.ones(1)), torch.ones(1, 3, 8, 8))
    half, whole = (soften(latents[2:], torch.tensor([by])) for by in (0.5, 1.0))
    assert torch.equal(whole[0], soft[2])
    assert torch.allclose(half, (latents[2:] + whole) / 2, atol=1e-6)
    assert whole.std() < 0.5 * latents[2].std()


def test_a_decoder_that_learns_on_draws_soft_latents_sharp():
    """And nearer; what is encoded stays the same, and is drawn about as near as before."""
    config = CodecTrainConfig("autoencoder", width=12, steps=300, lr=1e-2)
    network, unseen = fitted(config), next(squares(10_000))
    latents = network.encode(unseen)

    def drawn(by: float) -> tuple[float, float]:
        frames = network.decode(soften(latents, torch.full((len(latents),), by)))
        return (sharpness(frames) / sharpness(unseen)).mean().item(), psnr(frames, unseen).mean().item()

    clean, soft = drawn(0.0), drawn(1.0)
    assert sum(1 for _ in fit_decoder(network, squares, 0, config, bf16=False)) == 150
    assert torch.equal(network.encode(unseen), latents)
    assert soft[0] < 0.6
    assert 0.8 < drawn(1.0)[0] < 1.1
    assert drawn(1.0)[1] > soft[1] + 1
    assert drawn(0.0)[1] > clean[1] - 1
    assert abs(drawn(0.0)[0] - 1) < abs(clean[0] - 1)


@pytest.mark.parametrize("fit", [fit_codec, fit_decoder])
def test_it_learns_in_half_precision_too(fit):
    network, config = Autoencoder(4), CodecTrainConfig("autoencoder", width=4, steps=2)
    assert all(loss.isfinite() for loss in fit(network, squares, 0, config, bf16=True))


@pytest.mark.parametrize("fit", [fit_codec, fit_decoder])
def test_an_interrupted_fit_goes_on_where_it_was(tmp_path, fit):
    config = CodecTrainConfig("autoencoder", width=4, steps=6)
    straight = fitted(config, fit=fit)
    broken = PretrainStage(folder=tmp_path / "codec", depends_on={})
    fitted(config, broken, updates=2, fit=fit)
    broken.save()
    resumed = PretrainStage(folder=tmp_path / "codec", depends_on={})
    network = fitted(config, resumed, fit=fit)
    assert resumed.update == (6 if fit is fit_codec else 3)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name
