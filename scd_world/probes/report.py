"""The probes' report as a page of tables, and what follows for the paper's two regularities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scd_world.reporting.tables import number, significant, table

SAME = 0.95  # cosine between denoising steps, as the paper found it in the middle
FEW = 0.5  # of the attention that the past would get, were it uniform
CHEAP = 0.5  # dB at the first imagined step
CONCLUSIONS = {0: "does not hold", 1: "holds in part", 2: "holds"}
UNKNOWN = "cannot be told from a world whose frames are worse than a copy"


# ---- verdict -------------------------------------------------------------------------------------


def verdict(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Concludes on the two claims, each with two pieces of evidence: what the features are, what it costs.

    A world whose frames are worse than a copy has no quality to lose: the conclusion is UNKNOWN.
    """
    claims = [redundant(report), within(report)]
    learned = report["unchanged"]["h1"] >= report["copy_last"]["h1"]
    return claims if learned else [claim | {"conclusion": UNKNOWN} for claim in claims]


def redundant(report: dict[str, Any]) -> dict[str, Any]:
    """First claim: the middle layers do the same at every denoising step."""
    middle = report["middle_layers"]
    least = min(report["similarity"][layer]["mean"] for layer in middle)
    row = skip_row(report, "middle", "reused", min(r["first_steps"] for r in report["skip"]))
    everything = skip_row(report, "all", "reused", row["first_steps"])
    cost, how = cheapest(row, report["finetuned"].get("reused"))
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
    return concluded("causal reasoning is redundant across denoising steps", evidence, remark)


