"""A shield whose origin is a folder: regular files below it and nothing else."""

import pytest

from harness import *

TYPES = {"ogg": "audio/ogg", "opus": "audio/ogg", "mp3": "audio/mpeg", "m4a": "audio/mp4", "aac": "audio/aac",
         "flac": "audio/flac", "wav": "audio/wav", "m3u8": "application/vnd.apple.mpegurl",
         "mpd": "application/dash+xml", "jpg": "image/jpeg", "png": "image/png", "webp": "image/webp",
         "unknown": "application/octet-stream", "OGG": "audio/ogg"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, files):
    base = tmp_path_factory.mktemp("files")
    root = base / "root"
    (root / "sub" / "deep").mkdir(parents=True)
    (base / "outside").mkdir()
    (base / "outside" / "secret.txt").write_text("not for you")
    (base / "root-other").mkdir()
    (base / "root-other" / "secret.txt").write_text("not for you either")
    for name, data in files.items():
        (root / f"{name}.ogg").write_bytes(data)
    for extension in TYPES:
        (root / f"t.{extension}").write_bytes(b"type")
    (root / "no-extension").write_bytes(b"plain")
    (root / "sub" / "deep" / "in.ogg").write_bytes(b"deep")
    (root / "a file.ogg").write_bytes(b"with a space")
    (root / "caf\u00e9.ogg").write_bytes(b"with an accent")
    (root / "100%.ogg").write_bytes(b"with a percent")
    (root / "link-in.ogg").symlink_to("sub/deep/in.ogg")
    (root / "link-out.txt").symlink_to("../outside/secret.txt")
    (root / "link-out-dir").symlink_to("../outside")
    (root / "link-absolute.txt").symlink_to(base / "outside" / "secret.txt")
    (root / "link-absolute-in.ogg").symlink_to(root / "small.ogg")
    (root / "link-loop").symlink_to("link-loop")
    (root / "link-dangling").symlink_to("nothing")
    (root / "link-proc").symlink_to("/proc/self/environ")
    os.mkfifo(root / "fifo.ogg")
    s = socket.socket(socket.AF_UNIX)
    s.bind(str(root / "socket.ogg"))
    s.close()
    return root


RULES = [{"match": "/any/**", "methods": "all"}, {"match": "/**", "ttl": "1h"}]


@pytest.fixture(scope="module")
def shield(module, folder):
    return module.shield([{"match": "/**", "url": f"file://{folder}"}], rules=RULES)


@pytest.mark.parametrize("name", ["small", "segment", "big", "long", "empty"])
def test_files_are_exact(shield, files, name):
    for _ in range(2):
        a = shield.ask(f"/{name}.ogg")
        assert a.status == 200 and a.body == files[name], a
        assert a.get("Content-Length") == str(len(files[name]))


@pytest.mark.parametrize("extension", TYPES)
def test_content_types(shield, extension):
    a = shield.ask(f"/t.{extension}")
    assert a.get("Content-Type") == TYPES[extension]
    assert a.get("ETag").startswith('"') and a.get("Last-Modified") and a.get("Accept-Ranges") == "bytes"


def test_no_extension(shield):
    assert shield.ask("/no-extension").get("Content-Type") == "application/octet-stream"
    assert shield.ask("/sub/deep/in.ogg").body == b"deep"


def test_names_that_are_escaped(shield):
    assert shield.ask("/a%20file.ogg").body == b"with a space"
    assert shield.ask("/caf%C3%A9.ogg").body == b"with an accent"
    assert shield.ask("/caf%c3%a9.ogg").body == b"with an accent"
    assert shield.ask("/100%25.ogg").body == b"with a percent"
    assert shield.ask("/100%2525.ogg").status == 404  # decoded once


def test_conditionals_and_ranges(shield, files):
    a = shield.ask("/small.ogg")
    assert shield.ask("/small.ogg", fields=[("If-None-Match", a.get("ETag"))]).status == 304
    assert shield.ask("/small.ogg", fields=[("If-Modified-Since", a.get("Last-Modified"))]).status == 304
    assert shield.ask("/small.ogg", fields=[("Range", "bytes=-5")]).body == files["small"][-5:]
    assert shield.ask("/big.ogg", fields=[("Range", "bytes=3000000-3000009")]).body == files["big"][3000000:3000010]
    assert shield.ask("/small.ogg", fields=[("Range", "bytes=9999-")]).get("Content-Range") == "bytes */4096"
    assert shield.ask("/small.ogg", "HEAD").get("Content-Length") == "4096"


