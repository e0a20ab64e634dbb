"""README and docs tell the truth: Python blocks run as shown, commands exist, links lead somewhere."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import scd_envs
import scd_world.cli.run_command  # noqa: F401 (registers the commands' configs)
from scd_world.world.world import World

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
SHIPPED = scd_envs.PUSHT_WORLD.is_dir()


def blocks(page: str, language: str) -> Iterator[tuple[str, str]]:
    """(where, text) of the page's fenced blocks of that language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if match[1] == language:
            line = text.count("\n", 0, match.start()) + 2
            yield f"{page}:{line}", match[2]


def all_blocks(language: str) -> list[tuple[str, str]]:
    return list(itertools.chain.from_iterable(blocks(page, language) for page in PAGES))


def command_lines() -> list[tuple[str, str]]:
    """Every `scd-…` line of the shell blocks, and every whole one in running text and tables."""
    found = []
    for where, text in all_blocks("bash"):
        lines = text.replace("\\\n", " ").splitlines()
        found += [(where, line) for line in lines if line.startswith("scd-")]
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        found += [(page, line) for line in re.findall(r"`(scd-[a-z]+ [^`…]+)`", text)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("where", "code"), all_blocks("python"))
def test_python_blocks_run(
    where: str, code: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder where a training has left `runs/mine/world`, and nothing else is."""
    if "PushT-v0" in code and not SHIPPED:
        pytest.skip("no world is shipped yet")
    monkeypatch.chdir(tmp_path)
    world.save("runs/mine/world")
    exec(compile(code, where, "exec"), {"__name__": "__main__"})


@pytest.mark.slow
@pytest.mark.parametrize(("where", "line"), command_lines())
def test_commands_exist_with_these_settings(
    where: str, line: str, only: Callable[[str], None], tmp_path: Path
) -> None:
    command, *overrides = shlex.split(line, comments=True)
    name = command.removeprefix("scd-")
    only(name)
    with initialize_config_dir(str(tmp_path), version_base="1.3"):  # an empty folder: not that of this file,
        config = compose(name, overrides)  # which Hydra would look for in the files of all modules
    OmegaConf.to_object(config)  # the dataclasses check values, and that nothing is missing


def test_make_has_the_targets() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    lines = [line for _, text in blocks("README.md", "bash") for line in text.splitlines()]
    named = [line.split()[1] for line in lines if line.startswith("make ")]
    assert named == ["demo", "test"]
    assert set(named) <= set(targets)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text) + re.findall(r'src="([^"]+)"', text)
    local = {link for link in links if "://" not in link}
    if not SHIPPED:
        local.discard("docs/film.webp")  # it shows the shipped world
    missing = [link for link in sorted(local) if not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing, f"{page} points at {missing}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_headings_that_are_there(page: str) -> None:
    """By the names that GitHub gives them."""
    text = (ROOT / page).read_text(encoding="utf-8")
    missing = []
    for file, name in re.findall(r"\]\(([^)#:]*\.md)?#([^)]+)\)", text):
        target = (ROOT / page).parent / file if file else ROOT / page
        if name not in headings(target.read_text(encoding="utf-8")):
            missing.append(f"{file}#{name}")
    assert not missing


def headings(text: str) -> set[str]:
    """Lists the anchors of a page's headings."""
    found = re.findall(r"^#+ (.+)$", text, re.M)
    shown = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in found]  # of a link, its text
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in shown}


def test_the_file_tree_is_the_one_on_disk() -> None:
    ((_, tree),) = blocks("docs/architecture.md", "")
    base, missing = ROOT, []
    for line in tree.splitlines():
        names = list(itertools.takewhile(re.compile(r"\S*(/|\.(py|sh|md))$").match, line.split()))
        assert names, f"no file in {line!r}"
        if not line.startswith(" "):
            base = ROOT / names.pop(0) if names[0].endswith("/") else ROOT
        missing += [name for name in names if not (base / name).exists()]
        missing += [] if base.exists() else [str(base)]
    if not SHIPPED:
        missing = [name for name in missing if name != "worlds/pusht/"]
    assert not missing