def within(report: dict[str, Any]) -> dict[str, Any]:
    """Second claim: the last layers attend to their own frame."""
    last, layers = report["finetune_last"], report["world"]["layers"]
    past, uniform = report["attention"]["past"][-last:], report["attention"]["uniform"]
    share = sum(sum(steps) / len(steps) for steps in past) / last
    row = next((r for r in report["within_frame"] if r["last"] == last), None)
    cost, how = cheapest(row, report["finetuned"].get("within_frame"))
    hidden = next((r for r in report["within_frame"] if r["last"] == layers), None)
    which = span(range(layers - last + 1, layers + 1))
    evidence = [
        {
            "what": f"attention of layers {which} on past frames: {share:.2f}, where uniform attention gives "
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
    return concluded("deep layers attend within the frame", evidence, remark)


def concluded(claim: str, evidence: list[dict[str, Any]], remark: str) -> dict[str, Any]:
    return {
        "claim": claim,
        "conclusion": CONCLUSIONS[sum(e["met"] for e in evidence)],
        "evidence": evidence,
        "remark": remark,
    }


def cheapest(row: dict[str, Any] | None, finetuned: dict[str, Any] | None) -> tuple[float, str]:
    """Gives dB lost at the first imagined frame, as trained or after fine-tuning, whichever is less."""
    rows = {"as trained": row, "after fine-tuning, compared with fine-tuning alone": finetuned}
    costs = {how: -r["h1"]["change"] for how, r in rows.items() if r is not None}
    if not costs:
        return float("nan"), "not measured"
    how = min(costs, key=lambda name: costs[name])
    return costs[how], how


def skip_row(report: dict[str, Any], layers: str, how: str, first_steps: int) -> dict[str, Any]:
    """Finds one row of (c)."""
    key = (layers, how, first_steps)
    return next(r for r in report["skip"] if (r["layers"], r["how"], r["first_steps"]) == key)


# ---- the page ------------------------------------------------------------------------------------


def span(layers: Sequence[int]) -> str:
    """Writes a run of layers as first–last, others one by one."""
    layers = list(layers)
    run = len(layers) > 2 and layers == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}–{layers[-1]}" if run else ", ".join(map(str, layers))


def steps_text(count: int) -> str:
    return "denoising step" if count == 1 else f"{count} denoising steps"


def decibels(value: float) -> str:
    return f"{value:+.2f} dB".replace("-", "−")


def interval(row: dict[str, float]) -> str:
    change, low, high = (number(row[name]) for name in ("change", "low", "high"))
    return f"{change} [{low}, {high}]".replace("-", "−")


# ---- the page ------------------------------------------------------------------------------------


def markdown(report: dict[str, Any]) -> str:
    """Writes the report as a page; also what the terminal shows."""
    return (
        "\n\n".join(
            [
                f"# Probes of {report['world']['source']}",
                *introduction(report),
                "## Verdict",
                *map(verdict_text, report["verdict"]),
                "## (a) Are a layer's features the same at every denoising step?",
                similarity_table(report),
                "## (b) How much does a layer attend to the past?",
                attention_table(report),
                "## (c) The middle layers in the first denoising steps only",
                skip_table(report),
                "## (d) No past for the last layers",
                within_table(report),
                "## (e) One layer less",
                ablation_table(report),
            ]
        )
        + "\n"
    )


def introduction(report: dict[str, Any]) -> list[str]:
    world, data, settings = report["world"], report["data"], report["settings"]
    model, steps = world["model"], world["provenance"].get("steps", "?")
    own, copy = report["unchanged"], report["copy_last"]
    quality = "; ".join(f"{n[1:]}: {number(own[n])} ({number(copy[n])})" for n in copy if n[0] == "h")
    warnings = [data["warning"]] if data["warning"] else []
    if own["h1"] < copy["h1"]:
        warnings.append(
            f"This world's first frame is worse ({number(own['h1'])} dB) than a copy of the last one "
            f"({number(copy['h1'])} dB): that a change costs it nothing proves little. Train it longer."
        )
    return [
        *(f"> **Warning.** {warning}" for warning in warnings),
        f"architecture={model['architecture']}, {world['layers']} layers of width {model['width']}, "
        f"{world['parameters'] / 1e6:.1f} M parameters, {steps} updates. {data['windows']} "
        f"windows of {data['episodes']} episodes ({data['held_out']}), {data['context']} recorded frames "
        f"observed, {settings['num_steps']} denoising steps per frame, one imagination each, the same noise "
        "for all that is compared. Layers are counted from 1.",
        f"PSNR in dB by imagined step (copying the last frame): {quality}.",
    ]


def verdict_text(claim: dict[str, Any]) -> str:
    evidence = claim["evidence"]
    lines = [f"- {e['what']} (wanted: {e['bound']}): {'yes' if e['met'] else 'no'}" for e in evidence]
    lines += [f"- {claim['remark']}"] if claim["remark"] else []
    return "\n".join(
        [f"**{claim['claim'][0].upper()}{claim['claim'][1:]}: {claim['conclusion']}.**", "", *lines]
    )


SIMILARITY = """\
Cosine, mean over tokens and windows. Between steps: of all pairs of steps. Without the common part: minus the
mean over windows and steps at each token's place, which does not depend on the frame. What it adds: of the
layer's output minus its input. Between frames: of different windows at one step."""


def similarity_table(report: dict[str, Any]) -> str:
    head = ["layer", "between steps", "first to last"]
    head += ["without the common part", "what it adds", "between frames"]
    rows = [
        [str(r["layer"]) if r["layer"] else "input"]
        + [number(r[name], 3) for name in ("mean", "first_to_last", "centered", "added", "between_frames")]
        for r in report["similarity"]
    ]
    return f"{table(head, rows)}\n\n{SIMILARITY}"


def attention_table(report: dict[str, Any]) -> str:
    attention = report["attention"]
    n = len(attention["past"][0])
    at = sorted({0, n // 2, n - 1})
    head = ["layer", *(f"step {i + 1}" for i in at), "mean of all", "of a uniform share"]
    rows = []
    for layer, past in enumerate(attention["past"], start=1):
        mean = sum(past) / n
        shares = [number(past[i], 3) for i in at]
        rows.append([str(layer), *shares, number(mean, 3), number(mean / attention["uniform"])])
    note = (
        "Share of the denoised frame's attention on past frames, mean over heads, tokens and windows. "
        f"Uniform attention would have {attention['uniform']:.3f}."
    )
    return f"{table(head, rows)}\n\n{note}"


def compared(row: dict[str, Any]) -> list[str]:
    """Gives the cells that (c) and (d) have in common."""
    last = [name for name in row if name.startswith("h")][-1]
    return [
        *(interval(row[name]) for name in ("h1", "changed_h1", last)),
        number(row["psnr_to_unchanged"], 1),
    ]


def compared_head(report: dict[str, Any]) -> list[str]:
    last = [name for name in report["copy_last"] if name.startswith("h")][-1][1:]
    return ["frame 1, dB [95 %]", "its changed pixels", f"frame {last}", "PSNR to unchanged, dB"]


SKIP = """\
Skipped: in all later steps the layers pass the frame on. Reused: what they added to it in the last of the
first steps is added again. Layer runs: in one frame's denoising. Change of PSNR from the unchanged world's,
the windows paired, 95 % intervals by resampling episodes. PSNR to unchanged: of the first imagined frames."""


def skip_table(report: dict[str, Any]) -> str:
    L, n, finetuned = report["world"]["layers"], report["settings"]["num_steps"], report["finetuned"]
    head = ["layers", "afterwards", "first steps", "layer runs", *compared_head(report)]
    names = {"middle": span(report["middle_layers"]), "all": f"1–{L}"}
    rows = [
        [names[r["layers"]], r["how"], str(r["first_steps"]), str(r["layer_passes"]), *compared(r)]
        for r in sorted(report["skip"], key=lambda r: (r["layers"] == "all", r["how"], r["first_steps"]))
    ]
    runs = L * n - len(report["middle_layers"]) * (n - 1)
    for how in ("skipped", "reused"):
        if how in finetuned:
            rows.append([f"{names['middle']}, fine-tuned", how, "1", str(runs), *compared(finetuned[how])])
    return f"{table(head, rows)}\n\n{SKIP} {finetuning_note(report)}".rstrip()


def within_table(report: dict[str, Any]) -> str:
    L, finetuned = report["world"]["layers"], report["finetuned"].get("within_frame")
    head = ["last layers", "which", *compared_head(report), "loss"]
    rows = [(str(r["last"]), r["last"], r) for r in report["within_frame"]]
    if finetuned is not None:
        rows.append((f"{report['finetune_last']}, fine-tuned", report["finetune_last"], finetuned))
    lines = [
        [name, span(range(L - last + 1, L + 1)), *compared(r), number(r["loss_ratio"])]
        for name, last, r in rows
    ]
    note = "In known and in denoised frames. Columns as in (c); loss: as in (e), over the unchanged world's."
    return f"{table(head, lines)}\n\n{note} {finetuning_note(report)}".rstrip()


def finetuning_note(report: dict[str, Any]) -> str:
    if not report["finetuned"]:
        return ""
    settings, control = report["settings"], report["finetuned"]["control"]
    return (
        f"Fine-tuned: {settings['finetune_updates']} updates of {settings['finetune_batch_size']} windows, "
        f"compared with the unchanged world after the same updates (frame 1 at {number(control['h1'])} dB, "
        f"{number(report['unchanged']['h1'])} dB before them)."
    )


def ablation_table(report: dict[str, Any]) -> str:
    head = ["layer", "ablated", "ablated in denoising alone"]
    rows = [
        [str(r["layer"]), number(r["everywhere_ratio"], 3), number(r["denoised_ratio"], 3)]
        for r in report["ablate_layer"]
    ]
    note = (
        "Pixel loss of the next frame after a recorded past, mean over the noise levels .1, .3, .5, .7 and "
        f".9, over the unchanged world's ({significant(report['unchanged']['loss'])})."
    )
    return f"{table(head, rows)}\n\n{note}"
