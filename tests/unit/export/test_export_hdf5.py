"""Files that appear whole or not at all, also when the kernel refuses a write."""

import errno
import subprocess
import sys

import h5py
import numpy as np
import pytest
from export_suite import contents

from synth_pipeline.errors import ExportError, ResourceError
from synth_pipeline.export import hdf5

FULL = """
import resource, sys
from pathlib import Path
from export_suite import SPEC, counter_rows
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import ResourceError
from synth_pipeline.export import hdf5
from synth_pipeline.export.d4rl_hdf5 import write_flat
from synth_pipeline.export.minari import write_minari

hdf5.SLACK_BYTES, hdf5.STEP_BYTES = 1 << 20, 1 << 20
resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
root, rows = Path(sys.argv[1]), counter_rows(100_000)
for write in (
    lambda: write_minari(
        "counter/mixed-v0", spec=SPEC, episodes=[], one_step=rows.take(slice(0, 4_000)), root=root, metadata={}
    ),
    lambda: write_flat(root / "flat.hdf5", [Dataset(SPEC, rows=rows)], spec=SPEC, metadata={}),
):
    try:
        write()
    except ResourceError as error:
        print(error.what.split("'")[0])
"""


def test_a_disk_that_fills_up_half_way_ends_in_one_clean_error(tmp_path):
    """A file size limit fills a disk without being root: the kernel refuses; HDF5 alone would crash at exit."""
    folders = [path for path in sys.path if path.endswith("conformance")]
    script = f"import sys; sys.path[:0] = {folders!r}\n" + FULL
    answer = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=400)
    expected = "no space left while writing \n"
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, 2 * expected, "")
    assert contents(tmp_path) == {}


def test_space_is_always_reserved_ahead(tmp_path):
    """HDF5's file never grows past what the disk has promised."""
    with hdf5.create(tmp_path / "a.hdf5") as writer:
        for index in range(2_000):
            values = np.zeros(20 * index)
            writer.reserve(values.nbytes)
            writer.file.create_group(f"episode_{index}")["rewards"] = values
            assert writer.file.id.get_filesize() <= writer._reserved
        assert writer._reserved > 300_000_000
        assert (tmp_path / "a.hdf5").stat().st_size == writer._reserved


def test_unused_space_is_given_back(tmp_path):
    for name, reserved in (("a", 100), ("b", 50_000_000)):
        with hdf5.create(tmp_path / name) as writer:
            writer.reserve(reserved)
            writer.file["values"] = np.arange(10)
    sizes = [(tmp_path / name).stat().st_size for name in ("a", "b")]
    assert sizes[0] == sizes[1] < 10_000


def test_a_filesystem_without_reservation_still_works(tmp_path, monkeypatch):
    monkeypatch.delattr("os.posix_fallocate")
    with hdf5.create(tmp_path / "a.hdf5") as writer:
        writer.reserve(100)
        writer.file["values"] = np.arange(10)
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert file["values"][9] == 9


def test_a_failing_flush_is_an_error(tmp_path, monkeypatch):
    def failing(descriptor):
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr("os.fsync", failing)

    def write():
        with hdf5.create(tmp_path / "a.hdf5") as writer:
            writer.file["values"] = np.zeros(10)

    with pytest.raises(OSError, match="the disk is gone"):
        write()


def test_large_files_are_flushed_on_the_way(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(hdf5, "FLUSH_BYTES", 8000)
    monkeypatch.setattr("os.fsync", flushed.append)
    with hdf5.create(tmp_path / "a.hdf5") as writer:
        for index in range(4):
            writer.reserve(8000)
            writer.file[f"values{index}"] = np.zeros(1000)
    assert len(flushed) == 4


def test_verification_sees_the_closed_file(tmp_path):
    seen = []

    def verify():
        with h5py.File(tmp_path / "a.hdf5") as file:
            seen.append(int(file["value"][()]))

    with hdf5.create(tmp_path / "a.hdf5") as writer:
        writer.file["value"] = 3
        writer.verify = verify
    assert seen == [3]


def test_a_file_is_never_overwritten(tmp_path):
    (tmp_path / "a").write_text("kept")
    with pytest.raises(FileExistsError), hdf5.create(tmp_path / "a"):
        raise AssertionError("not reached")
    assert (tmp_path / "a").read_text() == "kept"


def test_a_staged_file_appears_at_the_end(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with hdf5.staged_file(target) as staged:
        staged.write_text("x")
        assert not target.exists()
    assert contents(tmp_path) == {"deep/a.txt": b"x"}
    with pytest.raises(ExportError, match="exists already"), hdf5.staged_file(target):
        raise AssertionError("not reached")


def test_a_staged_file_vanishes_on_failure(tmp_path):
    def write():
        with hdf5.staged_file(tmp_path / "a.txt") as staged:
            staged.write_text("x")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(ResourceError, match="no space left"):
        write()
    assert contents(tmp_path) == {}


def test_checksums_tell_values_not_layouts():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert hdf5.checksum(values) == hdf5.checksum(np.asfortranarray(values))
    assert hdf5.checksum(values) != hdf5.checksum(values.T)
    assert hdf5.checksum(np.zeros((0, 3))) == 0
