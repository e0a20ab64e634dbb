"""The commands refuse typos and wrong types before anything runs, and answer --help without heavy imports."""

import subprocess
import sys

import cloudpickle
import hydra
import pytest
from hydra import compose, initialize
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scd_datasets.config import OnBadEpisode
from scd_world.cli import run_command  # stores the configs
from scd_world.rollouts.config import PolicyShare


def settings(name, *overrides):
    with initialize(version_base="1.3", config_path=None):
        return OmegaConf.to_object(compose(config_name=name, overrides=list(overrides)))


def test_a_mixture_on_the_command_line():
    config = settings(
        "record", "env=pusht", "out=o", "policy_mixture=[{policy:a,weight:4,policy_kwargs:{skill:[1.0,0.5]}}]"
    )
    assert config.shares == [PolicyShare("a", {"skill": [1.0, 0.5]}, weight=4)]
    assert settings("record", "env=pusht", "out=o", "policy=b").shares == [PolicyShare("b")]


def test_a_policy_s_own_arguments_on_the_command_line():
    arguments = ["policy_kwargs={skill:[1.0,0.5]}", "env_kwargs={size:64}"]
    config = settings("record", "env=pusht", "out=o", *arguments)
    assert config.shares == [PolicyShare("random_walk", {"skill": [1.0, 0.5]})]
    assert config.env_kwargs == {"size": 64}


def test_skip():
    assert settings("data", "data.root=d", "on_bad_episode=skip").on_bad_episode is OnBadEpisode.skip


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("record", ["env=pusht", "out=o", "episode=3"]),
        ("record", ["env=pusht", "out=o", "episodes=many"]),
        ("record", ["env=pusht", "out=o", "episodes=0"]),
        ("record", ["env=pusht", "out=o", "policy_mixture=[{policy:a,shares:4}]"]),
        ("record", ["env=pusht", "out=o", "policy=a", "policy_mixture=[{policy:b}]"]),
        ("record", ["env=pusht"]),
        ("data", []),
        ("data", ["data.root=d", "on_bad_episode=maybe"]),
        ("data", ["data.root=d", "data.repo_id=a/b"]),
        ("data", ["data.root=d", "data.resize=crop"]),
        ("data", ["data.root=d", "data.decoder=ffmpeg"]),
        ("data", ["data.root=d", "data.fps=0"]),
    ],
)
def test_mistakes_fail_before_anything_runs(name, overrides):
    with pytest.raises((ConfigCompositionException, OmegaConfBaseException, ValueError)):
        settings(name, *overrides)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; import scd_world.cli.run_command;"
        "heavy = {'torch', 'zarr', 'lerobot', 'gymnasium', 'pyarrow', 'numpy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_wrong_setting_is_said_before_what_the_command_needs_is_imported():
    """It took eight seconds: what runs was imported first."""
    code = (
        "import sys; sys.argv = ['scd-play', 'world=w', 'port=-3']\n"
        "from scd_world.cli.run_command import run_command\n"
        "try: run_command('play')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'zarr', 'lerobot', 'gymnasium', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "port=-3: expected a number between 0 and 65535" in done.stderr


def test_a_launcher_can_send_a_command_to_another_machine(monkeypatch):
    """Hydra's launchers pickle what they run: nothing in it may be bound to this process."""
    sent = []
    monkeypatch.setattr(hydra, "main", lambda **_: lambda run: lambda: sent.append(cloudpickle.dumps(run)))
    for name in run_command.COMMANDS:
        monkeypatch.setattr(sys, "argv", [f"scd-{name}", "-m"])
        run_command.run_command(name)
    assert len(sent) == len(run_command.COMMANDS)


def test_a_command_is_composed_once_and_by_hydra_itself_where_it_is_given_hydras_own(monkeypatch):
    """Twice, as Hydra's main function does it, costs each command .15 s."""
    by_hydra, got = [], []
    monkeypatch.setattr(run_command, "run_by_hydra", by_hydra.append)
    monkeypatch.setattr(run_command, "load", lambda place: got.append)
    for more in ([], ["-m"], ["--cfg", "job"], ["hydra.verbose=true"]):
        monkeypatch.setattr(sys, "argv", ["scd-play", "world=w", *more])
        run_command.run_command("play")
    assert (got[0].world, len(got), by_hydra) == ("w", 1, ["play"] * 3)
