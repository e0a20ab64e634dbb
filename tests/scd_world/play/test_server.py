"""Page and server: who is let in, what orders do, browsers that come, leave in the middle, and come back."""

from __future__ import annotations

import itertools
import json
import struct
import time
from contextlib import contextmanager

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from scd_world.play.config import PlayConfig
from scd_world.play.server import PlayServer

HERE = "http://127.0.0.1:8765"
DRIVE = f"{HERE.replace('http', 'ws')}/drive"
SETTINGS = {"horizon": 1000, "success_threshold": 1.0}


@pytest.fixture
def serve(world, shelf):
    """serve(…): a client of a server of that world; what is kept lies in `shelf`."""

    @contextmanager
    def start(of=None, token=None, any_host=False, base_url=HERE, **arguments):
        server = PlayServer(of or world, "a/world", SETTINGS, shelf, **arguments)
        with TestClient(server.app(token, any_host), base_url=base_url) as client:
            yield client

    return start


class Page:
    """What a page would do: orders out, messages and frames in."""

    first = 1

    def __init__(self, socket) -> None:
        self.socket = socket
        self.numbers = itertools.count(Page.first)
        Page.first += 1000  # a page that comes back numbers its actions anew
        self.hello = self.until("hello")
        self.frame = self.until("frame")

    def order(self, do: str, **values) -> None:
        self.socket.send_text(json.dumps({"do": do, **values}))

    def until(self, say: str):
        """The next message of this kind; a frame's header."""
        while True:
            message = self.socket.receive()
            if "text" in message and message["text"] is not None:
                told = json.loads(message["text"])
                assert say == "message" or told["say"] != "message", told
                if told["say"] == say:
                    return told
            elif "bytes" in message:
                (length,) = struct.unpack_from("<I", message["bytes"])
                header = json.loads(message["bytes"][4 : 4 + length])
                assert len(message["bytes"]) == 4 + length + sum(header["sizes"])
                self.order("drawn", id=header["id"])
                if say == "frame":
                    return header
            else:
                raise WebSocketDisconnect(message["code"], message.get("reason"))

    def step(self, values, number=None):
        """The frame that answers this very action: earlier orders' frames may still be on their way."""
        number = next(self.numbers) if number is None else number
        self.order("act", values=values, id=number)
        self.order("step")
        while (header := self.until("frame"))["input"] != number:
            pass
        return header


@contextmanager
def page(client, player="", page=""):
    with client.websocket_connect(f"{DRIVE}?player={player}&page={page}") as socket:
        yield Page(socket)


def test_a_page_is_told_what_it_needs_and_shown_what_it_orders(serve):
    with serve() as client, page(client) as one:
        assert one.hello["cameras"] == ["top", "wrist"]
        assert [control["name"] for control in one.hello["controls"]] == ["dx", "dy"]
        assert one.hello["starts"][0] == {"episode": 3, "frames": list(range(12))}
        assert one.frame["step"] == 0
        assert one.frame["cameras"] == 2
        header = one.step([1, -1], number=7)
        assert (header["step"], header["action"], header["input"]) == (1, [1, -1], 7)
        assert len(header["state"]) == 3
        one.order("reset", episode=5, frame=2)
        assert one.until("hand")["values"] == [0, 0]
        assert one.until("frame")["start"] == [5, 2]
        one.order("num_steps", value=4)
        assert one.until("frame")["num_steps"] == 4


def test_frames_follow_each_other_while_it_plays(serve):
    with serve() as client, page(client) as one:
        one.order("speed", value=0)
        one.order("act", values=[0.5, 0], id=1)
        one.order("play")
        frames = [one.until("frame") for _ in range(6)]
        assert [f["step"] for f in frames[1:]] == [frames[0]["step"] + i for i in range(1, 6)]
        assert frames[-1]["rate"] > 0
        one.order("pause")
        while one.until("frame")["playing"]:
            pass
        one.order("look", step=2)
        header = one.until("frame")
        assert (header["step"], header["playing"]) == (2, False)
        assert header["last"] >= 5


