"""Does to the store what the world does to files: corruption, truncation, dropped connections, full disks, kills, races, and hostile archives.

Everything is served from 127.0.0.1 by this file; a guard fails any test that tries to reach another host.
"""

import dataclasses
import errno
import gzip
import hashlib
import inspect
import io
import os
import pickle
import pkgutil
import shutil
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import warnings
import wave
import zipfile
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tqdm  # noqa: F401, imported before a test gives up its permissions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mmcourse
from mmcourse import store
from mmcourse.store import CorruptData, DownloadError, Remote, UnsafeArchive, WriteError

ROOT = Path(__file__).resolve().parent.parent
POSIX = os.name == "posix"
digest_of = lambda b: hashlib.sha256(b).hexdigest()


# ── a server that misbehaves on request ──────────────────────────────────────────────────────────────────────────────────────────────────


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.hits.append(self.path)
        route = self.server.routes.get(self.path)
        try:
            if route is None:
                self.send_error(404)
            elif isinstance(route, bytes):
                self.whole(route)
            else:
                route(self)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client gave up, as some tests want

    def head(self, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def whole(self, body):
        self.head(Content_Length=len(body))
        self.wfile.write(body)

    def hang_up(self, rude=False):
        self.wfile.flush()
        if rude:
            self.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )  # closes with a reset
        self.close_connection = True


def cut(body, n, rude=False):
    "Announces `body`, sends `n` bytes of it."

    def go(h):
        h.head(Content_Length=len(body))
        h.wfile.write(body[:n])
        h.hang_up(rude)

    return go


def unannounced(body, n=None):
    "Sends without saying how much (HTTP/1.0)."

    def go(h):
        h.head()
        h.wfile.write(body[:n])
        h.hang_up()

    return go


def chunked(body, n=None, size=1000):
    def go(h):
        h.protocol_version = "HTTP/1.1"
        h.head(Transfer_Encoding="chunked", Connection="close")
        for i in range(0, len(body) if n is None else n, size):
            h.wfile.write(
                b"%x\r\n%s\r\n" % (len(body[i : i + size]), body[i : i + size])
            )
        if n is None:
            h.wfile.write(b"0\r\n\r\n")
        h.hang_up()

    return go


def half_then(body, event):
    "Half of `body`; the rest when the event is set."

    def go(h):
        h.head(Content_Length=len(body))
        h.wfile.write(body[: len(body) // 2])
        h.wfile.flush()
        event.wait(30)
        h.wfile.write(body[len(body) // 2 :])

    return go


def redirect(url, status=302):
    return lambda h: h.head(status, Location=url, Content_Length=0)


@contextmanager
def serving(tls=None, **routes):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.hits, server.routes = True, [], routes
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server():
    with serving() as s:
        yield s


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    "A cache of its own for each test, and nothing but loopback to connect to."
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path / "cache"))
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    connect = socket.socket.connect

    def guarded(self, address):
        assert (
            self.family not in (socket.AF_INET, socket.AF_INET6)
            or address[0] == "127.0.0.1"
        ), f"a test reached for {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    return tmp_path / "cache"


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*"))


def raised(kind, f, *needles):
    "The message of what `f` raises, which is of this very kind and says all of `needles`."
    with pytest.raises(kind) as info:
        f()
    assert info.type is kind, f"{info.type}: {info.value}"
    for needle in needles:
        assert needle in str(info.value), f"{needle!r} not in {info.value}"
    return str(info.value)


# ── data sets to fetch ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def wav(x, sr=8000, width=2, channels=1):
    "The bytes of a .wav file with the whole numbers `x`."
    raw = (
        (np.asarray(x) + 128).astype("u1")
        if width == 1
        else np.asarray(x).astype("<i4")
    )
    if width == 3:
        raw = raw.view("u1").reshape(-1, 4)[:, :3]
    out = io.BytesIO()
    with wave.open(out, "wb") as w:
        w.setnchannels(channels)
        w.setsampwidth(width)
        w.setframerate(sr)
        w.writeframes((raw.astype("<i2") if width == 2 else raw).tobytes())
    return out.getvalue()


CLIPS = {
    f"{d}_{who}_{i}.wav": wav(np.arange(100) * (d + 1) + i)
    for d in range(10)
    for who in ("ada", "bob")
    for i in range(2)
}


def contents(files):  # the definition, written a second time
    lines = "".join(
        f"{name} {digest_of(content)}\n"
        for name, content in sorted(files.items(), key=lambda kv: kv[0].encode())
    )
    return digest_of(lines.encode())


def repo_zip(files=CLIPS, top="digits-0123abc/", folder="recordings/", extra=True):
    "An archive laid out as GitHub lays out the archive of a commit."
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        z.comment = b"0123abc"
        if extra:
            for name in top, top + folder, top + "utils/":
                z.writestr(name, "") if name else None
            z.writestr(top + "README.md", "read me")
            z.writestr(top + "utils/trim.py", "pass")
        for name, content in files.items():
            z.writestr(top + folder + name, content)
    return out.getvalue()


def repo_tar(files=CLIPS, top="digits-0123abc/", mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out,
        mode=mode,
        format=tarfile.PAX_FORMAT,
        pax_headers={"comment": "0123abc"},
    ) as t:
        for name in top, top + "recordings":
            m = tarfile.TarInfo(name)
            m.type = tarfile.DIRTYPE
            t.addfile(m)
        for name, content in {"../README.md": b"x", **files}.items():
            m = tarfile.TarInfo(
                top + (f"recordings/{name}" if name in files else "README.md")
            )
            m.size = len(content)
            t.addfile(m, io.BytesIO(content))
    return out.getvalue()


def remote(*urls, files=CLIPS, **kw):
    known = {
        "name": "digits",
        "urls": urls,
        "digest": contents(files),
        "count": len(files),
        "pattern": "[0-9]_*.wav",
        "licence": "CC0",
        "source": "this test",
    }
    return Remote(**{**known, **kw})


def good(folder, files=CLIPS):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()} == files


def only_lock(cache):
    return [n for n in tree(cache) if not n.endswith(".lock")] == []


# ── digests, arrays, places ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sha256_known_answers(tmp_path):
    p = tmp_path / "x"
    for content, want in {
        b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",  # FIPS 180-4 examples
        b"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }.items():
        p.write_bytes(content)
        assert store.sha256(p) == want
        assert (
            store.verified(str(p), want) == p and store.verified(p, want.upper()) == p
        )
    big = os.urandom((1 << 20) + 7)
    p.write_bytes(big)
    assert store.sha256(p) == digest_of(big)


def test_verified_says_which_file_and_which_digests(tmp_path):
    p = tmp_path / "x"
    p.write_bytes(b"abc")
    raised(
        CorruptData, lambda: store.verified(p, "0" * 64), str(p), "0" * 64, "ba7816bf"
    )
    raised(
        FileNotFoundError, lambda: store.verified(tmp_path / "none", "0" * 64), "none"
    )
    raised(FileNotFoundError, lambda: store.verified(tmp_path, "0" * 64))


@pytest.mark.parametrize("flip", [0, 57, 133, -1])
def test_load_npz_notices_every_flipped_bit(tmp_path, flip):
    p = tmp_path / "x.npz"
    np.savez_compressed(p, a=np.arange(5), b=np.eye(2))
    digest = store.sha256(p)
    got = store.load_npz(p, digest)
    assert set(got) == {"a", "b"} and (got["a"] == np.arange(5)).all()
    content = bytearray(p.read_bytes())
    content[flip] ^= 1
    p.write_bytes(content)
    raised(CorruptData, lambda: store.load_npz(p, digest), "expected sha256")


class Bomb:
    "Unpickling it leaves a file behind."

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_nothing_is_unpickled(tmp_path):
    mark = tmp_path / "it ran"
    objects = np.empty(1, object)
    objects[0] = Bomb(str(mark))
    np.savez(tmp_path / "objects.npz", x=objects)
    np.save(tmp_path / "objects.npy", objects)
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(objects))
    mark.unlink(
        missing_ok=True
    )  # writing may not have made it, reading surely must not
    message = raised(
        ValueError,
        lambda: store.load_npz(
            tmp_path / "objects.npz", store.sha256(tmp_path / "objects.npz")
        ),
        "objects.npz",
        "allow_pickle=False",
    )
    assert "Error" not in message
    for name in "objects.npy", "pickle.npz":
        raised(
            CorruptData,
            lambda: store.load_npz(tmp_path / name, store.sha256(tmp_path / name)),
            name,
            "expected an .npz file",
        )
    assert not mark.exists()


def test_load_npz_damaged_inside(tmp_path):
    p = tmp_path / "x.npz"
    np.savez_compressed(p, a=np.arange(1000))
    content = bytearray(p.read_bytes())
    content[60:90] = bytes(30)
    p.write_bytes(content)
    raised(CorruptData, lambda: store.load_npz(p, store.sha256(p)), "x.npz")


def test_contents_digest_is_the_shell_pipeline(tmp_path):
    names = ["b", "B", "a b", "a", "a-", "_", "10", "9", "é", "z.wav"]
    for n in names:
        (tmp_path / n).write_text(n)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_text("not counted")
    got = store.contents_digest(tmp_path)
    assert got == contents({n: n.encode() for n in names})
    assert store.contents_digest(tmp_path, "*.wav") == contents({"z.wav": b"z.wav"})
    if not shutil.which("sha256sum") or not shutil.which("bash"):
        return
    script = 'export LC_ALL=C; for f in *; do [ -f "$f" ] && printf "%s %s\\n" "$f" "$(sha256sum < "$f" | cut -d" " -f1)"; done | sha256sum'
    assert (
        subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True
        ).stdout.split()[0]
        == got
    )


