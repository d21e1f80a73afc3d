"""Files that appear whole or not at all, also when the kernel refuses a write."""

import errno
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest
from export_suite import contents

from synth_pipeline.errors import ExportError, ResourceError
from synth_pipeline.export import hdf5

FULL = """
import errno, resource, sys
from pathlib import Path
import numpy as np
from export_suite import SPEC, counter_rows
from synth_pipeline.data.rows import Dataset
from synth_pipeline.export.d4rl_hdf5 import write_flat
from synth_pipeline.export.minari import write_minari

resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
root, rows = Path(sys.argv[1]), counter_rows(20_000)
for write in (
    lambda: write_minari("counter/mixed-v0", spec=SPEC, episodes=[], one_step=rows, root=root, metadata={}),
    lambda: write_flat(root / "flat.hdf5", [Dataset(SPEC, rows=rows)], spec=SPEC, metadata={}),
):
    try:
        write()
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def test_a_write_that_the_kernel_refuses_ends_in_one_clean_error(tmp_path):
    """A file size limit is the one way to fill a disk without being root; HDF5 alone would crash at exit."""
    folders = [path for path in sys.path if path.endswith("conformance")]
    script = f"import sys; sys.path[:0] = {folders!r}\n" + textwrap.dedent(FULL)
    answer = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "EFBIG\nEFBIG\n", "")
    assert contents(tmp_path) == {}


def test_short_writes_are_continued(tmp_path, monkeypatch):
    put = hdf5.GuardedFile.put
    monkeypatch.setattr(hdf5.GuardedFile, "put", lambda file, view: put(file, view[:7]))
    values = np.arange(1000)
    with hdf5.create(tmp_path / "a.hdf5") as writer:
        writer.file["values"] = values
    with h5py.File(tmp_path / "a.hdf5") as file:
        np.testing.assert_array_equal(file["values"][:], values)


def test_a_failed_write_is_noticed_before_the_end(tmp_path, monkeypatch):
    def full(file, view):
        raise OSError(errno.ENOSPC, "full")

    def write():
        with hdf5.create(tmp_path / "a.hdf5") as writer:
            monkeypatch.setattr(hdf5.GuardedFile, "put", full)
            writer.file["values"] = np.zeros(100_000)
            writer.check()
            raise AssertionError("not reached")

    with pytest.raises(OSError, match="full"):
        write()


def test_a_failing_flush_is_an_error(tmp_path, monkeypatch):
    def failing(descriptor):
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr("os.fsync", failing)
    with pytest.raises(OSError, match="the disk is gone"), hdf5.create(tmp_path / "a.hdf5") as writer:
        writer.file["values"] = np.zeros(10)


def test_large_files_are_flushed_on_the_way(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(hdf5, "FLUSH_BYTES", 8000)
    monkeypatch.setattr("os.fsync", flushed.append)
    with hdf5.create(tmp_path / "a.hdf5") as writer:
        for index in range(3):
            writer.file[f"values{index}"] = np.zeros(1000)
    assert len(flushed) > 3


def test_verification_sees_the_closed_file(tmp_path):
    seen = []

    def verify():
        with h5py.File(tmp_path / "a.hdf5") as file:
            seen.append(int(file["value"][()]))

    with hdf5.create(tmp_path / "a.hdf5") as writer:
        writer.file["value"] = 3
        writer.verify = verify
    assert seen == [3]


def test_a_guarded_file_never_overwrites(tmp_path):
    (tmp_path / "a").write_text("kept")
    with pytest.raises(FileExistsError):
        hdf5.GuardedFile(tmp_path / "a")
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
