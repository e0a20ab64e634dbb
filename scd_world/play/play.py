"""Opening a world, and the page on which it is driven: `scd-play`."""

from __future__ import annotations

import socket
import webbrowser
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from scd_envs.settings import Settings, task_index
from scd_envs.spaces import action_space
from scd_envs.world_env import world_metadata
from scd_policies import Policy, check_name, is_checkpoint, open_policy
from scd_world.play.config import PlayConfig
from scd_world.play.protocol import LARGEST
from scd_world.play.recorder import Recorder, Target
from scd_world.play.session import predicted_scalars
from scd_world.play.truth import find_simulator
from scd_world.rollouts.imagine import imagined_marks, world_features
from scd_world.utils.devices import pick_device
from scd_world.world.world import World, find_folder

MISSING = "scd-play needs a small web server: pip install 'lerobot_env_scd_world[play]'"


def play(config: PlayConfig) -> None:
    """Serves the page until Ctrl-C (`scd-play`).

    Raises ValueError where the world, its policy's name or its simulator is wrong, or the web server is not
    installed, and OSError where the address is taken.
    """
    try:
        import uvicorn

        from scd_world.play.access import make_token
    except ImportError as error:
        raise ValueError(f"{MISSING} ({error})") from error
    server = make_server(config)
    token = make_token(config)
    listening = listen(config)
    print(announcement(config, listening.getsockname()[1], token), flush=True)
    if config.open_browser:
        webbrowser.open(address(config, listening.getsockname()[1], token))
    options = uvicorn.Config(
        server.app(token, any_host=not config.is_local),
        log_level="warning",
        ws="websockets-sansio",
        ws_max_size=LARGEST,
        ws_per_message_deflate=False,  # pictures are compressed already
        timeout_graceful_shutdown=10,
    )
    with suppress(KeyboardInterrupt):  # the way to end it: everything is closed and written by then
        uvicorn.Server(options).run(sockets=[listening])
    print(farewell(server.recorder))


def make_server(config: PlayConfig) -> Any:
    """Opens the world and all that is played with; nothing is computed yet."""
    from scd_world.play.server import PlayServer

    check_name(config.policy)
    folder, device = find_folder(config.world), pick_device(config.device).type
    world = World.load(folder, device)
    settings = environment_settings(config, world)
    check_policy(config, world)
    return PlayServer(
        world,
        config.world,
        settings,
        Recorder(config.out, make_target(config, world, folder)),
        partial(make_policy, config, world),
        config.policy,
        find_simulator(config.simulator, world),
        config.record,
        config.seed,
        config.max_players,
    )


def environment_settings(config: PlayConfig, world: World) -> dict[str, Any]:
    """Gives the settings of the environments; ValueError where this world cannot follow them."""
    settings = {
        "num_steps": config.num_steps,
        "horizon": config.horizon,
        "success_threshold": config.success_threshold,
        "task": config.task,
    }
    Settings.from_kwargs(settings)
    if config.task is not None:
        task_index(config.task, world.schema.tasks)
    return settings


def check_policy(config: PlayConfig, world: World) -> None:
    """Makes a policy that costs nothing to make, so that a wrong name ends the command."""
    if not is_checkpoint(config.policy):
        make_policy(config, world, config.task or next(iter(world.schema.tasks), None))


def make_policy(config: PlayConfig, world: World, task: str | None) -> Policy:
    """Makes the policy that acts in an episode of this task."""
    tasks = (task,) if task else ()
    asked = task if config.task or len(world.schema.tasks) > 1 else None
    metadata, space = world_metadata(world, None), action_space(world.schema)
    return open_policy(config.policy, config.policy_kwargs, space, metadata, tasks, world.device.type, asked)


def make_target(config: PlayConfig, world: World, folder: Path) -> Target:
    """Says how played episodes are written: as `scd-rollout` writes its own."""
    schema = world.schema
    scalars = predicted_scalars(world)
    marks = imagined_marks(config.world, folder)
    recipe = {"command": "scd-play", "world_sha256": marks["world_sha256"], "video": config.store_as_video}
    features = world_features(schema, scalars, config.store_as_video)
    return Target(schema, features, scalars, recipe, marks, dict(config.policy_kwargs), config.store_as_video)


# ---- the address -----------------------------------------------------------------------------------------


def listen(config: PlayConfig) -> socket.socket:
    """Takes the address; OSError that says what to do where it is taken."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((config.host, config.port))
        listening.listen()  # whoever comes from now on is answered as soon as the server runs
    except (OSError, OverflowError) as error:
        listening.close()
        raise OSError(
            f"{config.host} port {config.port} cannot be served from ({error}): give another port=, or "
            "port=0 for any free one"
        ) from error
    return listening


def address(config: PlayConfig, port: int, token: str | None) -> str:
    """Gives what is typed into a browser."""
    host = socket.gethostname() if config.host in ("0.0.0.0", "::") else config.host
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}/" + (f"?token={token}" if token else "")


def announcement(config: PlayConfig, port: int, token: str | None) -> str:
    lines = [f"{config.world} is at {address(config, port, token)}"]
    if not config.is_local:
        lines.append("whoever has this address drives; it is not encrypted, so use it in a network you trust")
    kept = "every episode is" if config.record else "what you keep is"
    lines.append(f"{kept} written to {config.out}; Ctrl-C ends")
    return "\n".join(lines)


def farewell(recorder: Recorder) -> str:
    """Says what stays."""
    if not recorder.written:
        return "ended: nothing was kept"
    episodes = "1 episode" if recorder.written == 1 else f"{recorder.written} episodes"
    return f"ended: {episodes} kept in {recorder.out} (LeRobotDataset v3, marked as imagined)"