def test_data_path_in_a_checkout_and_in_a_wheel(tmp_path, monkeypatch):
    assert (
        store.data_path("gpu/x.json") == ROOT / "data" / "gpu" / "x.json"
        or (Path(mmcourse.__file__).parent / "data").is_dir()
    )
    package = tmp_path / "site-packages" / "mmcourse"
    (package / "data").mkdir(parents=True)
    monkeypatch.setattr(mmcourse, "__file__", str(package / "__init__.py"))
    assert store.data_path("x") == package / "data" / "x"
    (package / "data").rmdir()
    assert store.data_path("x") == package.parent / "data" / "x"


@pytest.mark.skipif(not POSIX, reason="POSIX places")
def test_cache_dir_follows_the_platform(tmp_path, monkeypatch):
    assert store.cache_dir() == tmp_path / "cache" and (tmp_path / "cache").is_dir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMCOURSE_CACHE", "relative")
    assert store.cache_dir() == tmp_path / "relative"
    monkeypatch.delenv("MMCOURSE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert store.cache_dir() == tmp_path / "me" / ".cache" / "mmcourse"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.cache_dir() == tmp_path / "xdg" / "mmcourse"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert store.cache_dir() == tmp_path / "me" / "Library" / "Caches" / "mmcourse"
    monkeypatch.setenv("MMCOURSE_CACHE", "~nobody-of-that-name/x")
    raised(WriteError, store.cache_dir, "MMCOURSE_CACHE")


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit, OSError])
def test_atomic_is_all_or_nothing(tmp_path, error):
    p = tmp_path / "deep" / "x"
    with store.atomic(p) as f:
        f.write(b"old")
        assert not p.exists()
    with pytest.raises(error), store.atomic(p) as f:
        f.write(b"new")
        raise error("stop")
    assert p.read_bytes() == b"old" and tree(tmp_path) == [
        "deep",
        "deep/x".replace("/", os.sep),
    ]


def test_leftovers_of_the_dead_are_swept_but_not_those_of_the_living(tmp_path):
    old, new, mine = (
        tmp_path / ".x.123.0123abcd.part",
        tmp_path / ".x.124.0123abcd.part",
        tmp_path / ".my.part",
    )
    folder = tmp_path / ".d.125.0123abcd.part"
    folder.mkdir()
    (folder / "f").write_text("x")
    for p in old, new, mine:
        p.write_text("x")
    for p in old, mine, folder:
        os.utime(p, (time.time() - 90000,) * 2)
    with store.atomic(tmp_path / "y") as f:
        f.write(b"y")
    assert tree(tmp_path) == [".my.part", new.name, "y"]


@pytest.mark.skipif(not POSIX, reason="POSIX permissions")
def test_new_files_have_the_users_usual_permissions(tmp_path):
    with store.atomic(tmp_path / "x") as f:
        f.write(b"x")
    (tmp_path / "y").write_text("y")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


class Full:
    "A file on a disk that fills up."

    def __init__(self, f, room, error=errno.ENOSPC):
        self.f, self.room, self.error = f, room, error

    def __getattr__(self, name):
        return getattr(self.f, name)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.f.close()

    def write(self, piece):
        self.room -= len(piece)
        if self.room < 0:
            raise OSError(self.error, os.strerror(self.error))
        return self.f.write(piece)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_space(server, tmp_path, monkeypatch, code):
    server.routes.update({"/x": os.urandom(300_000), "/repo.zip": repo_zip()})

    def filling(room, ending):  # files whose names end so have room for so many bytes
        def opened(p, mode="r", **kw):
            f = open(p, mode, **kw)
            return (
                Full(f, room, code) if mode == "xb" and str(p).endswith(ending) else f
            )

        monkeypatch.setattr(store, "open", opened, raising=False)

    filling(100_000, ".part")
    with pytest.raises(WriteError) as info:
        store.download(server.url + "/x", tmp_path / "d" / "x")
    assert (
        info.value.errno == code
        and str(tmp_path / "d" / "x") in str(info.value)
        and "MMCOURSE_CACHE" in str(info.value)
    )
    assert tree(tmp_path / "d") == []
    filling(100, ".wav")
    raised(
        WriteError,
        lambda: store.fetch_remote(remote(server.url + "/repo.zip")),
        "cannot be written",
    )
    assert only_lock(store.cache_dir())
    monkeypatch.undo()


def test_no_space_is_seen_before_the_download_where_the_size_is_known(
    server, tmp_path, monkeypatch
):
    server.routes["/x"] = b"x" * 1000
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda p: usage._replace(free=999))
    raised(
        WriteError,
        lambda: store.download(server.url + "/x", tmp_path / "d" / "x"),
        "no space is left",
    )
    assert tree(tmp_path / "d") == []


def child(code, *args, **kw):
    "A Python process of its own that runs `code`."
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [*kw.pop("before", []), sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kw,
    )


def test_a_disk_that_is_really_full(server, tmp_path):
    "On a file system of 300 kB, where the user may mount one."
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode
    ):
        pytest.skip("needs user namespaces")
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "zeros.zip").write_bytes(repo_zip({"0_x_0.wav": bytes(2_000_000)}))
    server.routes.update(
        {
            "/announced": bytes(2_000_000),
            "/unannounced": unannounced(bytes(2_000_000)),
            "/zeros.zip": (tmp_path / "zeros.zip").read_bytes(),
        }
    )
    code = """
import sys, os
from mmcourse import store
url, disk, archive = sys.argv[1:]
os.environ['MMCOURSE_CACHE'] = disk + '/cache'
digits = store.Remote('digits', (url + '/zeros.zip',), '0'*64, 1, '[0-9]_*.wav', '', '')
for f in (lambda: store.download(url + '/announced', disk + '/a'), lambda: store.download(url + '/unannounced', disk + '/b'),
          lambda: store.extract(archive, disk + '/c'), lambda: store.fetch_remote(digits)):
    try: f(); print('no error')
    except store.WriteError as e: print(e.errno, 'no space is left' in str(e))
print([os.path.join(d, n) for d, _, names in os.walk(disk) for n in names if not n.endswith('.lock')])
with store.atomic(disk + '/small') as f: f.write(b'still room')
print(open(disk + '/small').read())
"""
    mount = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        'mount -t tmpfs -o size=300k tmpfs "$0" && exec "$@"',
        str(disk),
    ]
    p = child(code, server.url, disk, tmp_path / "zeros.zip", before=mount)
    out, err = p.communicate(timeout=120)
    if "mount" in err and p.returncode and "Traceback" not in err:
        pytest.skip("may not mount")
    assert out.splitlines() == [f"{errno.ENOSPC} True"] * 4 + ["[]", "still room"], (
        out + err
    )


