"""Minari's local folder and its server. The server is a fake behind Minari's own interface for remote storage."""

import http.server
import json
import shutil
import socket
import threading

import h5py
import numpy as np
import pytest
from minari.storage import remotes
from minari.storage.remotes.cloud_storage import CloudStorage

from synth_pipeline.errors import MissingExtraError, SourceError, UnknownNameError
from synth_pipeline.sources import minari_root
from synth_pipeline.sources.minari import MinariSource

BOX = json.dumps({"type": "Box", "dtype": "float32", "shape": [2], "low": [-1, -1], "high": [1, 1]})


def put(root, name, *, episodes=2, **changes):
    """A dataset in Minari's layout."""
    data = root / name / "data"
    data.mkdir(parents=True)
    metadata = {
        "dataset_id": name,
        "minari_version": "0.5.4",
        "data_format": "hdf5",
        "total_episodes": episodes,
        "total_steps": 3 * episodes,
        "observation_space": BOX,
        "action_space": BOX,
    }
    (data / "metadata.json").write_text(json.dumps({**metadata, **changes}))
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for index in range(episodes):
            group = file.create_group(f"episode_{index}")
            group["observations"] = np.zeros((4, 2), np.float32)
            group["actions"] = np.zeros((3, 2), np.float32)
            group["rewards"] = np.zeros(3)
            group["terminations"] = np.zeros(3, bool)
            group["truncations"] = np.arange(3) == 2
    return root / name


@pytest.fixture
def root(tmp_path, monkeypatch):
    folder = tmp_path / "local datasets"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return folder


@pytest.fixture
def server(tmp_path, root, monkeypatch):
    """A folder that Minari takes for its server."""
    shelf = tmp_path / "server"
    shelf.mkdir()

    class Shelf(CloudStorage):
        def __init__(self, name, token=None):
            assert name == "shelf"

        def list_datasets(self, prefix=None):
            found = (file.parent.parent for file in shelf.rglob("metadata.json"))
            ids = (folder.relative_to(shelf).as_posix() for folder in found)
            return [dataset_id for dataset_id in ids if dataset_id.startswith(prefix or "")]

        def get_dataset_metadata(self, dataset_id):
            return json.loads((shelf / dataset_id / "data" / "metadata.json").read_text())

        def download_dataset(self, dataset_id, path):
            shutil.copytree(shelf / dataset_id, path / dataset_id, dirs_exist_ok=True)

        def list_namespaces(self):
            return ["made"]

        def download_namespace_metadata(self, namespace, path):
            (path / namespace / "namespace_metadata.json").write_text("{}")

        def upload_dataset(self, dataset_id):
            raise AssertionError

        def upload_namespace(self, namespace):
            raise AssertionError

    monkeypatch.setitem(remotes._registry, "fake", lambda: Shelf)
    monkeypatch.setenv("MINARI_REMOTE", "fake://shelf")
    return shelf


def test_the_default_root_is_minaris(monkeypatch, tmp_path):
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert minari_root.datasets_root() == tmp_path / ".minari" / "datasets"
    assert minari_root.local_ids() == []
    assert not (tmp_path / ".minari").exists()


def test_listing_survives_malformed_folders(root):
    put(root, "made/good-v0")
    put(root, "made/nested/also-good-v3")
    put(root, "made/noversion")
    put(root, "made/renamed-v0", dataset_id="made/other-v0")
    put(root, "made/unfinished-v0").joinpath("data/metadata.json").write_text('{"dataset_id": "x"}')
    put(root, "made/damaged-v0").joinpath("data/metadata.json").write_text("{")
    (root / "made" / "bare-v0" / "data").mkdir(parents=True)
    (root / "made" / ".hidden-v0" / "data").mkdir(parents=True)
    (root / "a file").write_text("")
    sound, problems = minari_root.survey()
    assert sorted(sound) == ["made/good-v0", "made/nested/also-good-v3"]
    assert sorted(problems) == [f"made/{name}" for name in
                                ("bare-v0", "damaged-v0", "noversion", "renamed-v0", "unfinished-v0")]  # fmt: skip
    assert "made/other-v0" in problems["made/renamed-v0"]


def test_a_dataset_that_is_not_here_gets_the_nearest_and_the_way(root):
    put(root, "made/hopper-v0")
    with pytest.raises(UnknownNameError) as caught:
        MinariSource.from_id("made/hoper-v0")
    text = str(caught.value)
    assert "did you mean 'made/hopper-v0'?" in text
    assert "minari download made/hoper-v0   # in Python: download=True" in text
    assert "--download" not in text  # no verb has it
    with pytest.raises(UnknownNameError, match="is not on this machine"):
        MinariSource.from_id("nothing/alike-v0")


