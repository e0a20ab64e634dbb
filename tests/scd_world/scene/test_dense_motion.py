"""What a hand holds is brought along, and what nothing moved stays as it was shown."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scd_world.scene.cameras import image_points
from scd_world.scene.dense_motion import DenseMotion, Moved

SIDE = 24
NUMBERS = 2  # that are told


def held(count: int, generator: torch.Generator, moved: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Frames, earlier ones, and drawings of both: a hand that is drawn as it is, and a thing under it, of
    another color in each, that is drawn in gray. moved: whether the hand has moved in between."""
    place = torch.randint(1, SIDE - 9, (2, count), generator=generator)
    place = place if moved else place[:1].expand(2, -1)
    colors = torch.rand(count, 3, 8, 1, generator=generator) * 2 - 1
    frames, drawn = (torch.full((2, count, 3, SIDE, SIDE), -0.5) for _ in range(2))
    for when in range(2):
        for i, x in enumerate(place[when].tolist()):
            for picture, thing in ((frames, colors[i]), (drawn, 0.0)):
                picture[when, i, :, 4:8, x : x + 8] = 1.0
                picture[when, i, :, 8:16, x : x + 8] = thing
    return frames[0], frames[1], drawn[0], drawn[1]


def move(motion: DenseMotion, drawn: Tensor, shown: Tensor, shown_drawn: Tensor) -> Moved:
    """Before a camera that stands, and told nothing."""
    return motion(drawn, shown, shown_drawn, torch.zeros(len(drawn), NUMBERS), None, torch.zeros(1))


def error(motion: DenseMotion, some: tuple[Tensor, Tensor, Tensor, Tensor]) -> float:
    obs, shown, drawn, shown_drawn = some
    return (move(motion, drawn, shown, shown_drawn).frame - obs).square().mean().item()


def test_before_it_is_learned_what_has_not_changed_is_what_was_shown_and_all_else_is_drawn():
    motion = DenseMotion(1, 16, NUMBERS).requires_grad_(False)
    obs, shown, drawn, shown_drawn = held(4, torch.Generator().manual_seed(0), moved=False)
    frame = move(motion, drawn, shown, shown_drawn).frame
    assert (frame - obs).square().mean() < 0.01 * (drawn - obs).square().mean()
    other = drawn + 1.0  # nothing is where it was
    frame = move(motion, other, shown, shown_drawn).frame
    assert (frame - other).square().mean() < 0.02