def test_a_page_that_draws_nothing_is_waited_for(serve, monkeypatch):
    """A slow line must not let the episode run ahead of what is seen."""
    monkeypatch.setattr("scd_world.play.player.PATIENCE", 60.0)
    with serve() as client, page(client) as one:
        one.order = lambda do, **values: do == "drawn" or Page.order(one, do, **values)
        one.order("speed", value=0)
        one.order("play")
        assert [one.until("frame")["step"] for _ in range(2)] == [0, 1]
        time.sleep(0.2)  # in which many steps could be taken
        one.order("look", step=1)
        header = one.until("frame")
        assert header["last"] == 1
        one.order("play")
        one.until("frame")
        Page.order(one, "drawn", id=header["id"] + 1)
        assert one.until("frame")["step"] == 2


@pytest.mark.parametrize(
    "wrong",
    [
        "nonsense",
        "[1]",
        "[" * 50_000,
        '{"do": "fly"}',
        '{"do": "speed", "value": "fast"}',
        '{"do": "speed", "value": 1e9}',
        '{"do": "drawn", "id": 1e9}',
        '{"do": "record", "on": 1}',
        '{"do": "reset", "episode": "x"}',
        '{"do": "reset", "episode": 999}',
        '{"do": "look", "step": 5}',
        '{"do": "load", "name": {}}',
        '{"do": "load", "name": "1"}',
        '{"do": "drive", "driver": []}',
        '{"do": "num_steps", "value": null}',
        '{"do": "compare", "on": true}',
        '{"do": "keep"}',
    ],
)
def test_a_wrong_order_is_answered_and_nothing_else_happens(serve, wrong):
    with serve() as client, page(client) as one:
        one.socket.send_text(wrong)
        assert one.until("message")["level"] == "error"
        assert one.step([0, 0])["step"] == 1


def test_a_wrong_action_pauses_and_says_why(serve):
    with serve() as client, page(client) as one:
        one.order("act", values=["a"], id=1)
        one.order("play")
        assert "an action is 2 finite numbers" in one.until("message")["text"]
        assert one.until("frame")["step"] == 0


def test_two_browsers_do_not_disturb_each_other(serve):
    """Each sees what it would see alone."""
    with serve() as client, page(client) as alone:
        expected = [alone.step([1, 0])["state"] for _ in range(3)]
    with serve() as client, page(client) as one, page(client) as two:
        found = []
        for _ in range(3):
            found.append(one.step([1, 0])["state"])
            two.step([-1, 1])
        two.order("reset", episode=8, frame=1)
        two.until("frame")
    assert found == expected


def test_what_a_browser_played_before_it_left_is_kept_and_it_finds_it_again(serve, shelf):
    with serve(recording=True) as client:
        with page(client) as one:
            one.step([1, 0])
            left = one.step([1, 1])
            one.order("save")
            one.until("saves")
            name = one.hello["player"]
        assert [len(tape) for tape in shelf.taken] == [2]
        with page(client, name) as again:
            assert again.frame["state"] == left["state"]
            assert again.hello["player"] == name
            assert again.step([0, 0])["step"] == 3
        with page(client, name) as again, page(client, name) as copied_tab:
            assert copied_tab.hello["player"] != name
            assert copied_tab.frame["step"] == 0
            again.step([0, 0])
    assert [len(tape) for tape in shelf.taken] == [2, 3, 4]


def test_a_page_whose_line_was_lost_without_a_word_finds_its_episode(serve, shelf):
    """The server had not noticed, and gave it a new one; the old one was lost, and its place taken."""
    with serve(most=2) as client, page(client, page="a") as one:
        one.step([1, 0])
        left = one.step([1, 1])
        name = one.hello["player"]
        with page(client, name, "b") as copied_tab:
            assert copied_tab.hello["player"] != name
        with page(client, name, "a") as again:
            assert again.hello["player"] == name
            assert again.frame["state"] == left["state"]
            assert again.step([0, 0])["step"] == 3
            with pytest.raises(WebSocketDisconnect):
                one.step([0, 0])
        with page(client, name, "a") as once_more:
            assert once_more.frame["step"] == 3