@pytest.mark.parametrize("name", ["../outside-v0", "/etc/passwd-v0", "a/../b-v0", "noversion", "a b-v0", "x-v0\n", ""])
def test_ids_cannot_leave_the_root(root, name):
    for download in (False, True):
        with pytest.raises(UnknownNameError, match="is not a Minari id"):
            MinariSource.from_id(name, download=download)


def test_a_folder_without_metadata_is_an_error(root):
    (root / "made" / "bare-v0" / "data").mkdir(parents=True)
    with pytest.raises(SourceError, match="is not a Minari dataset"):
        MinariSource.from_id("made/bare-v0").load()


def test_download_brings_the_dataset(root, server, capsys):
    put(server, "made/remote-v0")
    source = MinariSource.from_id("made/remote-v0", download=True)
    assert source.folder == root / "made/remote-v0"
    assert len(source.load()) == 6
    assert capsys.readouterr().out == ""


def test_a_local_dataset_is_not_downloaded_again(root, server):
    put(root, "made/both-v0", episodes=1)
    put(server, "made/both-v0", episodes=2)
    assert len(MinariSource.from_id("made/both-v0", download=True).load()) == 3


def test_an_older_version_downloads_without_a_warning(root, server):
    put(server, "made/remote-v0")
    put(server, "made/remote-v1")
    assert len(MinariSource.from_id("made/remote-v0", download=True).load()) == 6


@pytest.mark.parametrize("left", ["nothing", "folder", "no metadata", "damaged metadata", "no episodes"])
def test_an_interrupted_download_is_repeated(root, server, left):
    put(server, "made/remote-v0")
    data = root / "made/remote-v0/data"
    if left != "nothing":
        data.mkdir(parents=True)
    if left == "no metadata":
        (data / "main_data.hdf5").write_bytes(b"\x89HDF")
    if left == "damaged metadata":
        (data / "metadata.json").write_bytes(b'{"dataset_id"')
    if left == "no episodes":
        put(server, "made/shell-v0", total_episodes=0)
        (data / "metadata.json").write_bytes((server / "made/shell-v0/data/metadata.json").read_bytes())
    assert len(MinariSource.from_id("made/remote-v0", download=True).load()) == 6


def test_an_empty_download_is_an_error(root, server):
    put(server, "made/empty-v0", episodes=0)
    with pytest.raises(SourceError, match=r"is not that dataset, or is empty(?s:.*)0 episodes"):
        MinariSource.from_id("made/empty-v0", download=True)


def test_a_download_that_brings_nothing_is_an_error(root, server, monkeypatch):
    put(server, "made/remote-v0")
    shelf = remotes._registry["fake"]()
    monkeypatch.setattr(shelf, "download_dataset", lambda self, dataset_id, path: None)
    with pytest.raises(UnknownNameError, match=r"no usable dataset(?s:.*)doesn't exist"):
        MinariSource.from_id("made/remote-v0", download=True)


def test_an_id_that_the_server_does_not_know(root, server):
    put(server, "made/remote-v0")
    with pytest.raises(UnknownNameError, match=r"has no usable dataset 'made/other-v0'"):
        MinariSource.from_id("made/other-v0", download=True)
    with pytest.raises(UnknownNameError, match=r"made/remote-v0"):
        MinariSource.from_id("made/remote-v7", download=True)


def test_a_failing_client_is_an_error_of_our_form(root, server, monkeypatch):
    def refuse(self, prefix=None):
        raise ConnectionError("the line is dead")

    monkeypatch.setattr(remotes._registry["fake"](), "list_datasets", refuse)
    with pytest.raises(SourceError, match=r"cannot be downloaded(?s:.*)the line is dead") as caught:
        MinariSource.from_id("made/remote-v0", download=True)
    assert str(root / "made/remote-v0") in str(caught.value)


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_no_network_is_said_at_once(root, monkeypatch):
    monkeypatch.delenv("MINARI_REMOTE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(SourceError, match=r"cannot be downloaded(?s:.*)refused(?s:.*)check the network"):
        MinariSource.from_id("D4RL/door/human-v2", download=True)
    assert not root.exists()


@pytest.fixture
def answering():
    """A web server on loopback that knows nothing."""

    class Nothing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(404)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Nothing) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize("absent", [None, ModuleNotFoundError("no parent package")])
def test_a_missing_client_is_named_with_its_extra(root, answering, monkeypatch, absent):
    def find_spec(name):
        if absent is not None:
            raise absent
        assert name == "huggingface_hub"

    monkeypatch.delenv("MINARI_REMOTE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", answering)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    with pytest.raises(MissingExtraError, match=r'huggingface_hub(?s:.*)pip install "minari\[hf\]"'):
        MinariSource.from_id("D4RL/door/human-v2", download=True)
