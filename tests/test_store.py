"""What the world does to files: corruption, broken connections, races, read-only disks
and hostile archives. This file serves everything itself, from 127.0.0.1."""

import dataclasses
import errno
import gzip
import hashlib
import io
import json
import os
import socket
import struct
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

import mmcourse
from mmcourse import store
from mmcourse.store import CorruptData, DownloadError, Remote, WriteError

CLIPS = {
    f"{d}_{who}_0.wav": bytes([d]) * 99 for d in range(10) for who in ("ada", "bo")
}


def sha(content):
    return hashlib.sha256(content).hexdigest()


def contents(files):
    "The digest of a folder's contents, defined a second time."
    lines = b"".join(f"{n} {sha(files[n])}\n".encode() for n in sorted(files))
    return sha(lines)


def remote(*urls, **changes):
    known = Remote("clips", urls, contents(CLIPS), 20, "[0-9]_*.wav", "CC0", "here")
    return dataclasses.replace(known, **changes)


def zipped(files, folder="clips-0123abc/recordings/"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("clips-0123abc/README.md", "read me")
        for name, content in files.items():
            z.writestr(folder + name, content)
    return out.getvalue()


def tarred(files, mode="w:gz", links=()):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as t:
        for name, content in files.items():
            m = tarfile.TarInfo(f"clips/{name}")
            m.size = len(content)
            t.addfile(m, io.BytesIO(content))
        for name, target in links:
            m = tarfile.TarInfo(name)
            m.type, m.linkname = tarfile.SYMTYPE, target
            t.addfile(m)
    return out.getvalue()


def held(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


class Handler(BaseHTTPRequestHandler):
    "Answers with the next of a path's bytes; a number is an error, None breaks off."

    def log_message(self, *args):
        pass

    def do_GET(self):
        answers = self.server.files.get(self.path, [404])
        self.server.hits.append(self.path)
        body = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(body, int):
            return self.send_error(body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body or b"x" * 9999)))
        self.end_headers()
        self.wfile.write(body or b"half of it")
        return None


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.hits = {}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    "A cache of its own for each test, no waiting, and nothing but loopback to reach."
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    connect = socket.socket.connect

    def guarded(self, address):
        inet = self.family in (socket.AF_INET, socket.AF_INET6)
        assert not inet or address[0] == "127.0.0.1", f"a test reached for {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    return tmp_path / "cache"


# --- digests, arrays, places


def test_sha256_of_the_standards_examples(tmp_path):
    p = tmp_path / "x"
    for content, start in ((b"", "e3b0c44298fc1c14"), (b"abc", "ba7816bf8f01cfea")):
        p.write_bytes(content)
        assert store.sha256(p).startswith(start)  # FIPS 180-4
    p.write_bytes(bytes(range(256)) * 8192)  # longer than one piece
    assert store.sha256(p) == sha(p.read_bytes())
    assert store.verified(str(p), sha(p.read_bytes()).upper()) == p
    with pytest.raises(CorruptData, match=f"{p}: expected sha256 {'0' * 64}, got"):
        store.verified(p, "0" * 64)
    with pytest.raises(FileNotFoundError):
        store.verified(tmp_path / "none", "0" * 64)


def test_load_npz(tmp_path):
    p = tmp_path / "x.npz"
    np.savez_compressed(p, a=np.arange(5), b=np.eye(2))
    got = store.load_npz(p, store.sha256(p))
    assert set(got) == {"a", "b"} and (got["a"] == np.arange(5)).all()
    with pytest.raises(CorruptData, match="x.npz: expected sha256"):
        store.load_npz(p, "0" * 64)


class Prank:
    def __reduce__(self):
        return Path.touch, (Path(os.environ["MMCOURSE_CACHE"]),)


