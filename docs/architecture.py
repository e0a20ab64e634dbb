"""Draws docs/architecture.svg and .png: what happens in one imagined step.

python docs/architecture.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

INK, FAINT, LINE = "#1c2026", "#6b727c", "#9aa1ab"
ONCE, OFTEN, STATE, PAPER = "#dbe7f5", "#fde6d3", "#e26a26", "#ffffff"
MONO, PLAIN = "DejaVu Sans Mono", "DejaVu Sans"


def main() -> None:
    # Letters as outlines and no date: every machine shows, and writes, the same picture.
    plt.rcParams |= {"svg.fonttype": "path", "svg.hashsalt": "scd_world", "font.family": PLAIN}
    figure = plt.figure(figsize=(11.2, 5.0))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 112), ylim=(0, 50), aspect="equal")
    axes.axis("off")
    figure.patch.set_facecolor(PAPER)

    inputs(axes)
    encoding(axes)
    rendering(axes)
    outputs(axes)
    feedback(axes)
    here = Path(__file__).parent
    figure.savefig(here / "architecture.svg", metadata={"Date": None})
    figure.savefig(here / "architecture.png", dpi=150)


# ---- parts ---------------------------------------------------------------------------------------


def inputs(axes) -> None:
    scene(axes, 3, 30, 12, agent=(0.30, 0.34), block=(0.50, 0.58))
    label(axes, 9, 28.4, "obs[i]", mono=True)
    vector(axes, 5.6, 20.4, 4, "#7f9fc6")
    label(axes, 9, 18.4, "state[i]", mono=True)
    vector(axes, 7.0, 12.4, 2, "#5f9e6e")
    label(axes, 9, 10.4, "action[i]", mono=True)
    arrow(axes, (15.6, 36), (20.6, 36))
    for y in (21.2, 13.2):  # both go both ways: up to the encoder, on to the prior
        axes.plot([13, 18], [y, y], color=INK, lw=1.2)
    axes.plot([18, 18], [13.2, 29], color=INK, lw=1.2)
    arrow(axes, (18, 29), (20.6, 29))
    arrow(axes, (18, 14.8), (20.6, 14.8))


def encoding(axes) -> None:
    """Once per frame: encoder, its cache, its output, the heads; and the optional state prior."""
    box(axes, 21, 24.5, 22, 18, ONCE, "Encoder E", "once per frame", top=True)
    label(axes, 32, 33.4, "causal: this frame and the last", size=8.5, colour=FAINT)
    label(axes, 32, 31.6, "ones in its ring of keys and values", size=8.5, colour=FAINT)
    ring(axes, 32, 27.6)
    box(axes, 21, 9.5, 22, 11, ONCE, "Prior", "state alone, optional", top=True)
    label(axes, 32, 12.2, "project(linear + residual)", mono=True, size=8)
    arrow(axes, (28, 20.5), (28, 24.4))
    arrow(axes, (43.2, 33.5), (47.6, 33.5))
    tokens(axes, 48, 29.5)
    arrow(axes, (58.2, 34), (64.8, 34))
    arrow(axes, (50.4, 29.3), (50.4, 20.8), colour=STATE)
    box(axes, 47, 9.5, 13, 11, ONCE, "Heads", "before any pixel", top=True)
    label(axes, 53.5, 12.2, "prior + residual", mono=True, size=8)
    arrow(axes, (43.2, 13.2), (46.8, 13.2))
    box(axes, 66, 15.6, 20, 6.4, ONCE, "Renderer", "", top=True)
    label(axes, 76, 17.0, "of the prior: next state, once", size=8)
    arrow(axes, (60.2, 18.2), (65.8, 18.2))
    arrow(axes, (76, 22.0), (76, 24.4))
    arrow(axes, (60.2, 19.8), (66.4, 24.6), bend=-0.1)


def rendering(axes) -> None:
    """num_steps times: the decoder."""
    box(axes, 65, 24.5, 22, 18, OFTEN, "Decoder D", "num_steps times per frame", top=True)
    label(axes, 76, 33.4, "[ctx ; noisy patches] of one frame", size=8.5, colour=FAINT)
    label(axes, 76, 30.4, "each pixel mixes last frame,", size=8.5, colour=FAINT)
    label(axes, 76, 28.6, "renderer, background, new value", size=8.5, colour=FAINT)
    loop = FancyArrowPatch(
        (83, 42.7), (69, 42.7), connectionstyle="arc3,rad=0.38", arrowstyle="-|>", mutation_scale=11,
        color=INK, lw=1.1,
    )  # fmt: skip
    axes.add_patch(loop)
    label(axes, 76, 46.8, "Euler step: x_t → less noise", size=8.5, colour=FAINT)
    noise(axes, 92, 40.2, 6)
    label(axes, 95, 47.6, "noise", size=8.5, colour=FAINT)
    arrow(axes, (91.6, 41.6), (87.4, 40.0))


def outputs(axes) -> None:
    scene(axes, 97, 24.6, 12, agent=(0.38, 0.40), block=(0.56, 0.62))
    label(axes, 103, 23.0, "obs[i+1]", mono=True)
    arrow(axes, (87.2, 30.6), (96.4, 30.6))
    label(axes, 103, 15.6, "state[i+1]", mono=True)
    label(axes, 103, 13.0, "reward, success", mono=True)
    arrow(axes, (60.2, 13.6), (94.4, 13.6))


def feedback(axes) -> None:
    xs, ys = [103, 103, 1.2, 1.2, 2.6], [11.4, 5.2, 5.2, 36, 36]
    axes.plot(xs, ys, color=LINE, lw=1.2, ls=(0, (4, 3)), solid_capstyle="round")
    arrow(axes, (2.3, 36), (2.9, 36), colour=LINE)
    label(axes, 54, 3.3, "the next step: what was predicted is the input", size=8.5, colour=FAINT)


# ---- pieces --------------------------------------------------------------------------------------


def box(axes, x, y, width, height, colour, title, note, top=False) -> None:
    style = "round,pad=0,rounding_size=1.2"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, fc=colour, ec=LINE, lw=1))
    middle = x + width / 2
    label(axes, middle, y + height - 2.6, title, size=11.5, weight="bold")
    label(axes, middle, y + height - 5.1, note, size=8.5)


def label(axes, x, y, text, size=9.5, colour=INK, mono=False, weight="normal") -> None:
    family = MONO if mono else PLAIN
    axes.text(x, y, text, ha="center", va="center", size=size, color=colour, family=family, weight=weight)


def arrow(axes, start, end, colour=INK, bend=0.0) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=11, color=colour, lw=1.2, shrinkA=0, shrinkB=0,
            connectionstyle=f"arc3,rad={bend}",
        )
    )  # fmt: skip


def scene(axes, x, y, size, agent, block) -> None:
    """A small PushT: the block, where it should go, and the pusher."""
    axes.add_patch(Rectangle((x, y), size, size, fc="#fbfbfb", ec=INK, lw=1))
    tee(axes, x, y, size, centre=(0.62, 0.66), turn=0.7, colour="#bfe3bf")
    tee(axes, x, y, size, centre=block, turn=0.2, colour="#8796a8")
    axes.add_patch(Circle((x + agent[0] * size, y + agent[1] * size), 0.65, fc="#2f5fb3", ec="none"))


def tee(axes, x, y, size, centre, turn, colour) -> None:
    bar, stem = (0.22, 0.07), 0.26
    corners = [(-bar[0], bar[1]), (bar[0], bar[1]), (bar[0], -bar[1]), (bar[1], -bar[1]), (bar[1], -stem)]
    corners += [(-bar[1], -stem), (-bar[1], -bar[1]), (-bar[0], -bar[1])]
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.array(corners) @ rotation.T + centre
    axes.add_patch(Polygon(points * size + [x, y], fc=colour, ec="none"))


def vector(axes, x, y, count, colour) -> None:
    for i in range(count):
        axes.add_patch(Rectangle((x + 1.7 * i, y), 1.5, 1.5, fc=colour, ec="none"))


def ring(axes, x, y) -> None:
    """The cache: a few slots, one of them being written."""
    for i in range(6):
        fill = "#3f6ea5" if i == 4 else "#9db8d9"
        axes.add_patch(Rectangle((x - 6.6 + 2.25 * i, y - 1), 1.95, 2, fc=fill, ec="none"))
    wrap = FancyArrowPatch(
        (x + 6.8, y - 1.3), (x - 6.6, y - 1.3), connectionstyle="arc3,rad=-0.12", arrowstyle="-|>",
        mutation_scale=8, color=FAINT, lw=0.9,
    )  # fmt: skip
    axes.add_patch(wrap)


def tokens(axes, x, y) -> None:
    """ctx: a token per patch, and the state's."""
    for row in range(4):
        for column in range(5):
            corner = (x + 2 * column, y + 1.9 + 2 * row)
            axes.add_patch(Rectangle(corner, 1.7, 1.7, fc="#9db8d9", ec="none"))
    axes.add_patch(Rectangle((x + 1.5, y - 0.2), 1.7, 1.7, fc=STATE, ec="none"))
    label(axes, x + 4.9, y + 11.4, "ctx", mono=True)
    label(axes, x + 6.6, y + 0.5, "state", size=8, colour=STATE)


def noise(axes, x, y, size) -> None:
    grey = np.random.default_rng(0).uniform(0.25, 0.95, (9, 9))
    axes.imshow(grey, extent=(x, x + size, y, y + size), cmap="gray", vmin=0, vmax=1, zorder=1)
    axes.add_patch(Rectangle((x, y), size, size, fc="none", ec=INK, lw=0.8))


if __name__ == "__main__":
    main()
