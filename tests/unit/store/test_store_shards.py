"""The bytes of a shard are Zarr's, and no flipped bit gets through."""

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from synth_pipeline.store.folder import LocalFolder
from synth_pipeline.store.shards import DamageError, ShardForm, encode, read_rows

KINDS = {
    "vectors": ((3,), "float32"),
    "scalars": ((), "float32"),
    "flags": ((), "bool"),
    "indices": ((), "int64"),
    "images": ((2, 2, 1), "uint8"),
}


def form_and_values(kind, rows, compressed):
    shape, dtype = KINDS[kind]
    rng = np.random.default_rng(rows)
    return ShardForm(shape, np.dtype(dtype), 16, 4, compressed), rng.integers(0, 2, (rows, *shape)).astype(dtype)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 16, 40, 64])
def test_bytes_are_those_of_zarr(tmp_path, kind, rows, compressed):
    form, values = form_and_values(kind, rows, compressed)
    with zarr.config.set({"array.write_empty_chunks": True}):
        array = zarr.create_array(
            tmp_path,
            shape=(rows, *form.shape),
            dtype=form.dtype,
            chunks=(16, *form.shape),
            shards=(64, *form.shape),
            filters=None,
            compressors=[*([ZstdCodec(level=1)] if compressed else []), Crc32cCodec()],
            fill_value=form.fill,
            chunk_key_encoding={"name": "default", "separator": "."},
        )
        array[:] = values
    written = next(path for path in tmp_path.iterdir() if path.name.startswith("c")).read_bytes()
    ours = b"".join(encode(values, form))
    # Zarr also writes chunks beyond the last row; up to there, and in what each chunk decodes to, we agree.
    if rows > 48:
        assert ours == written
    else:
        used = -(-rows // 16)
        length = sum(np.frombuffer(ours[-form.index_bytes : -4], "<u8").reshape(-1, 2)[:used, 1])
        assert ours[:length] == written[:length]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_reads_any_span(tmp_path, kind, compressed):
    form, values = form_and_values(kind, 55, compressed)
    (tmp_path / "shard").write_bytes(b"".join(encode(values, form)))
    for start in range(0, 56, 5):
        for stop in range(start, 56, 3):
            out = np.empty((stop - start, *form.shape), form.dtype)
            read_rows(LocalFolder(tmp_path), "shard", form, start, out)
            np.testing.assert_array_equal(out, values[start:stop])


@pytest.mark.parametrize("compressed", [False, True])
def test_no_flipped_bit_gets_through(tmp_path, compressed):
    form, values = form_and_values("flags", 30, compressed)
    whole = b"".join(encode(values, form))
    folder, path = LocalFolder(tmp_path), tmp_path / "shard"
    for bit in range(8 * len(whole)):
        path.write_bytes(bytes(b ^ (1 << bit % 8) if i == bit // 8 else b for i, b in enumerate(whole)))
        with pytest.raises(DamageError):
            read_rows(folder, "shard", form, 0, np.empty_like(values))


@pytest.mark.parametrize("compressed", [False, True])
def test_no_cut_gets_through(tmp_path, compressed):
    form, values = form_and_values("vectors", 64, compressed)
    whole = b"".join(encode(values, form))
    folder, path = LocalFolder(tmp_path), tmp_path / "shard"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(DamageError):
            read_rows(folder, "shard", form, 0, np.empty_like(values))
    path.unlink()
    with pytest.raises(DamageError, match="missing"):
        read_rows(folder, "shard", form, 0, np.empty_like(values))


def test_rows_that_were_never_written_are_damage_not_fill_values(tmp_path):
    for compressed in (False, True):
        form, values = form_and_values("vectors", 16, compressed)
        (tmp_path / "shard").write_bytes(b"".join(encode(values, form)))
        with pytest.raises(DamageError, match="absent"):
            read_rows(LocalFolder(tmp_path), "shard", form, 8, np.empty((20, 3), np.float32))
