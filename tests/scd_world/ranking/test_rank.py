"""scd-rank from end to end in a tiny world with random weights: what is played, and when again."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("gym_pusht", reason="the reality of these rankings: lerobot_env_scd_world[pusht]")


from scd_envs.simulators.pusht import GOAL_POSE, block_keypoints
from scd_policies.random_walk import RandomWalk
from scd_world.model.config import ModelConfig
from scd_world.ranking.config import PolicyEntry, RankConfig, read_policies
from scd_world.ranking.play import RankingResults, choose_starts, identity, source_of
from scd_world.ranking.rank import rank, read_labels, refuse_unpaired
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.schema import DataSchema
from scd_world.utils.precision import multiplies_bf16
from scd_world.world.starts import StartStates
from scd_world.world.world import World
from tests.conftest import make_model

SCHEMA = DataSchema(
    cameras=("image",),
    height=8,
    width=8,
    agent_pos=("x", "y"),
    environment_state=tuple(f"k{i}" for i in range(16)),
    action=("x", "y"),
    action_low=(0.0, 0.0),
    action_high=(512.0, 512.0),
    fps=10,
    tasks=("push",),
    reward=True,
    success=True,
    horizon=4,
)
TINY = ModelConfig(width=16, heads=2, encoder_layers=1, decoder_layers=1, patch=4, window=3, num_steps=1)
POLICIES = [
    {"name": "expert", "policy": "scripted_pusht", "needs_images": False},
    {
        "name": "late",
        "policy": "scripted_pusht",
        "degrade": {"delay": 2},
        "group": "degraded",
        "needs_images": False,
    },
    {"name": "walk", "policy": "random_walk", "group": "degraded", "needs_images": False},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A world of four starts; in two of them the block lies on the goal, so that reality succeeds at once."""
    reach = {"action_low": torch.zeros(2), "action_high": torch.full((2,), 512.0)}
    stats = replace(Normalizer.neutral(SCHEMA), **reach)
    model = make_model(TINY, SCHEMA, stats).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.copy_(torch.randn(weight.shape, generator=generator) / weight.shape[-1] ** 0.5)
    rng, off = np.random.default_rng(0), np.array([0, 0, 150.0, 150.0])
    poses = GOAL_POSE + np.stack([off, 0 * off, 0 * off], axis=1)
    state = np.concatenate([np.full((4, 2), 20.0), block_keypoints(poses)], axis=1).astype(np.float32)
    starts = StartStates(
        pixels=rng.integers(0, 256, (4, 1, 8, 8, 3), np.uint8),
        state=state,
        action=np.zeros((4, 2), np.float32),
        addresses=np.array([(episode, 0) for episode in (3, 5, 8, 9)]),
    )
    path = tmp_path_factory.mktemp("rank") / "world"
    World(model, stats, starts, card="# tiny\n").save(path)
    return path


@pytest.fixture
def config(folder, tmp_path):
    return RankConfig(
        world=str(folder),
        policies=POLICIES,
        out=str(tmp_path / "rank"),
        episodes=4,
        batch_size=2,
        bootstrap=20,
    )


@pytest.fixture
def played(monkeypatch):
    """(policy, side) of everything that is really played."""
    calls, play = [], RankingResults.play
    monkeypatch.setattr(
        RankingResults, "play", lambda self, e, side: calls.append((e.name, side)) or play(self, e, side)
    )
    return calls


def test_the_whole_way(config, tmp_path):
    report = rank(config)
    assert [one["name"] for one in report["policies"]] == ["expert", "late", "walk"]
    # The block lies on the goal in half of the starts, whatever the policy does in its first step.
    assert [one["real"]["successes"] for one in report["policies"]] == [2, 2, 2]
    written = json.loads((tmp_path / "rank" / "report.json").read_text())
    assert written["agreement"]["pearson"]["value"] is None  # equal rates rank nothing
    assert "Wilson" not in (page := (tmp_path / "rank" / "report.md").read_text())
    assert "2/4, 50 [15, 85]" in page
    assert (tmp_path / "rank" / "scatter.png").stat().st_size > 5000
    result = json.loads((tmp_path / "rank" / "simulator" / "walk.json").read_text())
    assert [e["start"] for e in result["episodes"]] == [[3, 0], [5, 0], [8, 0], [9, 0]]
    assert [e["steps"] for e in result["episodes"]] == [1, 1, 4, 4]  # the world's horizon


