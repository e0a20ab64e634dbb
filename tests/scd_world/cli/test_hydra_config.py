"""Names of settings are checked before Hydra sees them: old ones lead to new ones, typos to the nearest."""

from __future__ import annotations

import pytest

from scd_world.cli.commands import COMMANDS
from scd_world.cli.hydra_config import check_names, setting_names
from scd_world.utils.renamed_settings import RENAMED


def check(command: str, *overrides: str) -> None:
    check_names(COMMANDS[command].config, COMMANDS[command].presets, overrides)


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
    assert not set(RENAMED) & known - {"videos", "rows"}


def test_a_typo_leads_to_the_nearest_name_and_nonsense_to_none():
    with pytest.raises(ValueError, match="no setting stepz; did you mean steps"):
        check("train", "stepz=3")
    with pytest.raises(ValueError, match=r"no setting quux \(see"):
        check("train", "quux=3")


def test_a_group_is_not_a_choice_where_it_has_no_presets():
    with pytest.raises(ValueError, match=r"prior=none: prior is a group of settings here: give prior\.kind"):
        check_names(COMMANDS["bench"].config, COMMANDS["bench"].presets, ["prior=none"])


def test_what_is_right_passes():
    check(
        "train",
        "model=nano",
        "prior=none",
        "prior.dynamics.steps=3",
        "out=a=b",
        "--help",
        "+x=1",
        "hydra.verbose=1",
    )
    check("record", "policy_kwargs.skill=0.5", "env_kwargs={size:64}")
    check("rank", "-m", "seed=1,2")
