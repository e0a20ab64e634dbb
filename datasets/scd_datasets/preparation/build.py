"""The command scd-data, and how any command comes by a recording's store: decoded once, and found again."""

from __future__ import annotations

import logging
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from scd_datasets.config import CheckConfig, OnBadEpisode
from scd_datasets.preparation.check import check_dataset, damage_error, source_digest
from scd_datasets.preparation.report import TEXT
from scd_datasets.sources.open_source import open_source
from scd_datasets.sources.source import Source
from scd_datasets.store.known_stores import find, link, remember
from scd_datasets.store.read_speed import measure, synthetic_store
from scd_datasets.store.store import REPORT, WindowStore
from scd_datasets.store.writer import refuse_foreign_store, store_lock
from scd_world.utils.atomic_folder import DamagedFolder
from scd_world.utils.output_folder import claimed_folder

REPORT_SIGN = ("report.json", ("verdict", "findings"))
log = logging.getLogger(__name__)


def run_check(config: CheckConfig) -> None:
    """Runs the command scd-data: checks, prints the report, builds the store unless `build` is False."""
    if not (config.data.root or config.data.repo_id):
        with tempfile.TemporaryDirectory() as scratch:
            return _print_speed(synthetic_store(Path(scratch) / "synthetic.zarr"))
    source, skip_bad = open_source(config.data), config.on_bad_episode is OnBadEpisode.skip
    if not config.build:  # all damage at once
        with claimed_folder(config.out, "scd-data", REPORT_SIGN) if config.out else nullcontext() as out:
            report = replace(check_dataset(source, skip_bad=True), skip_bad=skip_bad)
            print(report.table())
            if out is not None:
                report.write(out)
        if report.bad and not skip_bad:
            raise damage_error(report.bad)
        return
    store = Path(config.out or usual_store(config.data.repo_id, source.root))
    found, said = build_once(source, store, skip_bad, verify=True)
    print(f"{said}\n\n{found}" if found else said)
    if config.bench:
        _print_speed(WindowStore.open(store, in_memory=False))


def usual_store(repo_id: str | None, root: Path) -> Path:
    """Gives where a recording's store goes: beside it, or here where it lies in a hub's cache."""
    if repo_id:
        return Path(f"{repo_id.rpartition('/')[2].partition('@')[0]}.zarr")
    root = root.resolve() if root.name in ("", "..") else root  # `.` has no name of its own
    if root.name.endswith(".zarr"):
        return root.with_name(f"{root.name.removesuffix('.zarr')}.windows.zarr")
    return root.with_name(f"{root.name}.zarr")


def build_once(source: Source, out: Path, skip_bad: bool, verify: bool = False) -> tuple[str, str]:
    """Sees to it that the recording's store lies at `out`, decoding only what was never decoded; gives where
    it was found ("" where it was built), and the report in words.

    verify: read a store that is there from end to end first, and build it anew where it is damaged.
    """
    digests = digests_of(source, skip_bad)
    with store_lock(out):
        if out.exists():
            refuse_foreign_store(out)
            if is_current(out, digests, verify):
                remember(WindowStore.open(out, in_memory=False))
                return f"the dataset has not changed, and {out} is as it was", report_of(out)
        for known in filter(None, map(find, digests)):
            if is_current(known, digests, verify=True):
                link(known, out)
                return f"already decoded, into {known}; linked to {out}", report_of(out)
        report = check_dataset(source, out, skip_bad)
        remember(WindowStore.open(out, in_memory=False))
        return "", report.table()


def digests_of(source: Source, skip_bad: bool) -> list[str]:
    """Gives the digests of the stores that will do: one without damage does for who would skip it as well."""
    return [source_digest(source), *([source_digest(source, skipped=True)] if skip_bad else [])]


def is_current(path: Path, digests: list[str], verify: bool) -> bool:
    """Says whether the store in a folder is of a recording with one of these digests, and sound."""
    try:
        store = WindowStore.open(path, in_memory=False)
        if store.source not in digests:
            return False
        if verify:
            store.verify()
    except (DamagedFolder, ValueError) as error:
        log.warning("%s", error)
        return False
    return True


def report_of(store: Path) -> str:
    """Gives the report in words that lies in a store; stores of earlier versions have none in them."""
    file = store / REPORT / TEXT
    return file.read_text(encoding="utf-8").rstrip() if file.is_file() else ""


def _print_speed(store: WindowStore) -> None:
    for name, speed in measure(store.path).items():
        print(f"random windows {name}: {speed:,.0f} frames/s per core")
