"""Origins that misbehave, on real sockets: never a wrong byte, a part kept as a whole, or a client that is stuck."""

import pytest

from harness import *

HEAD = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n"


def good_after(scripted, path, *scripts):
    """After these, the origin is well."""
    scripted.on(path, *scripts, reply(body=b"whole", fields=[("Cache-Control", "max-age=60")]))


def test_reset_before_the_head(faulty, scripted, fresh):
    """A GET may be repeated (RFC 9110, 9.2.2), and is, a few times."""
    path = f"/dyn/{fresh()}"
    scripted.on(path, raw(b"", "reset"))
    a = faulty.ask(path)
    assert a.status == 502 and a.problem
    assert 1 <= len(scripted.requests(path)) <= 4


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_cut_inside_the_body(faulty, scripted, fresh, framing, end):
    path = f"/dyn/{fresh()}"
    body = "Content-Length: 100\r\n\r\nhalf" if framing == "length" else "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    good_after(scripted, path, raw(HEAD + body, end))
    with faulty.connect() as c:
        try:
            a = c.ask(path)
            assert a.status == 502 or not a.complete, a  # an honest end: no whole answer of half a body
        except Closed:
            pass
    a = faulty.ask(path)
    assert a.status == 200 and a.body == b"whole", a


def test_cut_answers_without_length_are_not_kept(faulty, scripted, fresh):
    """An end by close may be a cut one: passed on, never stored."""
    path = f"/dyn/{fresh()}"
    scripted.on(path, raw(HEAD + "Connection: close\r\n\r\nperhaps half"))
    for _ in range(2):
        assert faulty.ask(path).body == b"perhaps half"
    assert len(scripted.requests(path)) == 2


def test_longer_than_its_length(faulty, scripted, fresh):
    """What is beyond belongs to no answer, and the connection is used no more."""
    path = f"/dyn/{fresh()}"
    scripted.on(path, raw(HEAD + "Content-Length: 5\r\n\r\nwholeHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
                          "keep"))
    for _ in range(2):
        assert faulty.ask(path).body == b"whole"
    other = f"/dyn/{fresh()}"
    scripted.on(other, reply(body=b"other"))
    assert faulty.ask(other).body == b"other"


@pytest.mark.parametrize("interim", ["100 Continue", "103 Early Hints", "102 Processing"])
def test_interim_answers(faulty, scripted, fresh, interim):
    path = f"/dyn/{fresh()}"
    scripted.on(path, raw(f"HTTP/1.1 {interim}\r\nLink: </a>\r\n\r\n" * 3 + HEAD
                          + "Content-Length: 5\r\n\r\nwhole", "keep"))
    a = faulty.ask(path)
    assert a.status == 200 and a.body == b"whole" and a.get("Link") is None
    assert faulty.ask(path).get("X-Cache") == "HIT"


def test_304_unasked(faulty, scripted, fresh):
    path = f"/dyn/{fresh()}"
    good_after(scripted, path, raw("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", "keep"))
    assert faulty.ask(path).status == 502
    path = f"/dyn/{fresh()}"
    scripted.on(path, raw("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", "keep"))
    assert faulty.ask(path, fields=[("If-None-Match", '"a"')]).status in (304, 502)


def test_304_for_another_version(faulty, scripted, fresh):
    """RFC 9111, 4.3.3: a validator that is not ours validates nothing."""
    path = f"/dyn/{fresh()}"
    stale = reply(body=b"old", fields=[("Cache-Control", "max-age=5"), ("Age", "9"), ("ETag", '"old"')])
    scripted.on(path, stale, raw('HTTP/1.1 304 Not Modified\r\nETag: "new"\r\n\r\n', "keep"),
                reply(body=b"new", fields=[("ETag", '"new"'), ("Cache-Control", "max-age=60")]))
    assert faulty.ask(path).body == b"old"
    assert faulty.ask(path).body == b"new"
    assert faulty.ask(path).get("X-Cache") == "HIT"


