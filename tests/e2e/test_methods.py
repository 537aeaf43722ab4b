"""Methods beside GET and HEAD: passed where the rule lists them, their bodies streamed, and what they invalidate."""

import time
import pytest

from harness import *

BODY = random_bytes(3_000_000, 7)


@pytest.fixture
def keeper(scripted, fresh):
    """A path whose origin answers with what it got: method, length, digest."""
    path = f"/any/{fresh()}"

    def script(asked, c):
        body = read_body(asked, c)
        text = f"{asked.method} {len(body)} {hashlib.sha256(body).hexdigest()}".encode()
        c.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
        return True

    scripted.on(path, script)
    return path


def told(method, body):
    return f"{method} {len(body)} {hashlib.sha256(body).hexdigest()}".encode()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH"])
def test_all_methods_pass(faulty, keeper, method):
    for body in (b"", b"x", BODY[:5000]):
        a = faulty.ask(keeper, method, [("Content-Length", len(body))], body)
        assert a.status == 200 and a.body == told(method, body)
        assert a.cache_status["fwd"] == "bypass"


def test_large_body(faulty, keeper):
    with faulty.connect() as c:
        for _ in range(2):
            a = c.ask(keeper, "POST", [("Content-Length", len(BODY))], BODY)
            assert a.body == told("POST", BODY)
            assert a.get("Connection") is None


def chunked(body, sizes):
    out = b""
    at = 0
    for size in sizes:
        if piece := body[at:at + size]:
            out += f"{len(piece):x};ext=1\r\n".encode() + piece + b"\r\n"
        at += size
    if at < len(body):
        out += f"{len(body) - at:X}\r\n".encode() + body[at:] + b"\r\n"
    return out + b"0\r\nX-Trailer: a\r\n\r\n"


def test_chunked_body(faulty, keeper, scripted):
    with faulty.connect() as c:
        for body, sizes in ((b"", []), (b"hello", [1, 1, 1]), (BODY, [1, 1000, 65536, 1_000_000])):
            a = c.ask(keeper, "PUT", [("Transfer-Encoding", "chunked")], chunked(body, sizes))
            assert a.body == told("PUT", body)
    asked = scripted.requests(keeper)[0]
    assert asked.get("Transfer-Encoding") == "chunked" and asked.get("Content-Length") is None


def test_chunked_body_byte_by_byte(faulty, keeper):
    data = chunked(b"a few bytes of body", [3, 5])
    with faulty.connect() as c:
        c.request(keeper, "POST", [("Transfer-Encoding", "chunked")])
        for i in range(len(data)):
            c.send(data[i:i + 1])
        assert c.answer().body == told("POST", b"a few bytes of body")
        assert c.ask("/.segue/health").status == 200


def test_curl_uploads(faulty, keeper, tmp_path):
    """Real curl, by length with Expect: 100-continue and by chunks."""
    (tmp_path / "body").write_bytes(BODY)
    assert faulty.curl(keeper, "-T", tmp_path / "body", "-H", "Expect: 100-continue") == told("PUT", BODY)
    assert faulty.curl(keeper, "-X", "POST", "-H", "Transfer-Encoding: chunked", "--data-binary",
                       f"@{tmp_path / 'body'}") == told("POST", BODY)


def test_body_is_streamed(faulty, scripted, fresh):
    """The origin has the first half before the second has been sent."""
    path = f"/any/{fresh()}"
    halfway = threading.Event()

    def script(asked, c):
        c.exactly(1000)
        halfway.set()
        c.exactly(1000)
        c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return True

    scripted.on(path, script)
    with faulty.connect() as c:
        c.request(path, "POST", [("Content-Length", 2000)], b"a" * 1000)
        assert halfway.wait(PATIENCE)
        c.send(b"b" * 1000)
        assert c.answer().status == 200


def test_expect_continue(faulty, keeper):
    """RFC 9110, 10.1.1."""
    with faulty.connect() as c:
        c.request(keeper, "POST", [("Content-Length", 5), ("Expect", "100-continue")])
        assert c.head().status == 100
        c.send(b"hello")
        assert c.answer().body == told("POST", b"hello")
    # Nothing to wait for, no 100; and refused without one, which saves the body.
    with faulty.connect() as c:
        a = c.ask(keeper, "POST", [("Content-Length", 0), ("Expect", "100-continue")])
        assert a.status == 200 and a.interim == []
    a = faulty.ask("/plain/x", "POST", [("Content-Length", 5), ("Expect", "100-continue")])
    assert a.status == 405 and a.interim == []


def test_expect_goes_no_further_than_we_answered_it(faulty, keeper, scripted):
    with faulty.connect() as c:
        c.request(keeper, "POST", [("Content-Length", 5), ("Expect", "100-continue")])
        c.head()
        c.send(b"hello")
        c.answer()
    assert scripted.requests(keeper)[0].get("Expect") is None


