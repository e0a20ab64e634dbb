"""Nothing that a user has is overwritten: a folder is a command's own, or empty, or refused."""

from __future__ import annotations

import json
import os

import pytest

from scd_world.utils.output_folder import MARK, claim_folder, claimed_folder, remove_older, written_since

SIGN = ("report.json", ("world", "settings"))


def test_an_empty_folder_or_none_becomes_the_commands_and_stays_it(tmp_path):
    out = claim_folder(tmp_path / "new" / "one", "scd-evaluate", SIGN)
    assert [file.name for file in out.iterdir()] == [MARK]
    (out / "report.md").write_text("written by it")
    assert claim_folder(out, "scd-evaluate", SIGN) == out
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS_Store").touch()  # what a desktop leaves
    claim_folder(tmp_path / "empty", "scd-evaluate", SIGN)


@pytest.mark.parametrize("name", ["report.md", "report.json", "notes"])
def test_what_somebody_has_there_is_named_and_nothing_is_written(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=rf"holds {name}, which scd-evaluate has not written"):
        claim_folder(tmp_path, "scd-evaluate", SIGN)
    assert os.listdir(tmp_path) == [name]


def test_a_command_that_fails_before_it_writes_leaves_no_claim(tmp_path):
    """A refused evaluation left a folder with its mark in it."""

    def fail(out, write: str = "") -> None:
        with claimed_folder(out, "scd-evaluate", SIGN) as folder:
            if write:
                (folder / write).touch()
            raise OSError("no such data")

    (tmp_path / "empty").mkdir()
    claim_folder(tmp_path / "mine", "scd-evaluate", SIGN)
    for name, write in {"new": "", "empty": "", "mine": "", "begun": "windows.zarr"}.items():
        with pytest.raises(OSError, match="no such data"):
            fail(tmp_path / name, write)
    left = {folder.name: sorted(os.listdir(folder)) for folder in tmp_path.iterdir()}
    assert left == {"empty": [], "mine": [MARK], "begun": [MARK, "windows.zarr"]}
    with claimed_folder(tmp_path / "new", "scd-evaluate", SIGN) as folder:
        pass
    assert os.listdir(folder) == [MARK]


def test_another_commands_folder_is_refused(tmp_path):
    claim_folder(tmp_path / "out", "scd-train", ("config.json", ("out",)))
    with pytest.raises(ValueError, match="is a folder of scd-train, and scd-evaluate needs one of its own"):
        claim_folder(tmp_path / "out", "scd-evaluate", SIGN)


def test_a_folder_of_an_earlier_version_is_known_by_what_it_holds(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"world": "w", "settings": {}, "more": 1}))
    (tmp_path / "curves.png").touch()
    claim_folder(tmp_path, "scd-evaluate", SIGN)
    with pytest.raises(ValueError, match="is a file"):
        claim_folder(tmp_path / "curves.png", "scd-evaluate", SIGN)


def test_only_what_was_written_is_listed(tmp_path):
    claim_folder(tmp_path / "out", "scd-evaluate", SIGN)
    old, new = tmp_path / "out" / "mine.txt", tmp_path / "out" / "report.md"
    old.touch()
    os.utime(old, (1, 1))
    new.touch()
    assert written_since(tmp_path / "out", began=2.0) == ["report.md"]


def test_of_an_earlier_report_nothing_stays_beside_a_new_one_but_what_is_not_its_own(tmp_path):
    for name in ("strip_0.png", "strip_1.png", "strip_mine.png", "curves.png"):
        (tmp_path / name).touch()
    os.utime(tmp_path / "strip_1.png", (1, 1))
    os.utime(tmp_path / "strip_mine.png", (1, 1))
    remove_older(tmp_path, ["strip_[0-9]*.png", "curves.png"], began=2)
    assert sorted(os.listdir(tmp_path)) == ["curves.png", "strip_0.png", "strip_mine.png"]
