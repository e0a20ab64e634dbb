"""The probes' figures as a page of tables, and what they say of the paper's two regularities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scd_world.reporting.tables import number, table

SAME = 0.95  # cosine between denoising steps, as the paper found it in the middle
FEW = 0.5  # of what a frame would give its past, were all keys worth the same
CHEAP = 0.5  # dB at the first imagined step
SAYS = {0: "does not hold", 1: "holds in part", 2: "holds"}
UNKNOWN = "cannot be told from a world that draws worse than a copy"


# ---- verdict -------------------------------------------------------------------------------------


def verdict(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The two claims, each with two pieces of evidence: what the features are, and what it costs.

    A world that draws worse than a copy has no quality to lose, and nothing is said of it.
    """
    claims = [redundant(report), within(report)]
    learnt = report["whole"]["h1"] >= report["copied"]["h1"]
    return claims if learnt else [claim | {"says": UNKNOWN} for claim in claims]


def redundant(report: dict[str, Any]) -> dict[str, Any]:
    middle = report["middle_layers"]
    least = min(report["similarity"][layer]["mean"] for layer in middle)
    row = skip_row(report, "middle", "reused", min(r["first_steps"] for r in report["skip"]))
    everything = skip_row(report, "all", "reused", row["first_steps"])
    cost, how = cheapest(row, report["tuned"].get("reused"))
    evidence = [
        {
            "what": f"features of layers {span(middle)} between denoising steps: cosine at least {least:.3f}",
            "bound": f"at least {SAME}",
            "met": least >= SAME,
        },
        {
            "what": f"running them in the first {steps_text(row['first_steps'])} only and adding the same at "
            f"all others: {decibels(-cost)} at the first imagined frame ({how})",
            "bound": f"at most {CHEAP} dB lost",
            "met": cost <= CHEAP,
        },
    ]
    remark = f"the same with all layers: {decibels(everything['h1']['change'])} without fine-tuning"
    return judged("causal reasoning is redundant across denoising steps", evidence, remark)


def within(report: dict[str, Any]) -> dict[str, Any]:
    last, layers = report["tuned_last"], report["world"]["layers"]
    past, uniform = report["attention"]["past"][-last:], report["attention"]["uniform"]
    share = sum(sum(steps) / len(steps) for steps in past) / last
    row = next((r for r in report["within_frame"] if r["last"] == last), None)
    cost, how = cheapest(row, report["tuned"].get("within_frame"))
    hidden = next((r for r in report["within_frame"] if r["last"] == layers), None)
    which = span(range(layers - last + 1, layers + 1))
    evidence = [
        {
            "what": f"attention of layers {which} on past frames: {share:.2f}, where equal keys would get "
            f"{uniform:.2f}",
            "bound": f"at most {FEW:g} of that",
            "met": share <= FEW * uniform,
        },
        {
            "what": f"hiding the past from them: {decibels(-cost)} at the first imagined frame ({how})",
            "bound": f"at most {CHEAP} dB lost",
            "met": cost <= CHEAP,
        },
    ]
    remark = ""
    if hidden is not None:
        remark = f"hiding it from all layers: {decibels(hidden['h1']['change'])} without fine-tuning"
    return judged("deep layers attend within the frame", evidence, remark)


def judged(claim: str, evidence: list[dict[str, Any]], remark: str) -> dict[str, Any]:
    return {
        "claim": claim,
        "says": SAYS[sum(e["met"] for e in evidence)],
        "evidence": evidence,
        "remark": remark,
    }


def cheapest(row: dict[str, Any] | None, tuned: dict[str, Any] | None) -> tuple[float, str]:
    """dB lost at the first imagined frame, as trained or after the fine-tune, whichever is less."""
    found = {"as trained": row, "after a fine-tune, against one without the change": tuned}
    costs = {how: -r["h1"]["change"] for how, r in found.items() if r is not None}
    if not costs:
        return float("nan"), "not measured"
    how = min(costs, key=lambda name: costs[name])
    return costs[how], how


