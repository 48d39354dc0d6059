"""Files by URL: cached, complete or absent, and the same for ever."""

import functools
import hashlib
import http.server
import json
import threading

import golden_models
import jax
import numpy as np
import pytest
from test_load import write_bin

from perceiver_jax import pretrained
from perceiver_jax.pretrained import convert, download, huggingface


class Quiet(http.server.SimpleHTTPRequestHandler):
    requests = 0

    def do_GET(self):
        Quiet.requests += 1
        if self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"half")
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_is_fetched_once_and_its_hash_recorded(server, tmp_path):
    folder, url = server
    (folder / "weights").write_bytes(b"content")
    cache = tmp_path / "cache"
    path = download.fetch(f"{url}/weights", cache)
    before = Quiet.requests
    assert path.read_bytes() == b"content"
    assert download.fetch(f"{url}/weights", cache) == path and Quiet.requests == before
    digest = hashlib.sha256(b"content").hexdigest()
    assert path.with_name(path.name + ".sha256").read_text().strip() == digest
    assert sorted(p.name for p in cache.iterdir()) == [path.name, path.name + ".sha256"]


def test_changed_content_is_refused(server, tmp_path):
    folder, url = server
    (folder / "weights").write_bytes(b"content")
    path = download.fetch(f"{url}/weights", tmp_path / "cache")
    path.write_bytes(b"CONTENT")
    with pytest.raises(ValueError, match=r"was recorded when it was first fetched.*delete"):
        download.fetch(f"{url}/weights", tmp_path / "cache")
    path.unlink()
    (folder / "weights").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"weights has SHA-256"):
        download.fetch(f"{url}/weights", tmp_path / "cache")
    assert not path.exists()


def test_a_failed_download_leaves_nothing(server, tmp_path):
    _, url = server
    cache = tmp_path / "cache"
    with pytest.raises(OSError, match="stopped after 4 of 100 bytes"):
        download.fetch(f"{url}/short", cache)
    with pytest.raises(OSError, match=r"cannot fetch .*give load\(\) its path"):
        download.fetch(f"{url}/absent", cache)
    assert list(cache.iterdir()) == []


def test_a_released_name_is_fetched(server, tmp_path, monkeypatch):
    folder, url = server
    golden_models.write_official("flow", folder / "flow.pystate")
    monkeypatch.setattr(pretrained, "URLS", {"flow": f"{url}/flow.pystate"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    released = golden_models.released("flow")
    _, variables = pretrained.load("flow", model=released)
    _, again = pretrained.load(f"{url}/flow.pystate", model=released)
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    (path,) = (tmp_path / "home" / "perceiver_jax").glob("*.pystate")
    assert path.name.endswith("-flow.pystate")


def test_a_hugging_face_id_is_fetched_with_its_names(server, tmp_path, monkeypatch):
    folder, url = server
    hub_id, released = (
        "deepmind/vision-perceiver-fourier",
        golden_models.released("imagenet_fourier"),
    )
    official = golden_models.write_official("imagenet_fourier", tmp_path / "official.pystate")
    _, variables = pretrained.load(official, model=released)
    files = folder / hub_id / "resolve" / "main"
    files.mkdir(parents=True)
    write_bin(files / "pytorch_model.bin", convert.to_tensors(variables, released, "huggingface"))
    names = [f"kind {i}" for i in range(10)]
    (files / "config.json").write_text(json.dumps({"id2label": dict(enumerate(names))}))
    monkeypatch.setattr(huggingface, "HUB_ADDRESS", url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert pretrained.holds_weights(hub_id)
    for _ in range(2):
        before = Quiet.requests
        _, again = pretrained.load(hub_id, model=released)
        jax.tree.map(np.testing.assert_array_equal, variables, again)
        assert pretrained.class_names(hub_id, 10) == names
    assert Quiet.requests == before, "the second time nothing is fetched"
    assert len(list((tmp_path / "home").rglob("*.sha256"))) == 2
    with pytest.raises(ValueError, match=r"vision-perceiver-fourier'.* cannot be model='flow'"):
        pretrained.load(hub_id, model="flow")


def test_the_official_addresses():
    assert set(pretrained.HUB.values()) == set(pretrained.MODELS)
    assert set(pretrained.URLS) == set(pretrained.MODELS)
    assert all(
        u.startswith("https://storage.googleapis.com/perceiver_io/")
        for u in pretrained.URLS.values()
    )
