"""An evaluation's report as a page of tables for people."""

from __future__ import annotations

from typing import Any

import numpy as np

from scd_world.evaluation.state_errors import AGENT, errors_to_show
from scd_world.evaluation.state_measures import StateError
from scd_world.reporting.tables import number, signed, significant, table
from scd_world.reporting.units import UNKNOWN

HORIZONS = (1, 2, 4, 8, 16, 32, 64)  # rows of the tables
DRAWN = " Drawing alone is what the state prior's renderer draws of the imagined state, without any past."
NORM = (
    f"; `{AGENT.column}` is the Euclidean norm of the error over all numbers of the robot's state, whatever "
    "the unit of each"
)


def pixel_table(curves: dict[str, dict]) -> str:
    """Tabulates PSNR, SSIM and sharpness beside copy-last's, and where the state prior draws, what that draws
    of the imagined state, without any past."""
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
        "sharpness",
        "copy-last",
    ]
    names = ("psnr_changed_imagined", "psnr_changed_copy")
    rivals = ["psnr_drawn"] if "psnr_drawn" in curves else []
    if rivals:
        head.insert(4, "drawing alone")
    rows = []
    for i in table_rows(curves):
        gain = curves["psnr_gain"]
        between = number(gain["mean"][i])
        if np.isfinite(gain["low"][i]):  # of one episode alone there is none
            between += f" [{number(gain['low'][i])}, {number(gain['high'][i])}]"
        row = [str(i + 1), str(curves["psnr_imagined"]["count"][i])]
        shown = ("psnr_imagined", "psnr_copy", *rivals)
        row += [number(curves[name]["mean"][i]) for name in shown] + [between]
        row += [number(curves[name]["mean"][i]) for name in names]
        row += [number(curves[name]["mean"][i], 4) for name in ("ssim_imagined", "ssim_copy")]
        row += [number(curves[name]["mean"][i]) for name in ("sharpness_imagined", "sharpness_copy")]
        rows.append(row)
    return table(head, rows)


def draws_table(curves: dict[str, dict], draws: int) -> str:
    """Tabulates how several draws of the same windows differ; empty where there is one."""
    if draws == 1:
        return ""
    head = ["step", "PSNR, mean", f"best of {draws}", "apart: changed pixels", "unchanged pixels"]
    names = ("psnr_imagined", "psnr_best", "spread_changed", "spread_unchanged")
    rows = [[str(i + 1), *(number(curves[name]["mean"][i]) for name in names)] for i in table_rows(curves)]
    return table(head, rows)


def block_table(curves: dict[str, dict]) -> str:
    """Tabulates whether PushT's block keeps its shape; empty where the frames do not show it."""
    if "block_area" not in curves:
        return ""
    head = ["step", "area", "off a T, px", "recorded, px"]
    names = ("block_area", "block_outline_imagined", "block_outline_recorded")
    rows = [[str(i + 1), *(number(curves[name]["mean"][i]) for name in names)] for i in table_rows(curves)]
    return table(head, rows)


def state_table(curves: dict[str, dict], units: dict[str, str]) -> str:
    """Tabulates median (mean) of each error, and copy-last's median; empty where the data has no state.

    units: of each error, by its name.
    """
    shown = errors_to_show(curves, "_imagined")
    if not shown:
        return ""
    head = ["step"]
    for error in shown:
        head += [f"{with_unit(error, units)}: median (mean)", "copy-last"]
    rows = []
    for i in table_rows(curves):
        row = [str(i + 1)]
        for error in shown:
            own, copy = curves[f"{error.name}_imagined"], curves[f"{error.name}_copy"]
            row += [f"{significant(own['median'][i])} ({significant(own['mean'][i])})"]
            row += [significant(copy["median"][i])]
        rows.append(row)
    return table(head, rows)


def with_unit(error: StateError, units: dict[str, str]) -> str:
    """Names an error with its unit, where that is known."""
    unit = units[error.name]
    return error.column if unit == UNKNOWN else f"{error.column}, {unit}"


def table_rows(curves: dict[str, dict]) -> list[int]:
    """Lists the steps that tables show, counted from 0: HORIZONS as far as reached, and the last."""
    reach = len(curves["psnr_imagined"]["mean"])
    return [h - 1 for h in sorted({*(h for h in HORIZONS if h < reach), reach}) if h >= 1]


