"""Tasks on their way from a LeRobotDataset into windows."""

import numpy as np

from scd_datasets.preparation.check import check_dataset
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.store.store import WindowStore

from .test_check import rewrite


def name_tasks(recorded, tasks):
    def change(columns):
        columns["tasks"][:] = [tasks[episode] for episode in columns["episode_index"]]

    for file in (recorded / "meta" / "episodes").rglob("*.parquet"):
        rewrite(file, change)


def test_each_window_knows_its_episodes_task(recorded, tmp_path):
    name_tasks(recorded, [["push"], ["lift", "wave"], ["push"]])
    report = check_dataset(LeRobotFolder(recorded), tmp_path / "s.zarr")
    assert report.schema.tasks == ("lift", "push")
    assert "task: 2 tasks → each episode's task conditions the world" in report.table()
    assert "1 have several tasks: 1 → the first one counts, such as 'lift'" in report.table()
    store = WindowStore.open(tmp_path / "s.zarr")
    assert store.windows(np.arange(3), np.zeros(3, int), 4)["task"].tolist() == [1, 0, 1]


def test_the_fingerprint_follows_the_tasks(recorded, tmp_path):
    found = []
    for i, tasks in enumerate([["a", "b", "b"], ["b", "a", "b"], ["a", "a", "a"], ["a", "a", "a"]]):
        name_tasks(recorded, [[task] for task in tasks])
        store = check_dataset(LeRobotFolder(recorded), tmp_path / f"{i}.zarr").store
        found.append(store.fingerprint)
    assert len(set(found[:3])) == 3
    assert found[2] == found[3]


def test_an_episode_without_a_task_has_none_of_the_others(recorded, tmp_path):
    name_tasks(recorded, [["push"], ["lift"], []])
    report = check_dataset(LeRobotFolder(recorded), tmp_path / "s.zarr")
    assert report.schema.tasks == ("", "lift", "push")
    assert report.store.task.tolist() == [2, 1, 0]
    assert "1 have no task, and others have: 2" in report.table()
    name_tasks(recorded, [[], [], []])
    assert check_dataset(LeRobotFolder(recorded)).schema.tasks == ()
