"""A layout that is not read is named, with the way out."""

import pytest

from scd_datasets.config import SourceConfig
from scd_datasets.sources.open_source import open_source


@pytest.mark.parametrize("root", ["droid", "droid/1.0.1"])
def test_rlds_is_named(tmp_path, root):
    version = tmp_path / "droid" / "1.0.1"
    version.mkdir(parents=True)
    (version / "droid_101-train.tfrecord-00000-of-02048").touch()
    with pytest.raises(ValueError, match=r"is RLDS, which TensorFlow reads: convert it .*docs/data.md"):
        open_source(SourceConfig(root=str(tmp_path / root)))
