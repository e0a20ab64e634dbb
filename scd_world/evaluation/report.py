"""An evaluation's figures as JSON, and as a page of tables for people."""

from __future__ import annotations

from typing import Any

from scd_world.reporting.tables import number, table

HORIZONS = (1, 2, 4, 8, 16, 32, 64)  # rows of the tables


def pixel_table(curves: dict[str, dict]) -> str:
    head = [
        "step",
        "windows",
        "PSNR",
        "copy-last",
        "gain, 95 %",
        "changed: PSNR",
        "copy-last",
        "SSIM",
        "copy-last",
    ]
    names = ("psnr_changed_imagined", "psnr_changed_copy")
    rows = []
    for i in table_rows(curves):
        gain = curves["psnr_gain"]
        between = f"{number(gain['mean'][i])} [{number(gain['low'][i], 1)}, {number(gain['high'][i], 1)}]"
        row = [str(i + 1), str(curves["psnr_imagined"]["count"][i])]
        row += [number(curves[name]["mean"][i]) for name in ("psnr_imagined", "psnr_copy")] + [between]
        row += [number(curves[name]["mean"][i]) for name in names]
        row += [number(curves[name]["mean"][i], 4) for name in ("ssim_imagined", "ssim_copy")]
        rows.append(row)
    return table(head, rows)


STATE_COLUMNS = {
    "agent_distance": "agent",
    "block_distance": "block",
    "block_angle": "block angle, °",
    "error_environment_state": "environment state",
}


def state_table(curves: dict[str, dict]) -> str:
    """median (mean) of each error, and copy-last's median; empty where the data has no state."""
    shown = {name: title for name, title in STATE_COLUMNS.items() if f"{name}_imagined" in curves}
    if "block_distance" in shown:
        shown.pop("error_environment_state")  # the same, less clearly
    if not shown:
        return ""
    head = ["step"] + [text for title in shown.values() for text in (f"{title}: median (mean)", "copy-last")]
    rows = []
    for i in table_rows(curves):
        row = [str(i + 1)]
        for name in shown:
            own, copy = curves[f"{name}_imagined"], curves[f"{name}_copy"]
            row += [f"{number(own['median'][i])} ({number(own['mean'][i])})", number(copy["median"][i])]
        rows.append(row)
    return table(head, rows)


def table_rows(curves: dict[str, dict]) -> list[int]:
    reach = len(curves["psnr_imagined"]["mean"])
    return [h - 1 for h in sorted({*(h for h in HORIZONS if h < reach), reach}) if h >= 1]


def markdown(report: dict[str, Any]) -> str:
    """The report as a page; also what the terminal shows."""
    data, curves, settings = report["data"], report["curves"], report["settings"]
    warning = [f"> **Warning.** {data['warning']}", ""] if data["warning"] else []
    lines = [
        f"# Fidelity of {report['world']['source']}",
        "",
        *warning,
        f"Open loop on {data['windows']} windows of {data['episodes']} episodes of {data['source']} "
        f"({data['held_out']}): {settings['context']} recorded frames, then the recorded actions, "
        f"{report['world']['num_steps']} denoising steps per frame. Means over all windows, one imagination "
        "each; 95 % intervals redraw episodes. Changed pixels "
        f"differ by more than {settings['changed_by']:g} grey levels from the last context frame.",
        "",
        pixel_table(curves),
        "",
    ]
    if states := state_table(curves):
        lines += ["State errors in raw units, read beside the pixels:", "", states, ""]
    lines += [f"- {line}" for line in remarks(report)]
    lines += ["", "## Where it fails", "", *failures(report)]
    return "\n".join(lines) + "\n"


def failures(report: dict[str, Any]) -> list[str]:
    """The worst windows: an average hides them."""
    worst, windows = report["worst"], report["data"]["windows"]
    ends = {f"{name}_imagined_end": title for name, title in STATE_COLUMNS.items()}
    if "block_distance_imagined_end" in worst[0]:
        ends.pop("error_environment_state_imagined_end")
    ends = {name: title for name, title in ends.items() if name in worst[0]}
    head = [
        "episode, from frame",
        "mean PSNR",
        "copy-last",
        "mean SSIM",
        *(f"{t} at the end" for t in ends.values()),
    ]
    rows = [
        [
            "{}, {}".format(*row["start"]),
            *(number(row[name]) for name in ("psnr_imagined", "psnr_copy")),
            number(row["ssim_imagined"], 4),
            *(number(row[name]) for name in ends),
        ]
        for row in worst
    ]
    return [
        f"The {len(worst)} windows of {windows} with the lowest mean PSNR (`worst.png` shows the first):",
        "",
        table(head, rows),
    ]


