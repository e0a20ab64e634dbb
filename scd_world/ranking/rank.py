"""`scd-rank`: the same policies, starts and seeds in the imagination and in reality; how well the two agree.

world/<policy>.json · simulator/<policy>.json · report.json · report.md · scatter.png
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from filelock import FileLock, Timeout
from gymnasium import spaces

from scd_envs import simulators
from scd_envs.settings import task_index
from scd_envs.simulators.adapter import STATE_KEYS
from scd_envs.world_env import world_metadata
from scd_policies import check_name, is_checkpoint
from scd_world.metrics.statistics import correlation
from scd_world.ranking.config import PolicyEntry, RankConfig, read_policies
from scd_world.ranking.play import NoSuccessReportedError, RankingResults, choose_starts
from scd_world.ranking.report import imagined_table, markdown, plot_scatter
from scd_world.ranking.statistics import PairedOutcomes, agreement, kappa, rate, wilson
from scd_world.reporting.tables import write_json
from scd_world.robot_data.schema import DataSchema
from scd_world.utils.devices import pick_device
from scd_world.utils.output_folder import claimed_folder
from scd_world.world.world import World

log = logging.getLogger(__name__)
Outcomes = dict[str, dict[int, bool]]  # policy → number of the episode → success
TRUE, FALSE = ("1", "true", "yes", "success"), ("0", "false", "no", "failure")


def rank(config: RankConfig) -> dict[str, Any] | None:
    """Plays what was not played yet, and reports once nothing is missing; None while something is.

    ValueError, before anything is played: policies or labels that cannot be right, a world that cannot rank.
    """
    entries = read_policies(config.policies)
    for entry in entries:
        check_name(entry.policy)
    labels = read_labels(config.labels, entries) if config.labels else None
    if unknown := sorted(set(config.only_policies) - {entry.name for entry in entries}):
        raise ValueError(f"only_policies={unknown}: the list has {[entry.name for entry in entries]}")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    world = World.load(config.world, device=pick_device(config.device))
    refuse_unranked(world, config, entries)
    starts = choose_starts(world, config.episodes, config.seed, config.task)
    if labels is None and "simulator" in config.only_sides:
        refuse_unpaired(config, world.schema)
    results = RankingResults(config, world, starts)
    sides = ["world"] if labels else ["simulator", "world"]
    chosen = [e for e in entries if e.name in config.only_policies or not config.only_policies]
    asked = [(entry, side) for side in sides if side in config.only_sides for entry in chosen]
    with claimed_folder(config.out, "scd-rank", ("*/*.json", ("episodes", "seconds"))):
        refuse_unbuilt(results, {e.name: e for e, side in asked if results.find(e, side) is None}.values())
        play_all(results, asked)
    played = {side: {entry.name: results.find(entry, side) for entry in entries} for side in sides}
    missing = [f"{side}/{name}" for side in sides for name, result in played[side].items() if result is None]
    if missing:
        if config.only_sides == ["world"] and all(played["world"].values()):
            print(imagined_table(outcomes_of(played["world"])))
            print("The world alone was played, as asked (only_sides): what agrees with reality is not known.")
            return None
        print(f"{len(missing)} of {len(sides) * len(entries)} to go: {', '.join(missing)}")
        return None
    distinct = len({(start.episode, start.frame) for start in starts})
    report = make_report(config, entries, played, labels, distinct)
    out = Path(config.out)
    write_json(out / "report.json", report)
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    plot_scatter(out / "scatter.png", report)
    print(markdown(report))
    print(f"Written to {out}: report.json, report.md, scatter.png")
    return report


def refuse_unranked(world: World, config: RankConfig, entries: Sequence[PolicyEntry]) -> None:
    """Raises ValueError where playing for hours could not tell one policy from another."""
    if not world.schema.success:
        raise ValueError(
            f"{config.world} predicts no success: its recordings have no `next.success`, and policies are "
            "ranked by it. Record it, true in the steps that fulfil the task, or add it to the recordings "
            "(docs/data.md shows how), and train the world again"
        )
    tasks = world.schema.tasks
    if config.task is not None:
        task_index(config.task, tasks)
    elif len(tasks) > 1 and any(is_checkpoint(entry.policy) for entry in entries):
        raise ValueError(f"LeRobot policies need one task: give task=<one of {list(tasks)}>")


def refuse_unpaired(config: RankConfig, schema: DataSchema) -> None:
    """Raises ValueError where the simulator cannot start as the world does: its episodes would be others."""
    env = simulators.make(config.simulator, **config.simulator_kwargs)
    observed = cast("spaces.Dict", env.observation_space).spaces | {"action": env.action_space}
    sizes = {key: spaces.flatdim(space) for key, space in observed.items()}
    env.close()
    differing = [
        f"{key} is {sizes.get(key, 0)} numbers there, {len(getattr(schema, key))} in the world"
        for key in (*STATE_KEYS, "action")
        if sizes.get(key, 0) != len(getattr(schema, key))
    ]
    if not schema.state:
        differing.append("the world's recordings hold no state to start it from")
    if differing:
        raise ValueError(
            f"simulator={config.simulator} cannot start where {config.world} does: {'; '.join(differing)}. "
            "Name a simulator whose whole state the recordings hold, or a file of real outcomes "
            "(labels=robot.csv); only_sides=[world] plays in the world alone"
        )


def refuse_unbuilt(results: RankingResults, entries: Iterable[PolicyEntry]) -> None:
    """Raises ValueError, naming all of them, where policies cannot be built: hours later it would be late."""
    wrong = []
    for entry in entries:
        try:
            results.policy(entry, world_metadata(results.world, None))
        except Exception as error:  # a policy of one's own may raise anything
            wrong.append(f"{entry.name}: {error}")
    if wrong:
        raise ValueError("these policies cannot be made:\n  " + "\n  ".join(wrong))


def play_all(results: RankingResults, asked: Iterable[tuple[PolicyEntry, str]]) -> None:
    """Plays policies on sides; ValueError in the end, naming all of them, where some failed: the others are
    played then. A simulator that tells nothing of success ends it at once."""
    failed = []
    for entry, side in asked:
        try:
            play_once(results, entry, side)
        except NoSuccessReportedError:
            raise
        except Exception as error:  # a policy of one's own may raise anything, as may a simulator
            log.warning("%s/%s failed", side, entry.name, exc_info=True)
            failed.append(f"{side}/{entry.name}: {error if isinstance(error, ValueError) else repr(error)}")
    if failed:
        raise ValueError(
            "these could not be played, and what the others did is kept; mend them, or leave them out, and "
            "give the same command again:\n  " + "\n  ".join(failed)
        )


def play_once(results: RankingResults, entry: PolicyEntry, side: str) -> None:
    """Plays a policy on one side, unless it was played, or another process is playing it now."""
    if results.find(entry, side) is not None:
        return
    locks = Path(results.config.out) / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / f"{side} {entry.name}", timeout=0):
            # The process that has just released the lock may have written it.
            if (result := results.find(entry, side)) is None:
                result = results.play(entry, side)
    except Timeout:
        log.info("%s/%s: another process is playing it", side, entry.name)
        return
    done = [episode["success"] for episode in result["episodes"]]
    log.info("%s/%s: %d of %d, %.0f s", side, entry.name, sum(done), len(done), result["seconds"])


# ---- labels from a file ----------------------------------------------------------------------------------


def read_labels(path: str, entries: Sequence[PolicyEntry]) -> Outcomes:
    """Reads real outcomes from a CSV or JSON list of {policy, episode, success}.

    Episode i is the ranking's i-th start, if reality played the same; else any number that is not used twice.
    FileNotFoundError: no such file. ValueError: an entry is wrong or twice there, or a policy has none.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"labels={path}: no such file; expected CSV or JSON of policy, episode, success"
        )
    text = file.read_text(encoding="utf-8-sig")  # spreadsheets begin theirs with a byte order mark
    rows = json.loads(text) if file.suffix == ".json" else list(csv.DictReader(text.splitlines()))
    outcomes: Outcomes = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping) or not {"policy", "episode", "success"} <= row.keys():
            raise ValueError(f"{path}, entry {number}: expected policy, episode, success; got {row!r}")
        success = str(row["success"]).strip().lower()
        if success not in TRUE + FALSE:
            raise ValueError(
                f"{path}, entry {number}: success is one of {TRUE + FALSE}; got {row['success']!r}"
            )
        if not str(row["episode"]).strip().isdecimal():
            raise ValueError(f"{path}, entry {number}: episode is a whole number; got {row['episode']!r}")
        episodes, episode = outcomes.setdefault(str(row["policy"]), {}), int(row["episode"])
        if episode in episodes:
            raise ValueError(f"{path}, entry {number}: {row['policy']} has two episodes {episode}")
        episodes[episode] = success in TRUE
    if missing := [entry.name for entry in entries if entry.name not in outcomes]:
        raise ValueError(f"{path} lacks {missing}; it has {sorted(outcomes)}")
    if all(min(episodes) == 1 and max(episodes) == len(episodes) for episodes in outcomes.values()):
        log.warning(
            "%s numbers its episodes from 1: episode 1 is compared with the ranking's second start. Number "
            "them from 0, or from 1000 on where the starts were others",
            path,
        )
    return outcomes