OUTSIDE = ["/../outside/secret.txt", "/%2e%2e/outside/secret.txt", "/sub/../../outside/secret.txt",
           "/..%2foutside/secret.txt", "/.%2e/outside/secret.txt", "/sub/..%5c..%5coutside", "//etc/passwd",
           "/%2fetc/passwd", "/sub/%00", "/../root-other/secret.txt"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_traversal(shield, path):
    a = shield.ask(path)
    assert a.status == 400 and b"not for you" not in a.body


@pytest.mark.parametrize("path", ["/link-out.txt", "/link-out-dir/secret.txt", "/link-absolute.txt", "/link-loop",
                                  "/link-dangling", "/link-proc", "/link-absolute-in.ogg"])
def test_symlinks_that_leave(shield, path):
    a = shield.ask(path)
    assert a.status == 404 and b"not for you" not in a.body


def test_symlink_that_stays(shield):
    assert shield.ask("/link-in.ogg").body == b"deep"


@pytest.mark.parametrize("path", ["/fifo.ogg", "/socket.ogg", "/sub", "/sub/", "/", "/nothing.ogg", "/small.ogg/",
                                  "/small.ogg/more", "/" + "x" * 300, "/sub/deep"], ids=lambda path: path[:30])
def test_what_is_no_regular_file(shield, path):
    a = shield.ask(path)
    assert a.status == 404, a


def test_device_is_no_regular_file(start):
    shield = start.shield([{"match": "/**", "url": "file:///dev"}])
    for path in ("/null", "/zero", "/tty"):
        assert shield.ask(path).status == 404


def test_unreadable_file(start, tmp_path):
    """As an ordinary user: a file that may not be read is 403, not a failure of the origin."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "secret.ogg").write_bytes(b"secret")
    (root / "secret.ogg").chmod(0)
    (root / "open.ogg").write_bytes(b"open")
    drop = {}
    if os.getuid() == 0:  # root may read everything: give up that power, and only that
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)

        def give_up():
            for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
                libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP: gone at the exec

        drop = {"preexec_fn": give_up}
    folder = start.folder / "unreadable"
    conf = start.common(folder, {"origins": [{"match": "/**", "url": f"file://{root}"}]})
    shield = Segue("segue-shield", folder, conf, **drop)
    start.running.append(shield)
    assert shield.ask("/open.ogg").body == b"open"
    a = shield.ask("/secret.ogg")
    assert a.status == 403 and a.body != b"secret"


def test_passed_files_come_whole(start, folder, files):
    """Where no rule caches, a folder knows no ranges or conditions: both may be ignored (RFC 9110, 13.2.1, 14.2)."""
    shield = start.shield([{"match": "/**", "url": f"file://{folder}"}], rules=[{"match": "/**", "cache": False}])
    for fields in ([], [("Range", "bytes=0-9")]):
        a = shield.ask("/big.ogg", fields=fields)
        assert a.status == 200 and a.body == files["big"] and a.cache_status["fwd"] == "bypass"
    a = shield.ask("/small.ogg", "HEAD")
    assert a.status == 200 and a.get("Content-Length") == "4096" and a.body == b""


def test_folder_that_is_not_there(start, tmp_path):
    shield = start.shield([{"match": "/**", "url": f"file://{tmp_path}/nowhere"}])
    assert shield.ask("/a.ogg").status == 502


def test_other_methods(start, folder):
    shield = start.shield([{"match": "/**", "url": f"file://{folder}"}], rules=RULES)
    assert shield.ask("/small.ogg", "POST").status == 405
    a = shield.ask("/any/small.ogg", "POST", [("Content-Length", 3)], b"abc")
    assert a.status in (404, 405) and a.get("Connection") == "close"


def test_file_that_changes(start, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.ogg").write_bytes(b"one")
    rules = [{"match": "/**", "ttl": "1s", "override": True}]
    shield = start.shield([{"match": "/**", "url": f"file://{root}"}], rules=rules)
    first = shield.ask("/a.ogg")
    assert first.body == b"one"
    (root / "a.ogg").write_bytes(b"two!")
    until(lambda: shield.ask("/a.ogg").body == b"two!", "the new bytes")
    # Unchanged, it is only validated.
    until(lambda: shield.ask("/a.ogg").cache_status.get("fwd-status") == "304", "a validation")
    (root / "a.ogg").unlink()
    until(lambda: shield.ask("/a.ogg").status == 404, "it is gone")


def test_several_origins(start, folder, origin, files):
    """The first that matches."""
    shield = start.shield([{"match": "/plain/**", "url": f"http://127.0.0.1:{origin.port}"},
                           {"match": "/sub/**", "url": f"file://{folder}"}])
    assert shield.ask("/plain/x-small").body == files["small"]
    assert shield.ask("/sub/deep/in.ogg").body == b"deep"
    assert shield.ask("/other/in.ogg").status == 502


def test_edge_before_it(start, shield, files):
    edge = start.edge(shield.port, signing=False, rules=RULES)
    assert edge.curl("/segment.ogg") == files["segment"]
    assert edge.curl("/big.ogg", "-r", "5000000-5999999") == files["big"][5000000:6000000]
    assert edge.ask("/fifo.ogg").status == 404