def test_what_a_hand_holds_is_brought_along():
    torch.manual_seed(0)
    motion = DenseMotion(1, 16, NUMBERS)
    optimizer = torch.optim.Adam(motion.parameters(), 3e-3)
    g = torch.Generator().manual_seed(0)
    before = error(motion, held(32, torch.Generator().manual_seed(1)))
    for _ in range(150):
        obs, shown, drawn, shown_drawn = held(16, g)
        moved = move(motion, drawn, shown, shown_drawn)
        ((moved.moved - obs).square().mean() + 0.1 * (moved.found - obs).square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    unseen = held(32, torch.Generator().manual_seed(1))
    drawing = (unseen[2] - unseen[0]).square().mean().item()
    assert error(motion, unseen) < 0.35 * min(before, drawing)


@pytest.mark.parametrize("rides", [False, True])
def test_a_camera_that_rides_looks_where_it_has_gone_and_any_other_one_where_it_was(rides):
    """By two cells; the second camera stands, whatever is said of it."""
    motion = DenseMotion(2, 16, NUMBERS).requires_grad_(False)
    shown = torch.rand(3, 6, 12, 16, generator=torch.Generator().manual_seed(0))
    shown_drawn = torch.zeros_like(shown)
    where = image_points(12, 16).expand(3, 2, -1, -1).clone()
    where[:, :, 0] += 4 / 16
    told, moves = torch.zeros(3, NUMBERS), torch.tensor([float(rides), 0.0])
    frame = motion(shown_drawn, shown, shown_drawn, told, where, moves).frame
    gone = shown[:, :3].roll(-2, dims=-1) if rides else shown[:, :3]
    inside = frame[:, :3, :, :13] - gone[..., :13]
    assert inside.abs().mean() < 0.05
    assert (frame[:, 3:] - shown[:, 3:]).abs().mean() < 0.05


def test_where_nothing_is_trusted_there_is_still_something_found():
    """Trust too small for a float was divided by trust too small for a float."""
    motion = DenseMotion(1, 16, NUMBERS).requires_grad_(False)
    motion.out.bias[4:6] = -200.0
    _, shown, drawn, shown_drawn = held(2, torch.Generator().manual_seed(0))
    moved = move(motion, drawn, shown, shown_drawn)
    torch.testing.assert_close(moved.frame, drawn)
    assert moved.found.isfinite().all()


def test_what_no_drawing_shows_is_drawn_as_it_is_told():
    """A thing whose color is one of two numbers, and whose drawings are gray whatever it is."""
    torch.manual_seed(0)
    motion = DenseMotion(1, 16, NUMBERS)
    optimizer = torch.optim.Adam(motion.parameters(), 3e-3)

    def off(count: int, generator: torch.Generator) -> Tensor:
        told = torch.rand(count, NUMBERS, generator=generator) * 2 - 1
        gray = torch.full((count, 3, SIDE, SIDE), -0.5)
        obs = gray.clone()
        obs[:, :, 8:16, 8:16] = told[:, 1, None, None, None]
        moved = motion(gray, gray, gray, told, None, torch.zeros(1))
        return (moved.frame - obs).square().mean()

    with torch.no_grad():
        before = off(64, torch.Generator().manual_seed(1)).item()
    g = torch.Generator().manual_seed(0)
    for _ in range(150):
        off(16, g).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        assert off(64, torch.Generator().manual_seed(1)).item() < 0.2 * before


def test_what_is_added_learns_by_itself_and_leaves_what_is_moved_alone():
    """Else it paints in gray what a flow has yet to find."""
    torch.manual_seed(0)
    motion = DenseMotion(1, 16, NUMBERS)
    torch.nn.init.normal_(motion.out.weight, std=0.1)
    obs, shown, drawn, shown_drawn = held(4, torch.Generator().manual_seed(0))
    moved = move(motion, drawn, shown, shown_drawn)
    torch.testing.assert_close(moved.mended, moved.frame)
    assert not torch.equal(moved.mended, moved.moved)
    (moved.mended - obs).square().mean().backward()
    assert motion.out.bias.grad is not None
    torch.testing.assert_close(motion.out.bias.grad[:8], torch.zeros(8))
    assert motion.out.bias.grad[8:].all()


def test_one_of_before_moves_what_it_moved_whatever_it_is_told_now():
    """Format 4 worlds have networks that were told nothing, and drew nothing of their own."""
    torch.manual_seed(0)
    motion = DenseMotion(1, 16, NUMBERS)
    for value in motion.parameters():
        torch.nn.init.normal_(value, std=0.2)
    younger = ("told.", "modulation.", "doubt.")
    before = {name: v for name, v in motion.state_dict().items() if not name.startswith(younger)}
    before |= {name: before[name][:8].clone() for name in ("out.weight", "out.bias")}
    again = DenseMotion(1, 16, NUMBERS)
    again.load_state_dict(before)
    motion.load_state_dict(before)
    some = held(4, torch.Generator().manual_seed(0))[1:]
    frames = [
        net(some[1], some[0], some[2], torch.full((4, NUMBERS), told), None, torch.zeros(1)).frame
        for net, told in ((motion, 0.0), (again, 3.0))
    ]
    torch.testing.assert_close(*frames)
    assert not again.out.weight[8:].any()
    assert not move(again, some[1], some[0], some[2]).log_error.any()
    torch.testing.assert_close(again.out.weight[:8], before["out.weight"])


def test_one_that_did_not_say_how_far_off_it_is_moves_as_it_did():
    torch.manual_seed(0)
    motion, again = DenseMotion(1, 16, NUMBERS), DenseMotion(1, 16, NUMBERS)
    for value in motion.parameters():
        torch.nn.init.normal_(value, std=0.2)
    again.load_state_dict({n: v for n, v in motion.state_dict().items() if not n.startswith("doubt.")})
    _, shown, drawn, shown_drawn = held(4, torch.Generator().manual_seed(0))
    before, now = (move(net, drawn, shown, shown_drawn) for net in (motion, again))
    torch.testing.assert_close(now.frame, before.frame)
    assert before.log_error.any()
    assert not now.log_error.any()


def test_of_how_far_off_it_is_nothing_else_learns():
    motion = DenseMotion(1, 16, NUMBERS)
    torch.nn.init.normal_(motion.doubt[-1].weight)
    _, shown, drawn, shown_drawn = held(2, torch.Generator().manual_seed(0))
    move(motion, drawn, shown, shown_drawn).log_error.sum().backward()
    learns = {name for name, value in motion.named_parameters() if value.grad is not None}
    assert learns == {f"doubt.{name}" for name in motion.doubt.state_dict()}
