"""The window store: what a window holds, where it may start, and that damage is never silent."""

import errno
from dataclasses import replace

import numpy as np
import psutil
import pytest
import zarr

from scd_datasets.store import arrays
from scd_datasets.store.store import WindowStore, free_memory
from scd_datasets.store.writer import write_store
from scd_world.utils.atomic_folder import DamagedFolder

LENGTHS = (12, 30, 7, 21)  # of the store fixture


def test_what_a_killed_writer_left_is_cleared_away(tmp_path, schema, numbered):
    left = tmp_path / ".s.zarr.scd-tmp" / "pixels"
    left.mkdir(parents=True)
    write_store(tmp_path / "s.zarr", schema, [numbered(0, 5, schema)])
    assert not left.exists()
    assert WindowStore.open(tmp_path / "s.zarr").lengths.tolist() == [5]


def test_memory_is_what_the_container_leaves_shared_among_its_processes(tmp_path, monkeypatch):
    free = psutil.virtual_memory().available
    assert free_memory(tmp_path / "none") == pytest.approx(free, rel=0.1)
    for name, text in {"max": "1000000", "current": "700000", "stat": "anon 1\ninactive_file 100000"}.items():
        (tmp_path / f"memory.{name}").write_text(text + "\n")
    assert free_memory(tmp_path) == 400_000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(tmp_path) == 100_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(tmp_path) == pytest.approx(free / 4, rel=0.1)


def every_window(num_steps):
    return np.array([(e, f) for e, length in enumerate(LENGTHS) for f in range(length - num_steps + 1)]).T


@pytest.mark.parametrize("in_memory", [True, False])
def test_action_i_is_taken_at_frame_i_and_no_window_crosses_an_episode(store, in_memory):
    store = WindowStore.open(store.path, in_memory)
    episodes, frames = every_window(num_steps=5)
    windows = store.windows(episodes, frames, 5)
    steps = frames[:, None] + np.arange(6)
    shown = np.minimum(steps, np.array(LENGTHS)[episodes][:, None] - 1)  # the last frame is repeated
    assert (windows["pixels"][..., 0] == episodes[:, None, None, None, None]).all()
    assert (windows["pixels"][..., 1] == shown[:, :, None, None, None]).all()
    assert (windows["pixels"][..., 2] == np.arange(2)[:, None, None]).all()
    number = 1000 * episodes[:, None] + steps[:, :-1]
    assert (windows["action"] == np.stack([number, -number], -1)).all()
    assert (windows["reward"] == number).all()
    assert (windows["state"][..., 0] == 1000 * episodes[:, None] + shown).all()
    # One frame earlier; at an episode's first frame nothing has moved, and no action was taken.
    earlier, first = number[:, 0] - 1, frames == 0
    assert (windows["prev"][:, 0] == np.where(first, earlier + 1, earlier)).all()
    assert (windows["prev"][~first, -2] == earlier[~first]).all()
    assert np.isnan(windows["prev"][first, -2:]).all()


def test_only_the_step_that_ends_its_episode_is_not_valid(store):
    windows = store.windows(np.array([0, 0]), np.array([6, 7]), 5)
    assert windows["valid"][0].all()
    assert windows["valid"][1].tolist() == [True] * 4 + [False]
    assert windows["success"][1].tolist() == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("episode", "frame", "num_steps"), [(0, 8, 5), (0, -1, 5), (2, 0, 8), (4, 0, 1), (0, 0, 0)]
)
def test_a_window_outside_its_episode_is_refused(store, episode, frame, num_steps):
    with pytest.raises(ValueError, match="episode"):
        store.windows(np.array([episode]), np.array([frame]), num_steps)


def test_ram_and_stream_give_the_same(store):
    episodes, frames = every_window(num_steps=3)
    ram, disk = (WindowStore.open(store.path, flag).windows(episodes, frames, 3) for flag in (True, False))
    for name in ram:
        np.testing.assert_array_equal(ram[name], disk[name])