def markdown(report: dict[str, Any]) -> str:
    """Writes the report as a page; also what the terminal shows."""
    data, curves, settings = report["data"], report["curves"], report["settings"]
    draws = settings["draws"]
    warning = [f"> **Warning.** {data['warning']}", ""] if data["warning"] else []
    lines = [
        *(f"{line}\n" for line in report["verdict"]["lines"]),
        f"# Fidelity of {report['world']['source']}",
        "",
        *warning,
        report["world"]["given"],
        "",
        f"Open loop on {data['windows']} windows of {data['episodes']} episode(s) of {data['source']} "
        f"({data['held_out']}): {settings['context']} recorded frames, then the recorded actions, "
        f"{report['world']['num_steps']} denoising steps per frame. Means over all windows, "
        f"{'one imagination' if draws == 1 else f'{draws} imaginations'} "
        "each; 95 % intervals resample episodes. Changed pixels "
        f"differ by more than {settings['changed_threshold']:g} gray levels from the last context frame. "
        "Sharpness is the mean difference of neighboring pixels as a share of the recorded frames': below 1 "
        "blurred, above 1 grainy." + (DRAWN if "psnr_drawn" in curves else ""),
        "",
        pixel_table(curves),
        "",
    ]
    if dropped := report.get("dropped_frames"):
        lines += [
            f"In {dropped['windows']} of these windows the recorder dropped a frame: in one step the robot "
            "goes twice as far as its command says, and what follows was recorded later than counted here. "
            "The same without what follows:",
            "",
            pixel_table(dropped["curves"]),
            "",
        ]
    if states := state_table(curves, report["units"]):
        unit = f"State errors, in {UNKNOWN} unless a column names another, read beside the pixels"
        lines += [f"{unit}{NORM if f'{AGENT.name}_imagined' in curves else ''}:", "", states, ""]
    if block := block_table(curves):
        lines += [
            "Does the block keep its shape? Its area as a share of the recorded one, and how far its outline "
            "is from the T that fits it best (root mean square, px of 512), read off the colors:",
            "",
            block,
            "",
        ]
    if drawn := draws_table(curves, draws):
        lines += [
            f"The same windows imagined {draws} times, with other noise. Apart: mean gray levels between two "
            "imaginations, where the recorded pixels changed and where they did not. The mean is what "
            "counts; papers often report the best of several:",
            "",
            drawn,
            "",
        ]
    lines += [f"- {line}" for line in remarks(report)]
    lines += ["", "## Where it fails", "", *failures(report)]
    return "\n".join(lines) + "\n"


def failures(report: dict[str, Any]) -> list[str]:
    """Lists the worst windows: an average hides them."""
    worst, windows = report["worst"], report["data"]["windows"]
    ends = errors_to_show(worst[0], "_imagined_end")
    head = [
        "episode, from frame",
        "mean PSNR",
        "copy-last",
        "mean SSIM",
        *(f"{with_unit(error, report['units'])} at the end" for error in ends),
    ]
    rows = [
        [
            "{}, {}".format(*row["start"]),
            *(number(row[name]) for name in ("psnr_imagined", "psnr_copy")),
            number(row["ssim_imagined"], 4),
            *(significant(row[f"{error.name}_imagined_end"]) for error in ends),
        ]
        for row in worst
    ]
    return [
        f"The {len(worst)} windows of {windows} with the lowest mean PSNR (`worst.png` shows the first):",
        "",
        table(head, rows),
    ]


def remarks(report: dict[str, Any]) -> list[str]:
    """Says in a line each what the tables do not."""
    lines = [*failure_lines(report), *action_lines(report), *still_lines(report), *outcome_lines(report)]
    lines += [
        f"{name}: {value['value']:.4g} ({value['what']})" for name, value in report["perceptual"].items()
    ]
    speed = report["speed"]
    lines.append(
        f"one step, batch 1, {speed['num_steps']} denoising steps, {speed['device']}, "
        f"{speed['threads']} threads: p50 {speed['p50_ms']:.1f} ms, p95 {speed['p95_ms']:.1f} ms"
    )
    return lines


def failure_lines(report: dict[str, Any]) -> list[str]:
    failure, reach = report["time_to_failure"], len(report["curves"]["psnr_imagined"]["mean"])
    # One episode has no interval: nothing says then what chance does.
    intervals = report["curves"]["psnr_gain"]["low"]
    chance = ", by more than chance," if any(low is not None and low == low for low in intervals) else ""
    lines = []
    for key, what in {"mean_psnr": "whole frame", "mean_psnr_changed": "changed pixels"}.items():
        at = f"first at step {failure[key]}" if failure[key] else f"at none of {reach} steps"
        lines.append(f"PSNR is lower than copy-last's{chance} {at} ({what})")
    return lines


def action_lines(report: dict[str, Any]) -> list[str]:
    lines, actions = [], report["actions"]
    if ratio := actions["loss_ratio"].get("total"):
        parts = ", ".join(f"{k} {v:.2f}" for k, v in actions["loss_ratio"].items() if k != "total")
        lines.append(f"action sensitivity, loss(shuffled)/loss(true): {ratio:.2f} ({parts})")
    if shuffled := actions["psnr_shuffled"]:
        i = len(shuffled["mean"]) - 1
        true = shuffled["own"][i]
        lines.append(
            f"PSNR at step {i + 1} with another window's actions: {number(shuffled['mean'][i])} dB, "
            f"with its own: {number(true)} dB"
        )
    lines += sweep_lines(
        report["sweep"], report["hardly_moved"], report["never_varied"], report["own_numbers"]
    )
    if drift := report["null_action"]:
        lines.append(
            f"null action ({drift['kind']}), steps {drift['from_step']}–{drift['to_step']}: "
            f"the frame changes by {significant(drift['gray_levels'])} gray levels "
            f"(recorded actions: {significant(drift['gray_levels_recorded'])})"
        )
    return lines