def test_http_1_0_expects_nothing(faulty, keeper):
    """RFC 9110, 10.1.1: MUST be ignored in a 1.0 request."""
    a = faulty.ask(keeper, "POST", [("Content-Length", 5), ("Expect", "100-continue")], b"hello", version="1.0")
    assert a.status == 200 and a.interim == [] and a.body == told("POST", b"hello")


def test_body_too_large(start, scripted, keeper):
    edge = start.edge(scripted.port, limits={"request_body_max": "1000B"})
    for fields, body in (([("Content-Length", 1001)], b"a" * 1001),
                         ([("Transfer-Encoding", "chunked")], chunked(b"a" * 1001, [500]))):
        with edge.connect() as c:
            a = c.ask(keeper, "POST", fields, body)
            assert a.status == 413 and a.problem and a.get("Connection") == "close", a
            assert c.rest() == b""
    assert edge.ask(keeper, "POST", [("Content-Length", 1000)], b"a" * 1000).status == 200


def test_body_that_stops(start, scripted, keeper):
    """A client that does not go on is not waited for."""
    edge = start.edge(scripted.port, timeouts={"client_body": "200ms"})
    with edge.connect() as c:
        c.request(keeper, "POST", [("Content-Length", 10)], b"abc")
        a = c.answer()
        assert a.status == 408 and a.problem and a.get("Connection") == "close", a
        assert c.rest() == b""


def test_body_that_trickles_is_cut_off(start, scripted, fresh):
    """It would hold an upstream's connection for as long as it likes: client_rate_min is for both directions."""
    path = f"/post/{fresh()}"
    scripted.on(path, lambda asked, c: c.rest() and False)
    edge = start.edge(scripted.port, workers=1, limits={"client_rate_min": "1KB/s", "client_rate_grace": "1s"})
    for fields, piece in (([("Content-Length", "100000")], b"x"), ([("Transfer-Encoding", "chunked")], b"1\r\nx\r\n")):
        with edge.connect() as c:
            c.request(path, "POST", fields)
            end = time.monotonic() + PATIENCE
            c.s.settimeout(0.02)
            while b"\r\n\r\n" not in c.buffer:
                assert time.monotonic() < end, "it may trickle for ever"
                c.send(piece)
                try:
                    c._more()
                except TimeoutError:
                    pass
            c.s.settimeout(PATIENCE)
            a = c.answer()
            assert a.status == 408 and a.get("Connection") == "close"
    assert edge.metric("slow_clients_total") == 2


def test_body_that_is_slow_but_not_too_slow(start, scripted, fresh):
    path, body = f"/post/{fresh()}", b"0123456789" * 500
    scripted.on(path, reply(200, b"thanks"))
    edge = start.edge(scripted.port, workers=1, limits={"client_rate_min": "100B/s", "client_rate_grace": "1s"})
    with edge.connect() as c:
        c.request(path, "POST", [("Content-Length", str(len(body)))])
        for i in range(0, len(body), 100):
            c.send(body[i:i + 100])
            time.sleep(0.05)
        assert c.answer().body == b"thanks"
    assert scripted.requests(path)[0].body == body
    assert edge.metric("slow_clients_total") == 0


def test_client_goes_in_the_middle_of_its_body(faulty, scripted, fresh):
    got = []

    def script(asked, c):
        try:
            got.append(read_body(asked, c))
        except Closed:
            got.append(None)
            raise

    for leave in (Connection.reset, Connection.close):
        path = f"/any/{fresh()}"
        scripted.on(path, script)
        got.clear()
        c = faulty.connect()
        c.request(path, "POST", [("Content-Length", 10)], b"abc")
        until(lambda: scripted.requests(path), "the origin is asked")
        leave(c)
        until(lambda: got, "the origin is let go")
        assert got == [None]  # never what looks like a whole body


def test_origin_answers_before_the_body_is_over(faulty, scripted, fresh):
    """The answer is passed on at once; the connection cannot go on."""
    path = f"/any/{fresh()}"
    scripted.on(path, raw("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"))
    with faulty.connect() as c:
        c.request(path, "POST", [("Content-Length", 1000)], b"abc")
        a = c.answer()
        assert a.status == 403 and a.body == b"no" and a.get("Connection") == "close"
        assert c.rest() == b""