@pytest.mark.slow
def test_what_was_played_is_not_played_again(config, played):
    rank(config)
    assert len(played) == 6
    played.clear()
    assert rank(config) is not None
    assert played == []
    # Another threshold is another imagination; reality stays.
    assert rank(replace(config, success_threshold=0.9)) is not None
    assert {side for _, side in played} == {"world"}
    assert len(played) == 3
    played.clear()
    changed = [POLICIES[0], POLICIES[1] | {"degrade": {"delay": 1}}, POLICIES[2]]
    rank(replace(config, success_threshold=0.9, policies=changed))
    assert played == [("late", "simulator"), ("late", "world")]


@pytest.mark.slow
def test_what_auto_means_here_is_not_played_again_by_its_name(config, played):
    rank(config)
    played.clear()
    rank(replace(config, precision="bf16" if multiplies_bf16(torch.device("cpu")) else "auto"))
    assert bool(played) is multiplies_bf16(torch.device("cpu"))


@pytest.mark.slow
def test_parts_are_played_separately_and_reported_once_all_are_there(config, played, capsys):
    """What Hydra's launchers do: a job for each policy, and a last call for the report."""
    assert rank(replace(config, only_policies=["walk"], only_sides=["simulator"])) is None
    assert played == [("walk", "simulator")]
    assert "5 of 6 to go" in capsys.readouterr().out
    assert rank(config) is not None
    assert len(played) == 6


def test_a_result_of_another_checkpoint_does_not_count(config, played, tmp_path):
    """A path stays the same when its file is trained anew."""
    from scd_policies.nearest_neighbor import fit_nearest_neighbor

    rng = np.random.default_rng(0)
    steps = {"agent_pos": rng.uniform(0, 512, (64, 2)), "environment_state": rng.uniform(0, 512, (64, 16))}
    file = tmp_path / "neighbor.safetensors"
    learned = {"name": "neighbor", "policy": "nearest_neighbor", "policy_kwargs": {"path": str(file)}}
    config = replace(config, policies=[POLICIES[0], learned])
    fit_nearest_neighbor(steps, steps["agent_pos"], [64], file)
    rank(config)
    played.clear()
    fit_nearest_neighbor(steps, steps["agent_pos"], [32, 64], file)
    rank(config)
    assert played == [("neighbor", "simulator"), ("neighbor", "world")]


def test_a_lerobot_checkpoint_is_named_by_its_path(config, played, save_policy):
    state_only = {"observation.state": (2,), "observation.environment_state": (16,), "action": (2,)}
    checkpoint = {"name": "act", "policy": str(save_policy("act", state_only)), "needs_images": False}
    report = rank(replace(config, policies=[POLICIES[0], checkpoint]))
    assert [one["real"]["successes"] for one in report["policies"]] == [2, 2]


def test_a_policy_that_does_not_fit_is_named(config, save_policy):
    other = save_policy(
        "act", {"observation.state": (3,), "action": (2,), "observation.environment_state": (16,)}
    )
    checkpoint = {"name": "act", "policy": str(other)}
    with pytest.raises(ValueError, match="world/act: this policy does not fit"):
        rank(replace(config, policies=[POLICIES[0], checkpoint], only_sides=["world"]))


class Unbuilt:
    """No policy: it does not act."""

    def __init__(self, action_space):
        pass


def test_what_is_no_policy_is_named_before_any_is_played_and_no_folder_stays(config, played):
    unbuilt = {"name": "unbuilt", "policy": f"{__name__}:Unbuilt"}
    with pytest.raises(ValueError, match=r"unbuilt: .* expected a class with reset"):
        rank(replace(config, policies=[POLICIES[2], unbuilt], only_sides=["world"]))
    assert not played
    assert not Path(config.out).exists()


class Broken:
    """Fails at its first observation, as a network of other shapes does."""

    def __init__(self, action_space):
        pass

    def reset(self, seeds):
        pass

    def act(self, obs):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_a_policy_that_fails_while_it_plays_is_named_and_the_others_are_played(config, played):
    broken = {"name": "broken", "policy": f"{__name__}:Broken", "needs_images": False}
    with pytest.raises(ValueError, match="what the others did is kept") as failed:
        rank(replace(config, policies=[broken, POLICIES[2]]))
    for side in ("simulator", "world"):
        assert f"{side}/broken: RuntimeError('mat1 and mat2" in str(failed.value)
        assert (Path(config.out) / side / "walk.json").exists()


def test_what_reads_images_cannot_do_without():
    with pytest.raises(ValueError, match="a state_estimator reads images"):
        PolicyEntry("blind", "random_walk", state_estimator="x", needs_images=False)


