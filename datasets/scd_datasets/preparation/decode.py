"""Episodes decoded side by side, and handed on in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from scd_datasets.preparation.checked import CheckedEpisode
from scd_datasets.store.store import free_memory

SHARE_OF_MEMORY = 0.25  # of what is free, that episodes waiting to be written may take
MOST_THREADS = 16


def decoded[T](
    decode: Callable[[CheckedEpisode], T], episodes: Sequence[CheckedEpisode], frame_bytes: int
) -> Iterator[tuple[CheckedEpisode, Future[T]]]:
    """Yields each episode, in order, with the future of what `decode` makes of it.

    As many threads decode as there are cores: decoders let go of Python's lock. frame_bytes: of a frame; no
    more episodes are under way than fit into a quarter of the free memory, and always one.
    """
    threads = min(MOST_THREADS, len(os.sched_getaffinity(0)))
    room = SHARE_OF_MEMORY * free_memory()
    waiting: deque[tuple[CheckedEpisode, Future[T]]] = deque()
    following = iter(episodes)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        upcoming = next(following, None)
        while upcoming is not None or waiting:
            taken = sum(one.episode.length for one, _ in waiting) * frame_bytes
            while upcoming is not None and len(waiting) <= threads:
                size = upcoming.episode.length * frame_bytes
                if waiting and taken + size > room:
                    break
                waiting.append((upcoming, pool.submit(decode, upcoming)))
                taken, upcoming = taken + size, next(following, None)
            yield waiting.popleft()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