def skip_row(report: dict[str, Any], layers: str, how: str, first_steps: int) -> dict[str, Any]:
    key = (layers, how, first_steps)
    return next(r for r in report["skip"] if (r["layers"], r["how"], r["first_steps"]) == key)


# ---- words ---------------------------------------------------------------------------------------


def span(layers: Sequence[int]) -> str:
    layers = list(layers)
    whole = len(layers) > 2 and layers == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}–{layers[-1]}" if whole else ", ".join(map(str, layers))


def steps_text(count: int) -> str:
    return "denoising step" if count == 1 else f"{count} denoising steps"


def decibels(value: float) -> str:
    return f"{value:+.2f} dB".replace("-", "−")


def interval(found: dict[str, float]) -> str:
    change, low, high = (number(found[name]) for name in ("change", "low", "high"))
    return f"{change} [{low}, {high}]".replace("-", "−")


# ---- the page ------------------------------------------------------------------------------------


def markdown(report: dict[str, Any]) -> str:
    """The report as a page; also what the terminal shows."""
    return (
        "\n\n".join(
            [
                f"# Probes of {report['world']['source']}",
                *introduction(report),
                "## Verdict",
                *map(verdict_text, report["verdict"]),
                "## (a) Does a layer say the same at every denoising step?",
                similarity_table(report),
                "## (b) How much does a layer look at the past?",
                attention_table(report),
                "## (c) The middle layers in the first denoising steps only",
                skip_table(report),
                "## (d) No past for the last layers",
                within_table(report),
                "## (e) One layer less",
                leave_out_table(report),
            ]
        )
        + "\n"
    )


def introduction(report: dict[str, Any]) -> list[str]:
    world, data, settings = report["world"], report["data"], report["settings"]
    model, made, whole, copied = world["model"], world["provenance"], report["whole"], report["copied"]
    quality = "; ".join(f"{n[1:]}: {number(whole[n])} ({number(copied[n])})" for n in copied if n[0] == "h")
    warnings = [data["warning"]] if data["warning"] else []
    if whole["h1"] < copied["h1"]:
        warnings.append(
            f"This world draws its first frame worse ({number(whole['h1'])} dB) than a copy of the last one "
            f"is ({number(copied['h1'])} dB): that a change costs it nothing says little. Train it longer."
        )
    return [
        *(f"> **Warning.** {warning}" for warning in warnings),
        f"kind={model['kind']}, {world['layers']} layers of width {model['width']}, "
        f"{world['parameters'] / 1e6:.1f} M parameters, {made.get('steps', '?')} updates. {data['windows']} "
        f"windows of {data['episodes']} episodes ({data['held_out']}), {data['context']} recorded frames "
        f"shown, {settings['num_steps']} denoising steps per frame, one imagination each, the same noise for "
        "all that is compared. Layers are counted from 1.",
        f"PSNR in dB by imagined step (copying the last frame): {quality}.",
    ]


def verdict_text(claim: dict[str, Any]) -> str:
    found = claim["evidence"]
    lines = [f"- {e['what']} (asked: {e['bound']}): {'yes' if e['met'] else 'no'}" for e in found]
    lines += [f"- {claim['remark']}"] if claim["remark"] else []
    return "\n".join([f"**{claim['claim'][0].upper()}{claim['claim'][1:]}: {claim['says']}.**", "", *lines])


SIMILARITY = """\
Cosine, mean over tokens and windows. Between steps: of all pairs of steps. Without the common part: minus the
mean over windows and steps at each token's place, which says nothing about this frame. What it adds: of the
layer's output minus its input. Between frames: of different windows at one step."""


def similarity_table(report: dict[str, Any]) -> str:
    head = ["layer", "between steps", "first to last"]
    head += ["without the common part", "what it adds", "between frames"]
    rows = [
        [str(r["layer"]) if r["layer"] else "input"]
        + [number(r[name], 3) for name in ("mean", "first_to_last", "centred", "added", "between_frames")]
        for r in report["similarity"]
    ]
    return f"{table(head, rows)}\n\n{SIMILARITY}"