def changed_world(folder, path, **changes):
    """The tiny world with another schema."""
    world = World.load(folder)
    schema = replace(world.schema, **changes)
    return str(World(make_model(TINY, schema, world.stats), world.stats, world.starts).save(path))


def test_a_world_that_predicts_no_success_is_refused_before_anything_is_played(
    config, folder, played, tmp_path
):
    without = changed_world(folder, tmp_path / "without", success=False)
    with pytest.raises(ValueError, match="predicts no success"):
        rank(replace(config, world=without))
    assert not played


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"environment_state": ()}, "environment_state is 16 numbers there, 0 in the world"),
        ({"agent_pos": ("x",)}, "agent_pos is 2 numbers there, 1 in the world"),
        ({"action": ("x",), "action_low": (0.0,), "action_high": (1.0,)}, "action is 2 numbers there, 1 in"),
        ({"agent_pos": (), "environment_state": ()}, "hold no state to start it from"),
    ],
)
def test_a_simulator_that_cannot_start_as_the_world_does_is_refused(config, named, changes):
    """It would leave the block where its own seed puts it, and call these the same starts."""
    with pytest.raises(ValueError, match=r"cannot start where .*labels=robot\.csv") as refused:
        refuse_unpaired(config, replace(SCHEMA, **changes))
    assert named in str(refused.value)


def test_the_world_alone_ranks_by_what_it_imagines(config, capsys):
    assert rank(replace(config, only_sides=["world"])) is None
    printed = capsys.readouterr().out
    assert "imagined successes" in printed
    assert "The world alone was played" in printed
    assert "to go" not in printed


def test_a_policy_that_takes_an_instruction_gets_the_task(config, folder, tmp_path, monkeypatch):
    made = []

    def make(name, space, task=None, **kwargs):
        made.append((name, task))
        return RandomWalk(space)

    monkeypatch.setattr("scd_policies.make", make)
    reader = {"name": "reader", "policy": "someone/smolvla"}
    rank(replace(config, policies=[POLICIES[2], reader], only_sides=["world"]))
    assert set(made) == {("random_walk", None), ("lerobot", "push")}
    several = changed_world(folder, tmp_path / "several", tasks=("push", "pull"))
    asked = replace(config, world=several, policies=[POLICIES[2], reader], only_sides=["world"])
    with pytest.raises(ValueError, match="task=<one of"):
        rank(asked)
    made.clear()
    rank(replace(asked, task="pull"))
    assert ("lerobot", "pull") in made


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_labels_from_a_file_stand_for_reality(config, played, tmp_path, kind):
    rows = [
        {"policy": policy, "episode": episode, "success": episode < successes}
        for policy, successes in {"expert": 4, "late": 2, "walk": 0}.items()
        for episode in range(4)
    ]
    file = tmp_path / f"labels.{kind}"
    lines = ["policy,episode,success", *(f"{r['policy']},{r['episode']},{r['success']}" for r in rows)]
    file.write_text(json.dumps(rows) if kind == "json" else "\n".join(lines))
    report = rank(replace(config, labels=str(file)))
    assert [one["real"]["rate"] for one in report["policies"]] == [1, 0.5, 0]
    assert {side for _, side in played} == {"world"}
    assert report["agreement"]["episodes"]["count"] == 12
    assert report["without_group"] == {}  # of three policies, too few are left