@contextmanager
def without_root():
    "Permissions count for root only where root gives up its rights for a while."
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    "A folder that every user may enter; pytest's own is closed to others."
    p = Path(tempfile.mkdtemp())
    p.chmod(0o755)
    yield p
    for d in [p, *(q for q in p.rglob("*") if q.is_dir())]:
        d.chmod(0o755)
    shutil.rmtree(p)


@pytest.mark.skipif(not POSIX, reason="POSIX permissions")
def test_a_cache_that_may_not_be_written(server, open_folder, monkeypatch):
    server.routes["/repo.zip"] = repo_zip()
    digits = remote(server.url + "/repo.zip")
    cache = open_folder / "cache"
    cache.mkdir()
    monkeypatch.setenv("MMCOURSE_CACHE", str(cache))
    cache.chmod(0o555)
    with without_root():
        raised(
            WriteError,
            lambda: store.fetch_remote(digits),
            str(cache),
            "permission denied",
            "MMCOURSE_CACHE",
        )
        raised(
            WriteError,
            lambda: store.download(server.url + "/repo.zip", cache / "x"),
            "permission denied",
        )
        raised(
            WriteError,
            lambda: store.download(server.url + "/repo.zip", cache / "deep" / "x"),
            "permission denied",
        )
    cache.chmod(0o755)
    store.fetch_remote(digits)
    cache.chmod(0o555)
    with without_root():
        assert good(store.fetch_remote(digits)) and good(
            store.cached(digits)
        )  # what is there can be used
    cache.chmod(0o755)
    (cache / "digits" / "0_ada_0.wav").write_bytes(b"changed")
    cache.chmod(0o555)
    with without_root():
        raised(WriteError, lambda: store.fetch_remote(digits), "permission denied")


@pytest.mark.skipif(not POSIX, reason="POSIX permissions")
def test_an_archive_that_may_not_be_read_is_not_blamed_on_the_cache(
    open_folder, monkeypatch
):
    monkeypatch.setenv("MMCOURSE_CACHE", str(open_folder / "cache"))
    (open_folder / "cache").mkdir()
    (open_folder / "cache").chmod(0o777)
    (open_folder / "mine.zip").write_bytes(repo_zip())
    (open_folder / "mine.zip").chmod(0)
    with without_root():
        raised(
            PermissionError,
            lambda: store.fetch_remote(remote(), archive=open_folder / "mine.zip"),
            "mine.zip",
        )


def test_a_cache_below_a_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path / "file" / "cache"))
    raised(
        WriteError,
        lambda: store.fetch_remote(remote("http://127.0.0.1:1/")),
        "a file is where a folder should be",
    )
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path / "file"))
    raised(WriteError, store.cache_dir, "a file is where a folder should be")


# ── downloading ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

BODY = os.urandom(200_000)


def test_download(server, tmp_path):
    server.routes.update(
        {
            "/x": BODY,
            "/chunked": chunked(BODY),
            "/unannounced": unannounced(BODY),
            "/empty": b"",
        }
    )
    for path in "/x", "/chunked", "/unannounced":
        p = store.download(
            server.url + path, tmp_path / "deep" / "er" / "x", digest_of(BODY)
        )
        assert p.read_bytes() == BODY
        p.unlink()
    assert store.download(server.url + "/empty", tmp_path / "e").read_bytes() == b""
    assert tree(tmp_path / "deep") == ["er"]


def test_a_good_file_is_not_fetched_again_and_a_bad_one_is(server, tmp_path):
    server.routes["/x"] = BODY
    for _ in range(2):
        store.download(server.url + "/x", tmp_path / "x", digest_of(BODY).upper())
    assert len(server.hits) == 1
    (tmp_path / "x").write_bytes(BODY[:-1])
    assert (
        store.download(server.url + "/x", tmp_path / "x", digest_of(BODY)).read_bytes()
        == BODY
    )
    assert len(server.hits) == 2
    store.download(
        server.url + "/x", tmp_path / "x"
    )  # without a digest nothing is known about the file
    assert len(server.hits) == 3


BROKEN = {
    "corrupt": (lambda h: h.whole(BODY[:-1] + b"?"), CorruptData, "expected sha256"),
    "login page": (b"<html>please log in", CorruptData, "expected sha256"),
    "truncated": (
        cut(BODY, 150_000),
        DownloadError,
        "ended after 150,000 of 200,000 bytes",
    ),
    "nothing after the headers": (
        cut(BODY, 0),
        DownloadError,
        "ended after 0 of 200,000",
    ),
    "reset": (cut(BODY, 150_000, rude=True), DownloadError, "connection"),
    "chunks cut short": (chunked(BODY, 150_000), DownloadError, "connection broke"),
    "unannounced and short": (
        unannounced(BODY, 150_000),
        CorruptData,
        "expected sha256",
    ),
    "no HTTP": (
        lambda h: (h.wfile.write(b"220 smtp ready\r\n"), h.hang_up()),
        DownloadError,
        "BadStatusLine",
    ),
    "silence": (lambda h: h.hang_up(rude=True), DownloadError, "connection"),
    "404": (lambda h: h.send_error(404), DownloadError, "the server answered 404"),
    "500": (lambda h: h.send_error(500), DownloadError, "the server answered 500"),
    "403 with a body": (
        lambda h: (h.head(403, Content_Length=4), h.wfile.write(b"nope")),
        DownloadError,
        "the server answered 403",
    ),
    "204": (lambda h: h.head(204), DownloadError, "the server answered 204"),
    "loop": (redirect("/x"), DownloadError, "redirect"),
    "redirect to a file": (
        redirect("file:///etc/hostname"),
        DownloadError,
        "file:///etc/hostname",
    ),
    "redirect to ftp": (
        redirect("ftp://127.0.0.1/x"),
        DownloadError,
        "ftp://127.0.0.1/x",
    ),
    "redirect to data": (redirect("data:,x"), DownloadError, "data:,x"),
    "redirect to nowhere": (
        lambda h: h.head(302),
        DownloadError,
        "the server answered 302",
    ),
    "negative length": (
        lambda h: (h.head(Content_Length=-5), h.wfile.write(b"x"), h.hang_up()),
        CorruptData,
        "expected sha256",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_bad_answer_leaves_what_was_there(server, tmp_path, how):
    route, kind, needle = BROKEN[how]
    server.routes["/x"] = route
    raised(
        kind,
        lambda: store.download(
            server.url + "/x", tmp_path / "d" / "x", digest_of(BODY)
        ),
        server.url + "/x",
        needle,
    )
    assert tree(tmp_path) in ([], ["d"])
    (tmp_path / "d").mkdir(exist_ok=True)
    (tmp_path / "d" / "x").write_bytes(b"old")
    raised(
        kind,
        lambda: store.download(
            server.url + "/x", tmp_path / "d" / "x", digest_of(BODY)
        ),
        needle,
    )
    assert (tmp_path / "d" / "x").read_bytes() == b"old" and len(
        tree(tmp_path / "d")
    ) == 1


def test_more_than_is_allowed(server, tmp_path):
    server.routes.update(
        {
            "/announced": BODY,
            "/endless": lambda h: (
                h.head(),
                [h.wfile.write(bytes(1 << 16)) for _ in range(10_000)],
            ),
        }
    )
    for path in "/announced", "/endless":
        raised(
            DownloadError,
            lambda: store.download(
                server.url + path, tmp_path / "d" / "x", max_bytes=100_000
            ),
            "more than the 100,000 bytes",
        )
    assert tree(tmp_path / "d") == []


def test_redirects_are_followed(server, tmp_path):
    with serving() as other:
        other.routes["/there"] = BODY
        server.routes.update(
            {"/x": redirect("/y", 301), "/y": redirect(other.url + "/there", 307)}
        )
        assert (
            store.download(
                server.url + "/x", tmp_path / "x", digest_of(BODY)
            ).read_bytes()
            == BODY
        )


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "ftp://127.0.0.1/x",
        "data:,x",
        "x",
        "",
        "http:///x",
        "javascript:0",
        "//127.0.0.1/x",
    ],
)
def test_only_web_addresses(tmp_path, url):
    raised(
        ValueError,
        lambda: store.download(url, tmp_path / "x"),
        "url: expected http:// or https://",
        repr(url),
    )
    assert tree(tmp_path) == []


