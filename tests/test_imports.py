"""Who may import whom, as the design has it: read off the source, and checked in a fresh Python."""

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOMES = {
    "scd_world": ROOT / "scd_world",
    "scd_envs": ROOT / "envs" / "scd_envs",
    "scd_policies": ROOT / "policies" / "scd_policies",
    "scd_datasets": ROOT / "datasets" / "scd_datasets",
    "lerobot_env_scd_world": ROOT / "envs" / "lerobot_env_scd_world",
}
PLUGIN = "lerobot_env_scd_world"  # LeRobot itself imports it
FILES = {file for home in HOMES.values() for file in home.rglob("*.py")}


def module_name(file: Path) -> str:
    package, home = next((name, home) for name, home in HOMES.items() if file.is_relative_to(home))
    return ".".join([package, *file.relative_to(home).with_suffix("").parts]).removesuffix(".__init__")


MODULES = {module_name(file): file for file in FILES}


def names_in(node: ast.AST, module: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{module} imports relatively: name the module in full"
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imports(module: str, anywhere: bool = True) -> frozenset[str]:
    """Dotted names that a module imports; anywhere: inside functions too."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if anywhere else tree.body
    return frozenset(name for node in nodes for name in names_in(node, module))


def tops(module: str, anywhere: bool = True) -> set[str]:
    return {name.partition(".")[0] for name in imports(module, anywhere)}


def closure(*modules: str) -> set[str]:
    """These modules of ours and all of ours that they reach."""
    reached, todo = set(), list(modules)
    while todo:
        module = todo.pop()
        if module in MODULES and module not in reached:
            reached.add(module)
            todo.extend(imports(module))
    return reached


def modules_of(package: str) -> list[str]:
    return sorted(name for name in MODULES if name.partition(".")[0] == package)


def test_the_walk_sees_the_project():
    """An empty walk would let every rule below pass."""
    assert all(len(modules_of(package)) > 3 for package in HOMES if package != PLUGIN)
    assert {
        "scd_world.model.encoder",
        "scd_world.model.decoder",
        "scd_world.robot_data.clip",
    } <= closure("scd_world.model.scd")
    assert "torch" in tops("scd_world.model.scd")


def test_the_model_needs_torch_alone():
    third_party = set().union(*map(tops, closure("scd_world.model.scd"))) - sys.stdlib_module_names
    assert third_party <= {"torch", "einops", "safetensors", "scd_world"}


def test_stepping_a_world_needs_none_of_the_other_packages():
    for module in closure("scd_world.world.world"):
        assert not tops(module) & (set(HOMES) - {"scd_world"}), module


# Which room may import which others: whatever is not named is forbidden. Its own files are free to each.
BASE = {"utils", "reporting", "robot_data", "metrics", "optim"}
CORE = {"objects", "codec", "model", "scene", "prior", "baselines", "world"}
STORE = {"config", "sources", "store", "preparation", "writing"}
ROOMS: dict[str, set[str]] = {
    # scd_world
    "utils": set(),
    "reporting": set(),
    "robot_data": {"utils"},
    "metrics": {"utils"},
    "optim": {"utils"},
    "model": {"robot_data", "utils"},
    "scene": {"model", "optim", "robot_data", "utils"},
    "prior": {"model", "scene"} | BASE,
    "baselines": {"model", "robot_data"},
    "objects": set(),
    "codec": {"objects", "robot_data", "utils", "optim", "metrics"},
    "world": {"codec", "model", "prior", "baselines", "metrics", "robot_data", "utils"},
    "training": CORE | BASE | STORE,
    "benchmark": {"training", "scd_envs"} | CORE | BASE | STORE,
    "rollouts": {"world", "scd_envs", "scd_policies"} | BASE | STORE,
    "play": {"rollouts", "world", "scd_envs", "scd_policies"} | BASE | STORE,
    "ranking": {"world", "scd_envs", "scd_policies"} | BASE,
    "evaluation": {"benchmark", "scd_envs"} | CORE | BASE | STORE,
    "distill": {"evaluation", "benchmark", "training"} | CORE | BASE | STORE,
    "probes": {"evaluation", "benchmark", "training"} | CORE | BASE | STORE,
    # scd_datasets: settings first, then from a recording to a store, and LeRobotDatasets out
    "config": {"utils"},
    "sources": {"config", "robot_data", "utils"},
    "store": {"robot_data", "utils"},
    "preparation": {"config", "sources", "store", "reporting", "robot_data", "utils"},
    "writing": {"preparation", "sources", "robot_data", "utils"},
    "scd_policies": {"utils"},
    "planners": {"scd_policies", "world", "model", "robot_data", "utils"},  # a room inside scd_policies
    "scd_envs": {"world", "model", "robot_data", "utils"},
    "lerobot_env_scd_world": {"scd_envs", "scd_policies", "world", "robot_data"},
}
ANYWHERE = {"demo", "cli"}  # put everything together; cli alone knows the demo


def room(module: str) -> str:
    """scd_world.model.scd → model; a package without rooms is one room, but for those that it names."""
    package, _, rest = module.partition(".")
    inside = rest.partition(".")[0]
    if module.startswith("scd_policies.planners"):
        return inside
    return inside if package in ("scd_world", "scd_datasets") and inside else package


@pytest.mark.parametrize("module", sorted(MODULES))
def test_rooms_import_what_the_table_allows(module):
    mine = room(module)
    if mine in ANYWHERE or module in ("scd_world", "scd_datasets"):
        return
    ours = {name for name in imports(module) if name.partition(".")[0] in HOMES}
    used = {room(name) for name in ours} - {mine, "scd_world"}
    assert used <= ROOMS[mine], f"{module} imports {sorted(used - ROOMS[mine])}"


def test_the_table_has_no_circle():
    reached: dict[str, set[str]] = {}

    def below(name: str, path: tuple[str, ...] = ()) -> set[str]:
        assert name not in path, f"circle: {' → '.join([*path, name])}"
        if name not in reached:
            reached[name] = ROOMS[name].union(*(below(other, (*path, name)) for other in ROOMS[name]))
        return reached[name]

    for name in ROOMS:
        below(name)


def test_no_two_modules_import_each_other():
    """Also not by way of a third, at import time: what a reader has to hold in his head comes one by one."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...] = ()) -> None:
        assert module not in path, " → ".join([*path[path.index(module) :], module])
        if module in done or module not in MODULES:
            return
        for name in sorted(imports(module, anywhere=False) & MODULES.keys()):
            if MODULES[name].name != "__init__.py":
                visit(name, (*path, module))
        done.add(module)

    for module in sorted(MODULES):
        visit(module)


def test_no_room_is_too_large():
    for folder in {file.parent for file in FILES}:
        files = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
        assert len(files) <= 15, f"{folder} has {len(files)} files"


def test_packages_stay_empty_but_for_what_they_hand_on():
    """`import scd_world` costs nothing, and a room's files are imported by name."""
    handing_on = {"scd_world", "scd_world.world", "scd_envs", "scd_envs.simulators", "scd_policies"}
    for module, file in MODULES.items():
        if file.name == "__init__.py" and module not in handing_on | {PLUGIN}:
            body = ast.parse(file.read_text(encoding="utf-8")).body
            assert all(isinstance(node, ast.Expr) for node in body), module


# where each large dependency may appear, by file name
CONFINED = {
    "lerobot": lambda file: file.stem.startswith("lerobot"),
    "zarr": lambda file: file.name in ("store.py", "writer.py", "arrays.py", "zarr_files.py", "starts.py"),
    "hydra": lambda file: file.parent.name == "cli",
}


@pytest.mark.parametrize("dependency", CONFINED)
def test_large_dependencies_live_in_few_files(dependency):
    for module, file in MODULES.items():
        if dependency in tops(module) and room(module) != PLUGIN:
            assert CONFINED[dependency](file), f"{module} imports {dependency}"


def test_lerobot_is_only_imported_inside_functions():
    for module in MODULES:
        assert room(module) == PLUGIN or "lerobot" not in tops(module, anywhere=False), module


def test_nobody_imports_datasets_and_it_is_hugging_faces():
    """A package of ours by that name would overwrite the one that LeRobot needs."""
    assert not [module for module in MODULES if "datasets" in tops(module)]
    origin = Path(importlib.util.find_spec("datasets").origin)
    assert not origin.is_relative_to(ROOT / "datasets")
    assert (origin.parent / "arrow_dataset.py").is_file()
    assert not [home for home in ("envs", "policies", "datasets") if (ROOT / home / "__init__.py").exists()]


def run_python(code: str, environment: Mapping[str, str] | None = None) -> str:
    """What `code` prints in a fresh Python that starts in the project's root."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_datasets_is_hugging_faces_in_the_projects_root():
    origin = run_python("import importlib.util as u; print(u.find_spec('datasets').origin)")
    assert (Path(origin).parent / "arrow_dataset.py").is_file()


LIGHT = {
    "scd_world": ("torch", "numpy"),
    "scd_envs": ("torch", "lerobot", "pymunk", "pygame", "zarr", "scd_world."),  # nothing in it
    "scd_envs.simulators": ("torch", "lerobot", "pymunk"),
    "scd_policies": ("torch", "lerobot", "scd_world."),  # a planner's world is imported with the planner
    "scd_policies.planners.config": ("torch", "lerobot"),
    "scd_datasets": ("torch", "lerobot"),
    "scd_world.training.config": ("torch",),  # a command's --help answers at once
    "scd_world.cli.commands": ("torch", "lerobot", "accelerate", "hydra"),
    "scd_world.cli.run_command": ("torch", "lerobot", "accelerate"),
}


@pytest.mark.parametrize("module", LIGHT)
def test_importing_is_cheap(module):
    loaded = run_python(f"import {module}, sys; print(*sys.modules)").split()
    assert module in loaded
    assert not [name for name in loaded if name.startswith(LIGHT[module])]


@pytest.mark.slow
def test_gymnasium_imports_scd_envs_by_the_ids_prefix():
    make = "gymnasium.make('scd_envs:scd_world/World-v0')"
    printed = run_python(f"import gymnasium\ntry: {make}\nexcept ValueError as e: print(e)")
    assert "an environment of which world?" in printed


@pytest.mark.parametrize("package", ["scd_world", "scd_envs"])
@pytest.mark.parametrize("chosen", [None, "active"])
def test_threads_wait_asleep_unless_the_user_chose_otherwise(package, chosen):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if chosen:
        environment["OMP_WAIT_POLICY"] = chosen
    code = f"import {package}, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    assert run_python(code, environment).split() == [chosen or "passive", "False"]