def remarks(report: dict[str, Any]) -> list[str]:
    found = []
    failure = report["time_to_failure"]
    reach = len(report["curves"]["psnr_imagined"]["mean"])
    for key, what in {"mean_psnr": "whole picture", "mean_psnr_changed": "changed pixels"}.items():
        at = f"at step {failure[key]}" if failure[key] else f"at none of {reach} steps"
        found.append(f"mean PSNR falls below copy-last {at} ({what})")
    actions = report["actions"]
    if ratio := actions["loss_ratio"].get("total"):
        parts = ", ".join(f"{k} {v:.2f}" for k, v in actions["loss_ratio"].items() if k != "total")
        found.append(f"action sensitivity, loss(shuffled)/loss(true): {ratio:.2f} ({parts})")
    if shuffled := actions["psnr_shuffled"]:
        i = len(shuffled["mean"]) - 1
        true = report["curves"]["psnr_imagined"]["mean"][i]
        found.append(
            f"PSNR at step {i + 1} with another window's actions: {number(shuffled['mean'][i])} dB, "
            f"with its own: {number(true)} dB"
        )
    for name, sweep in report["sweep"].items():
        if sweep["slope"]:
            strongest = max(sweep["slope"], key=lambda dim: abs(sweep["slope"][dim]["mean"]))
            slope = sweep["slope"][strongest]
            found.append(
                f"action `{name}` moves `{strongest}` by {slope['mean']:+.3g} per unit "
                f"(same sign in {slope['same_sign']:.0%} of the moments; "
                f"recordings: {number(slope['in_data'], 3)})"
            )
    if still := report["null_action"]:
        found.append(
            f"null action ({still['kind']}), steps {still['from_step']}–{still['to_step']}: "
            f"the picture changes by {still['grey_levels']:.2f} grey levels "
            f"(recorded actions: {still['grey_levels_recorded']:.2f})"
        )
    if reward := report.get("reward"):
        found.append(
            f"reward: MSE {reward['mse']:.4g} (a constant: {reward['mse_of_the_mean']:.4g}), "
            f"correlation {number(reward['correlation'])}, bias {reward['bias']:+.3g}"
        )
    if success := report.get("success"):
        found.append(
            f"success: AUROC {number(success['auroc'], 3)}, "
            f"{success['positives']} of {success['steps']} steps are positive"
        )
    if doubt := report.get("uncertainty"):
        said, true = ([f"{x:.2%}" for x in doubt[key]] for key in ("said", "true"))
        found.append(
            f"uncertainty: AUROC {number(doubt['auroc'], 3)} for the tenth of the steps in which the state "
            f"strays most (counting the steps: {number(doubt['auroc_of_the_step'], 3)}); mean error said "
            f"{doubt['mean_said']:.2%} of its range, true {doubt['mean_true']:.2%}; in the surest tenth "
            f"{said[0]} and {true[0]}, in the least sure {said[-1]} and {true[-1]}"
        )
    told = report["told"]
    if reward := told.get("reward"):
        found.append(
            f"reward of every step of {told['episodes']} whole episodes, told from the recorded past: MSE "
            f"{reward['mse']:.4g} (a constant: {reward['mse_of_the_mean']:.4g}), correlation "
            f"{number(reward['correlation'])}, bias {reward['bias']:+.3g}, slope {number(reward['slope'])}"
        )
    if success := told.get("success"):
        hits = "" if success["found"] is None else f", {success['found']:.0%} of them with p > .5"
        found.append(
            f"success, likewise: AUROC {number(success['auroc'], 3)}, {success['positives']} of "
            f"{told['steps']} steps are positive{hits}, {success['false_alarms']} false alarms; calibration "
            f"error {success['calibration']['error']:.4f}, Brier {success['brier']:.5f} (a constant: "
            f"{success['brier_of_the_rate']:.5f}); {success['episodes_right']:.0%} of the episodes told right"
        )
    found += [
        f"{name}: {value['value']:.4g} ({value['what']})" for name, value in report["perceptual"].items()
    ]
    speed = report["speed"]
    found.append(
        f"one step, batch 1, {speed['num_steps']} denoising steps, {speed['device']}, "
        f"{speed['threads']} threads: p50 {speed['p50_ms']:.1f} ms, p95 {speed['p95_ms']:.1f} ms"
    )
    return found