def sweep_lines(
    sweeps: dict[str, dict],
    hardly_moved: dict[str, list[str]],
    never_varied: list[str],
    own_numbers: dict[str, str],
) -> list[str]:
    """Says of each action how it moves what it commands, beside the same slope in the recordings; of one that
    is known to command nothing, what it moves most.

    hardly_moved: names of `action` and `state` in the held-out episodes; never_varied: actions anywhere;
    own_numbers: of the state, by action.
    """
    lines = []
    for name, sweep in sweeps.items():
        if slopes := sweep["slope"]:
            strongest = max(slopes, key=lambda dim: abs(slopes[dim]["mean"]))
            shown = own_numbers.get(name, strongest)
            slope = slopes[shown]
            known = slope["in_data"] is not None and np.isfinite(slope["in_data"])
            rests = name in hardly_moved["action"] or shown in hardly_moved["state"]
            why = "hardly moved in the held-out episodes" if rests else "do not tell"
            line = (
                f"action `{name}` moves `{shown}` by {signed(slope['mean'])} per unit "
                f"(same sign from {slope['same_sign']:.0%} of the starts; "
                f"recordings: {signed(slope['in_data']) if known else why})"
            )
            if abs(slopes[strongest]["mean"]) > abs(slope["mean"]):
                line += f"; it moves `{strongest}` more, by {signed(slopes[strongest]['mean'])}"
            lines.append(line)
    if never_varied:
        names = ", ".join(f"`{name}`" for name in never_varied)
        lines.append(f"never varied in the recordings, so that nobody knows what they do: actions {names}")
    return lines


def still_lines(report: dict[str, Any]) -> list[str]:
    """Says how far the picture drifts while nothing acts."""
    still = report["standing_still"]
    if still is None:
        return ["standing still: no held-out moment does, so nobody can say whether the picture would stay"]
    if not still:
        return []

    def drift(name: str, since: int = 1) -> str:
        pairs = zip(still["steps"], still[name], strict=True)
        known = [(h, value) for h, value in pairs if h >= since and value is not None]
        return ", ".join(f"{significant(value)} at step {h}" for h, value in known)

    since_first = drift("from_first_imagined", since=2)
    return [
        f"standing still ({still['moments']} moment(s) of {still['episodes']} episode(s) in which nothing "
        "moved, their action held), mean difference in gray levels from the last shown frame: "
        f"{drift('from_last_shown')} (recorded, while it lasted: {drift('recorded')})"
        + (f"; from the first imagined frame by {since_first}" if since_first else "")
    ]


def uncertainty_text(scores: dict[str, Any], of: str) -> str:
    predicted, observed = ([f"{x:.2%}" for x in scores[key]] for key in ("predicted", "observed"))
    return (
        f"AUROC {number(scores['auroc'], 3)} for the tenth of the steps with the largest error of {of} (by "
        f"the number of the step: {number(scores['auroc_of_the_step'], 3)}); mean error predicted "
        f"{scores['mean_predicted']:.2%} of its range, observed {scores['mean_observed']:.2%}; in the most "
        f"certain tenth {predicted[0]} and {observed[0]}, in the least certain {predicted[-1]} and "
        f"{observed[-1]}"
    )


def outcome_lines(report: dict[str, Any]) -> list[str]:
    """Of the imagined steps, of the uncertainty, and of what is predicted from the recorded past."""
    lines = []
    if reward := report.get("reward"):
        lines.append(f"reward: {reward_text(reward)}")
    if success := report.get("success"):
        lines.append(
            f"success: AUROC {number(success['auroc'], 3)}, "
            f"{success['positives']} of {success['steps']} steps are positive"
        )
    for name, of in {"uncertainty": "the state", "image_uncertainty": "the picture"}.items():
        if scores := report.get(name):
            lines.append(f"{name.replace('_', ' ')}: {uncertainty_text(scores, of)}")
    outcomes = report["outcomes"]
    if reward := outcomes.get("reward"):
        lines.append(
            f"reward of every step of {outcomes['episodes']} whole episode(s), predicted from the recorded "
            f"past: {reward_text(reward)}, slope {number(reward['slope'])}"
        )
    if success := outcomes.get("success"):
        recall = "" if success["recall"] is None else f", {success['recall']:.0%} of them with p > .5"
        lines.append(
            f"success, likewise: AUROC {number(success['auroc'], 3)}, {success['positives']} of "
            f"{outcomes['steps']} steps are positive{recall}, {success['false_alarms']} false alarms; "
            f"calibration error {significant(success['calibration']['error'])}, "
            f"Brier {significant(success['brier'])} (a constant: {significant(success['brier_constant'])}); "
            f"{success['episode_accuracy']:.0%} of the episodes right"
        )
    return lines


def reward_text(reward: dict[str, Any]) -> str:
    return (
        f"MSE {significant(reward['mse'])} (a constant: {significant(reward['mse_constant'])}), "
        f"correlation {number(reward['correlation'])}, bias {signed(reward['bias'])}"
    )