def test_a_simulators_own_arguments_reach_it_and_count_for_its_side_alone(config):
    entry, world = PolicyEntry("expert", "scripted_pusht"), World.load(config.world)
    plain, small = (
        RankingResults(replace(config, simulator_kwargs=kwargs), world, choose_starts(world, 1, seed=0))
        for kwargs in ({}, {"size": 16})
    )
    assert plain.digest(entry, "simulator") != small.digest(entry, "simulator")
    assert plain.digest(entry, "world") == small.digest(entry, "world")
    assert small.simulation(entry).single_observation_space["pixels"].shape == (16, 16, 3)
    without = replace(entry, needs_images=False)
    assert "pixels" not in small.simulation(without).single_observation_space.spaces


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("policy,episode,success\nexpert,0,maybe", "success is one of"),
        ("policy,episode,success\nexpert,0,1\nexpert,0,1", "two episodes 0"),
        ("policy,episode,success\nexpert,0,1", "lacks"),
        ("policy,success\nexpert,1", "expected policy, episode, success"),
        ("policy,episode,success\nexpert,,1", "entry 1: episode is a whole number"),
    ],
)
def test_labels_that_cannot_be_right_are_refused(config, tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        rank(replace(config, labels=str(tmp_path / "labels.csv")))


def test_a_spreadsheets_labels_are_read_and_counting_from_one_is_remarked(tmp_path, caplog):
    entries = [PolicyEntry("expert", "scripted_pusht")]
    text = "policy,episode,success\nexpert,{},1\nexpert,{},0\n"
    file = tmp_path / "labels.csv"
    file.write_text(text.format(0, 1), encoding="utf-8-sig")
    assert read_labels(str(file), entries) == {"expert": {0: True, 1: False}}
    assert not caplog.messages
    file.write_text(text.format(1, 2))
    assert read_labels(str(file), entries) == {"expert": {1: True, 2: False}}
    assert "from 0" in caplog.text


def test_the_list_of_policies_is_checked_before_anything_is_played(tmp_path):
    for given, message in [
        ([POLICIES[0]], "at least two"),
        ([POLICIES[0], POLICIES[0]], "two policies are called 'expert'"),
        ([POLICIES[0], {"name": "x", "policy": "random_walk", "degrad": {}}], "did you mean degrade"),
        (
            [POLICIES[0], {"name": "x", "policy": "random_walk", "eyes": "f"}],
            "mean state_estimator, as it is called",
        ),
        ([POLICIES[0], {"name": "a/b", "policy": "random_walk"}], "is to name a file"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_policies(given)
    file = tmp_path / "list.yaml"
    file.write_text("policies:\n- {name: a, policy: random_walk}\n- {name: b, policy: random_walk}\n")
    assert [entry.name for entry in read_policies(str(file))] == ["a", "b"]
    with pytest.raises(FileNotFoundError, match=r"no\.yaml"):
        read_policies("no.yaml")


def test_the_shipped_list_has_what_the_experiment_promises():
    entries = read_policies("recipes/ranking/pusht.yaml")
    learned = [entry for entry in entries if entry.policy == "nearest_neighbor" or entry.state_estimator]
    assert len(entries) >= 20
    assert len(learned) >= 4
    assert all(entry.needs_images for entry in learned if entry.state_estimator)


def test_a_users_policy_is_known_by_its_file_and_other_colons_are_nothing_special(tmp_path, monkeypatch):
    (tmp_path / "my_ranked.py").write_text("class Mine: pass")
    monkeypatch.syspath_prepend(tmp_path)
    first = identity(source_of("my_ranked:Mine"))
    (tmp_path / "my_ranked.py").write_text("class Mine: better = True")
    assert identity(source_of("my_ranked:Mine")) != first
    assert source_of("scripted_pusht") == "scripted_pusht"
    assert identity("{'a.b': 1}") == "{'a.b': 1}"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"policy": "scripted_pusht", "policy_kwargs": {"skil": 1}},
            "no argument skil; it takes skill",
        ),
        ({"policy": "scripted_pusht", "degrade": {"dealy": 2}}, "unexpected keyword argument 'dealy'"),
        ({"policy": "nearest_neighbor", "policy_kwargs": {"path": "/no/where"}}, "/no/where"),
        ({"policy": "scripted_pusht", "state_estimator": "/no/where"}, "/no/where"),
    ],
)
def test_a_policy_that_cannot_be_made_is_named_before_any_other_is_played(config, played, wrong, message):
    """It was found once all before it had been played: overnight, with thirty policies."""
    both = [{"name": "wrong", **wrong}, {"name": "too", **wrong}]
    with pytest.raises(ValueError, match=message) as refused:
        rank(replace(config, policies=[POLICIES[0], *both]))
    assert "wrong: " in str(refused.value)
    assert "too: " in str(refused.value)
    assert played == []


def test_a_file_that_a_policys_own_policy_reads_counts_too(config, tmp_path):
    """Deep in its arguments, one that was trained anew went unnoticed."""
    file = tmp_path / "demonstrations.safetensors"
    file.write_text("first")
    entry = PolicyEntry("plans", "best_of_n", {"base_kwargs": {"of": [{"path": str(file)}]}})
    results = RankingResults(config, World.load(config.world), [])
    before = results.digest(entry, "world")
    assert results.digest(entry, "world") == before
    file.write_text("second")
    assert results.digest(entry, "world") != before


@pytest.mark.parametrize("name", ["max_steps", "num_steps", "threads"])
def test_no_steps_are_refused_at_once(config, name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        replace(config, **{name: 0})