# ---- the report ------------------------------------------------------------------------------------------


def make_report(
    config: RankConfig,
    entries: Sequence[PolicyEntry],
    played: dict[str, dict[str, Any]],
    labels: Outcomes | None,
    starts: int,
) -> dict[str, Any]:
    """Computes all figures as plain data. starts: how many different ones the episodes have."""
    imagined = outcomes_of(played["world"])
    real = labels or outcomes_of(played["simulator"])
    pairs = [PairedOutcomes(entry.name, real[entry.name], imagined[entry.name], starts) for entry in entries]
    return {
        "world": config.world,
        "reality": config.labels or f"simulator {config.simulator}",
        "settings": asdict(config) | {"policies": [asdict(entry) for entry in entries]},
        "seconds": {side: sum(r["seconds"] for r in results.values()) for side, results in played.items()},
        "policies": [describe(pair, entry) for pair, entry in zip(pairs, entries, strict=True)],
        "agreement": agreement(pairs, config.bootstrap, config.seed),
        "without_group": without_groups(pairs, [entry.group for entry in entries]),
    }


def without_groups(pairs: Sequence[PairedOutcomes], groups: Sequence[str]) -> dict[str, float]:
    """Computes Pearson's r without each whole group of policies: does one kind make, or spoil, the figure?"""
    x, y = (np.array([rate(getattr(pair, side)) for pair in pairs]) for side in ("imagined", "real"))
    others = {group: np.array([g != group for g in groups]) for group in dict.fromkeys(groups)}
    return {group: correlation(x[rest], y[rest]) for group, rest in others.items() if rest.sum() > 2}


def outcomes_of(played: dict[str, Any]) -> Outcomes:
    """Reads the outcomes off results, policy by policy."""
    return {
        name: {i: episode["success"] for i, episode in enumerate(result["episodes"])}
        for name, result in played.items()
    }


def describe(pair: PairedOutcomes, entry: PolicyEntry) -> dict[str, Any]:
    """Describes one policy's outcomes on both sides, as plain data."""
    both = [(pair.imagined[e], pair.real[e]) for e in pair.common]
    a, b = np.array(both, bool).reshape(-1, 2).T
    return {
        "name": pair.name,
        "group": entry.group,
        "real": success(pair, "real"),
        "imagined": success(pair, "imagined"),
        "agreement": float((a == b).mean()) if both else None,
        "kappa": kappa(a, b) if both else None,
    }


def success(pair: PairedOutcomes, side: str) -> dict[str, Any]:
    """Counts the successes of a side, with their 95 % interval."""
    episodes = getattr(pair, side)
    done, count = sum(episodes.values()), len(episodes)
    low, high = wilson(done, count, pair.independent(side))
    return {"successes": done, "episodes": count, "rate": done / count, "low": low, "high": high}