def test_split_is_by_episode_disjoint_and_deterministic(store):
    train, held_out = store.split(0.25, seed=3)
    assert len(held_out) == 1
    assert sorted([*train, *held_out]) == list(range(len(LENGTHS)))
    again = WindowStore.open(store.path).split(0.25, seed=3)
    assert np.array_equal(train, again[0])
    assert np.array_equal(held_out, again[1])
    assert {store.split(0.25, seed)[1][0] for seed in range(30)} == set(range(len(LENGTHS)))


def test_an_episode_keeps_its_side_when_others_are_added(tmp_path, schema, numbered):
    """Otherwise a longer recording would train on what an earlier evaluation held out."""
    episodes = [numbered(i, 5, schema) for i in range(20)]
    few = write_store(tmp_path / "few.zarr", schema, episodes[:10]).split(0.2)[1]
    many = write_store(tmp_path / "many.zarr", schema, episodes).split(0.2)[1]
    assert len(many) == 4
    assert all(few_lot < 10 for few_lot in few)
    ranks = np.argsort([np.random.default_rng([0, i]).random() for i in range(10)])
    assert set(many[many < 10]) <= set(ranks[:4])


def test_too_few_episodes_to_hold_one_out(tmp_path, schema, numbered):
    store = write_store(tmp_path / "one.zarr", schema, [numbered(0, 5, schema)])
    with pytest.raises(ValueError, match="holdout=0"):
        store.split()
    assert len(store.split(0)[0]) == 1


def test_more_than_one_shard(tmp_path, schema, monkeypatch, numbered):
    """Episodes straddle shards: the frame that opens a new shard must not be lost or doubled."""
    monkeypatch.setattr(arrays, "SHARD_FRAMES", 16)
    episodes = [numbered(i, 13, schema) for i in range(7)]
    store = write_store(tmp_path / "shards.zarr", schema, episodes)
    assert len(list((store.path / "pixels" / "c").iterdir())) == 6
    whole = WindowStore.open(store.path, True).windows(np.arange(7), np.zeros(7, int), 13)["pixels"][:, :-1]
    assert np.array_equal(whole, np.stack([episode.pixels for episode in episodes]))


def test_fingerprint_follows_content(tmp_path, schema, numbered):
    def fingerprint(name, episode):
        return write_store(tmp_path / name, schema, [episode]).fingerprint

    episode = numbered(0, 5, schema)
    pixels = episode.pixels.copy()
    pixels[2, 0, 3, 3, 0] += 1
    assert fingerprint("a", episode) == fingerprint("b", episode)
    assert fingerprint("a", episode) != fingerprint("c", replace(episode, pixels=pixels))


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("array", ["pixels", "action"])
def test_every_flipped_byte_raises(tmp_path, schema, array, in_memory, numbered):
    noise = np.random.default_rng(0)
    episode = numbered(0, 16, schema)
    episode = replace(episode, pixels=noise.integers(0, 255, episode.pixels.shape, np.uint8))
    store = write_store(tmp_path / "flip.zarr", schema, [episode])
    (shard,) = [file for file in (store.path / array / "c").rglob("*") if file.is_file()]
    whole = shard.read_bytes()
    for at in np.linspace(0, len(whole) - 1, 25).astype(int):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << noise.integers(8)
        shard.write_bytes(damaged)
        with pytest.raises(DamagedFolder, match=f"flip.zarr.*{array}"):
            WindowStore.open(store.path, in_memory).windows(np.array([0, 0]), np.array([0, 8]), 8)


def test_a_missing_shard_raises(store):
    (shard,) = [file for file in (store.path / "pixels" / "c").rglob("*") if file.is_file()]
    shard.unlink()
    with pytest.raises(DamagedFolder, match="damaged or missing"):
        WindowStore.open(store.path, False).windows(np.array([0]), np.array([0]), 3)


def test_black_frames_are_not_missing_frames(tmp_path, schema, numbered):
    episode = numbered(0, 20, schema)
    store = write_store(
        tmp_path / "black.zarr", schema, [replace(episode, pixels=np.zeros_like(episode.pixels))]
    )
    assert not WindowStore.open(store.path, False).windows(np.array([0]), np.array([0]), 3)["pixels"].any()


