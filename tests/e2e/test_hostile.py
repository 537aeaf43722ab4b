"""Clients and origins that mean harm: what they must not be able to make a running edge or shield do."""

import resource
import threading
import time

import pytest

from harness import *  # noqa: F403

FRESH = ("Cache-Control", "max-age=600")


@pytest.fixture
def scripted(start):
    return start.scripted()


@pytest.fixture
def edge(start, scripted):
    return start.edge(scripted.port)


def settles(program, name, value=0, patience=PATIENCE):
    until(lambda: program.metric(name) == value, f"{name} is {program.metric(name)}, not {value}", patience)


# --- bodies that are passed on ---


def test_answer_before_the_body_has_come(edge, scripted):
    """The origin answers from the head alone, and the request ends while its fill still knows it."""
    scripted.on("/pass/early", lambda asked, c: c.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno") and False)
    with edge.connect() as c:
        a = c.request("/pass/early", "POST", [("Content-Length", "100000")]).answer()
        assert (a.status, a.body) == (403, b"no")
        assert c.is_closed()
    edge.check()


def test_client_goes_within_its_body(edge, scripted):
    came = threading.Event()
    scripted.on("/pass/gone", lambda asked, c: came.set() or c.rest() and False)
    c = edge.connect()
    c.request("/pass/gone", "POST", [("Content-Length", "100000")], b"x" * 10)
    assert came.wait(PATIENCE)
    c.reset()
    settles(edge, "flights")
    edge.check()


def test_connection_whose_body_stayed_unfinished_is_not_used_again(edge, scripted):
    """The origin still waits for the rest of the first request's body: it would take the next request for it."""
    head, go = threading.Event(), threading.Event()

    def early(asked, c):
        c.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        head.set()
        go.wait(PATIENCE)
        c.send("67890")
        return True

    scripted.on("/pass/unfinished", early)
    scripted.on("/pass/next", reply(200, b"next"))
    c = edge.connect()
    c.request("/pass/unfinished", "POST", [("Content-Length", "100")], b"x" * 10)
    assert head.wait(PATIENCE) and c.head().status == 200
    c.reset()
    settles(edge, "connections_open")
    go.set()
    settles(edge, "flights")
    for _ in range(4):
        assert edge.ask("/pass/next").body == b"next"
    first = scripted.requests("/pass/unfinished")[0].connection
    assert all(asked.connection is not first for asked in scripted.requests("/pass/next"))


def test_client_goes_while_its_body_is_stuck_and_a_long_answer_comes(start, scripted):
    """The fill waits for a reader that waits for the fill."""
    answered = threading.Event()

    def script(asked, c):
        time.sleep(0.5)  # until the edge's send is stuck
        c.send("HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        answered.set()
        try:
            c.send(b"y" * 50_000_000)
        except OSError:
            pass
        return False

    scripted.on("/pass/stuck", script)
    edge = start.edge(scripted.port, limits={"request_body_max": "200MiB"})
    c = edge.connect()
    c.request("/pass/stuck", "POST", [("Content-Length", "100000000")])
    c.s.settimeout(0.3)
    try:
        while True:
            c.send(b"x" * 65536)
    except TimeoutError:
        pass
    assert answered.wait(PATIENCE)
    c.reset()
    settles(edge, "flights", patience=10)


def test_body_longer_than_the_limit(start, scripted):
    scripted.on("/pass/limit", reply(200, b"taken"))
    edge = start.edge(scripted.port, limits={"request_body_max": "1KiB"})
    assert edge.ask("/pass/limit", "POST", [("Content-Length", "1024")], b"x" * 1024).body == b"taken"
    with edge.connect() as c:
        assert c.request("/pass/limit", "POST", [("Content-Length", "1025")]).answer().status == 413
    assert len(scripted.requests("/pass/limit")) == 1


# --- what goes up with a shared fill ---


UNKEYED = ["X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Scheme", "X-Host", "X-Original-URL", "X-Rewrite-URL",
           "X-HTTP-Method-Override", "X-Real-IP", "Forwarded", "Segue-Peer", "Max-Forwards"]


def test_no_unkeyed_field_goes_up_with_a_shared_fill(edge, scripted):
    scripted.on("/plain/unkeyed", reply(200, b"x", [FRESH]))
    assert edge.ask("/plain/unkeyed", fields=[(name, "evil") for name in UNKEYED]).status == 200
    asked, = scripted.requests("/plain/unkeyed")
    assert [name for name in UNKEYED if asked.get(name) is not None] == []


@pytest.mark.parametrize("vary,fields", [
    ("Accept-Encoding", [("Connection", "Accept-Encoding"), ("Accept-Encoding", "gzip")]),
    ("Host", []),
    ("X-Own", [("X-Own", "1")]),
    ("X-Forwarded-Host", [("X-Forwarded-Host", "evil.test")]),
    ("Connection, Via", [("Connection", "keep-alive")]),
    ("X-Forwarded-For", [("X-Forwarded-For", "192.0.2.1")]),
])
def test_vary_on_what_does_not_go_up(edge, scripted, vary, fields):
    """The request and its fill must agree on the variant, or the request asks again for ever."""
    path = f"/plain/vary-{vary.replace(', ', '-')}"
    scripted.on(path, reply(200, b"one", [FRESH, ("Vary", vary)]))
    with edge.connect() as c:
        c.s.settimeout(5)
        assert c.ask(path, fields=fields).body == b"one"
        assert c.ask(path, fields=fields).get("X-Cache") == "HIT"
    assert len(scripted.requests(path)) == 1


def test_authorized_request_does_not_share_an_answer_made_for_another(edge, scripted):
    first = threading.Event()

    def script(asked, c):
        if asked.get("Authorization"):
            return reply(200, b"secret", [("Cache-Control", "private")])(asked, c)
        first.set()
        time.sleep(0.5)
        return reply(401, b"who?")(asked, c)

    scripted.on("/dyn/authorized", script)
    with edge.connect() as a, edge.connect() as b:
        a.request("/dyn/authorized")
        assert first.wait(PATIENCE)
        assert b.ask("/dyn/authorized", fields=[("Authorization", "Bearer b")]).body == b"secret"
        assert a.answer().status == 401


@pytest.mark.parametrize("path", ["/%7Eany/plain/tilde", "/~a/~b/plain/tilde", "/~a/%7Eb/plain/tilde"])
def test_escaped_tilde_does_not_become_a_token_above(start, scripted, path):
    """The next tier takes a first segment that begins with '~' off: then it would serve another path than the one that
    was judged here."""
    scripted.on("/plain/tilde", reply(200, b"secret", [FRESH]))
    scripted.on("/~any/plain/tilde", reply(200, b"other", [FRESH]))
    shield = start.shield([{"match": "/**", "url": f"http://127.0.0.1:{scripted.port}"}])
    edge = start.edge(shield.port, rules=[{"match": "/**", "ttl": "1h", "signed": False}])
    a = edge.ask(path)
    assert a.status == 400 and scripted.requests("/plain/tilde") == []


# --- slices and ranges ---


def test_ranges_backwards_in_what_is_not_kept(edge, scripted):
    """What a ring has overwritten must not be sent for what it held."""
    data = random_bytes(900_000, 7)
    scripted.on("/dyn/ring", reply(200, data))
    a = edge.ask("/dyn/ring", fields=[("Range", "bytes=800000-800009,0-9")])
    if a.status == 206:
        assert data[800000:800010] in a.body and data[:10] in a.body
    else:
        assert a.body == data


def sliced(data, fields, etag='"v1"'):
    def script(asked, c):
        unit, _, spec = asked.get("Range", "").partition("=")
        extra = [*fields, ("ETag", etag)]
        if not unit:
            return reply(200, data, extra)(asked, c)
        first, last = (int(n) for n in spec.split("-"))
        if first >= len(data):
            return reply(416, b"", [("Content-Range", f"bytes */{len(data)}")])(asked, c)
        part = data[first:last + 1]
        return reply(206, part, [*extra, ("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")])(
            asked, c)

    return script


def test_heads_longer_than_what_is_rendered_beside_them(edge, scripted):
    etag, kind, data = '"' + "e" * 2000 + '"', "audio/" + "t" * 2000, random_bytes(1000, 12)
    scripted.on("/plain/longhead", reply(200, data, [FRESH, ("ETag", etag), ("Content-Type", kind)]))
    assert edge.ask("/plain/longhead").body == data
    a = edge.ask("/plain/longhead", fields=[("If-None-Match", etag)])
    assert (a.status, a.get("ETag")) == (304, etag)
    a = edge.ask("/plain/longhead", fields=[("Range", "bytes=0-1,500-501")])
    assert a.status in (200, 206) and a.complete
    edge.check()


def test_content_type_that_changes_within_a_multipart_answer(edge, scripted):
    data = random_bytes(2 << 20, 13)

    def script(asked, c):
        second = asked.get("Range", "").startswith("bytes=1048576")
        return sliced(data, [FRESH, ("Content-Type", "audio/" + "t" * (2000 if second else 1))])(asked, c)

    scripted.on("/plain/types", script)
    a = edge.ask("/plain/types", fields=[("Range", "bytes=0-1,1500000-1500001")])
    assert (a.status, a.complete) == (206, True) and data[1500000:1500002] in a.body
    edge.check()


def test_private_and_longer_than_a_slice(edge, scripted):
    data = random_bytes(3 << 20, 8)
    scripted.on("/plain/private", sliced(data, [("Cache-Control", "private")]))
    for _ in range(3):
        assert edge.ask("/plain/private").body == data
    part = edge.ask("/plain/private", fields=[("Range", "bytes=2500000-2500099")])
    assert (part.status, part.body) == (206, data[2500000:2500100])


def test_range_beyond_the_end_of_what_became_shorter(edge, scripted):
    """If-Range does not match, so the range is void: the whole is due, not 416."""
    data = random_bytes(1000, 9)
    scripted.on("/plain/shorter", sliced(data, [FRESH], '"new"'))
    a = edge.ask("/plain/shorter", fields=[("Range", "bytes=5000000-"), ("If-Range", '"old"')])
    assert (a.status, a.body) == (200, data)
    a = edge.ask("/plain/shorter", fields=[("Range", "bytes=5000000-")])
    assert (a.status, a.get("Content-Range")) == (416, "bytes */1000")


def test_second_of_ranges_exists(edge, scripted):
    data = random_bytes(1000, 10)
    scripted.on("/plain/second", sliced(data, [FRESH]))
    a = edge.ask("/plain/second", fields=[("Range", "bytes=5000000-5000001,0-9")])
    assert (a.status, a.body) == (206, data[:10])


@pytest.mark.parametrize("total", [1 << 50, 1 << 63, (1 << 64) - 1])
def test_total_beyond_all_slices(edge, scripted, total):
    """Slice numbers are 32 bits: a position beyond them must not come round to slice 0 again and again."""
    path = f"/plain/total-{total}"
    scripted.on(path, reply(206, b"z" * (1 << 20), [FRESH, ("ETag", '"t"'),
                                                    ("Content-Range", f"bytes 0-1048575/{total}")]))
    with edge.connect() as c:
        c.s.settimeout(5)
        a = c.ask(path, fields=[("Range", f"bytes={(1 << 49) + 5}-{(1 << 49) + 9}")])
        assert a.status in (416, 502)
    assert len(scripted.requests(path)) <= 3


# --- memory and waiting ---


def test_stale_hits_do_not_hammer_an_origin_that_fails(edge, scripted):
    """stale-while-revalidate: one refresh at a time, and none for a while after one that failed."""
    scripted.on("/plain/swr", reply(200, b"old", [("Cache-Control", "max-age=1, stale-while-revalidate=600"), ("ETag", '"a"')]),
                raw(b""))
    assert edge.ask("/plain/swr").body == b"old"
    time.sleep(2.1)
    for _ in range(20):
        assert edge.ask("/plain/swr").body == b"old"
        time.sleep(0.02)
    assert len(scripted.requests("/plain/swr")) <= 1 + 2 * 4  # a failed refresh has its tries


def test_endless_answer_ends_with_its_last_reader(edge, scripted):
    ended = threading.Event()

    def script(asked, c):
        c.send("HTTP/1.1 200 OK\r\nContent-Type: audio/ogg\r\n\r\n")
        try:
            for _ in range(200):
                c.send(b"s" * 1000)
                time.sleep(0.05)
        except OSError:
            ended.set()
        return False

    scripted.on("/pass/endless", script)
    c = edge.connect()
    assert c.request("/pass/endless").head().status == 200
    c.reset()
    assert ended.wait(5), "the origin still sends to nobody"


def test_slow_listener_is_no_fault_of_the_origin(start, scripted):
    data = random_bytes(8_000_000, 11)
    scripted.on("/pass/slow", reply(200, data))
    edge = start.edge(scripted.port, timeouts={"upstream_between_bytes": "1s"})
    with edge.connect(receive_buffer=8192) as c:
        c.request("/pass/slow")
        time.sleep(4)
        assert c.answer().body == data


def test_pipelined_bytes_do_not_use_up_the_receive_buffers(start, scripted):
    go = threading.Event()
    scripted.on("/plain/wait", lambda asked, c: go.wait(PATIENCE) and reply(200, b"late")(asked, c))
    scripted.on("/pass/quick", reply(200, b"quick"))
    edge = start.edge(scripted.port, workers=1)
    held = []
    try:
        for _ in range(2500):
            c = edge.connect()
            c.request("/plain/wait")
            held.append(c)
        time.sleep(0.5)
        for c in held:
            c.s.setblocking(False)
            try:
                for _ in range(4):
                    c.s.send(b"GET /pass/quick HTTP/1.1\r\nHost: audio.test\r\nX: " + b"j" * 8000 + b"\r\n\r\n")
            except OSError:
                pass
        time.sleep(0.5)
        with edge.connect() as c:
            c.s.settimeout(5)
            assert c.ask("/pass/quick").body == b"quick"
    finally:
        go.set()
        for c in held:
            c.close()


def test_many_who_pipeline_a_little_do_not_either(start, scripted):
    """Two receive buffers each are nothing to speak of; those of 9,000 connections are all that a worker has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= 10000, "the limit of open files is too low for this test: raise ulimit -Hn"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    go = threading.Event()
    scripted.on("/plain/wait", lambda asked, c: go.wait(PATIENCE) and reply(200, b"late")(asked, c))
    scripted.on("/pass/quick", reply(200, b"quick"))
    edge = start.edge(scripted.port, workers=1)
    held = []
    try:
        for i in range(9000):
            c = edge.connect(source=f"127.0.2.{1 + i % 16}")
            c.request("/plain/wait")
            held.append(c)
        # Who is not one of them has begun before, and may go on.
        with edge.connect() as good:
            assert good.ask("/pass/quick").body == b"quick"
            until(lambda: edge.metric("connections", state="active") == 9000, "all wait")
            for c in held:
                c.send(b"GET /pass/quick HTTP/1.1\r\nHost: audio.test\r\nX: " + b"j" * 2500 + b"\r\n\r\n")
            for _ in range(3):
                assert good.ask("/pass/quick").body == b"quick"
                with edge.connect() as c:
                    assert c.ask("/pass/quick").body == b"quick"
        go.set()
        # Each has its first answer, whether or not what it sent ahead was kept.
        for c in held:
            assert c.answer().body == b"late"
    finally:
        go.set()
        for c in held:
            c.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_body_of_unknown_length_is_kept(edge, scripted):
    scripted.on("/plain/chunked", raw(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n"
                                      b"5\r\nhello\r\n0\r\n\r\n", "keep"))
    assert edge.ask("/plain/chunked").body == b"hello"
    a = edge.ask("/plain/chunked")
    assert (a.body, a.get("X-Cache"), a.get("Content-Length")) == (b"hello", "HIT", "5")