def test_a_full_house_says_so_and_a_place_that_was_left_is_given_away(serve, shelf):
    with serve(most=1) as client:
        with page(client) as one:
            one.step([0, 0])
            with client.websocket_connect(DRIVE) as refused:
                assert "max_players" in refused.receive_json()["text"]  # for the page to show
                assert refused.receive()["code"] == 1013
            name = one.hello["player"]
        with page(client) as two:
            assert two.hello["player"] != name
            assert two.frame["step"] == 0


def test_what_is_played_when_the_server_ends_is_kept(serve, shelf):
    with serve() as client, page(client) as one:
        one.order("record", on=True)
        one.until("frame")
        one.step([0, 0])
        one.order("keep")
        assert one.until("kept")["text"] == "kept"
        one.step([0, 0])
    until = time.monotonic() + 20  # the last episode is kept by the server's own thread
    while len(shelf.taken) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert [len(tape) for tape in shelf.taken] == [1, 2]


def test_a_world_without_reward_says_so(serve, bare_world):
    with serve(of=bare_world) as client, page(client) as one:
        told = one.hello
        assert (told["reward"], told["scalars"], told["state"]) == (False, [], [])
        assert one.step([0, 0])["scalars"] == {}


def test_thumbnails_are_the_recorded_frames(serve, world):
    from scd_world.play.pictures import from_png

    with serve() as client:
        found = client.get("/start/5/2/1.png")
        row = world.starts.rows[5, 2]
        assert (from_png(found.content) == world.starts.pixels[row, 1]).all()
        for missing in (
            "/start/5/99/0.png",
            "/start/5/2/2.png",
            "/static/../server.py",
            "/static/%2e%2e/server.py",
        ):
            assert client.get(missing).status_code == 404
        for name in ("", "static/page.js", "static/play.css", "static/icon.svg"):
            assert client.get(f"/{name}").status_code == 200
        assert "default-src 'self'" in client.get("/").headers["content-security-policy"]


def test_other_sites_and_rebound_names_are_kept_out(serve):
    with serve() as client:
        assert client.get("/", headers={"host": "evil.example"}).status_code == 403
        assert client.get("/", headers={"host": "localhost:8765"}).status_code == 200
        assert client.get("/", headers={"host": "[::1]:8765"}).status_code == 200
        for origin in ("http://evil.example", "http://127.0.0.1:9999", "null"):
            with (
                pytest.raises(WebSocketDisconnect) as closed,
                client.websocket_connect("/drive", headers={"origin": origin, "host": "127.0.0.1:8765"}),
            ):
                pass
            assert closed.value.code == 1008
        with client.websocket_connect("/drive", headers={"origin": HERE, "host": "127.0.0.1:8765"}) as socket:
            assert socket.receive_json()["say"] == "hello"


def test_where_others_can_reach_it_everything_asks_for_the_token(serve):
    robot = "http://robot.lab:8765"
    with serve(token="a-long-secret", any_host=True, base_url=robot) as client:
        for path in ("/", "/static/page.js", "/start/5/2/0.png", "/?token=a-wrong-secret"):
            assert client.get(path).status_code == 403
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/drive"):
            pass
        entered = client.get("/?token=a-long-secret", follow_redirects=False)
        assert (entered.status_code, entered.headers["location"]) == (303, "/")  # out of the address bar
        assert "httponly" in entered.headers["set-cookie"].lower()
        assert client.get("/").status_code == 200  # by the cookie
        with client.websocket_connect("/drive", headers={"cookie": "scd_play=a-long-secret"}) as socket:
            assert socket.receive_json()["say"] == "hello"


def test_a_host_that_others_reach_gets_a_token_by_itself():
    from scd_world.play.access import make_token

    assert make_token(PlayConfig(world="w")) is None
    assert make_token(PlayConfig(world="w", host="::1")) is None
    assert make_token(PlayConfig(world="w", token="a-long-secret")) == "a-long-secret"
    made = {make_token(PlayConfig(world="w", host="0.0.0.0")) for _ in range(3)}
    assert len(made) == 3
    assert min(map(len, made)) > 20
    with pytest.raises(ValueError, match="8 characters"):
        PlayConfig(world="w", token="short")
