"""Stages end with their updates or their time, go on where they were killed, and run once."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scd_world.optim import pretraining
from scd_world.optim.optimizer import muon_and_adamw
from scd_world.optim.pretraining import PretrainStage, PretrainStages
from scd_world.optim.schedule import lr_schedule


def give(stage: PretrainStage, net: nn.Linear, steps: int = 6) -> Generator[Tensor]:
    """To copy its input, from random ones; by both optimisers, with an average."""
    generator = torch.Generator().manual_seed(0)

    def loss(progress: float) -> Tensor:
        x = torch.randn(8, 4, generator=generator)
        return (net(x) - x).square().mean()

    stage.start(net, muon_and_adamw(net, [net.weight], 0.01, 0.01, beta2=0.9), generator, ema=0.9)
    yield from stage.run(steps, lambda progress: lr_schedule(progress, 0.1, 0.5, 0.02), loss)


def made() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(4, 4)


def progress_of(stage: PretrainStage, steps: int) -> list[float]:
    return [stage.progress for _ in give(stage, made(), steps)]


def test_a_stage_ends_with_its_updates():
    assert progress_of(PretrainStage(), 4) == [0.25, 0.5, 0.75, 1.0]


def test_or_with_its_time_and_then_its_rate_has_come_down_too(monkeypatch):
    clock = itertools.count(step=0.5)  # two looks an update
    monkeypatch.setattr(pretraining.time, "monotonic", lambda: next(clock))
    done = progress_of(PretrainStage(seconds=8.0), 1000)
    assert 6 <= len(done) <= 9
    rates = [lr_schedule(progress, 0.1, 0.5, 0.02) for progress in done]
    assert max(rates) > 0.9
    assert rates[-1] == pytest.approx(0.02)


@pytest.mark.parametrize("at", range(1, 6))
def test_a_stage_that_was_killed_goes_on_as_if_it_had_not_been(monkeypatch, tmp_path, at):
    monkeypatch.setattr(pretraining, "KEEP_EVERY", -1.0)
    straight = made()
    losses = [float(loss) for loss in give(PretrainStage(), straight)]
    killed = give(PretrainStage(folder=tmp_path / "it"), made())
    for _ in range(at):  # the last of these updates is not kept any more
        next(killed)
    again, stage = made(), PretrainStage(folder=tmp_path / "it")
    assert [float(loss) for loss in give(stage, again)] == losses[at - 1 :]
    assert (stage.before > 0) is (at > 1)
    for one, other in zip(straight.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_is_kept_of_the_last_update_is_the_average(monkeypatch, tmp_path):
    """A kill in between left the weights before it as the stage's result."""
    monkeypatch.setattr(pretraining, "KEEP_EVERY", -1.0)
    stage, net, kept = PretrainStage(folder=tmp_path / "it"), made(), []
    write = stage.write

    def watched(folder: Path) -> None:
        kept.append((stage.progress, net.weight.detach().clone()))
        write(folder)

    monkeypatch.setattr(stage, "write", watched)
    assert len(list(give(stage, net))) == 6
    ended = [weight for progress, weight in kept if progress == 1]
    assert len(kept) == 6
    assert [torch.equal(weight, net.weight) for weight in ended] == [True]


def test_it_is_given_once_and_anew_in_other_circumstances_or_where_it_was_damaged(tmp_path, caplog):
    def updates(seed: int) -> int:
        nonlocal net
        net = made()
        return len(list(give(PretrainStages(tmp_path, {"seed": seed}).stage("it", 60.0), net)))

    net = made()
    assert updates(seed=0) == 6
    trained = net.weight.detach().clone()
    assert not torch.equal(trained, made().weight)
    assert updates(seed=0) == 0
    assert torch.equal(net.weight, trained)
    assert not caplog.messages
    assert updates(seed=1) == 6
    assert "seed: 0 before, 1 now" in caplog.text  # hours may have gone: not in silence
    (Path(tmp_path) / "it" / "weights.safetensors").write_bytes(b"damaged")
    assert updates(seed=1) == 6


def test_it_leaves_no_gradient(tmp_path):
    """AdamW makes a whole step of the smallest one: it would be the world's first update."""
    net = made()
    list(give(PretrainStage(), net))
    assert not any(p.grad is not None and p.grad.any() for p in net.parameters())
