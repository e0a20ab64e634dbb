"""What page and server say to each other over the websocket.

From the page: JSON objects with a "do". To the page: JSON objects with a "say", and frames, binary: the
length of a JSON header (4 bytes, little-endian), the header, and the PNGs whose sizes it names.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

from scd_world.play.session import PlaySession, Refused
from scd_world.play.tape import Tape

ORDERS = (
    "act",  # values, id: the person's action from now on
    "play",
    "pause",
    "step",  # one frame
    "reset",  # episode and frame, or neither; task
    "look",  # step: an earlier or later moment
    "save",
    "load",  # name
    "drive",  # driver: person or policy
    "num_steps",  # value
    "speed",  # value: times the world's own rate; 0: as fast as it goes
    "compare",  # on: the simulator
    "record",  # on: keep every episode
    "keep",  # this episode
    "retry",  # what the folder did not take
    "drawn",  # id: this frame is on the screen
)
LARGEST = 64 * 1024  # bytes of a message from the page


def read_order(text: str) -> dict[str, Any]:
    """Gives an order from the page; Refused for what is none."""
    try:
        order = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"not JSON: {text!r:.60}") from error
    if not isinstance(order, dict) or order.get("do") not in ORDERS:
        raise Refused(f"an order is an object with one of {', '.join(ORDERS)} under 'do'; got {text!r:.60}")
    return order


def frame_message(session: PlaySession, extra: dict[str, Any]) -> bytes:
    """Packs the moment that is looked at, and where the session stands.

    extra: what the player knows beside it, such as its pace.
    """
    moment, tape = session.moment, session.tape
    truth = moment.truth
    pictures = [*moment.pictures, *(truth.pictures if truth else ())]
    header = {
        "sizes": [len(picture) for picture in pictures],
        "cameras": len(moment.pictures),
        "step": session.here,
        "last": len(tape),
        "state": moment.state.tolist(),
        "action": None if moment.action is None else moment.action.tolist(),
        "reward": moment.reward,
        "return": sum(m.reward for m in tape.moments[: session.here + 1]),
        "scalars": moment.scalars,
        "success": moment.success,
        "over": over_reason(session),
        "driver": session.driver,
        "by": moment.driver,
        "num_steps": session.num_steps,
        "start": [tape.address.episode, tape.address.frame],
        "task": tape.address.task,
        "kept": len(tape) <= tape.kept,
        "recording": session.recording,
        "compares": session.compares,
        "truth": truth and {"reward": truth.reward, "success": truth.success, "over": truth.over},
        **extra,
    }
    text = json.dumps(finite(header)).encode()
    return struct.pack("<I", len(text)) + text + b"".join(pictures)


def over_reason(session: PlaySession) -> str | None:
    moment = session.moment
    if moment.terminated:
        return "success"
    return f"{len(session.tape)} steps, the horizon" if moment.truncated else None


def curves(tape: Tape) -> dict[str, list[float | None]]:
    """Gives what the page draws over time, one value for each moment: reward, and each scalar."""
    names = dict.fromkeys(name for moment in tape.moments for name in moment.scalars)
    of_scalars = {name: [moment.scalars.get(name) for moment in tape.moments] for name in names}
    rewards = [moment.reward if step else None for step, moment in enumerate(tape.moments)]
    return finite({"reward": rewards, **of_scalars})


def finite(value: Any) -> Any:
    """Gives plain JSON: what is no number becomes null, which a page can read."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(order: dict[str, Any], name: str, low: float, high: float) -> float:
    """Reads a number of an order; Refused outside [low, high]."""
    value = order.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Refused(f"{name} is a number from {low:g} to {high:g}; got {value!r:.40}")
    return float(value)


def flag(order: dict[str, Any], name: str = "on") -> bool:
    """Reads true or false of an order; Refused for anything else."""
    value = order.get(name)
    if not isinstance(value, bool):
        raise Refused(f"{name} is true or false; got {value!r:.40}")
    return value
