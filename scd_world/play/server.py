"""The page and its websocket: which browser drives which session. Each browser has an environment of its own.

All of them share one world and one thread in which it is stepped, so that two browsers are half as fast, and
neither disturbs the other's episode. A browser that comes back, after a lost line or a reload, finds its
session as it left it; it stays until its place is needed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from scd_policies import Policy
from scd_world.play.access import Access
from scd_world.play.controls import controls_of
from scd_world.play.pictures import to_png
from scd_world.play.player import Player
from scd_world.play.recorder import Recorder
from scd_world.play.session import PlaySession, predicted_scalars
from scd_world.play.truth import open_simulator
from scd_world.world.world import World

log = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"
TRY_AGAIN_LATER = 1013  # websocket's code
AN_HOUR = {"cache-control": "private, max-age=3600"}


class Owner:
    """Carries what the recorder says, in its thread, to the player whose episode it was."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.player: Player | None = None
        self.saying: set[asyncio.Task[None]] = set()  # the loop alone would forget them

    def tell(self, recorder: Recorder) -> Callable[[str, str], None]:
        def say(level: str, text: str) -> None:
            player = self.player
            if player is not None and not self.loop.is_closed():
                told = {"say": "kept", "level": level, "text": text, "unsaved": len(recorder.unsaved)}
                self.loop.call_soon_threadsafe(self.pass_on, player, told)

        return say

    def pass_on(self, player: Player, told: dict[str, Any]) -> None:
        task = self.loop.create_task(player.tell(told))
        self.saying.add(task)
        task.add_done_callback(self.saying.discard)


class PlayServer:
    """Gives each browser its player.

    settings: of the environments. policy: makes one for a task, named `policy_name`. simulator: its name, or
    None, and `about_simulator` says why. recorder: where kept episodes go; recording: whether each is kept
    from the beginning. most: players at once.
    """

    def __init__(
        self,
        world: World,
        name: str,
        settings: dict[str, Any],
        recorder: Recorder,
        policy: Callable[[str | None], Policy] | None = None,
        policy_name: str = "",
        simulator: tuple[str | None, str] = (None, ""),
        recording: bool = False,
        seed: int = 0,
        most: int = 4,
    ) -> None:
        self.world, self.name, self.settings, self.recorder = world, name, settings, recorder
        self.policy, self.policy_name = policy, policy_name
        self.simulator, self.about_simulator = simulator
        self.recording, self.seed, self.most = recording, seed, most
        self.controls = controls_of(world)
        self.players: dict[str, Player] = {}
        self._seating = asyncio.Lock()  # of the places
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="world")

    def app(self, token: str | None = None, any_host: bool = False) -> Starlette:
        """Makes the web application; `token` and `any_host` as in `access.Access`."""
        return Starlette(
            routes=[
                Route("/", self.page),
                Route("/start/{episode:int}/{frame:int}/{camera:int}.png", self.start_picture),
                WebSocketRoute("/drive", self.drive),
                Mount("/static", StaticFiles(directory=STATIC)),
            ],
            middleware=[Middleware(Access, token=token, any_host=any_host)],
            lifespan=self._lifespan,
        )

    async def work[T](self, function: Callable[..., T], *args: Any) -> T:
        """Runs a function in the world's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    # ---- what is asked for -----------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def start_picture(self, request: Request) -> Response:
        """Gives a camera's frame of a recorded start."""
        starts = self.world.starts
        row = starts.rows.get((request.path_params["episode"], request.path_params["frame"]))
        camera = request.path_params["camera"]
        if row is None or camera >= starts.pixels.shape[1]:
            return PlainTextResponse("this world has no such start", status_code=404)
        return Response(to_png(starts.pixels[row, camera]), media_type="image/png", headers=AN_HOUR)

    async def drive(self, socket: WebSocket) -> None:
        """Lets a browser drive until it leaves."""
        await socket.accept()
        async with self._seating:
            asked = socket.query_params
            player = await self.seat(asked.get("player", ""), page := asked.get("page", ""))
        if player is None:
            text = f"{self.most} browsers drive already, which is all that max_players allows: come later"
            await socket.send_json({"say": "message", "level": "error", "text": text})
            await socket.close(TRY_AGAIN_LATER, text[:120])
            return
        await player.serve(socket, page)

    async def seat(self, name: str, page: str) -> Player | None:
        """Gives a browser its player: the one it had, or a new one; None where all places are taken.

        A page that comes again has lost its line, even if nobody noticed; a copy of it is another page.
        """
        had = self.players.get(name)
        if had is not None and page and had.page == page:
            await had.give_way()
        if had is not None and had.socket is None:
            return had
        if len(self.players) >= self.most:
            left = [player for player in self.players.values() if player.socket is None]
            if not left:
                return None
            await self.work(self.players.pop(left[0].name).session.close)
        session = await self.work(self.make_session, fresh := Owner(asyncio.get_running_loop()))
        player = Player(secrets.token_urlsafe(9), session, self.controls, self.hello(), self.work)
        player.retry = self.recorder.retry
        fresh.player = player
        self.players[player.name] = player
        return player

    # ---- what they get ---------------------------------------------------------------------------------

    def make_session(self, owner: Owner) -> PlaySession:
        """Makes a session; in the world's thread."""
        return PlaySession(
            self.world,
            self.settings,
            self.seed,
            self.policy,
            self.policy_name,
            open_simulator(self.simulator, self.world) if self.simulator else None,
            lambda tape: self.recorder.keep(tape, owner.tell(self.recorder)),
            self.recording,
        )

    def hello(self) -> dict[str, Any]:
        """Gives what a page has to know of the world before the first frame."""
        schema, starts = self.world.schema, self.world.starts
        episodes: dict[int, list[int]] = {}
        for episode, frame in starts.addresses.tolist():
            episodes.setdefault(episode, []).append(frame)
        return {
            "say": "hello",
            "world": self.name,
            "cameras": list(schema.cameras),
            "views": {name: list(view) for name, view in schema.views.items()},  # top, left, height, width
            "height": schema.height,
            "width": schema.width,
            "fps": schema.fps,
            "controls": [control.to_dict() for control in self.controls],
            "state": list(schema.state),
            "tasks": list(schema.tasks),
            "reward": schema.reward,
            "scalars": predicted_scalars(self.world),
            "starts": [{"episode": e, "frames": frames} for e, frames in episodes.items()],
            "policy": self.policy_name if self.policy else None,
            "simulator": self.simulator,
            "about_simulator": self.about_simulator,
            "out": str(self.recorder.out),
            "device": self.world.device.type,
        }

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        for player in self.players.values():
            await self.work(player.session.close)
        self._thread.shutdown()
        await asyncio.to_thread(self.recorder.close)