def test_no_network(tmp_path, monkeypatch):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]  # closed again: nobody listens
    raised(
        DownloadError,
        lambda: store.download(f"http://127.0.0.1:{port}/x", tmp_path / "x"),
        "the connection was refused",
    )
    for url in (
        "http://bad host/x",
        "http://127.0.0.1:99999/x",
        "http://a..b/x",
        "http://127.0.0.1/\r\nHost: x",
    ):
        with pytest.raises((DownloadError, ValueError)):
            store.download(url, tmp_path / "x")

    def lookup(*args, **kw):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    raised(
        DownloadError,
        lambda: store.download("https://example.invalid/x", tmp_path / "x"),
        "https://example.invalid/x",
        "host name was not found",
        "network",
    )
    raised(
        DownloadError,
        lambda: store.fetch_fsdd(),
        "fsdd: could not be fetched",
        store.FSDD.urls[0],
        "download it yourself",
        "archive=",
    )
    message = raised(
        DownloadError,
        lambda: store.fetch_mnist_full(),
        "download it yourself",
        "archive=",
    )
    assert all(url in message for url in store.MNIST_FULL.urls)
    assert tree(tmp_path / "cache") == [".fsdd.lock", ".mnist_full.lock"]


def test_no_wait_is_endless(server, tmp_path):
    done = threading.Event()
    server.routes.update(
        {"/silent": lambda h: done.wait(30), "/stalls": half_then(BODY, done)}
    )
    start = time.monotonic()
    raised(
        DownloadError,
        lambda: store.download(server.url + "/silent", tmp_path / "x", timeout=0.3),
        "no answer in time",
    )
    raised(
        DownloadError,
        lambda: store.download(server.url + "/stalls", tmp_path / "x", timeout=0.3),
        "no answer in time",
    )
    assert time.monotonic() - start < 10 and tree(tmp_path) == []
    done.set()
    assert 0 < inspect.signature(store.download).parameters["timeout"].default <= 60


def test_progress_is_shown_when_asked(server, tmp_path, capsys):
    server.routes["/x"] = BODY
    for progress, shown in (None, False), (False, False), (True, True):
        store.download(server.url + "/x", tmp_path / "file", progress=progress)
        assert (
            "file: 100%" in capsys.readouterr().err
        ) == shown  # not a terminal here: silent unless asked


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


def test_https_is_checked_and_not_given_up(server, tmp_path, certificate, monkeypatch):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with serving(tls) as secure:
        secure.routes.update(
            {
                "/x": BODY,
                "/down": redirect(server.url + "/x"),
                "/twice": redirect("/down"),
            }
        )
        server.routes.update(
            {
                "/x": BODY,
                "/up": redirect(secure.url + "/x"),
                "/up and down": redirect(secure.url + "/down"),
            }
        )
        raised(
            DownloadError,
            lambda: store.download(secure.url + "/x", tmp_path / "x"),
            "certificate",
        )  # nobody vouches for it
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
        for url in secure.url + "/x", server.url + "/up":
            assert store.download(url, tmp_path / "x").read_bytes() == BODY
        (tmp_path / "x").unlink()
        server.hits.clear()
        for url in secure.url + "/down", secure.url + "/twice":
            raised(
                DownloadError,
                lambda: store.download(url, tmp_path / "x"),
                "gives up encryption",
            )
        assert server.hits == [] and not (tmp_path / "x").exists()


def test_downgrade_is_refused_without_openssl_too():
    from urllib.request import Request

    r = store._Redirects()
    with pytest.raises(DownloadError, match="gives up encryption"):
        r.redirect_request(Request("https://a/x"), None, 302, "", {}, "http://a/x")
    assert (
        r.redirect_request(
            Request("https://a/x"), None, 302, "", {}, "https://b/x"
        ).full_url
        == "https://b/x"
    )
    assert (
        r.redirect_request(
            Request("http://a/x"), None, 302, "", {}, "http://b/x"
        ).full_url
        == "http://b/x"
    )


# ── interrupted, killed, two at once ─────────────────────────────────────────────────────────────────────────────────────────────────────

