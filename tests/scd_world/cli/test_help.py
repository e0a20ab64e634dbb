"""A command's --help lists each setting, its value and what it means, at once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field, fields, is_dataclass
from typing import get_type_hints

import pytest

from scd_world.cli import run_command
from scd_world.cli.help import comments, help_text, meanings
from scd_world.cli.overrides import setting_names
from scd_world.cli.run_command import COMMANDS, PRESETS


@dataclass(frozen=True)
class Wheels:
    """How it rolls."""

    count: int = 4  # of them all
    # Of rubber, mostly,
    # or of wood.
    kind: str = "rubber"
    sizes: list[int] = field(
        default_factory=lambda: [3, 4]  # px, "#" and all
    )
    spare: bool = False


@dataclass(frozen=True)
class Cart(Wheels):
    count: int = 2  # fewer


def test_what_a_setting_means_is_the_comment_above_it_and_beside_it():
    assert meanings(Wheels) == {
        "count": "of them all",
        "kind": "Of rubber, mostly, or of wood.",
        "sizes": 'px, "#" and all',
        "spare": "",
    }
    assert meanings(Cart) == meanings(Wheels) | {"count": "fewer"}
    assert comments("class A:\n    x: str = '# no comment'\n") == {"x": ""}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_setting_is_listed_once_with_what_its_dataclass_says(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    command = COMMANDS[name]
    presets = {group: list(PRESETS[group]) for group in command.presets}
    page = help_text(name, command.config, presets, [])
    listed = [
        line.split("=")[0].strip() for line in page.splitlines() if line.startswith("  ") and "=" in line
    ]
    for setting in setting_names(command.config):
        nested = any(other.startswith(f"{setting}.") for other in setting_names(command.config))
        assert listed.count(setting) == 1 or nested, setting
    below = page.partition("Settings, name=value:")[2].splitlines()  # what is above is as it was written
    assert max(map(len, below)) <= 100
    assert "device=auto" in page or name in ("record", "data")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_setting_says_what_it_means(name):
    def silent(config: type, prefix: str = "") -> list[str]:
        types, meant = get_type_hints(config), meanings(config)
        inner = {field.name for field in fields(config) if is_dataclass(types[field.name])}
        own = [prefix + field.name for field in fields(config) if not meant.get(field.name)]
        return [name for name in own if name.removeprefix(prefix) not in inner] + [
            name for group in sorted(inner) for name in silent(types[group], f"{prefix}{group}.")
        ]

    assert silent(COMMANDS[name].config) == []


def test_what_was_typed_is_shown_as_set(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scd-train", "model=nano", "out=o", "--help"])
    run_command.run_command("train")
    page = capsys.readouterr().out
    assert "  model.width=96" in page
    assert "  out=o " in page
    assert "  model=nano|micro|small" in page
    assert "scd-train data.root=data/mine out=runs/mine" in page
    assert "updates; may be raised when resuming" in page


def test_a_typo_is_refused_beside_help_too(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scd-train", "stepz=3", "--help"])
    with pytest.raises(SystemExit):
        run_command.run_command("train")


def test_it_needs_nothing_heavy():
    code = (
        "import sys; sys.argv = ['scd-train', '--help'];"
        "from scd_world.cli.run_command import run_command; run_command('train');"
        "heavy = {'torch', 'zarr', 'lerobot', 'gymnasium', 'pyarrow', 'numpy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
