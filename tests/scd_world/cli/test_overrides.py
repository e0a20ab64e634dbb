"""Names of settings are checked before Hydra sees them: old ones lead to new ones, typos to the nearest.
Strings are kept as they were typed, whatever Hydra's grammar would make of them."""

from __future__ import annotations

import sys

import pytest

from scd_world.cli import commands, run_command
from scd_world.cli.overrides import check_names, check_types, read_overrides, setting_names
from scd_world.cli.run_command import COMMANDS, PRESETS
from scd_world.utils.renamed_settings import RENAMED

ODD = [
    "a=b", "a(1)", "(a)", "a,b", "Köln/ü", "a&b", "it's", 'say "hi"', "a{b}", "{a}", "[a]", "a~b", "a#b",
    "#a", "two words", " edge ", "a;b", "a$b", "a:b", "a\\b", "a\\'b", "a\\", "100%", "a!b*c?d", "1e3",
    "true", "5",
]  # fmt: skip


def check(command: str, *overrides: str) -> None:
    groups = {group: PRESETS[group] for group in COMMANDS[command].presets}
    check_names(COMMANDS[command].config, groups, overrides)


@pytest.fixture
def run(monkeypatch, only):
    """run("train", "out=x", …): the settings that the command hands over, having read such a command line."""

    def given(command: str, *overrides: str):
        got = []
        only(command)
        monkeypatch.setattr(run_command, "import_module", lambda _: RecordsCall(got))
        monkeypatch.setattr(sys, "argv", [f"scd-{command}", *overrides])
        getattr(commands, command)()
        return got[0]

    return given


class RecordsCall:
    """A module all of whose functions keep the settings that they are called with, and give them back."""

    def __init__(self, got: list) -> None:
        self.got = got

    def __getattr__(self, name: str):
        def called(settings: object, *_: object) -> object:
            self.got.append(settings)
            return settings

        return called


@pytest.mark.parametrize("path", ODD)
def test_a_path_is_what_was_typed(run, path):
    config = run("train", f"out={path}", f"data.root={path}/d", f"init={path}")
    assert (config.out, config.data.root, config.init) == (path, f"{path}/d", path)


@pytest.mark.parametrize("path", [p for p in ODD if "," not in p and p.strip() == p and p[0] not in "'\""])
def test_paths_in_a_list_and_in_a_dictionary_are_what_was_typed(run, path):
    config = run("train", "out=o", "data.root=d", f"prior.extra_datasets=[{path}, two/{path}]")
    assert list(config.prior.extra_datasets) == [path, f"two/{path}"]
    config = run("distill", "world=w", "out=o", "data.root=d", f"compare_worlds={{one:{path}, other:x}}")
    assert config.compare_worlds == {"one": path, "other": "x"}
    assert run("rank", "world=w", "out=o", f"policies=a/{path}.yaml").policies == f"a/{path}.yaml"


def test_what_is_quoted_already_null_and_lists_of_policies_stay(run):
    config = run("train", 'out="a=b"', "data.root=d", "init=null", "prior.extra_datasets=['a,b',\"c,d\"]")
    assert (config.out, config.init) == ("a=b", None)
    assert list(config.prior.extra_datasets) == ["a,b", "c,d"]
    config = run("rank", "world=w", "out=o", "policies=[{name:a,policy:b},{name:c,policy:d}]")
    assert config.policies[1] == {"name": "c", "policy": "d"}


def test_a_tilde_is_the_home_folder(run, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = run("train", "out=~/runs/a", "data.root=~", "prior.extra_datasets=[~/a]")
    assert (config.out, config.data.root) == ("/home/me/runs/a", "/home/me")
    assert list(config.prior.extra_datasets) == ["/home/me/a"]


def test_a_sentence_is_a_task(run):
    assert (
        run("record", "env=pusht", "out=o", "task=Push it, gently (please)").task
        == "Push it, gently (please)"
    )


@pytest.mark.parametrize(
    ("overrides", "complaints"),
    [
        (
            ["out=x", "data.root=d", "batch_size=100000", "data.image_size=1000000", "seed=-1"],
            ["3 things", "data.image_size=1000000: ", "batch_size=100000: ", "seed=-1: "],
        ),
        (["seed=-1"], ["give out=… and data.root=", "for example: scd-train ", "seed=-1: "]),
        (["out="], ["out= is empty"]),
        (["out=x", "steps", "~seed"], ["steps: expected name=value", "~seed: expected name=value"]),
        (["out=x", "+lr=1", "++data.rot=d"], ["no setting lr", "no setting data.rot", "data.root?"]),
        (["out=x", "data.root=d", "+steps=5"], ["already at 'steps'"]),
        (["out=x", "data.root=d", "steps=5,6"], ["Ambiguous value", "add --multirun"]),
        (["out=x", "stepz=1", "model=smal"], ["did you mean steps?", "model='smal': expected one of nano, "]),
        (
            ["out=x", "steps=many", "compile=perhaps", "optimizer.lr=fast", "data.cameras=a"],
            ["steps=many: expected a whole", "compile=perhaps: expected true", "lr=fast: exp", "a list"],
        ),
        (["out=x", "data.root=d", "model.heads=0", "model.width=7"], ["model.heads=0: expected a number"]),
    ],
)  # fmt: skip
def test_all_that_is_wrong_is_said_at_once(run, capsys, overrides, complaints):
    with pytest.raises(SystemExit) as end:
        run("train", *overrides)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert all(complaint in said for complaint in complaints), said


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"bench", "demo"}))  # they need nothing
def test_what_a_command_needs_is_said_with_an_example(run, capsys, name):
    with pytest.raises(SystemExit):
        run(name)
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "missing mandatory" not in said
    assert f"for example: scd-{name} " in said or name == "data"