FETCH = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler) # what starts the tests may have told its children to ignore it
from mmcourse import store
digits = store.Remote('digits', (sys.argv[1],), sys.argv[2], int(sys.argv[3]), '[0-9]_*.wav', '', '')
if 'nolock' in sys.argv: store._try_lock = lambda f: True
print('ready', flush=True)
sys.stdin.readline()
print(store.fetch_remote(digits))
"""


def fetcher(digits, *flags):
    return child(
        FETCH,
        digits.urls[0],
        digits.digest,
        digits.count,
        *flags,
        stdin=subprocess.PIPE,
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def parts(cache):
    return [n for n in tree(cache) if ".part" in n]


@pytest.mark.parametrize("step", ["_pieces", "_copy", "_swap", "extract"])
def test_interrupted_anywhere(server, monkeypatch, home, step):
    server.routes["/repo.zip"] = repo_zip()
    digits = remote(server.url + "/repo.zip")

    def stop(*args, **kw):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(store, step, stop)
        with pytest.raises(KeyboardInterrupt):
            store.fetch_remote(digits)
    assert only_lock(home)
    assert good(store.fetch_remote(digits))


@pytest.mark.parametrize(
    "how", ["SIGKILL", "SIGINT", "SIGTERM"] if POSIX else ["SIGTERM"]
)
def test_killed_midway(server, home, how):
    body, rest = (
        repo_zip({**CLIPS, "0_big_0.wav": os.urandom(500_000)}),
        threading.Event(),
    )
    digits = remote(
        server.url + "/repo.zip", files={**CLIPS, "0_big_0.wav": b""}, digest="0" * 64
    )
    server.routes["/repo.zip"] = half_then(body, rest)
    p = fetcher(digits)
    p.stdout.readline()
    p.stdin.write("\n")
    p.stdin.flush()
    wait_for(lambda: any(f.stat().st_size for f in home.rglob("*.part") if f.is_file()))
    p.send_signal(getattr(signal, how))
    _, err = p.communicate(timeout=60)
    rest.set()
    assert p.returncode != 0 and not (home / "digits").exists()
    if how == "SIGINT":
        assert "KeyboardInterrupt" in err and parts(home) == []
    else:
        assert parts(home)  # nobody had the time to tidy up
    server.routes["/repo.zip"] = repo_zip()
    assert good(
        store.fetch_remote(remote(server.url + "/repo.zip"))
    )  # the lock of the dead one is free
    for f in home.iterdir():
        os.utime(f, (time.time() - 90000,) * 2)
    shutil.rmtree(home / "digits")
    store.fetch_remote(remote(server.url + "/repo.zip"))
    assert parts(home) == []  # and a day later its leavings are gone


@pytest.mark.parametrize(
    "flags, fetched", [([], lambda n: n == 1), (["nolock"], lambda n: 1 <= n <= 4)]
)
def test_processes_at_once(server, home, flags, fetched):
    together = threading.Event()
    server.routes["/repo.zip"] = half_then(repo_zip(), together)
    digits = remote(server.url + "/repo.zip")
    children = [fetcher(digits, *flags) for _ in range(4)]
    for p in children:
        p.stdout.readline()
    for p in children:
        p.stdin.write("\n")
        p.stdin.flush()
    wait_for(lambda: len(server.hits) == (4 if flags else 1))
    time.sleep(0.2)
    together.set()
    for p in children:
        out, err = p.communicate(timeout=120)
        assert p.returncode == 0 and out.strip() == str(home / "digits"), err
    assert good(home / "digits") and parts(home) == [] and fetched(len(server.hits))


def test_threads_that_download_and_damage(server, home):
    server.routes["/repo.zip"] = repo_zip()
    digits = remote(server.url + "/repo.zip")
    errors, end = [], time.monotonic() + 2

    def fetch():
        while time.monotonic() < end:
            try:
                store.fetch_remote(digits)
            except Exception as e:
                errors.append(e)

    def damage():
        while time.monotonic() < end:
            with suppress(OSError):
                (home / "digits" / "3_ada_1.wav").write_bytes(b"?")
            time.sleep(0.05)

    threads = [threading.Thread(target=f) for f in (fetch, fetch, damage)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if os.name == "nt":
        errors = [
            e for e in errors if not isinstance(e, (PermissionError, WriteError))
        ]  # an open file there can't be moved
    assert errors == [] and len(server.hits) > 1
    assert good(store.fetch_remote(digits)) and parts(home) == []


def test_two_downloads_of_one_file(server, tmp_path):
    server.routes["/x"] = BODY
    failures = []

    def go():
        try:
            store.download(server.url + "/x", tmp_path / "x", digest_of(BODY))
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=go) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert (
        failures == []
        and tree(tmp_path) == ["x"]
        and (tmp_path / "x").read_bytes() == BODY
    )


def test_a_lock_that_never_comes_free_is_not_waited_for_for_ever(tmp_path):
    with store._lock(tmp_path / "l"):
        start = time.monotonic()
        with store._lock(tmp_path / "l", patience=0.2):
            waited = time.monotonic() - start
    assert 0.15 < waited < 10


# ── archives ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_zip(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        warnings.simplefilter(
            "ignore", UserWarning
        )  # zipfile warns of names that come twice
        for name, content in members:
            m = zipfile.ZipInfo("x")
            m.filename = name
            m.compress_type = zipfile.ZIP_DEFLATED
            if isinstance(content, int):
                m.external_attr, content = content << 16, b"/etc"
            else:
                m.external_attr = 0o644 << 16
            z.writestr(m, content)
    return out.getvalue()


def make_tar(members, format=tarfile.PAX_FORMAT, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=format) as t:
        for name, content in members:
            m = tarfile.TarInfo(name)
            if isinstance(content, (int, str)):
                m.type, m.linkname = str(content).encode(), "/etc/passwd"
                t.addfile(m)  # a member's type is one character
            elif isinstance(content, bytes):
                m.size = len(content)
                t.addfile(m, io.BytesIO(content))
            else:
                m.pax_headers = content
                t.addfile(m)
    return out.getvalue()


NAMES = {
    "climbs": "../evil",
    "climbs from below": "a/../../evil",
    "climbs and returns": "a/../b",
    "dots alone": "..",
    "absolute": "/tmp/evil",
    "twice absolute": "//evil/x",
    "drive": "C:/evil",
    "drive, relative": "C:evil",
    "stream": "file.txt:evil",
    "backslash": "..\\evil",
    "share": "\\\\host\\share\\evil",
    "device name": "aux",
    "device name with an ending": "a/COM1.wav",
    "ends in a dot": "a.",
    "ends in a space": "a /b",
    "newline": "a\nb",
    "escape": "\x1b[2J",
    "delete": "a\x7f",
    "too long": "x" * 300,
    "too deep": "/".join("x" * 40),
}
PAIRS = {
    "twice": ("a", "a"),
    "twice, spelt differently": ("a/b", "./a//b"),
    "capitals": ("data/x", "Data/x"),
    "capitals of folders": ("data/x", "Data/y"),
    "accents": ("caf\u00e9", "cafe\u0301"),
    "file, then folder": ("a", "a/b"),
    "folder, then file": ("a/b", "a"),
    "folder, then file, spelt differently": ("a/b", "A"),
}
ZIP_MODES = {
    "link": stat.S_IFLNK,
    "device": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
}
TAR_TYPES = {
    "link": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "contiguous": tarfile.CONTTYPE,
}
SPARSE = {"GNU.sparse.size": "9", "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,1"}
HALF_SPARSE = {
    "GNU.sparse.major": "1",
    "GNU.sparse.minor": "0",
    "GNU.sparse.name": "x",
    "GNU.sparse.realsize": "9",
}  # its map is missing
SINGLE = {  # made when its test runs
    "tar: link, then through it": lambda: make_tar(
        [("evil", int(tarfile.SYMTYPE)), ("evil/x", b"x")]
    ),
    "tar: extended header renames": lambda: make_tar([("fine", {"path": "../evil"})]),
    "tar: sparse": lambda: make_tar(
        [("fine", b"x"), ("evil", "S")], tarfile.GNU_FORMAT
    ),
    "tar: sparse by extended header": lambda: make_tar([("fine", SPARSE)]),
    "tar: half sparse by extended header": lambda: make_tar([("fine", HALF_SPARSE)]),
    "tar: a folder that climbs": lambda: make_tar([("../evil", int(tarfile.DIRTYPE))]),
    "tar: bomb": lambda: make_tar([("zeros", bytes(3_000_000))]),
    "tar: bomb in a header": lambda: make_tar([("a", {"comment": "x" * 6_000_000})]),
    "tar: bomb in a long name": lambda: make_tar(
        [("x/" * 2_000_000, b"")], tarfile.GNU_FORMAT
    ),
    "tar: bomb after the end": lambda: gzip.compress(
        gzip.decompress(make_tar([("fine", b"x")])) + bytes(6_000_000)
    ),
    "tar: too many": lambda: make_tar([(f"{i}", b"") for i in range(300)]),
    "zip: NUL in a name": lambda: make_zip([("fine", b"x"), ("aXb", b"x")]).replace(
        b"aXb", b"a\0b"
    ),
    "zip: a folder that climbs": lambda: make_zip([("../evil/", b"")]),
    "zip: bomb": lambda: make_zip([("zeros", bytes(3_000_000))]),
    "zip: bomb of many": lambda: make_zip(
        [(f"{i}", b"x" * 200_000) for i in range(20)]
    ),
    "zip: too many": lambda: make_zip([(f"{i}", b"") for i in range(300)]),
}


def attack(how):
    kind, what = how.split(": ", 1)
    make = {"zip": make_zip, "tar": make_tar}[kind]
    if how in SINGLE:
        return SINGLE[how]()
    if what in NAMES:
        return make([("fine", b"x"), (NAMES[what], b"evil")])
    if what in PAIRS:
        return make([("fine", b"x"), *((name, b"x") for name in PAIRS[what])])
    return make(
        [
            ("fine", b"x"),
            (
                "evil",
                ZIP_MODES[what] | 0o777 if kind == "zip" else int(TAR_TYPES[what]),
            ),
        ]
    )


ATTACKS = [
    *(
        f"{kind}: {what}"
        for kind in ("zip", "tar")
        for what in (*NAMES, *PAIRS, *(ZIP_MODES if kind == "zip" else TAR_TYPES))
    ),
    *SINGLE,
]


@pytest.mark.parametrize("how", ATTACKS)
def test_hostile_archives_leave_nothing(tmp_path, how):
    nest = tmp_path / "a" / "b" / "c"
    nest.mkdir(parents=True)
    (nest / "x").write_bytes(attack(how))
    before = tree(tmp_path)
    kind = (
        (UnsafeArchive, CorruptData) if "half" in how else UnsafeArchive
    )  # half a sparse file is both
    with pytest.raises(kind) as info:
        store.extract(nest / "x", nest / "out", max_bytes=2_000_000, max_files=200)
    assert str(nest / "x") in str(info.value) and len(str(info.value)) < 2000
    assert tree(tmp_path) == before and not os.path.exists("/tmp/evil")


def test_hostile_archives_leave_nothing_in_the_cache(server, home, tmp_path):
    server.routes["/repo.zip"] = make_zip(
        [("recordings/0_a_0.wav", b"x"), ("../../evil", b"x")]
    )
    raised(
        UnsafeArchive,
        lambda: store.fetch_remote(remote(server.url + "/repo.zip")),
        server.url,
        "climbs out",
    )
    (tmp_path / "mine.tar.gz").write_bytes(make_tar([("../../evil", b"x")]))
    raised(
        UnsafeArchive,
        lambda: store.fetch_remote(
            remote(server.url + "/repo.zip"), archive=tmp_path / "mine.tar.gz"
        ),
        "mine.tar.gz",
        "climbs out",
    )
    assert only_lock(home) and tree(tmp_path) == [
        "cache",
        os.path.join("cache", ".digits.lock"),
        "mine.tar.gz",
    ]


@pytest.mark.parametrize("said", [10, 4_000_000])
def test_a_zip_whose_sizes_lie(tmp_path, said):
    content = bytearray(make_zip([("zeros", bytes(3_000_000))]))
    for sign, at in (b"PK\x03\x04", 22), (b"PK\x01\x02", 24):
        i = content.index(sign) + at
        content[i : i + 4] = struct.pack("<I", said)
    (tmp_path / "x").write_bytes(content)
    with pytest.raises((CorruptData, UnsafeArchive)):
        store.extract(tmp_path / "x", tmp_path / "out")
    assert tree(tmp_path) == ["x"]


def flagged(content, flag):  # sets a flag of the first member
    content = bytearray(content)
    for sign, at in (b"PK\x03\x04", 6), (b"PK\x01\x02", 8):
        content[content.index(sign) + at] |= flag
    return bytes(content)


def damaged_header():  # of the second member; the first is whole
    raw = bytearray(gzip.decompress(make_tar([("a", b"x"), ("b", b"y")])))
    raw[1024 + 150] ^= 1
    return gzip.compress(bytes(raw))


def negative_size():
    m = tarfile.TarInfo("a")
    raw = bytearray(m.tobuf())
    raw[124:136] = b"\xff" * 12
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw) + bytes(1024)


TAR = make_tar([("a", os.urandom(5000)), ("b", b"y")])
DAMAGED = {
    "empty": b"",
    "text": b"hello",
    "page": b"<html>",
    "rar": b"Rar!\x1a\x07",
    "xz": b"\xfd7zXZ\0" + bytes(100),
    "PK alone": b"PK",
    "gzip of text": gzip.compress(b"hello"),
    "zip cut short": repo_zip()[:-200],
    "zip start missing": repo_zip()[100:],
    "encrypted": flagged(make_zip([("a", b"x")]), 1),
    "tar.gz cut short": TAR[:-300],
    "tar.gz without its checksum": TAR[:-8],
    "tar.gz with another checksum": TAR[:-8] + bytes(4) + TAR[-4:],
    "tar cut in a file": gzip.decompress(TAR)[:3000],
    "tar cut between files": gzip.decompress(TAR)[: 512 + 5120],
    "tar with a damaged header": damaged_header(),
    "tar with a negative size": negative_size(),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_damaged_archives(tmp_path, home, how):
    (tmp_path / "x").write_bytes(DAMAGED[how])
    with pytest.raises(
        (CorruptData, UnsafeArchive) if "negative" in how else CorruptData, match="x: "
    ) as info:
        store.extract(tmp_path / "x", tmp_path / "out")
    assert tree(tmp_path) == ["x"]
    with pytest.raises(type(info.value)):
        store.fetch_remote(remote(), archive=tmp_path / "x")
    assert only_lock(home)


@pytest.mark.parametrize(
    "make",
    [repo_zip, repo_tar, lambda: repo_tar(mode="w")],
    ids=["zip", "tar.gz", "tar"],
)
def test_extract(tmp_path, make):
    (tmp_path / "x").write_bytes(make())
    out = store.extract(tmp_path / "x", tmp_path / "deep" / "out")
    assert (
        good(out / "digits-0123abc" / "recordings")
        and (out / "digits-0123abc" / "README.md").is_file()
    )
    raised(FileExistsError, lambda: store.extract(tmp_path / "x", out), "already")
    raised(
        FileNotFoundError,
        lambda: store.extract(tmp_path / "none", tmp_path / "o"),
        "archive",
        "none",
    )
    raised(
        FileNotFoundError, lambda: store.extract(tmp_path, tmp_path / "o"), "archive"
    )


@pytest.mark.skipif(not POSIX, reason="POSIX permissions")
def test_permissions_in_an_archive_are_not_taken(tmp_path):
    m = zipfile.ZipInfo("x")
    m.external_attr = (stat.S_IFREG | 0o6777) << 16
    with zipfile.ZipFile(tmp_path / "a", "w") as z:
        z.writestr(m, "x")
    (tmp_path / "plain").write_text("x")
    assert (store.extract(tmp_path / "a", tmp_path / "out") / "x").stat().st_mode == (
        tmp_path / "plain"
    ).stat().st_mode


odd_names = st.lists(
    st.text(st.sampled_from("abAé. /\\:\n\0~con1"), min_size=1, max_size=8),
    min_size=1,
    max_size=5,
)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(names=odd_names, zipped=st.booleans())
def test_whatever_the_names_nothing_leaves_the_folder(tmp_path, names, zipped):
    members = [(name, f"{i}".encode()) for i, name in enumerate(names)]
    with tempfile.TemporaryDirectory(dir=tmp_path) as d:
        nest = Path(d) / "a" / "b"
        nest.mkdir(parents=True)
        (nest / "x").write_bytes((make_zip if zipped else make_tar)(members))
        before = tree(d)
        try:
            out = store.extract(nest / "x", nest / "out")
        except (UnsafeArchive, CorruptData):
            assert tree(d) == before
            return
        assert [
            n for n in tree(d) if not n.startswith(os.path.join("a", "b", "out"))
        ] == before
        files = [p for p in out.rglob("*") if p.is_file()]
        assert sorted(p.read_bytes() for p in files) == sorted(
            c for n, c in members if not (zipped and n.endswith("/"))
        )  # all are there, none twice


MEMBERS = [("d/a", b"hello " * 50), ("b", b"x")]
ORIGINALS = {
    "zip": make_zip(MEMBERS),
    "tar.gz": make_tar(MEMBERS),
    "tar": make_tar(MEMBERS, mode="w"),
}
FLIP = st.tuples(
    st.floats(0, 1, exclude_max=True), st.integers(1, 255)
)  # where, as a share of the length; which bits


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from(list(ORIGINALS)),
    flips=st.lists(FLIP, min_size=1, max_size=4),
    keep=st.floats(0.5, 1),
)
def test_damaged_at_random(tmp_path, kind, flips, keep):
    content = bytearray(ORIGINALS[kind])
    for where, what in flips:
        content[int(where * len(content))] ^= what
    with tempfile.TemporaryDirectory(dir=tmp_path) as d:
        (Path(d) / "x").write_bytes(
            content[: int(keep * len(content))] if keep < 0.9 else content
        )
        try:
            store.extract(Path(d) / "x", Path(d) / "out", max_bytes=10_000_000)
        except (UnsafeArchive, CorruptData):
            assert tree(d) == ["x"]  # and no other exception
        else:
            assert {n.split(os.sep)[0] for n in tree(d)} <= {"x", "out"}


# ── fetching ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "make",
    [repo_zip, repo_tar, lambda: repo_zip(top="", folder="", extra=False)],
    ids=["zip", "tar.gz", "flat zip"],
)
def test_fetch_and_load(server, home, make):
    server.routes["/repo"] = make()
    digits = remote(server.url + "/repo")
    raised(FileNotFoundError, lambda: store.cached(digits), "datasets.fetch('digits')")
    assert not home.exists()  # asking makes nothing
    folder = store.fetch_remote(digits)
    assert folder == home / "digits" == store.cached(digits) and good(folder)
    assert sorted(os.listdir(home)) == [".digits.lock", "digits"]
    assert store.fetch_remote(digits) == folder and len(server.hits) == 1


CHANGES = {
    "a byte": lambda d: (d / "0_ada_0.wav").write_bytes(
        b"?" + (d / "0_ada_0.wav").read_bytes()[1:]
    ),
    "lost": lambda d: (d / "0_ada_0.wav").unlink(),
    "added": lambda d: (d / "0_eve_0.wav").write_bytes(b"?"),
    "renamed": lambda d: (d / "0_ada_0.wav").rename(d / "0_ada_9.wav"),
    "swapped": lambda d: (
        (d / "0_ada_0.wav").rename(d / "t"),
        (d / "1_ada_0.wav").rename(d / "0_ada_0.wav"),
        (d / "t").rename(d / "1_ada_0.wav"),
    ),
    "emptied": lambda d: (shutil.rmtree(d), d.mkdir()),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_cache_is_noticed_and_fetched_again_only_when_asked(
    server, home, how
):
    server.routes["/repo.zip"] = repo_zip()
    digits = remote(server.url + "/repo.zip")
    folder = store.fetch_remote(digits)
    times = {
        p.name: (p.stat().st_atime_ns, p.stat().st_mtime_ns) for p in folder.iterdir()
    }
    CHANGES[how](folder)
    for p in folder.iterdir():
        if p.name in times:
            os.utime(p, ns=times[p.name])  # same size, same date: only the digest tells
    raised(
        CorruptData,
        lambda: store.cached(digits),
        "expected sha256",
        "datasets.fetch('digits')",
    )
    assert len(server.hits) == 1
    assert good(store.fetch_remote(digits)) and len(server.hits) == 2
    assert sorted(os.listdir(home)) == [".digits.lock", "digits"]


def test_what_a_file_manager_leaves_is_no_change(server):
    server.routes["/repo.zip"] = repo_zip()
    folder = store.fetch_remote(remote(server.url + "/repo.zip"))
    for name in ".DS_Store", "Thumbs.db", "desktop.ini":
        (folder / name).write_text("x")
    assert store.cached(remote(server.url + "/repo.zip")) == folder


def test_a_file_in_the_place_of_the_folder(server, home):
    server.routes["/repo.zip"] = repo_zip()
    home.mkdir()
    (home / "digits").write_text("a file")
    assert good(store.fetch_remote(remote(server.url + "/repo.zip")))


def test_other_contents_are_refused_and_the_old_ones_stay(server, home):
    server.routes["/repo.zip"] = repo_zip()
    digits = remote(server.url + "/repo.zip")
    folder = store.fetch_remote(digits)
    (folder / "0_ada_0.wav").write_bytes(b"changed")
    server.routes["/repo.zip"] = repo_zip({**CLIPS, "0_ada_0.wav": b"another"})
    raised(
        CorruptData,
        lambda: store.fetch_remote(digits),
        digits.digest,
        server.url,
        "fetch('digits', archive=",
    )
    server.routes["/repo.zip"] = repo_zip(
        {k: v for k, v in CLIPS.items() if k != "0_ada_0.wav"}
    )
    raised(
        CorruptData,
        lambda: store.fetch_remote(digits),
        "40 files",
        "39 in 'recordings'",
    )
    server.routes["/repo.zip"] = make_zip([("README.md", b"x")])
    raised(CorruptData, lambda: store.fetch_remote(digits), "got none")
    assert (folder / "0_ada_0.wav").read_bytes() == b"changed" and sorted(
        os.listdir(home)
    ) == [".digits.lock", "digits"]


def test_mirrors(server, home):
    server.routes.update(
        {
            "/cut": cut(repo_zip(), 1000),
            "/other": repo_zip({**CLIPS, "0_ada_0.wav": b"?"}),
            "/page": b"<html>",
            "/repo.zip": repo_zip(),
        }
    )
    urls = [server.url + path for path in ("/missing", "/cut", "/other", "/page")]
    message = raised(
        DownloadError, lambda: store.fetch_remote(remote(*urls)), "archive="
    )
    assert (
        all(url in message for url in urls)
        and ".part" not in message
        and only_lock(home)
    )
    assert (
        good(store.fetch_remote(remote(*urls, server.url + "/repo.zip")))
        and parts(home) == []
    )


@pytest.mark.parametrize("form", ["zip", "tar.gz", "folder", "clone"])
def test_a_local_archive_needs_no_network(tmp_path, monkeypatch, form):
    def no(*args, **kw):
        raise AssertionError("the network")

    monkeypatch.setattr(socket, "socket", no)
    monkeypatch.setattr(socket, "create_connection", no)
    mine = tmp_path / "mine"
    if form in ("folder", "clone"):
        place = mine / "recordings" if form == "clone" else mine
        place.mkdir(parents=True)
        (mine / "README").write_text("x")
        (place / ".DS_Store").write_text("x")
        for name, content in CLIPS.items():
            (place / name).write_bytes(content)
    else:
        mine.write_bytes(repo_zip() if form == "zip" else repo_tar())
    before = tree(tmp_path)
    digits = remote("https://example.invalid/x")
    assert good(store.fetch_remote(digits, archive=str(mine)))
    assert [
        n for n in tree(tmp_path) if not n.startswith("cache")
    ] == before  # the learner's own files stay
    if mine.is_file():
        mine.unlink()
    assert good(
        store.fetch_remote(digits, archive=mine)
    )  # there already: not looked at again


def test_a_local_archive_that_is_none(tmp_path, home):
    raised(
        FileNotFoundError,
        lambda: store.fetch_remote(remote(), archive=tmp_path / "none.zip"),
        "archive: no file or folder",
        "none.zip",
    )
    (tmp_path / "x.zip").write_bytes(b"hello")
    raised(
        CorruptData,
        lambda: store.fetch_remote(remote(), archive=tmp_path / "x.zip"),
        "x.zip",
        "expected a zip, tar or tar.gz",
    )
    (tmp_path / "empty").mkdir()
    raised(
        CorruptData,
        lambda: store.fetch_remote(remote(), archive=tmp_path / "empty"),
        "got none",
    )
    assert only_lock(home)


def test_fsdd_of_full_size(server, home):
    "3,000 files in the layout of the real archive, with the names of the real data set."
    people = "george", "jackson", "lucas", "nicolas", "theo", "yweweler"
    files = {
        f"{d}_{who}_{i}.wav": wav([d, i, len(who)])
        for d in range(10)
        for who in people
        for i in range(50)
    }
    server.routes["/fsdd.zip"] = repo_zip(
        files, top="free-spoken-digit-dataset-26eb9aaf76e81b692f806f9140c2d2777410d7a1/"
    )
    fsdd = dataclasses.replace(
        store.FSDD, urls=(server.url + "/fsdd.zip",), digest=contents(files)
    )
    folder = store.fetch_remote(fsdd)
    assert len(os.listdir(folder)) == 3000 and good(folder, files)
    x, sr = store.read_wav(folder / "7_theo_49.wav")
    assert sr == 8000 and (x * 32768).tolist() == [7, 49, 4]


def test_mnist_full_of_small_size(server, home, monkeypatch):
    "Four files, one by one, from the second mirror."
    rng = np.random.default_rng(0)
    idx = lambda a: (
        b"\0\0\x08"
        + bytes([a.ndim])
        + struct.pack(f">{a.ndim}I", *a.shape)
        + a.tobytes()
    )
    arrays = {
        name: rng.integers(0, 10, (6, 28, 28) if "images" in name else (6,), np.uint8)
        for name in store.MNIST_FULL.files
    }
    files = {name: gzip.compress(idx(a)) for name, a in arrays.items()}
    server.routes.update(
        {f"/mirror/{name}": content for name, content in files.items()}
    )
    server.routes["/bad/train-images-idx3-ubyte.gz"] = b"<html>"
    mnist = dataclasses.replace(
        store.MNIST_FULL,
        urls=(server.url + "/bad/", server.url + "/mirror/"),
        digest=contents(files),
        files={n: digest_of(c) for n, c in files.items()},
    )
    monkeypatch.setattr(store, "MNIST_FULL", mnist)
    folder = store.fetch_mnist_full()
    for name, a in arrays.items():
        assert (store.read_idx(folder / name) == a).all()
    assert sorted(os.listdir(folder)) == sorted(files)
    shutil.rmtree(folder)
    server.routes["/mirror/t10k-labels-idx1-ubyte.gz"] = cut(b"x" * 100, 50)
    raised(
        DownloadError,
        lambda: store.fetch_mnist_full(),
        "t10k-labels-idx1-ubyte.gz",
        "archive=",
    )
    assert only_lock(home)


def test_what_the_course_fetches():
    assert set(store.REMOTES) == {"fsdd", "mnist_full"}
    for r in store.REMOTES.values():
        assert (
            all(url.startswith("https://") for url in r.urls)
            and r.licence
            and len(r.digest) == 64
        )
        assert {url.endswith("/") for url in r.urls} == {bool(r.files)}
    assert (
        store.FSDD.digest
        == "dbd573d7cafe79c4b49f65718115e1304e24e067fa39eff18a660dc6cb9c360f"
        and store.FSDD.count == 3000
    )
    lines = "".join(f"{n} {d}\n" for n, d in sorted(store.MNIST_FULL.files.items()))
    assert (
        store.MNIST_FULL.digest == digest_of(lines.encode())
        and len(store.MNIST_FULL.files) == store.MNIST_FULL.count
    )
    hash(store.FSDD), hash(store.MNIST_FULL)


def test_importing_the_course_reaches_for_nothing(tmp_path):
    "Every module, in a fresh process in which connecting and looking up a host are errors and a file in the cache would be seen."
    names = [
        m.name
        for m in pkgutil.walk_packages(mmcourse.__path__, "mmcourse.")
        if not m.name.endswith(("__main__", "_modidx"))
    ]
    assert "mmcourse.store" in names
    code = """