def attention_table(report: dict[str, Any]) -> str:
    found = report["attention"]
    n = len(found["past"][0])
    at = sorted({0, n // 2, n - 1})
    head = ["layer", *(f"step {i + 1}" for i in at), "mean of all", "of an equal share"]
    rows = []
    for layer, past in enumerate(found["past"], start=1):
        mean = sum(past) / n
        shares = [number(past[i], 3) for i in at]
        rows.append([str(layer), *shares, number(mean, 3), number(mean / found["uniform"])])
    note = (
        "Share of the drawn frame's attention on past frames, mean over heads, tokens and windows. Were all "
        f"keys worth the same, it would be {found['uniform']:.3f}."
    )
    return f"{table(head, rows)}\n\n{note}"


def compared(row: dict[str, Any]) -> list[str]:
    """The columns that (c) and (d) have in common."""
    last = [name for name in row if name.startswith("h")][-1]
    return [*(interval(row[name]) for name in ("h1", "changed_h1", last)), number(row["likeness"], 1)]


def compared_head(report: dict[str, Any]) -> list[str]:
    last = [name for name in report["copied"] if name.startswith("h")][-1][1:]
    return ["frame 1, dB [95 %]", "its changed pixels", f"frame {last}", "likeness, dB"]


SKIP = """\
Skipped: in all later steps the layers let the frame through. Reused: what they added to it in the last of the
first steps is added again. Layer runs: in one frame's denoising. Change of PSNR against the unchanged world,
the windows paired, 95 % intervals by redrawing episodes. Likeness: PSNR to the unchanged world's picture."""


def skip_table(report: dict[str, Any]) -> str:
    L, n, tuned = report["world"]["layers"], report["settings"]["num_steps"], report["tuned"]
    head = ["layers", "afterwards", "first steps", "layer runs", *compared_head(report)]
    names = {"middle": span(report["middle_layers"]), "all": f"1–{L}"}
    rows = [
        [names[r["layers"]], r["how"], str(r["first_steps"]), str(r["layer_passes"]), *compared(r)]
        for r in sorted(report["skip"], key=lambda r: (r["layers"] == "all", r["how"], r["first_steps"]))
    ]
    runs = L * n - len(report["middle_layers"]) * (n - 1)
    for how in ("skipped", "reused"):
        if how in tuned:
            rows.append([f"{names['middle']}, tuned", how, "1", str(runs), *compared(tuned[how])])
    return f"{table(head, rows)}\n\n{SKIP} {tuned_note(report)}".rstrip()


def within_table(report: dict[str, Any]) -> str:
    L, tuned = report["world"]["layers"], report["tuned"].get("within_frame")
    head = ["last layers", "which", *compared_head(report), "loss"]
    rows = [(str(r["last"]), r["last"], r) for r in report["within_frame"]]
    if tuned is not None:
        rows.append((f"{report['tuned_last']}, tuned", report["tuned_last"], tuned))
    lines = [
        [name, span(range(L - last + 1, L + 1)), *compared(r), number(r["loss_ratio"])]
        for name, last, r in rows
    ]
    note = "In known and in drawn frames. Columns as in (c); loss: as in (e), over the unchanged world's."
    return f"{table(head, lines)}\n\n{note} {tuned_note(report)}".rstrip()


def tuned_note(report: dict[str, Any]) -> str:
    if not report["tuned"]:
        return ""
    settings, control, whole = report["settings"], report["tuned"]["control"], report["whole"]
    return (
        f"Tuned: {settings['tune_updates']} updates of {settings['tune_batch']} windows, beside the "
        f"unchanged world after the same updates (it draws frame 1 at {number(control['h1'])} dB, and at "
        f"{number(whole['h1'])} dB before them)."
    )


def leave_out_table(report: dict[str, Any]) -> str:
    head = ["layer", "left out", "left out where frames are drawn"]
    rows = [
        [str(r["layer"]), number(r["everywhere_ratio"], 3), number(r["drawn_ratio"], 3)]
        for r in report["leave_out"]
    ]
    note = (
        "Pixel loss of the next frame behind a recorded past, mean over the noise levels .1, .3, .5, .7 and "
        f".9, over the unchanged world's ({report['whole']['loss']:.5f})."
    )
    return f"{table(head, rows)}\n\n{note}"