def test_unsafe_methods_are_sent_once(faulty, scripted, fresh):
    """RFC 9110, 9.2.2: no automatic repetition of what is not idempotent, when it may have arrived."""
    path = f"/any/{fresh()}"
    scripted.on(path, raw(b""))
    for fields, body in (([], b""), ([("Content-Length", 3)], b"abc")):
        before = len(scripted.requests(path))
        assert faulty.ask(path, "POST", fields, body).status == 502
        assert len(scripted.requests(path)) == before + 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_success_invalidates(faulty, scripted, fresh, method):
    """RFC 9111, 4.4."""
    path = f"/post/{fresh()}"
    scripted.on(path, reply(body=b"one"), reply(status=204, length=False), reply(body=b"two"))
    assert faulty.ask(path).body == b"one"
    assert faulty.ask(path).get("X-Cache") == "HIT"
    assert faulty.ask(path, method, [("Content-Length", "0")]).status == 204
    a = faulty.ask(path)
    assert a.get("X-Cache") == "MISS" and a.body == b"two"


def test_unknown_method_invalidates(faulty, scripted, fresh):
    """RFC 9111, 4.4: also one whose safety is unknown; 9110, 9.2.1."""
    path = f"/any/{fresh()}"
    scripted.on(path, reply(body=b"one"), reply(body=b"frobbed"), reply(body=b"two"))
    assert [faulty.ask(path, m).body for m in ("GET", "FROB", "GET")] == [b"one", b"frobbed", b"two"]


def test_redirect_of_an_unsafe_method_invalidates(faulty, scripted, fresh):
    path = f"/post/{fresh()}"
    scripted.on(path, reply(body=b"one"), reply(303, fields=[("Location", path)]), reply(body=b"two"))
    assert faulty.ask(path).body == b"one"
    assert faulty.ask(path, "POST").status == 303
    assert faulty.ask(path).body == b"two"


def test_failure_does_not_invalidate(faulty, scripted, fresh):
    for status in (403, 500):
        path = f"/post/{fresh()}"
        scripted.on(path, reply(body=b"one"), reply(status=status), reply(body=b"two"))
        assert faulty.ask(path).body == b"one"
        assert faulty.ask(path, "POST").status == status
        assert faulty.ask(path).body == b"one"


def test_safe_method_does_not_invalidate(faulty, scripted, fresh):
    path = f"/any/{fresh()}"
    scripted.on(path, reply(body=b"one"), reply(body=b"options"), reply(body=b"two"))
    assert faulty.ask(path).body == b"one"
    assert faulty.ask(path, "OPTIONS").body == b"options"
    assert faulty.ask(path).body == b"one"


def test_invalidates_all_slices_and_variants(faulty, scripted, fresh):
    path = f"/post/{fresh()}"
    vary = [("Vary", "X-Own"), ("Cache-Control", "max-age=60")]
    scripted.on(path, reply(body=b"a", fields=vary), reply(body=b"b", fields=vary), reply(), reply(body=b"c"))
    a, b = [("X-Own", "a")], [("X-Own", "b")]
    assert [faulty.ask(path, fields=f).body for f in (a, b, a, b)] == [b"a", b"b", b"a", b"b"]
    faulty.ask(path, "POST")
    assert [faulty.ask(path, fields=f).body for f in (a, b)] == [b"c", b"c"]


def test_post_is_never_answered_from_the_cache(faulty, scripted, fresh):
    path = f"/post/{fresh()}"
    scripted.on(path, reply(body=b"get", fields=[("Cache-Control", "max-age=60")]),
                reply(body=b"post", fields=[("Cache-Control", "max-age=60")]), reply(body=b"get again"))
    assert faulty.ask(path).body == b"get"
    assert faulty.ask(path, "POST").body == b"post"
    assert faulty.ask(path).body == b"get again"


def test_options_asterisk(edge):
    assert edge.ask("*", "OPTIONS").status == 400  # there is no rule for it, and nothing to say


def test_max_forwards(faulty, scripted, fresh):
    """RFC 9110, 7.6.2: an intermediary counts down in TRACE and OPTIONS, and answers itself at 0."""
    path = f"/any/{fresh()}"
    scripted.on(path, reply(body=b"origin"))
    faulty.ask(path, "OPTIONS", [("Max-Forwards", "3")])
    assert scripted.requests(path)[-1].get("Max-Forwards") == "2"
    a = faulty.ask(path, "OPTIONS", [("Max-Forwards", "0")])
    assert a.status in (200, 204) and a.body != b"origin" and "GET" in a.get("Allow")
    assert len(scripted.requests(path)) == 1
    faulty.ask(path, "POST", [("Max-Forwards", "0")])
    assert scripted.requests(path)[-1].get("Max-Forwards") == "0"  # it means nothing there


def test_204_says_no_length(faulty, scripted, fresh):
    """An origin's mistake that HTTP/2 clients take for an error, and others wait for a body after."""
    path = f"/pass/{fresh()}"
    scripted.on(path, reply(status=204, length=5))
    with faulty.connect() as c:
        for method in ("GET", "POST"):
            a = c.request(path, method, [("Content-Length", "0")]).answer("HEAD")
            assert a.status == 204 and a.get("Content-Length") is None, a
