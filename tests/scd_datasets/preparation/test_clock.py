"""Real clocks: what is said of them, and that rows count as steps by choice alone."""

import numpy as np
import pytest

from scd_datasets.config import DataConfig
from scd_datasets.preparation.check import check_dataset
from scd_datasets.preparation.clock import MAX_GAP, measured_rate, timestamp_error
from scd_datasets.preparation.open_store import open_store
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.source import DamagedEpisode

from ..by_hand import LENGTH, write_dataset


def real_clock(columns, rate=9.25, jitter=0.3, pause=0.0):
    rng = np.random.default_rng(columns["episode_index"][0])
    steps = (1 + jitter * rng.uniform(-1, 1, LENGTH)) / rate
    steps[7] += pause
    columns["timestamp"] = np.cumsum(steps).astype(np.float32).tolist()


def test_a_real_clock_is_refused_with_its_rate_and_the_way_out(tmp_path):
    root = write_dataset(tmp_path / "d", columns=real_clock)
    with pytest.raises(
        DamagedEpisode, match=r"Hz measured, steps of .*jitter .*data\.clock=index takes each row"
    ):
        check_dataset(LeRobotFolder(root))
    with pytest.raises(DamagedEpisode, match=r"Give data\.clock=index, or repair the dataset, or leave"):
        open_store(DataConfig(root=str(root), holdout=0), tmp_path)
    data = DataConfig(root=str(root), clock="index", holdout=0)
    store = open_store(data, tmp_path)
    assert store.lengths.tolist() == [LENGTH] * 3
    report = (store.path / "report" / "report.txt").read_text()
    assert "timestamp: declared 10 Hz; 9." in report
    with pytest.raises(ValueError, match=r"data\.clock='clock': expected one of timestamp, index"):
        DataConfig(clock="clock")


def test_a_pause_is_damage_whatever_the_clock(tmp_path):
    root = write_dataset(
        tmp_path / "d", columns=lambda c: real_clock(c, pause=3.0 * (c["episode_index"][0] == 1))
    )
    with pytest.raises(
        DamagedEpisode, match=rf"episode 1 .*frames 6 and 7 are 3\.\d+ s apart, more than {MAX_GAP}"
    ):
        check_dataset(LeRobotFolder(root, in_order=True))


def test_the_measured_rate_is_the_median_one():
    rate = measured_rate([np.array([0.0, 0.1, 0.2, 0.5]), np.array([7.0, 7.1])])
    assert rate.fps == pytest.approx(10)
    assert (rate.shortest, rate.longest) == pytest.approx((0.1, 0.3))
    assert measured_rate([np.zeros(1)]) is None


@pytest.mark.parametrize(
    ("times", "what"),
    [([0.0, 0.1, 0.1], "goes back after frame 1"), ([0.0, np.nan], "not finite at frame 1")],
)
def test_time_that_goes_back_or_is_no_number_is_damage_unless_rows_are_steps(times, what):
    assert what in timestamp_error(np.array(times), 10)
    assert timestamp_error(np.array(times), 10, in_order=True) is None
    assert timestamp_error(np.arange(9) / 29.97, 29.97) is None


def test_a_clock_that_is_listed_and_was_never_written_is_none(tmp_path):
    root = write_dataset(tmp_path / "d", "v2.1", columns=lambda columns: columns.pop("timestamp"))
    report = check_dataset(LeRobotFolder(root))
    assert report.rate is None
    assert len(report.good) == 3