def test_nothing_is_unpickled(tmp_path, cache):
    p = tmp_path / "x.npz"
    np.savez(p, x=np.array([Prank()], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        store.load_npz(p, store.sha256(p))
    assert not cache.exists()


def test_contents_digest(tmp_path):
    files = {n: n.encode() for n in ("b", "B", "a b", "a-", "_", "10", "9", "z.wav")}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    assert store.contents_digest(tmp_path) == contents(files)
    assert store.contents_digest(tmp_path, "*.wav") == contents({"z.wav": b"z.wav"})


def test_data_path_in_a_checkout_and_in_a_wheel(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "mmcourse"
    (package / "data").mkdir(parents=True)
    monkeypatch.setattr(mmcourse, "__file__", str(package / "__init__.py"))
    assert store.data_path("x") == package / "data" / "x"
    (package / "data").rmdir()
    assert store.data_path("x") == package.parent / "data" / "x"


def test_hits_go_into_a_text_and_come_back():
    hits = np.array([True, False, False, True])
    assert store.as_bits(hits) == "1001" and store.as_bits([0, 1.0]) == "01"
    assert store.from_bits("1001").tolist() == [1, 0, 0, 1]
    assert store.from_bits(["10", "01"]).tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError):
        store.from_bits(["10", "1"])


def test_kept_runs_are_those_of_one_arm_in_their_order(tmp_path, monkeypatch):
    runs = {"a/b/0": 1, "a/0": 2, "a/b/1": 3, "a/bc/0": 4, "a/b/x/0": 5}
    (tmp_path / "results").mkdir()
    kept = {"about": {"ü": 0}, "runs": runs, "took": {"a/b/0": 6.5}}
    text = json.dumps(kept, ensure_ascii=False)
    (tmp_path / "results" / "made.json").write_text(text, "utf-8")
    monkeypatch.setattr(store, "data_path", lambda name: tmp_path / name)
    assert store.kept_runs("made", "a/b") == [1, 3]
    assert store.kept_runs("made", "a") == [2]
    assert store.kept_runs("made", "a/b", "took") == [6.5]
    with pytest.raises(KeyError, match="made: no arm 'b'"):
        store.kept_runs("made", "b")


def test_cache_dir(tmp_path, monkeypatch):
    assert store.cache_dir() == tmp_path / "cache" and (tmp_path / "cache").is_dir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMCOURSE_CACHE", "relative")
    assert store.cache_dir() == tmp_path / "relative"
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("MMCOURSE_CACHE", "~/mine")
    assert store.cache_dir() == tmp_path / "me" / "mine"
    if sys.platform == "linux":
        monkeypatch.delenv("MMCOURSE_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert store.cache_dir() == tmp_path / "xdg" / "mmcourse"


# --- writing


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_atomic_is_all_or_nothing(tmp_path, error):
    p = tmp_path / "deep" / "x"
    with store.atomic(p) as f:
        f.write(b"old")
        assert not p.exists()
    with pytest.raises(error), store.atomic(p) as f:
        f.write(b"new")
        raise error("stop")
    assert held(p.parent) == {"x": b"old"}


def test_a_full_disk(tmp_path):
    says = pytest.raises(WriteError, match="x: cannot be written.*MMCOURSE_CACHE")
    with says, store.atomic(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert held(tmp_path) == {}


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    archive = tmp_path / "mine.zip"
    archive.write_bytes(zipped(CLIPS))
    for place in (tmp_path / "file", tmp_path / "file" / "cache"):
        monkeypatch.setenv("MMCOURSE_CACHE", str(place))
        with pytest.raises(WriteError, match="cannot be written.*MMCOURSE_CACHE"):
            store.fetch_remote(remote(), archive)


def test_a_read_only_cache_serves_what_it_has(tmp_path, monkeypatch):
    def refused(self, timeout=None):
        raise PermissionError(errno.EACCES, "Permission denied")

    archive = tmp_path / "mine.zip"
    archive.write_bytes(zipped(CLIPS))
    store.fetch_remote(remote(), archive)
    monkeypatch.setattr(FileLock, "acquire", refused)
    assert held(store.fetch_remote(remote(), archive)) == CLIPS
    with pytest.raises(WriteError, match="other: cannot.*MMCOURSE_CACHE"):
        store.fetch_remote(remote(name="other"), archive)


# --- archives that a learner has already


@pytest.mark.parametrize("form", ["zip", "tar.gz", "tar", "folder", "clone"])
def test_an_archive_needs_no_network(tmp_path, cache, form):
    mine = tmp_path / "mine"
    if form in ("folder", "clone"):
        place = mine / "recordings" if form == "clone" else mine
        place.mkdir(parents=True)
        (place / ".DS_Store").write_text("x")
        for name, content in CLIPS.items():
            (place / name).write_bytes(content)
    else:
        made = {"zip": zipped, "tar.gz": tarred, "tar": lambda f: tarred(f, "w")}
        mine.write_bytes(made[form](CLIPS))
    assert held(store.fetch_remote(remote(), str(mine))) == CLIPS
    assert mine.exists()  # the learner's own stays
    assert {p.name for p in cache.iterdir()} <= {"clips", ".clips.lock"}


def test_archives_that_would_climb_out(tmp_path, cache):
    "Only bare names count: paths, links and other files stay where they are."
    evil = zipped(
        {"../../../x.sh": b"x", **{f"../../{n}": b for n, b in CLIPS.items()}}
    )
    (tmp_path / "evil.zip").write_bytes(evil)
    links = [("0_ada_0.wav", "/etc/passwd"), ("recordings", "/")]
    (tmp_path / "evil.tar").write_bytes(tarred(CLIPS, links=links))
    before = set(tmp_path.rglob("*"))
    for name in ("evil.zip", "evil.tar"):
        folder = store.fetch_remote(remote(name=name), tmp_path / name)
        assert held(folder) == CLIPS and not any(map(Path.is_symlink, folder.iterdir()))
    assert {p for p in tmp_path.rglob("*") if cache not in (p, *p.parents)} == before


def damaged(content):
    return content[:300] + bytes(60) + content[360:]


WRONG = {
    "no archive": (b"hello", "no folder, zip or tar"),
    "a page": (b"<html>" * 999, "no folder, zip or tar"),
    "damaged": (damaged(zipped({n: os.urandom(99) for n in CLIPS})), "damaged"),
    "cut short": (tarred(CLIPS)[:-99], "damaged"),
    "other clips": (zipped({**CLIPS, "0_bo_0.wav": b"?"}), "got 20 with"),
    "fewer clips": (zipped(dict(list(CLIPS.items())[1:])), "got 19 with"),
    "none": (zipped({}), "expected 20 files '\\[0-9\\]_\\*.wav'.*got 0"),
    "a bomb": (zipped({"0_x_0.wav": bytes(2_000_000)}), "more than 1,000,000 bytes"),
}


@pytest.mark.parametrize("how", WRONG)
def test_wrong_archives_change_nothing(tmp_path, cache, how):
    content, says = WRONG[how]
    known = remote(max_bytes=1_000_000)
    (tmp_path / "good.zip").write_bytes(zipped(CLIPS))
    folder = store.fetch_remote(known, tmp_path / "good.zip")
    (folder / "0_bo_0.wav").write_bytes(b"changed")
    before = held(folder)
    (tmp_path / "mine").write_bytes(content)
    with pytest.raises(CorruptData, match=f"mine: .*{says}"):
        store.fetch_remote(known, tmp_path / "mine")
    assert held(folder) == before
    assert {p.name for p in cache.iterdir()} <= {"clips", ".clips.lock"}


def test_an_archive_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="archive: no file or folder at .*none"):
        store.fetch_remote(remote(), tmp_path / "none.zip")


# --- over the network


def test_fetched_once_noticed_and_fetched_again(server):
    server.files["/clips.zip"] = [zipped(CLIPS)]
    clips = remote(f"{server.url}/clips.zip")
    with pytest.raises(FileNotFoundError, match="datasets.fetch\\('clips'\\)"):
        store.cached(clips)
    folder = store.fetch_remote(clips, progress=False)
    assert held(folder) == CLIPS and store.cached(clips) == folder
    assert store.fetch_remote(clips) == folder and len(server.hits) == 1
    for change in (
        lambda: (folder / "0_ada_0.wav").write_bytes(b"a cosmic ray"),
        lambda: (folder / "0_ada_0.wav").unlink(),
        lambda: (folder / "7_eve_0.wav").write_bytes(b"another"),
    ):
        change()
        with pytest.raises(CorruptData, match="datasets.fetch\\('clips'\\)"):
            store.cached(clips)
        assert held(store.fetch_remote(clips, progress=False)) == CLIPS
    (folder / "Thumbs.db").write_bytes(b"what a file manager leaves")
    assert store.cached(clips) == folder and len(server.hits) == 4


def test_a_broken_connection_is_tried_again(server):
    server.files["/clips.zip"] = [None, 503, zipped(CLIPS)]
    clips = remote(f"{server.url}/clips.zip")
    assert held(store.fetch_remote(clips, progress=False)) == CLIPS


def test_single_files_from_the_first_mirror_that_has_them(server):
    server.files = {f"/good/{n}": [b] for n, b in CLIPS.items()}
    server.files["/bad/0_ada_0.wav"] = [b"<html>please log in"]
    files = {n: sha(b) for n, b in CLIPS.items()}
    clips = remote(f"{server.url}/bad/", f"{server.url}/good/", files=files)
    assert held(store.fetch_remote(clips, progress=False)) == CLIPS
    server.files["/good/9_bo_0.wav"] = [404]
    with pytest.raises(DownloadError) as e:
        store.fetch_remote(dataclasses.replace(clips, name="more"), progress=False)
    for part in ("more: could not", "bad/9_bo_0", "good/9_bo_0", "404", "archive="):
        assert part in str(e.value)
    assert not (store.cache_dir() / "more").exists()


def test_no_network(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match="could not be fetched(.|\n)*archive="):
        store.fetch_remote(remote(f"{server.url}/clips.zip"), progress=False)


def test_who_waits_for_the_lock_does_not_download_again(server, cache):
    server.files["/clips.zip"] = [zipped(CLIPS)]
    clips, got = remote(f"{server.url}/clips.zip"), []

    def fetch():
        got.append(store.fetch_remote(clips, progress=False))

    cache.mkdir()
    threads = [threading.Thread(target=fetch) for _ in range(3)]
    with FileLock(cache / ".clips.lock"):
        for t in threads:
            t.start()
        threads[0].join(0.2)
        assert not got and not server.hits
    for t in threads:
        t.join()
    assert got == [cache / "clips"] * 3 and len(server.hits) == 1


def test_what_the_course_fetches():
    assert set(store.REMOTES) == {"fsdd", "mnist_full"}
    for r in store.REMOTES.values():
        assert all(url.startswith("https://") for url in r.urls) and r.licence
        assert {url.endswith("/") for url in r.urls} == {bool(r.files)}
    digest = "dbd573d7cafe79c4b49f65718115e1304e24e067fa39eff18a660dc6cb9c360f"
    assert store.FSDD.digest == digest and store.FSDD.count == 3000
    lines = [f"{n} {d}\n" for n, d in sorted(store.MNIST_FULL.files.items())]
    assert store.MNIST_FULL.digest == sha("".join(lines).encode())


# --- IDX


def idx(a, code):
    head = struct.pack(">HBB", 0, code, a.ndim) + struct.pack(f">{a.ndim}I", *a.shape)
    return head + a.astype(a.dtype.newbyteorder(">")).tobytes()


CODES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (0,)])
def test_read_idx(tmp_path, code, shape):
    a = (np.arange(np.prod(shape)).reshape(shape) - 5).astype(CODES[code])
    for content in (idx(a, code), gzip.compress(idx(a, code))):
        (tmp_path / "x").write_bytes(content)
        got = store.read_idx(tmp_path / "x")
        assert got.dtype == a.dtype and got.dtype.isnative and got.flags.writeable
        assert np.array_equal(got, a)


GOOD = idx(np.arange(12, dtype="u1"), 8)
BAD = [b"", GOOD[:6], b"\1" + GOOD[1:], b"\0\0\x0a" + GOOD[3:], GOOD[:-1], GOOD + b"x"]
BAD += [b"\0\0\x08\x03" + b"\xff" * 12, b"\x80\x04K\x01."]
BAD += [gzip.compress(GOOD, mtime=0)[:-9]]


# numbered: a name that holds the second of its making differs between workers
@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_read_idx_refuses(tmp_path, bad):
    (tmp_path / "x").write_bytes(bad)
    with pytest.raises(CorruptData, match="x: expected a whole IDX file"):
        store.read_idx(tmp_path / "x")


# ── packages ─────────────────────────────────────────────────────────────────────────


def test_what_lies_in_a_package(tmp_path, monkeypatch):
    package = tmp_path / "a_package_of_data"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('was imported')")
    (tmp_path / "only_a_module.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert store.has_library("a_package_of_data") and not store.has_library("no_such")
    assert store.inside_package(package.name, "a/b.npz") == package / "a/b.npz"
    assert store.inside_package("no_such", "a.npz") is None
    assert store.inside_package("only_a_module", "a.npz") is None