def test_304_updates_fields(faulty, scripted, fresh):
    """RFC 9111, 3.2 and 4.3.4."""
    path = f"/dyn/{fresh()}"
    first = [("Cache-Control", "max-age=5"), ("Age", "9"), ("ETag", '"1"'), ("X-A", "old"), ("X-B", "kept"),
             ("Content-Type", "audio/ogg")]
    scripted.on(path, reply(body=b"body", fields=first),
                raw('HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nX-A: new\r\nCache-Control: max-age=60\r\n'
                    "Content-Type: text/plain\r\nContent-Length: 99\r\n\r\n", "keep"))
    faulty.ask(path)
    for _ in range(2):
        a = faulty.ask(path)
        assert a.body == b"body" and a.get("X-A") == "new" and a.get("X-B") == "kept"
        assert a.get("Content-Type") == "audio/ogg" and a.get("Content-Length") == "4"
    asked = scripted.requests(path)
    assert len(asked) == 2 and asked[1].get("If-None-Match") == '"1"'


@pytest.mark.parametrize("head", [
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
    "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/2 200\r\n\r\n",
    "HTTP/1.1 99 Low\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/1.1 200 OK\r\nContent-Len",
])
def test_malformed_heads(faulty, scripted, fresh, head):
    path = f"/dyn/{fresh()}"
    scripted.on(path, raw(head))
    a = faulty.ask(path)
    assert a.status == 502 and a.problem, a


def test_head_of_a_megabyte(faulty, scripted, fresh):
    path = f"/dyn/{fresh()}"
    scripted.on(path, raw("HTTP/1.1 200 OK\r\n" + "X-A: " + "a" * (1 << 20) + "\r\n\r\n"))
    a = faulty.ask(path)
    assert a.status == 502 and a.problem


def test_large_head_is_passed_on(faulty, scripted, fresh):
    path = f"/dyn/{fresh()}"
    big = [("X-A", "a" * 30000), ("X-B", "b" * 20000), ("Cache-Control", "max-age=60"), ("ETag", '"1"')]
    scripted.on(path, reply(body=b"abc", fields=big))
    for _ in range(2):
        a = faulty.ask(path)
        assert a.body == b"abc" and a.get("X-B") == "b" * 20000
    assert faulty.ask(path, fields=[("If-None-Match", '"1"')]).status == 304
    assert faulty.ask(path, fields=[("Range", "bytes=1-1")]).body == b"b"


@pytest.mark.parametrize("where", ["head", "body"])
def test_slow_origin(start, scripted, fresh, where):
    edge = start.edge(scripted.port, timeouts={"upstream_first_byte": "500ms", "upstream_between_bytes": "500ms"})
    path = f"/dyn/{fresh()}"
    release = threading.Event()

    def script(asked, c):
        if where == "body":
            c.send(HEAD + "Content-Length: 100\r\n\r\nhalf")
        release.wait(PATIENCE)

    good_after(scripted, path, script)
    if where == "head":
        a = edge.ask(path)
        assert a.status == 504 and a.problem
    else:
        with edge.connect() as c:
            assert not c.ask(path).complete
    release.set()
    until(lambda: edge.ask(path).body == b"whole", "the origin is asked again")


def test_chunked_answers(faulty, scripted, fresh):
    """Their length becomes known; from then on they are objects like others."""
    path = f"/dyn/{fresh()}"
    body = random_bytes(50_000, 5)
    chunks = b"".join(b"%x\r\n" % len(body[i:i + 999]) + body[i:i + 999] + b"\r\n" for i in range(0, 50_000, 999))
    scripted.on(path, raw((HEAD + 'ETag: "1"\r\nTransfer-Encoding: chunked\r\n\r\n').encode() + chunks
                          + b"0\r\nX-T: 1\r\n\r\n", "keep"))
    a = faulty.ask(path)
    assert a.body == body and a.get("Transfer-Encoding") == "chunked" and a.get("Content-Length") is None
    a = faulty.ask(path)
    assert a.get("X-Cache") == "HIT" and a.body == body and a.get("Content-Length") == "50000"
    assert faulty.ask(path, fields=[("Range", "bytes=10-19")]).body == body[10:20]
    assert len(scripted.requests(path)) == 1