import importlib, socket, sys
def no(*args, **kw): raise AssertionError('the network')
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = socket.gethostbyname = no
for name in sys.argv[1:]: importlib.import_module(name)
"""
    p = child(code, *names)
    _, err = p.communicate(timeout=300)
    assert p.returncode == 0, err
    assert not (tmp_path / "cache").exists()


def test_importing_the_store_is_light():
    p = child(
        'import sys, mmcourse.store; print(sorted({"torch", "keras", "librosa", "sklearn", "matplotlib", "scipy", "tqdm"} & set(sys.modules)))'
    )
    assert p.communicate(timeout=60)[0].strip() == "[]"


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

CODES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (0,), (2, 0, 3)])
@pytest.mark.parametrize("zipped", [False, True])
def test_read_idx(tmp_path, code, shape, zipped):
    a = (np.arange(np.prod(shape)).reshape(shape) - 5).astype(CODES[code])
    raw = (
        b"\0\0"
        + bytes([code, len(shape)])
        + struct.pack(f">{len(shape)}I", *shape)
        + a.astype(a.dtype.newbyteorder(">")).tobytes()
    )
    (tmp_path / "x").write_bytes(gzip.compress(raw) if zipped else raw)
    got = store.read_idx(tmp_path / "x")
    assert (
        got.dtype == a.dtype
        and got.dtype.isnative
        and got.flags.writeable
        and got.shape == shape
        and (got == a).all()
    )


IDX = b"\0\0\x08\x02" + struct.pack(">2I", 3, 4) + bytes(range(12))
BAD_IDX = {
    "empty": (b"", "header"),
    "short header": (IDX[:7], "cut short"),
    "first bytes": (b"\1" + IDX[1:], "header"),
    "type": (b"\0\0\x0a" + IDX[3:], "header"),
    "no axes": (b"\0\0\x08\x00" + bytes(4), "header"),
    "many axes": (b"\0\0\x08\xff" + bytes(2000), "header"),
    "pickle": (b"\x80\x04K\x01.", "header"),
    "short": (IDX[:-1], "expected 12 bytes for shape (3, 4), got 11"),
    "long": (IDX + b"x", "got more"),
    "huge": (b"\0\0\x08\x03" + b"\xff" * 12, "are allowed"),
    "large": (
        b"\0\0\x08\x01" + struct.pack(">I", 10**9),
        "expected 1,000,000,000 bytes",
    ),
}


@pytest.mark.parametrize("how", BAD_IDX)
@pytest.mark.parametrize("zipped", [False, True])
def test_read_idx_refuses(tmp_path, how, zipped):
    raw, needle = BAD_IDX[how]
    (tmp_path / "x").write_bytes(gzip.compress(raw) if zipped else raw)
    raised(
        CorruptData, lambda: store.read_idx(tmp_path / "x"), str(tmp_path / "x"), needle
    )


def test_read_idx_damaged_gzip(tmp_path):
    z = gzip.compress(IDX)
    for content in (
        z[:-1],
        z[:12],
        z[:2],
        z[:-8] + bytes(8),
        z + b"garbage",
        z[:12] + bytes(5) + z[17:],
    ):
        (tmp_path / "x").write_bytes(content)
        raised(CorruptData, lambda: store.read_idx(tmp_path / "x"))
    (tmp_path / "bomb").write_bytes(
        gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 100) + bytes(10_000_000))
    )
    raised(CorruptData, lambda: store.read_idx(tmp_path / "bomb"), "got more")
    (tmp_path / "plain").write_bytes(IDX)
    raised(
        CorruptData, lambda: store.read_idx(tmp_path / "plain", max_bytes=3), "allowed"
    )


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_read_wav_like_soundfile(tmp_path, width, channels):
    soundfile = pytest.importorskip("soundfile")
    top = 2 ** (8 * width - 1)
    x = np.random.default_rng(0).integers(-top, top, (300, channels))
    x[:2] = -top
    x[2:4] = top - 1
    (tmp_path / "x.wav").write_bytes(wav(x.reshape(-1), 16000, width, channels))
    got, sr = store.read_wav(tmp_path / "x.wav")
    want, _ = soundfile.read(tmp_path / "x.wav", always_2d=True)
    assert (
        sr == 16000
        and got.dtype == np.float32
        and got.shape == (300,)
        and got.min() >= -1
        and got.max() <= 1
    )
    np.testing.assert_allclose(got, want.mean(1), atol=1e-7)


def riff(fmt, data, tail=b""):
    "A .wav file by hand; `fmt` is encoding, channels, samples and bytes a second, bytes a frame, bits."
    fmt = struct.pack("<HHIIHH", *fmt) if fmt else b""
    body = (
        b"WAVEfmt "
        + struct.pack("<I", len(fmt))
        + fmt
        + b"data"
        + struct.pack("<I", len(data))
        + data
        + tail
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_read_wav_refuses(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    p = tmp_path / "x.wav"
    fine = wav(range(100))
    for content in (
        b"",
        b"hello",
        fine[:20],
        fine[:43],
        fine[:-2],
        b"RIFX" + fine[4:],
        b"\x80\x04K\x01.",
        fine[:40] + struct.pack("<I", 2**31) + fine[44:],
        riff((), b"x" * 8),
        riff((1, 0, 8000, 16000, 2, 16), bytes(8)),
        riff((1, 1, 0, 0, 2, 16), bytes(8)),
        riff((1, 1, 8000, 16000, 2, 16), b""),
        riff((1, 1, 8000, 0, 0, 0), b"x"),
    ):
        p.write_bytes(content)
        raised(CorruptData, lambda: store.read_wav(p), "x.wav: expected")
    soundfile.write(p, np.zeros(10), 8000, subtype="FLOAT")
    raised(ValueError, lambda: store.read_wav(p), "expected PCM samples", "soundfile")
    p.write_bytes(riff((1, 1, 8000, 64000, 8, 64), bytes(16)))
    raised(ValueError, lambda: store.read_wav(p), "got 64")
    raised(FileNotFoundError, lambda: store.read_wav(tmp_path / "none.wav"))
    p.write_bytes(wav([5]))
    assert len(store.read_wav(p)[0]) == 1  # one sample is a sound
    p.write_bytes(
        riff(
            (1, 1, 8000, 16000, 2, 16),
            bytes(8),
            b"LIST" + struct.pack("<I", 4) + b"abcd",
        )
    )
    assert len(store.read_wav(p)[0]) == 4


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    which=st.sampled_from(
        [IDX, gzip.compress(IDX), wav(range(20)), wav(range(20), width=3, channels=2)]
    ),
    keep=st.integers(0, 100),
    flips=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 255)), max_size=4),
)
def test_readers_damaged_at_random(tmp_path, which, keep, flips):
    content = bytearray(which[:keep] if keep < 50 else which)
    for i, b in flips:
        if i < len(content):
            content[i] = b
    (tmp_path / "x").write_bytes(content)
    for read in store.read_idx, store.read_wav:
        try:
            read(tmp_path / "x")
        except ValueError:
            pass  # CorruptData, or an encoding that is not read; nothing else
