"""One browser and its session: what it orders is done, one frame follows the other at the world's own rate.

At most two frames are on their way at any time, so a slow line or a slow browser slows the episode down
instead of letting it run ahead of what is seen.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect

from scd_world.play import protocol
from scd_world.play.controls import Control, at_rest
from scd_world.play.session import PlaySession, Refused

AHEAD = 2  # frames that may be on their way
PATIENCE = 2.0  # seconds after which a frame counts as drawn, whatever the browser says
RATE_OVER = 20  # frames over which the rate is measured
FASTEST = 16.0  # times the world's own rate
Say = dict[str, Any]


class Worker(Protocol):
    """Runs a function in the one thread in which models are stepped."""

    def __call__[T](self, function: Callable[..., T], *args: Any) -> Awaitable[T]: ...


class Player:
    """Keeps a session's pace, and carries orders and frames between it and the browser.

    name: by which a browser that comes back finds its session again.
    hello: what the page is told first.
    """

    def __init__(
        self, name: str, session: PlaySession, controls: list[Control], hello: Say, worker: Worker
    ) -> None:
        self.name, self.session, self.hello, self.worker = name, session, hello, worker
        self.controls = controls
        self.action: Any = at_rest(controls, session.moment)  # the person's
        self.input: int | None = None  # number of the page's last action, and of the last that was taken
        self.taken: int | None = None
        self.playing, self.speed = False, 1.0
        self.retry: Callable[[], None] | None = None  # writes once more what could not be written
        self.socket: WebSocket | None = None
        self.page = ""
        self._ids = itertools.count(1)
        self._sent = self._drawn = 0
        self._times: deque[float] = deque(maxlen=RATE_OVER)  # of the last frames, in seconds
        self._lock = asyncio.Lock()  # of the session, and of the order in which frames leave
        self._wake, self._seen = asyncio.Event(), asyncio.Event()
        self._staying, self._left = anyio.CancelScope(), asyncio.Event()  # of the browser that plays

    # ---- coming and going ------------------------------------------------------------------------------

    async def serve(self, socket: WebSocket, page: str) -> None:
        """Plays until the browser leaves; what was played is kept then, where recording is on. page: the
        browser's name for the page that it shows."""
        self.socket, self.page, self._sent, self._drawn = socket, page, 0, 0
        staying, left = self._staying, self._left = anyio.CancelScope(), asyncio.Event()
        try:
            with staying:
                await self.say(self.hello | {"player": self.name, "speed": self.speed})
                await self.show_elsewhere()
                if self.session.unsaid:
                    await self.complain(self.session.unsaid)
                    self.session.unsaid = ""
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._listen, socket)
                    tasks.start_soon(self._drive)
        except* WebSocketDisconnect:
            pass
        finally:
            if self.socket is socket:  # another one may have come meanwhile
                self.playing, self.socket = False, None
            with anyio.CancelScope(shield=True):  # a server that ends cancels what it serves
                await self.worker(self.session.leave)
            left.set()
        if staying.cancelled_caught:
            with suppress(WebSocketDisconnect, RuntimeError):
                await socket.close()

    async def give_way(self) -> None:
        """Ends the line to the browser, where nobody noticed that it was lost."""
        if self.socket is not None:
            self._staying.cancel()
            await self._left.wait()

    async def say(self, message: Say) -> None:
        """Sends a JSON message; to nobody, where the browser has left."""
        if self.socket is not None:
            await self.socket.send_json(protocol.finite(message))

    async def tell(self, message: Say) -> None:
        """Says what has no order to answer, whether or not the browser is still there."""
        with suppress(WebSocketDisconnect):
            await self.say(message)

    async def complain(self, text: str) -> None:
        await self.say({"say": "message", "level": "error", "text": text})

    async def show(self) -> None:
        """Sends the moment that is looked at."""
        self._sent = next(self._ids)
        period = self._times[-1] - self._times[0] if len(self._times) > 1 else 0.0
        extra = {
            "id": self._sent,
            "input": self.taken,
            "playing": self.playing,
            "rate": (len(self._times) - 1) / period if period else None,
            "step_ms": 1000 * self.session.step_seconds,
        }
        if self.socket is not None:
            await self.socket.send_bytes(protocol.frame_message(self.session, extra))

    async def show_elsewhere(self) -> None:
        """Sends all that the page knows of an episode, after a jump to another; the hand is still."""
        self.action = at_rest(self.controls, self.session.moment)
        await self.say({"say": "hand", "values": self.action})
        await self.say({"say": "curves", "curves": protocol.curves(self.session.tape)})
        await self.say({"say": "saves", "saves": [described(s) for s in self.session.saves.values()]})
        await self.show()

    # ---- one frame after the other ---------------------------------------------------------------------

    async def _drive(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            if not self.playing:
                self._times.clear()
                self._wake.clear()
                await self._wake.wait()
            began = clock()
            async with self._lock:
                if self.playing:
                    await self._advance()
            await self._line_is_free()
            period = 1 / (self.session.schema.fps * self.speed) if self.speed else 0.0
            await asyncio.sleep(max(0.0, began + period - clock()))

    async def _advance(self) -> None:
        number = self.input
        try:
            moment = await self.worker(self.session.step, self.action)
        except (Refused, FloatingPointError) as error:
            self.playing = False
            await self.complain(str(error))
        else:
            self.taken = number
            self.playing = self.playing and not moment.over
            self._times.append(asyncio.get_running_loop().time())
        await self.show()

    async def _line_is_free(self) -> None:
        """Returns when few enough frames are on their way."""
        while self._sent - self._drawn >= AHEAD:
            self._seen.clear()
            try:
                await asyncio.wait_for(self._seen.wait(), PATIENCE)
            except TimeoutError:
                self._drawn = self._sent

    # ---- orders ----------------------------------------------------------------------------------------

    async def _listen(self, socket: WebSocket) -> None:
        while True:
            text = await socket.receive_text()
            try:
                await self._obey(protocol.read_order(text))
            except Refused as error:
                await self.complain(str(error))

    async def _obey(self, order: Say) -> None:
        do = order["do"]
        if do == "act":
            self.action, self.input = order.get("values"), order.get("id")
        elif do == "drawn":
            self._drawn = max(self._drawn, int(protocol.number(order, "id", 0, self._sent)))
            self._seen.set()
        elif do == "speed":
            self.speed = protocol.number(order, "value", 0, FASTEST)
            self._times.clear()
        else:
            async with self._lock:
                await self._obey_alone(do, order)

    async def _obey_alone(self, do: str, order: Say) -> None:
        """Does what changes the session, while nothing else does."""
        session = self.session
        if do == "play":
            if session.moment.over:
                raise Refused("this episode is over: rewind, go back to a save point, or start again")
            self.playing = True
            self._wake.set()
        elif do == "pause":
            self.playing = False
        elif do == "step":
            self.playing = False
            return await self._advance()
        elif do == "look":
            self.playing = False
            await self.worker(session.look_at, order.get("step"))
        elif do == "reset":
            start = (order.get(key) for key in ("episode", "frame", "task"))
            return await self._go(session.reset, *start)
        elif do == "save":
            return await self._go(session.save)
        elif do == "load":
            return await self._go(session.load, order.get("name"))
        elif do == "drive":
            await self.worker(session.drive_by, order.get("driver"))
        elif do == "num_steps":
            await self.worker(session.set_num_steps, order.get("value"))
        elif do == "compare":
            await self.worker(session.compare, protocol.flag(order))
        elif do == "record":
            session.recording = protocol.flag(order)
        elif do == "keep":
            if not await self.worker(session.keep):
                raise Refused("nothing new was played: there is nothing to keep")
        elif do == "retry" and self.retry is not None:
            self.retry()
        await self.show()

    async def _go(self, function: Callable[..., Any], *args: Any) -> None:
        """Goes elsewhere, and shows it, also where a policy or a simulator does not follow there."""
        try:
            await self.worker(function, *args)
        finally:
            await self.show_elsewhere()


def described(saved: Any) -> Say:
    """Gives a save point as the page shows it."""
    tape = saved.tape
    picture = base64.b64encode(tape.moments[-1].pictures[0]).decode()
    return {"name": saved.name, "step": len(tape), "picture": f"data:image/png;base64,{picture}"}
