"""What one command moves: the response of every number of a world's state to each action, in one picture.

    python recipes/cameras/command_response.py data/mine.zarr runs/a/world runs/b/world --out response.png

From held-out windows, four frames shown, one action is moved by a third of its deviation for as many steps
as --steps says, the others as recorded. A place in the picture says by how much of its own range a number of
the state moved, per range of the action: joints that follow their own commands alone are a dark diagonal and
nothing beside it. Printed beside it is the error of the states under the recorded actions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scd_datasets.store.store import WindowStore
from scd_world.evaluation.open_loop import RowNoise, WindowBatch, choose_windows, load_batch, start_windows
from scd_world.evaluation.splits import select_eval_episodes
from scd_world.reporting.plotting import new_figure, panel_grid
from scd_world.world.world import World

CONTEXT, LONGEST, MOVED = 4, 64, 0.3


@torch.no_grad()
def states(world: World, batch: WindowBatch, moved: Tensor, steps: int) -> Tensor:
    """Imagines `steps` steps of a batch, the recorded actions with `moved` (A,) added: (steps, B, S)."""
    noise, s = RowNoise(batch.windows, world.frame_shape, 0), start_windows(world, batch)
    found = []
    for i in range(steps):
        s = world.step(s, batch.future[:, i] + moved, noise.draw(world.device), None)
        found.append(torch.from_numpy(world.outputs(s)["state"]))
    return torch.stack(found)


def response(world: World, batch: WindowBatch, deviation: np.ndarray, steps: int) -> np.ndarray:
    """Gives (A, S), in ranges of the state per range of the action; 0 for an action that never moved."""
    stats, A = world.stats, len(world.schema.action)
    state_range = (stats.state_high - stats.state_low).numpy()
    action_range = (stats.action_high - stats.action_low).numpy()
    usual = states(world, batch, torch.zeros(A), steps)[-1]
    found = np.zeros((A, len(state_range)))
    for d in np.flatnonzero(deviation > 0):
        moved = torch.zeros(A)
        moved[d] = MOVED * float(deviation[d])
        change = (states(world, batch, moved, steps)[-1] - usual).mean(0).numpy() / state_range
        found[d] = change / (moved[d].item() / action_range[d])
    return found


def errors(world: World, batch: WindowBatch) -> dict[int, tuple[float, float]]:
    """Gives mean absolute and root mean square error of the state at some steps, in ranges."""
    imagined = states(world, batch, torch.zeros(len(world.schema.action)), batch.steps - 1)
    state_range, found = world.stats.state_high - world.stats.state_low, {}
    for step in (1, 4, 16, 64):
        if step <= len(imagined) and (there := batch.valid[:, step - 1]).any():
            off = ((imagined[step - 1] - batch.true_state(step)) / state_range)[there]
            found[step] = off.abs().mean().item(), off.square().mean().sqrt().item()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("worlds", nargs="+")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--titles", nargs="*", help="of the worlds in the picture; their paths, unless given")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--windows", type=int, default=8, help="whose states are moved")
    args = parser.parse_args()
    store, found = WindowStore.open(args.store), {}
    worlds = {path: World.load(path) for path in args.worlds}
    first, *others = [world.provenance for world in worlds.values()]
    held_out = select_eval_episodes(first, store, None, others).episodes
    windows = choose_windows(store.lengths, held_out, CONTEXT, LONGEST, 2)
    for path, world in worlds.items():
        for step, off in errors(world, load_batch(store, windows, CONTEXT, "cpu", world.codec)).items():
            mean, square = off
            print(f"{path}: state at step {step}: mean error {mean:.4f}, rms {square:.4f} of the range")
        some = windows[:: max(1, len(windows) // args.windows)][: args.windows]
        batch = load_batch(store, some, CONTEXT, "cpu", world.codec)
        found[path] = response(world, batch, store.action[:].std(0), args.steps)
        if len(world.schema.action) == len(world.schema.state):
            own = np.eye(len(found[path]), dtype=bool)
            others = found[path][~own]
            print(
                f"{path}: after {args.steps} steps a command moves its own joint by "
                f"{found[path][own].mean():.2f}, another by {np.sqrt(np.square(others).mean()):.3f} (root "
                f"mean square), at most {np.abs(others).max():.2f} ranges per range"
            )
    if args.out is None:
        return
    with new_figure(args.out, 4.6 * len(found), 4.4) as figure:
        axes = panel_grid(figure, len(found), len(found))
        for ax, title, matrix in zip(axes, args.titles or found, found.values(), strict=True):
            picture = ax.imshow(np.abs(matrix), cmap="magma_r", vmin=0, vmax=1)
            ax.grid(visible=False)
            ax.set(title=title, xlabel="number of the state", ylabel="command")
        figure.colorbar(picture, ax=axes, label="ranges moved per range of the command", shrink=0.8)


if __name__ == "__main__":
    main()