def test_full_disk_while_writing_leaves_the_earlier_store(store, schema, monkeypatch, numbered):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    def episodes():
        yield numbered(0, 5, schema)
        monkeypatch.setattr(zarr.Array, "__setitem__", full)

    with pytest.raises(OSError, match="No space left"):
        write_store(store.path, schema, episodes())
    left = [file.name for file in store.path.parent.iterdir() if not file.name.startswith(".")]
    assert left == [store.path.name]
    assert WindowStore.open(store.path).fingerprint == store.fingerprint


def test_a_folder_that_is_no_store_is_not_replaced(tmp_path, schema, numbered):
    """Such as the dataset itself, given as `out` by mistake."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"mine exists and is no window store"):
        write_store(tmp_path / "mine", schema, [numbered(0, 5, schema)])
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


def test_a_zarr_that_is_somebody_elses_is_not_replaced(tmp_path, schema, numbered):
    """Any zarr group has a zarr.json; and into a store of ours somebody may have put a file of his own."""
    zarr.create_group(tmp_path / "theirs.zarr", zarr_format=3).create_array("data", data=np.arange(3))
    with pytest.raises(ValueError, match=r"theirs\.zarr exists and is no window store"):
        write_store(tmp_path / "theirs.zarr", schema, [numbered(0, 5, schema)])
    assert zarr.open_group(tmp_path / "theirs.zarr", mode="r")["data"][2] == 2
    ours = tmp_path / "ours.zarr"
    for _ in range(2):  # its own is replaced
        write_store(ours, schema, [numbered(0, 5, schema)])
    (ours / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"holds what was not written with it \(thesis\.tex\)"):
        write_store(ours, schema, [numbered(0, 5, schema)])
    assert (ours / "thesis.tex").read_text() == "x"


def test_wrong_shape_names_the_episode(tmp_path, schema, numbered):
    episode = numbered(3, 5, schema)
    with pytest.raises(ValueError, match=r"episode 3: state has shape \(5, 2\), expected \(5, 3\)"):
        write_store(tmp_path / "bad.zarr", schema, [replace(episode, state=episode.state[:, :2])])


def test_foreign_dtypes_and_folders_are_refused(store, tmp_path):
    with pytest.raises(FileNotFoundError, match="scd-data"):
        WindowStore.open(tmp_path / "nothing.zarr")
    del zarr.open_group(store.path)["reward"]
    zarr.open_group(store.path).create_array("reward", shape=(70,), dtype="complex128")
    with pytest.raises(ValueError, match="reward holds complex128, expected float32"):
        WindowStore.open(store.path)


def test_data_without_state_reward_and_success(tmp_path, schema, numbered):
    bare = replace(schema, agent_pos=(), environment_state=(), reward=False, success=False)
    episodes = [replace(numbered(i, 6, schema), state=np.zeros((6, 0))) for i in range(2)]
    windows = write_store(tmp_path / "bare.zarr", bare, episodes).windows(np.array([1]), np.array([0]), 6)
    assert windows["state"].shape == (1, 7, 0)


@pytest.mark.parametrize(
    ("name", "row", "value", "what"),
    [
        ("state", 5, np.nan, "state is not finite in row 5"),
        ("action", 7, np.inf, "action is not finite in row 7"),
        ("reward", 0, -np.inf, "reward is not finite in row 0"),
        ("meta/episode_ends", 1, 3, r"meta/episode_ends must rise from above 0, got \[12, 3, 49, 70\]"),
        ("meta/episode_index", 1, 0, "meta/episode_index must name each of 4 episodes once"),
    ],
)
def test_numbers_that_no_check_let_in_are_named(store, name, row, value, what):
    """Somebody wrote into the store, checksums and all: the training would end in a riddle."""
    array = zarr.open_group(store.path, mode="r+")[name]
    array[row] = value
    with pytest.raises(DamagedFolder, match=what):
        WindowStore.open(store.path)