def test_what_cannot_be_read_leads_to_quotes(run, capsys):
    with pytest.raises(SystemExit):
        run("record", "env=pusht", "out=o", "policy_kwargs={file:a=b}")
    assert "'policy_kwargs={file:\"/a=b, c\",size:3}'" in capsys.readouterr().err
    assert run("record", "env=pusht", "out=o", 'policy_kwargs={file:"/a=b, c",size:3}').policy_kwargs == {
        "file": "/a=b, c",
        "size": 3,
    }


def test_with_m_a_comma_means_one_run_each():
    assert read_overrides(COMMANDS["rank"].config, {}, ["-m", "seed=1,2", "out=a,b"]) == [
        "-m",
        "seed=1,2",
        "out=a,b",
    ]


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("train", "clip_steps=4", "sequence_length"),
        ("train", "model.kind=far", "model.architecture"),
        ("train", "model.body_layers=0", "prior.layers"),
        ("train", "body.more=[a]", "prior.extra_datasets"),
        ("train", "optimiser.ema=0.9", "optimizer.ema_decay"),
        ("record", "mix=[]", "policy_mixture"),
        ("evaluate", "films=2", "num_videos"),
        ("bench", "rivals=[far]", "baselines"),
        ("rank", "only=[a]", "only_policies"),
        ("probe", "tune_steps=3", "finetune_length"),
        ("distill", "beside={}", "compare_worlds"),
    ],
)
def test_an_old_name_leads_to_the_new_one(command, old, new):
    with pytest.raises(ValueError, match=f"did you mean {new}, as it is called now"):
        check(command, old)


def test_every_new_name_is_a_setting_of_some_command():
    known = {name for command in COMMANDS.values() for name in setting_names(command.config)}
    entries = {"weight", "degrade", "state_estimator", "needs_images"}  # of policies in a list
    assert set(RENAMED.values()) <= known | entries
    assert not set(RENAMED) & known - {"videos", "rows", "draws"}  # of another command, of another meaning


def test_a_name_of_another_command_leads_to_this_ones():
    with pytest.raises(ValueError, match="no setting max_steps; did you mean horizon, as it is called here"):
        check("rollout", "max_steps=10")
    check("rank", "max_steps=10")


def test_a_list_of_names_is_asked_for_as_one():
    with pytest.raises(ValueError, match=r"data\.cameras=cam_high: expected a list of names such as \[front"):
        check_types(COMMANDS["train"].config, {}, ["data.cameras=cam_high"])


def test_a_typo_leads_to_the_nearest_name_and_nonsense_to_none():
    with pytest.raises(ValueError, match="no setting stepz; did you mean steps"):
        check("train", "stepz=3")
    with pytest.raises(ValueError, match=r"no setting quux \(see"):
        check("train", "quux=3")


def test_a_group_is_not_a_choice_where_it_has_no_presets():
    with pytest.raises(ValueError, match=r"prior=none: prior is a group of settings here: give prior\.kind"):
        check("bench", "prior=none")


def test_what_is_right_passes():
    check(
        "train",
        "model=nano",
        "prior=none",
        "prior.dynamics.steps=3",
        "out=a=b",
        "--help",
        "++steps=1",
        "hydra.verbose=1",
    )
    check("record", "policy_kwargs.skill=0.5", "env_kwargs={size:64}")
    check("rank", "-m", "seed=1,2")


def test_a_folder_of_yaml_may_hold_presets_and_is_bounded(run, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("width: 96\nheads: 3\n")
    words = ["--config-dir", str(tmp_path), "out=o", "data.root=d"]
    assert run("train", *words, "model=mine").model.width == 96
    (tmp_path / "model" / "broken.yaml").write_text("a: b: c")
    with pytest.raises(SystemExit):
        run("train", *words)
