"""Requests that are refused by their form, on raw sockets: status, problem body, and what becomes of the connection."""

import pytest

from harness import *

GET = f"GET /plain/x-small HTTP/1.1\r\nHost: {HOST}\r\n"
POST = f"POST /any/a HTTP/1.1\r\nHost: {HOST}\r\n"

BAD = {
    "length and encoding": POST + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding and length": POST + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "differing lengths": POST + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "repeated length": POST + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "length list": POST + "Content-Length: 3, 3\r\n\r\nabc",
    "plus length": POST + "Content-Length: +3\r\n\r\nabc",
    "minus length": POST + "Content-Length: -3\r\n\r\nabc",
    "empty length": POST + "Content-Length:\r\n\r\n",
    "hexadecimal length": POST + "Content-Length: 0x3\r\n\r\nabc",
    "length that overflows": POST + "Content-Length: 18446744073709551619\r\n\r\nabc",
    "encoding gzip": POST + "Transfer-Encoding: gzip\r\n\r\n",
    "encoding gzip, chunked": POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "encoding chunked, chunked": POST + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "encoding twice": POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding identity": POST + "Transfer-Encoding: identity\r\n\r\n",
    "encoding xchunked": POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "encoding in 1.0": f"POST /any/a HTTP/1.0\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "obs-fold": GET + "X-A: one\r\n two\r\n\r\n",
    "obs-fold with a tab": GET + "X-A: one\r\n\ttwo\r\n\r\n",
    "space before the first field": f"GET / HTTP/1.1\r\n Host: {HOST}\r\n\r\n",
    "space before the colon": GET + "X-A : one\r\n\r\n",
    "no colon": GET + "X-A\r\n\r\n",
    "no name": GET + ": one\r\n\r\n",
    "bare CR in a field": GET + "X-A: one\rtwo\r\n\r\n",
    "bare LF in a field": GET + "X-A: one\nX-B: two\r\n\r\n",
    "bare LF ends the head": f"GET / HTTP/1.1\nHost: {HOST}\n\n",
    "NUL in a field": GET + "X-A: o\0ne\r\n\r\n",
    "NUL in a name": GET + "X\0A: one\r\n\r\n",
    "control byte in a field": GET + "X-A: o\x01ne\r\n\r\n",
    "DEL in a field": GET + "X-A: o\x7fne\r\n\r\n",
    "no Host": "GET /plain/x-small HTTP/1.1\r\n\r\n",
    "two Hosts": GET + f"Host: {HOST}\r\n\r\n",
    "Host that is none": "GET /plain/x-small HTTP/1.1\r\nHost: a b\r\n\r\n",
    "Host with a path": "GET /plain/x-small HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "Host with user information": "GET /plain/x-small HTTP/1.1\r\nHost: u@audio.test\r\n\r\n",
    "absolute form that disagrees": f"GET http://other.test/plain/x-small HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "absolute form with another port": f"GET http://{HOST}:81/plain/x-small HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "two spaces": f"GET  / HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "tab between": f"GET\t/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "trailing space": f"GET / HTTP/1.1 \r\nHost: {HOST}\r\n\r\n",
    "no version": f"GET /\r\nHost: {HOST}\r\n\r\n",
    "no target": f"GET HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "relative target": f"GET plain HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "fragment": f"GET /plain#a HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "lower-case version": f"GET / http/1.1\r\nHost: {HOST}\r\n\r\n",
    "method with a colon": f"G:T / HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "TLS hello": "\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + "\0" * 50,
    "asterisk": f"GET * HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD)
def test_400_and_closed(edge, name):
    with edge.connect() as c:
        # What follows is bait: were it answered, somebody could smuggle it.
        c.send(BAD[name] + GET + "\r\n")
        a = c.answer()
        assert a.status == 400, a
        assert a.problem and a.get("Connection") == "close"
        assert c.rest() == b""


@pytest.mark.parametrize("name", ["no Host", "repeated length", "bare LF in a field", "two spaces"])
def test_400_however_it_is_split(edge, name):
    with edge.connect() as c:
        for byte in BAD[name]:
            try:
                c.send(byte)
            except OSError:
                break
        assert c.answer().status == 400


CHUNKS = {
    "size that overflows": "10000000000000003\r\nabc\r\n0\r\n\r\n",
    "size with a sign": "+3\r\nabc\r\n0\r\n\r\n",
    "size with 0x": "0x3\r\nabc\r\n0\r\n\r\n",
    "size that is none": "x\r\nabc\r\n0\r\n\r\n",
    "no size": "\r\nabc\r\n0\r\n\r\n",
    "size that ends in a bare LF": "3\nabc\r\n0\r\n\r\n",
    "bare LF in an extension": "3;a\nabc\r\n0\r\n\r\n",
    "data without its end": "3\r\nabcd\r\n0\r\n\r\n",
    "data ended by a bare LF": "3\r\nabc\n0\r\n\r\n",
    "trailer with a bare LF": "3\r\nabc\r\n0\r\nX-A: b\n\r\n",
    "space after the size": "3 \r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_that_are_malformed(faulty, scripted, name):
    """400, closed, and the origin never gets a whole request of it."""
    path = "/any/" + name.replace(" ", "-")
    whole = []

    def script(asked, c):
        whole.append(read_body(asked, c))
        c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return True

    scripted.on(path, script)
    with faulty.connect() as c:
        c.request(path, "POST", [("Transfer-Encoding", "chunked")], CHUNKS[name].encode())
        c.send(GET + "\r\n")
        a = c.answer()
        assert a.status == 400 and a.problem, a
        assert c.rest() == b""
    assert not whole


def test_414(edge):
    a = edge.ask("/plain/" + "a" * 9000)
    assert a.status == 414 and a.problem and a.get("Connection") == "close"
    assert edge.ask("/plain/" + "a" * 8000).status == 404
    a = edge.ask("/plain/x-small?" + "a" * 9000)
    assert a.status == 414


def test_431(edge):
    a = edge.ask("/plain/x-small", fields=[("X-A", "a" * 17000)])
    assert a.status == 431 and a.problem and a.get("Connection") == "close"
    a = edge.ask("/plain/x-small", fields=[(f"X-{i}", "a") for i in range(101)])
    assert a.status == 431
    assert edge.ask("/plain/x-small", fields=[(f"X-{i}", "a" * 100) for i in range(90)]).status == 200


def test_408(start, origin):
    edge = start.edge(origin.port, timeouts={"client_head": "300ms", "client_idle": "300ms"})
    with edge.connect() as c:
        c.send("GET /plain/x-small HT")
        a = c.answer()
        assert a.status == 408 and a.problem and a.get("Connection") == "close"
        assert c.rest() == b""
    # A byte now and then does not put the time off: it is for the whole head.
    with edge.connect() as c:
        begun = time.monotonic()
        with pytest.raises((Closed, OSError, TimeoutError)):
            c.s.settimeout(0.05)
            while True:
                c.send("G")
                try:
                    if c.s.recv(1000):
                        raise Closed(b"408", False)
                except TimeoutError:
                    assert time.monotonic() - begun < PATIENCE
    # Who says nothing is let go without a word, at first and between requests.
    with edge.connect() as c:
        assert c.rest() == b""
    with edge.connect() as c:
        assert c.ask("/plain/x-small").status == 200
        assert c.rest() == b""
    assert edge.metric("head_timeouts_total") >= 3


def test_505(edge):
    for version in ("2.0", "0.9", "3.0", "9.9"):
        a = edge.ask("/plain/x-small", version=version)
        assert a.status == 505 and a.problem and a.get("Connection") == "close", version


def test_later_minor_version_is_1_1(edge, files):
    """RFC 9110, 2.5: a minor version that is higher is processed as the highest that is spoken."""
    assert edge.ask("/plain/x-small", version="1.2").body == files["small"]


def test_absolute_form(edge, files):
    """RFC 9112, 3.2.2: it must be accepted, and stands in place of Host."""
    a = edge.ask(f"http://{HOST}/plain/x-small")
    assert a.body == files["small"]
    assert edge.ask(f"HTTP://{HOST.upper()}:80/plain/x-small").body == files["small"]
    # 1.0 needs no Host; then the target's authority is the host.
    assert edge.ask("http://other.test/plain/x-small", version="1.0", host=None).status == 421


def test_421(edge, files):
    a = edge.ask("/plain/x-small", host="other.test")
    assert a.status == 421 and a.problem
    assert edge.ask("/plain/x-small", host=HOST.upper()).body == files["small"]
    assert edge.ask("/plain/x-small", host=f"{HOST}:8080").body == files["small"]
    # The connection may go on: another host of it is another matter.
    with edge.connect() as c:
        assert c.ask("/plain/x-small", host="other.test").status == 421
        assert c.ask("/plain/x-small").status == 200


def test_all_hosts_are_one_site(edge, fresh):
    path = f"/plain/echo/{fresh()}"
    first = edge.ask(path)
    again = edge.ask(path, host="127.0.0.1")
    assert again.get("X-Cache") == "HIT" and again.body == first.body
    assert f"host=127.0.0.1:" in first.body.decode()  # the upstream's own, never the client's


def test_405(edge):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PURGE", "get", "PROPFIND"):
        target = "audio.test:80" if method == "CONNECT" else "/plain/x-small"
        a = edge.ask(target, method)
        assert a.status == 405 and a.problem, (method, a)
        assert a.get("Allow") == "GET, HEAD", method
    a = edge.ask("/post/x-small", "PATCH")
    assert a.status == 405 and a.get("Allow") == "GET, HEAD, POST, PUT, DELETE"
    # TRACE would echo what a client must not see; CONNECT is a tunnel. Not even `all` passes them.
    assert edge.ask("/any/a", "TRACE").status == 405


def test_405_with_a_body_is_not_the_next_request(edge):
    with edge.connect() as c:
        c.request("/plain/x-small", "POST", [("Content-Length", len(GET) + 2)], (GET + "\r\n").encode())
        a = c.answer()
        assert a.status == 405 and a.get("Connection") == "close"
        assert c.rest() == b""


def test_get_with_a_body(edge, files):
    """Its body means nothing (RFC 9110, 9.3.1), and must not become a request."""
    with edge.connect() as c:
        c.request("/plain/x-small", "GET", [("Content-Length", len(GET) + 2)], (GET + "\r\n").encode())
        a = c.answer()
        assert a.status == 200 and a.body == files["small"]
        assert a.get("Connection") == "close" and c.rest() == b""


def test_empty_line_before_a_request(edge, files):
    """RFC 9112, 2.2."""
    with edge.connect() as c:
        c.send("\r\n" + GET + "\r\n")
        assert c.answer().body == files["small"]


@pytest.mark.parametrize("parts", ["bytes", "pairs", "middle"])
def test_head_in_parts(edge, files, parts):
    text = GET + "X-A: some value\r\n\r\n"
    sizes = {"bytes": 1, "pairs": 2, "middle": len(text) // 2}[parts]
    with edge.connect() as c:
        for _ in range(2):
            for i in range(0, len(text), sizes):
                c.send(text[i:i + sizes])
            assert c.answer().body == files["small"]


def test_pipelining(edge, files):
    """Many requests at once, hits and misses and errors: all answered, in order (RFC 9112, 9.3.2)."""
    wanted = []
    text = ""
    for i in range(60):
        kind = i % 5
        target = ["/plain/x-small", "/plain/x-segment", f"/plain/status/404?p={i}", "/plain/../x",
                  f"/plain/x-text?p={i}"][kind]
        text += f"{'HEAD' if i % 7 == 6 else 'GET'} {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
        wanted.append(([200, 200, 404, 400, 200][kind],
                       [files["small"], files["segment"], b"gone\n", None, files["text"]][kind], i % 7 == 6))
    with edge.connect() as c:
        sender = threading.Thread(target=c.send, args=(text,))
        sender.start()
        for status, body, head in wanted:
            a = c.answer("HEAD" if head else "GET")
            assert a.status == status
            if body is not None and not head:
                assert a.body == body
        sender.join()


def test_requests_split_anywhere_in_a_pipeline(edge, files):
    text = (GET + "\r\n") * 3
    for cut in range(1, len(text), 7):
        with edge.connect() as c:
            c.send(text[:cut])
            c.send(text[cut:])
            for _ in range(3):
                assert c.answer().body == files["small"]


def test_half_closed_client_gets_its_answers(edge, files):
    with edge.connect() as c:
        c.send((GET + "\r\n") * 2)
        c.s.shutdown(socket.SHUT_WR)
        assert c.answer().body == files["small"]
        assert c.answer().body == files["small"]
        assert c.rest() == b""


def test_http_1_0(edge, files):
    with edge.connect() as c:
        a = c.ask("/plain/x-small", version="1.0", host=HOST)
        assert a.version == "HTTP/1.1" and a.body == files["small"] and a.get("Connection") == "close"
        assert c.rest() == b""
    with edge.connect() as c:
        for _ in range(2):
            a = c.ask("/plain/x-small", fields=[("Connection", "keep-alive")], version="1.0")
            assert a.body == files["small"] and a.get("Connection") == "keep-alive"


def test_http_1_0_gets_no_chunks(faulty, scripted, fresh):
    path = f"/pass/{fresh()}"
    scripted.on(path, raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
                          "keep"))
    with faulty.connect() as c:
        a = c.ask(path, version="1.0")
        assert a.get("Transfer-Encoding") is None and a.body == b"abcde" and a.get("Connection") == "close"


def test_connection_close(edge, files):
    with edge.connect() as c:
        a = c.ask("/plain/x-small", fields=[("Connection", "close")])
        assert a.body == files["small"] and a.get("Connection") == "close"
        assert c.rest() == b""


def test_client_requests_max(start, origin, files):
    edge = start.edge(origin.port, limits={"client_requests_max": 3})
    with edge.connect() as c:
        for i in range(3):
            a = c.ask("/plain/x-small")
            assert a.body == files["small"]
            assert a.get("Connection") == ("close" if i == 2 else None)
        assert c.rest() == b""


def test_problem_of_head_has_no_body(edge):
    with edge.connect() as c:
        a = c.ask("/tracks/unsigned", "HEAD")
        assert a.status == 403 and int(a.get("Content-Length")) > 0
        assert c.ask("/.segue/health").status == 200  # nothing was left in between


def test_health(edge):
    a = edge.ask("/.segue/health", host="any.name")
    assert a.status == 200 and a.get("Content-Type") == "application/json" and a.get("Cache-Control") == "no-store"
    health = json.loads(a.body)
    assert health["status"] == "ok" and 0 <= health["load"] <= 1
    assert edge.ask("/.segue/health", "HEAD").status == 200