@pytest.mark.parametrize("bad", ["xyz\r\n", "5\nabcde\r\n", "ffffffffffffffffff\r\n", "3\r\nabcd\r\n"])
def test_malformed_chunks(faulty, scripted, fresh, bad):
    path = f"/dyn/{fresh()}"
    good_after(scripted, path, raw(HEAD + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + bad + "0\r\n\r\n"))
    with faulty.connect() as c:
        try:
            a = c.ask(path)
            assert a.status == 502 or not a.complete
        except (Closed, ValueError):
            pass
    assert faulty.ask(path).body == b"whole"


def test_large_chunked_answer_streams(faulty, scripted, fresh):
    """Longer than what is kept while its length is unknown: it passes through, at the reader's pace."""
    path = f"/dyn/{fresh()}"
    body = random_bytes(9_000_000, 6)

    def script(asked, c):
        c.send(HEAD + "Transfer-Encoding: chunked\r\n\r\n")
        for i in range(0, len(body), 70_000):
            piece = body[i:i + 70_000]
            c.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
        c.send("0\r\n\r\n")
        return True

    scripted.on(path, script)
    assert faulty.ask(path).body == body
    assert faulty.ask(path, version="1.0").body == body


def test_206_unasked_or_wrong(faulty, scripted, fresh):
    """A part that is not the slice that was asked for is never taken for it."""
    for fields in ([("Content-Range", "bytes 5-9/10")], [("Content-Range", "bytes 0-4/*")], [],
                   [("Content-Range", "bytes 0-4/3")], [("Content-Range", "bytes */10")],
                   [("Content-Range", "pages 0-4/5")]):
        path = f"/dyn/{fresh()}"
        scripted.on(path, reply(206, b"wrong", fields), reply(body=b"the whole", fields=[("Cache-Control", "max-age=9")]))
        a = faulty.ask(path)
        assert a.status == 200 and a.body == b"the whole", (fields, a)
        assert scripted.requests(path)[1].get("Range") is None


def test_206_when_the_whole_was_asked(faulty, scripted, fresh):
    path = f"/dyn/{fresh()}"
    scripted.on(path, reply(206, b"wrong", [("Content-Range", "bytes 5-9/10")]))
    assert faulty.ask(path).status == 502


def test_416_for_what_is_not_empty(faulty, scripted, fresh):
    path = f"/dyn/{fresh()}"
    scripted.on(path, reply(416, b"", [("Content-Range", "bytes */0")]), reply(body=b""))
    a = faulty.ask(path)
    assert a.status == 200 and a.body == b""


def test_client_goes_and_the_fill_goes_on(faulty, scripted, fresh):
    path = f"/dyn/{fresh()}"
    go_on = threading.Event()

    def script(asked, c):
        c.send(HEAD + "Content-Length: 8\r\n\r\nhalf")
        go_on.wait(PATIENCE)
        c.send("rest")
        return True

    scripted.on(path, script)
    c = faulty.connect()
    c.request(path)
    assert c.head().status == 200 and c.exactly(4) == b"half"
    c.reset()
    go_on.set()
    a = faulty.ask(path)
    assert a.body == b"halfrest" and len(scripted.requests(path)) == 1


def test_readers_of_a_fill_that_fails_are_told(faulty, scripted, fresh):
    """Before the first byte by a status, after it by a broken connection; nobody waits on."""
    path = f"/dyn/{fresh()}"
    fail = threading.Event()

    def script(asked, c):
        c.send(HEAD + "Content-Length: 100\r\n\r\nhalf")
        fail.wait(PATIENCE)

    good_after(scripted, path, script)
    readers = [faulty.connect() for _ in range(5)]
    for c in readers:
        c.request(path)
        assert c.head().status == 200 and c.exactly(4) == b"half"
    fail.set()
    for c in readers:
        with c:
            assert c.is_closed()
    assert len(scripted.requests(path)) == 1
    assert faulty.ask(path).body == b"whole"


def test_kept_connection_that_was_closed(start, scripted, fresh):
    """The origin closes an idle connection just as it is used again: repeated on a new one, no error shown."""
    edge = start.edge(scripted.port)
    path = f"/dyn/{fresh()}"

    def once(asked, c):
        c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        c._until(b"\r\n\r\n")  # the next request is read and not answered
        return False

    scripted.on(path, once)
    for _ in range(6):
        assert edge.ask(path).body == b"ok"
