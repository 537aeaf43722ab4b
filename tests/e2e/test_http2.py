"""HTTP/2 as browsers and tools speak it: real curl, nghttp and h2load, bodies to the byte, streams beside each other,
priorities (RFC 9218), and how a connection ends."""

import signal

import pytest

from h2peer import *
from harness import *

FRESH = ("Cache-Control", "max-age=600")


def listeners(authority):
    return [{"address": f"127.0.0.1:{free_port()}", "http2": True},
            {"address": f"127.0.0.1:{free_port()}", "tls": authority.listener()}]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def edge(module, origin, authority):
    """One worker, as the edge of conftest has, and for its reason."""
    edge = module.edge(origin.port, listen=listeners(authority), workers=1, hosts=[HOST],
                       access_log={"path": "access.log", "format": "json"})
    return secured(edge, authority)


@pytest.fixture(scope="module")
def faulty(module, scripted, authority):
    return secured(module.edge(scripted.port, listen=listeners(authority), workers=1, hosts=[HOST]), authority)


def secured(edge, authority):
    edge.tls_port, edge.ca = int(edge.conf["listen"][1]["address"].rpartition(":")[2]), authority.certificate
    return edge


@pytest.fixture(params=["plain", "tls"])
def h2(request):
    """Connects to an edge both ways: h2(edge, ...)."""
    return lambda edge, **more: connect(edge, request.param, **more)


def connect(edge, how="plain", **more):
    if how == "tls":
        return H2(edge.tls_port, tls=tls_context(edge.ca), **more)
    return H2(edge.port, **more)


# --- curl ---


class Curled:
    def __init__(self, edge, how, target, *options, folder):
        scheme, port = ("https", edge.tls_port) if how == "tls" else ("http", edge.port)
        version = ["--http2", "--cacert", edge.ca] if how == "tls" else ["--http2-prior-knowledge"]
        argv = ["curl", "-sS", "--max-time", PATIENCE, "--noproxy", "*", "--resolve", f"{HOST}:{port}:127.0.0.1", *version,
                "-D", folder / "head", "-o", folder / "body", "-w", "%{http_version} %{http_code} %{num_connects}", *options,
                f"{scheme}://{HOST}:{port}{target}"]
        (folder / "body").write_bytes(b"")
        done = subprocess.run([str(a) for a in argv], check=True, capture_output=True)
        version, status, _ = done.stdout.decode().split()
        assert version == "2"
        self.status, self.body = int(status), (folder / "body").read_bytes()
        last = (folder / "head").read_text().strip().split("\n\n")[-1]
        self.fields = [tuple(line.strip().split(": ", 1)) for line in last.splitlines()[1:]]

    def get(self, name):
        return dict(self.fields).get(name)


@pytest.fixture(params=["plain", "tls"])
def curl(request, edge, tmp_path):
    return lambda target, *options: Curled(edge, request.param, target, *options, folder=tmp_path)


@pytest.mark.parametrize("name", ["small", "segment", "big", "long", "text", "empty"])
def test_curl_gets_every_byte(curl, files, fresh, name):
    target = f"/keep/x-{name}?v={fresh()}"
    for state in ["MISS", "HIT"]:
        a = curl(target)
        assert (a.status, a.get("x-cache")) == (200, state) and a.body == files[name]
    head = curl(target, "-I")
    assert (head.status, head.get("content-length"), head.get("x-cache")) == (200, str(len(files[name])), "HIT")


def test_curl_ranges(curl, files):
    big = files["big"]
    for spec, first, last in [("0-0", 0, 0), ("1048570-1048590", 1048570, 1048590), ("-100", len(big) - 100, len(big) - 1),
                              ("9999990-", 9999990, len(big) - 1), ("2000000-7000000", 2000000, 7000000)]:
        a = curl("/plain/x-big", "-r", spec)
        assert (a.status, a.body) == (206, big[first:last + 1])
        assert a.get("content-range") == f"bytes {first}-{last}/{len(big)}"


def test_curl_several_ranges(curl, files):
    big = files["big"]
    a = curl("/plain/x-big", "-r", "0-9,1048570-1048589,-5")
    assert a.status == 206 and a.get("content-type").startswith("multipart/byteranges; boundary=")
    assert len(a.body) == int(a.get("content-length"))
    for part in (big[:10], big[1048570:1048590], big[-5:]):
        assert a.body.count(b"\r\n\r\n" + part + b"\r\n--") == 1


def test_curl_conditions_and_errors(curl, files):
    etag = curl("/plain/x-small").get("etag")
    a = curl("/plain/x-small", "-H", f"If-None-Match: {etag}")
    assert (a.status, a.body) == (304, b"")
    assert curl("/plain/status/404").status == 404
    assert curl("/plain/x-small", "-r", "5000-").status == 416
    assert curl("/pass/x-small", "-H", 'If-Match: "other"').status == 412
    a = curl("/tracks/unsigned/1/1.ogg")
    assert a.status == 403 and json.loads(a.body)["status"] == 403
    assert curl("/plain/x-small", "-X", "DELETE").status == 405
    assert curl("/plain/%zz").status == 400
    assert curl("/plain/" + "x" * 9000).status == 414


def test_curl_signed(curl, origin, files):
    origin.write("tracks/h2/320/1.ogg", files["segment"])
    assert curl(sign("/tracks/h2/320/1.ogg")).body == files["segment"]


def test_curl_many_over_one_connection(edge, files, tmp_path):
    """--parallel multiplexes."""
    urls = [f"https://{HOST}:{edge.tls_port}/plain/x-{name}?{i}" for i in range(8) for name in ("small", "segment", "text")]
    argv = ["curl", "-sS", "--max-time", str(PATIENCE), "--http2", "--cacert", edge.ca, "--resolve",
            f"{HOST}:{edge.tls_port}:127.0.0.1", "--parallel", "--parallel-max", "24"]
    for i, url in enumerate(urls):
        argv += ["-o", tmp_path / str(i), url]
    subprocess.run([str(a) for a in argv], check=True, capture_output=True)
    for i, url in enumerate(urls):
        assert (tmp_path / str(i)).read_bytes() == files[re.search(r"x-(\w+)", url)[1]]


# --- bodies of requests ---


@pytest.mark.parametrize("size", [0, 1, 16384, 100_000, 3_000_000])
@pytest.mark.parametrize("told", ["length", "no-length"])
def test_post(faulty, scripted, h2, fresh, size, told):
    path, body = f"/pass/{fresh()}", random_bytes(size, size)
    scripted.on(path, lambda asked, c: reply(200, hashlib.sha256(read_body(asked, c)).hexdigest().encode())(asked, c))
    with h2(faulty) as p:
        p.started()
        s = p.request(path, "POST", [("content-length", str(size))] if told == "length" else [], body).wait()
        assert (s.status, s.body.decode()) == (200, hashlib.sha256(body).hexdigest())
    asked, = scripted.requests(path)
    assert asked.body == body
    if told == "length":
        assert asked.get("Content-Length") == str(size)


def test_curl_posts(faulty, scripted, fresh, tmp_path):
    body = random_bytes(1_000_000, 5)
    (tmp_path / "up").write_bytes(body)
    for how in ("plain", "tls"):
        path = f"/pass/{fresh()}"
        scripted.on(path, lambda asked, c: reply(200, read_body(asked, c))(asked, c))
        a = Curled(faulty, how, path, "--data-binary", f"@{tmp_path / 'up'}", folder=tmp_path)
        assert a.body == body


def test_expect_continue(faulty, scripted, h2, fresh):
    path = f"/pass/{fresh()}"
    scripted.on(path, lambda asked, c: reply(200, read_body(asked, c))(asked, c))
    with h2(faulty) as p:
        s = p.request(path, "POST", [("expect", "100-continue"), ("content-length", "4")], end=False)
        p.until(lambda: s.interim or s.over, "100")
        assert s.interim == [100]
        p.body(s, b"body")
        assert (s.wait().status, s.body) == (200, b"body")


def test_body_too_large(start, scripted, fresh):
    path = f"/pass/{fresh()}"
    scripted.on(path, lambda asked, c: reply(200, read_body(asked, c))(asked, c))
    edge = start.edge(scripted.port, listen=[{"address": f"127.0.0.1:{free_port()}", "http2": True}],
                      limits={"request_body_max": "1KiB"})
    with H2(edge.port) as p:
        assert p.request(path, "POST", [("content-length", "1024")], b"x" * 1024).wait().status == 200
        s = p.request(path, "POST", [("content-length", "1025")], end=False)
        p.until(lambda: s.over, "refused")
        assert s.status == 413
        s = p.request(path, "POST", end=False)
        p.body(s, b"x" * 2000)
        p.until(lambda: s.over, "refused")
        assert s.status == 413 or s.reset
        assert p.request(path, "POST", [], b"x").wait().status == 200


# --- streams beside each other ---


def test_slow_miss_does_not_hold_others(faulty, scripted, h2, fresh):
    path, go = f"/plain/{fresh()}", threading.Event()
    scripted.on(path, lambda asked, c: go.wait(PATIENCE) and reply(200, b"late", [FRESH])(asked, c))
    scripted.on(path + "-other", reply(200, b"hit", [FRESH]))
    with h2(faulty) as p:
        slow = p.request(path)
        for i in range(50):
            assert p.ask(path + "-other").body == b"hit"
        assert not slow.over and slow.status is None
        go.set()
        assert slow.wait().body == b"late"


def test_hundred_streams_of_all_kinds(edge, files, h2, fresh):
    name, names = fresh(), list(files)
    with h2(edge) as p:
        p.started()
        asked = []
        for i in range(100):
            which = names[i % len(names)]
            n = len(files[which])
            if i % 3 == 2 and n > 10:
                first, last = i * 31 % (n - 5), min(n - 1, i * 31 % (n - 5) + 3000)
                asked.append((p.request(f"/plain/x-{which}?{name}{i % 5}", fields=[("range", f"bytes={first}-{last}")]),
                              206, files[which][first:last + 1]))
            else:
                method = "HEAD" if i % 7 == 6 else "GET"
                asked.append((p.request(f"/plain/x-{which}?{name}{i % 5}", method), 200,
                              files[which] if method == "GET" else b""))
        for s, status, body in asked:
            assert (s.wait().status, s.reset) == (status, None) and s.body == body


def test_streams_that_are_given_up(edge, files, h2, fresh):
    """Cancelled in a miss, in a body, at once: the others come whole, and nothing is left."""
    name, kept, names = fresh(), [], ["big", "segment", "small"]
    with h2(edge) as p:
        p.started()
        for i in range(60):
            s = p.request(f"/plain/x-{names[i % 3]}?{name}{i // 6}")
            if i % 4 == 1:
                s.head()
            if i % 2:
                p.cancel(s)
            else:
                kept.append((s, files[names[i % 3]]))
        for s, body in kept:
            assert s.wait().body == body
    until(lambda: edge.metric("flights") == 0, "every fill has ended")


def test_same_answer_as_in_http_1(edge, h2, fresh):
    """Everything but what belongs to the connection."""
    for target, fields in [("/plain/x-segment", []), ("/plain/x-segment", [("Range", "bytes=5-9")]), ("/plain/status/404", []),
                           ("/tracks/unsigned", []), ("/dyn/echo/x", []), ("/plain/x-small", [("Range", "bytes=9999-")])]:
        edge.ask(target, fields=fields)
        one = edge.ask(target, fields=fields)
        with h2(edge) as p:
            two = p.ask(target, fields=[(n.lower(), v) for n, v in fields])
        assert two.status == one.status
        assert bytes(two.body) == one.body or target.startswith(("/dyn", "/tracks"))
        mine = {n.lower(): v for n, v in one.fields if n.lower() not in ("connection", "date", "age", "keep-alive")}
        theirs = {n: v for n, v in two.fields if n not in ("date", "age")}
        assert set(mine) - {"content-length", "transfer-encoding"} == set(theirs) - {"content-length"}
        for name in ("content-type", "etag", "content-range", "last-modified", "cache-control", "x-cache"):
            assert mine.get(name) == theirs.get(name)


def test_both_versions_share_objects(edge, files, fresh):
    name = fresh()
    assert edge.ask(f"/keep/x-segment?v={name}").get("X-Cache") == "MISS"
    with connect(edge, "tls") as p:
        s = p.ask(f"/keep/x-segment?v={name}")
        assert (s.get("x-cache"), s.body) == ("HIT", files["segment"])


def test_via_upward_and_host(faulty, scripted, h2, fresh):
    path = f"/pass/{fresh()}"
    scripted.on(path, reply(200, b"x"))
    with h2(faulty) as p:
        p.ask(path, fields=[("x-own", "1"), ("te", "trailers"), ("priority", "u=1")])
    asked, = scripted.requests(path)
    assert asked.version == "HTTP/1.1" and asked.get("X-Own") == "1"
    assert re.fullmatch(r"(1\.1|2|2\.0) \S+", asked.get("Via"))  # a fill belongs to no client, nor to its version
    assert not [n for n, _ in asked.fields if n.startswith(":") or n.lower() in ("te", "http2-settings")]


def test_access_log(edge, h2, fresh):
    name = fresh()
    with h2(edge) as p:
        p.ask(f"/plain/x-small?{name}")
    log = edge.folder / "access.log"
    line = until(lambda: next((line for line in log.read_text().splitlines() if name in line), None), "it is logged")
    assert json.loads(line)["protocol"] == "HTTP/2.0" and json.loads(line)["status"] == 200


def test_chunked_answer_above(faulty, scripted, h2, fresh):
    """Of unknown length: framed by the end of the stream, with no transfer-encoding."""
    path = f"/pass/{fresh()}"
    scripted.on(path, raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: 1\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
                          b"X-UPPER: Kept\r\n\r\n5\r\nhello\r\n0\r\nX-Trailer: x\r\n\r\n", "keep"))
    with h2(faulty) as p:
        s = p.ask(path)
        assert (s.status, s.body, s.get("content-length"), s.get("x-hop")) == (200, b"hello", None, None)
        assert s.get("x-upper") == "Kept"


# --- nghttp and h2load ---


def run(*argv, patience=60):
    done = subprocess.run([str(a) for a in argv], capture_output=True, timeout=patience)
    assert done.returncode == 0, (argv, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


@pytest.mark.parametrize("options", [[], ["--no-dep"], ["-p", "256"], ["-H", "priority: u=0, i"], ["-w", "10"], ["-w", "30", "-W", "30"],
                                     ["-b", "200"], ["-c", "0"], ["-c", "65536"], ["-H", "te: trailers"]],
                         ids=lambda o: "_".join(o).replace(" ", "") or "plainly")
def test_nghttp(edge, files, options):
    for base in (f"http://127.0.0.1:{edge.port}", f"https://127.0.0.1:{edge.tls_port}"):
        text = run("nghttp", *options, "-H", f":authority: {HOST}", f"{base}/plain/x-segment")
        assert text == files["segment"]


def test_nghttp_many(edge, files):
    url = f"https://127.0.0.1:{edge.tls_port}/plain/x-"
    text = run("nghttp", "-m", "20", "-H", f":authority: {HOST}", url + "small", url + "small?b")
    assert len(text) == 40 * 4096 or len(text) == 20 * 4096


@pytest.mark.parametrize("what,n", [("small", 3000), ("segment", 200), ("empty", 1000)])
@pytest.mark.parametrize("how", ["plain", "tls"])
def test_h2load(edge, files, how, what, n):
    base = f"https://127.0.0.1:{edge.tls_port}" if how == "tls" else f"http://127.0.0.1:{edge.port}"
    n = n // 4 if SANITIZED else n
    text = run("h2load", "-n", n, "-c", "4", "-m", "32", "-H", f":authority: {HOST}", f"{base}/plain/x-{what}").decode()
    assert f"{n} succeeded, 0 failed, 0 errored, 0 timeout" in text, text
    assert f"status codes: {n} 2xx, 0 3xx, 0 4xx, 0 5xx" in text, text
    assert re.search(r"traffic: .*\((\d+)\) data", text)[1] == str(n * len(files[what])), text


# --- RFC 9218: who goes first when not all can go ---


class Race:
    """Streams that wait for a window of the connection; it is then granted in small steps, and whose bytes come is
    written down."""

    def __init__(self, p):
        self.p, self.order = p, []

    def run(self, *streams, step=16384):
        p = self.p
        while not all(s.over for s in streams):
            have = {s: len(s.body) for s in streams}
            p.grant(None, step)
            p.until(lambda: p.window == 0 or all(s.over for s in streams), "the window is used")
            self.order += [(s, len(s.body) - have[s]) for s in streams if len(s.body) > have[s]]

    def before(self, first, other):
        """The bytes of `other` that came before the last of `first`."""
        last = max(i for i, (s, _) in enumerate(self.order) if s is first)
        return sum(n for s, n in self.order[:last] if s is other)


@pytest.fixture
def racing(edge):
    """A connection whose window is used up by a stream that nobody wants."""
    with H2(edge.port, connection_window=WINDOW_DEFAULT) as p:
        p.started()
        p.ask("/plain/x-segment", "HEAD")
        blocker = p.request("/plain/x-long", fields=[("priority", "u=7")])
        p.until(lambda: p.window == 0, "the window is used up")
        p.blocker = blocker
        yield p


def ask_in(p, *priorities, path="/plain/x-segment"):
    streams = [p.request(path, fields=[("priority", value)] if value else []) for value in priorities]
    for s in streams:
        s.head()
    p.pong()
    return streams


@pytest.fixture(scope="module", autouse=True)
def warm(edge):
    for name in ("segment", "long", "small"):
        edge.ask(f"/plain/x-{name}")
        edge.ask(f"/plain/x-{name}")


def test_says_which_priorities_it_heeds(edge):
    """RFC 9218, 2.1."""
    with H2(edge.port) as p:
        p.started()
        assert p.server_settings.get(NO_RFC7540_PRIORITIES) == 1


def test_urgent_goes_first(racing):
    """RFC 9218, 4.1: asked last, done first."""
    late, default, urgent = ask_in(racing, "u=7", None, "u=0")
    race = Race(racing)
    race.run(urgent, default, late)
    assert race.before(urgent, default) == race.before(urgent, late) == race.before(default, late) == 0


def test_one_after_another(racing):
    """RFC 9218, 4.2: not incremental, in the order of their numbers."""
    a, b, c = ask_in(racing, "u=2", "u=2", "u=2")
    race = Race(racing)
    race.run(a, b, c)
    assert race.before(a, b) == race.before(a, c) == race.before(b, c) == 0


def test_incremental_share(racing):
    """RFC 9218, 4.2: at no time is one far ahead of another."""
    streams = ask_in(racing, "u=2, i", "u=2, i", "u=2, i")
    race = Race(racing)
    race.run(*streams)
    have = dict.fromkeys(streams, 0)
    for s, n in race.order:
        have[s] += n
        assert max(have.values()) - min(have.values()) <= 6 * 16384, have


@pytest.mark.parametrize("value", ["u=9", "u=-1", "u", "u=a", "i=1", "nonsense=(", "u=0;x=1, a, b=2", "U=0", "", "u=3, u=5"])
def test_priority_that_is_odd(edge, files, value):
    """RFC 9218, 4: what is not understood is the default; never an error."""
    with H2(edge.port) as p:
        s = p.ask("/plain/x-small", fields=[("priority", value)])
        assert (s.status, s.body) == (200, files["small"])


def test_priority_update(racing):
    """RFC 9218, 7.1: the player that wants now what it had asked for later."""
    a, b = ask_in(racing, "u=2", "u=6")
    racing.send(priority_update(b.number, "u=0"))
    racing.pong()
    race = Race(racing)
    race.run(a, b)
    assert race.before(b, a) == 0


def test_priority_update_before_its_request(racing):
    """RFC 9218, 7: it may come first, and is kept for its stream."""
    racing.send(priority_update(racing.next + 2, "u=0"))
    a, b = ask_in(racing, "u=2", None)
    race = Race(racing)
    race.run(a, b)
    assert race.before(b, a) == 0


def test_urgent_overtakes_within_a_body(racing):
    """One that comes while another is under way."""
    a, = ask_in(racing, "u=4")
    racing.grant(None, 100_000)
    racing.until(lambda: racing.window == 0, "some of it")
    assert 0 < len(a.body) <= 100_000
    b, = ask_in(racing, "u=1")
    race = Race(racing)
    race.run(a, b)
    assert race.before(b, a) == 0


def test_stream_without_a_window_holds_nobody(edge, files):
    """The most urgent cannot go: the others do."""
    with H2(edge.port, window=0) as p:
        p.started()
        urgent, other = ask_in(p, "u=0", "u=5")
        p.grant(other, WINDOW_MAX)
        assert other.wait().body == files["segment"] and not urgent.over
        p.grant(urgent, WINDOW_MAX)
        assert urgent.wait().body == files["segment"]


# --- how a connection ends ---


@pytest.fixture
def own(start, origin, authority):
    def make(**more):
        return secured(start.edge(origin.port, listen=listeners(authority), workers=1, **more), authority)
    return make


def test_sigterm_says_goaway_and_finishes(own, files, h2):
    """RFC 9113, 6.8: what is under way is finished, what comes later is not begun."""
    edge = own()
    with h2(edge, window=0) as p:
        p.started()
        under_way = [p.request("/plain/x-segment").head() for _ in range(5)]
        with h2(edge) as idle:
            idle.started()
            edge.signal(signal.SIGTERM)
            assert idle.end() == "NO_ERROR"
        p.until(lambda: p.gone_away, "GOAWAY")
        assert p.gone_away[1] == "NO_ERROR" and p.gone_away[0] >= under_way[-1].number
        for s in under_way:
            p.grant(s, WINDOW_MAX)
        for s in under_way:
            assert s.wait().body == files["segment"]
        assert p.end() == "NO_ERROR"
        assert p.gone_away[0] == under_way[-1].number
    assert edge.wait() == 0


def test_sigterm_has_an_end(own):
    edge = own(timeouts={"drain": "300ms"})
    with H2(edge.port, window=0) as p:
        p.request("/plain/x-segment").head()
        edge.signal(signal.SIGTERM)
        p.end()
    edge.expect_exit = 1
    assert edge.wait() == 1


def test_reload_keeps_connections(own, files, h2):
    edge = own()
    with h2(edge, window=0) as p:
        p.started()
        s = p.request("/plain/x-segment").head()
        edge.reload()
        assert p.ask("/plain/x-small", "HEAD").status == 200
        p.grant(s, WINDOW_MAX)
        assert s.wait().body == files["segment"]


def test_idle_connection_is_closed(own, h2):
    """With GOAWAY, so that a client knows that it may ask again elsewhere."""
    edge = own(timeouts={"client_idle": "500ms"})
    with h2(edge) as p:
        assert p.ask("/plain/x-small").status == 200
        assert p.end(10) == "NO_ERROR"
        assert p.gone_away[0] == 1


@pytest.mark.parametrize("text", [b"", PREFACE[:10], PREFACE, PREFACE + settings({})[:5]])
def test_preface_that_never_ends(own, text):
    edge = own(timeouts={"client_head": "500ms", "client_idle": "500ms"})
    with socket.create_connection(("127.0.0.1", edge.port), 10) as s:
        s.sendall(text)
        try:
            while s.recv(65536):
                pass
        except ConnectionResetError:
            pass
    until(lambda: edge.metric("connections", state="open") <= 1, "it is gone")


def test_head_that_never_ends(own):
    """A header block under way is a head: it has its time limit, too."""
    edge = own(timeouts={"client_head": "500ms", "client_idle": "1s"})
    with H2(edge.port) as p:
        p.started()
        p.send(frame(HEADERS, END_STREAM, 1, block(request_fields("/plain/x-small"))))
        p.end(10)


def test_body_that_stops(own, scripted, fresh):
    """client_body: the stream ends, the connection does not."""
    edge = own(timeouts={"client_body": "500ms"})
    with H2(edge.port) as p:
        s = p.request("/pass/x-small", "POST", [("content-length", "10")], end=False)
        p.send(data(s.number, b"12345"))
        p.until(lambda: s.over, "it is ended", 10)
        assert s.reset or s.status in (405, 408, 400)
        assert p.ask("/plain/x-small").status == 200


def test_requests_a_connection(own):
    """After client_requests_max GOAWAY comes; what had been asked by then is answered, all that its last stream counts."""
    edge = own(limits={"client_requests_max": 5})
    with H2(edge.port) as p:
        p.started()
        streams = [p.request("/plain/x-small") for _ in range(8)]
        assert p.end() == "NO_ERROR"
        done = [s for s in streams if s.complete]
        assert 5 <= len(done) and done == streams[:len(done)] and p.gone_away[0] == done[-1].number


def test_half_closed_client_is_answered(own, files, fresh):
    """One that has said all it has to say."""
    with H2(own().port) as p:
        s = p.request(f"/plain/x-big?{fresh()}")
        p.s.shutdown(socket.SHUT_WR)
        p.acknowledge = False
        assert s.wait().body == files["big"]
        p.end()


@pytest.mark.parametrize("leave", ["close", "reset", "goaway"])
def test_clients_that_leave_at_any_moment(own, files, leave):
    """Nothing waits for a window that nobody can open any more. The time limits are there for the same reason as in
    test_load."""
    edge = own(timeouts={"client_head": "1s", "client_idle": "1s"})
    for i in range(40):
        p = H2(edge.port, window=[0, 1000, WINDOW_MAX][i % 3])
        for n in range(1 + i % 5):
            p.request(f"/plain/x-{['small', 'segment', 'big'][n % 3]}?{i // 5}")
        if i % 4 == 0:
            p.pong()
        if leave == "goaway":
            p.send(goaway())
        if leave == "reset":
            p.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        p.close()
    until(lambda: edge.metric("connections", state="open") <= 1, "all are gone")
    until(lambda: edge.metric("flights") == 0, "every fill has ended")
    with H2(edge.port) as p:
        assert p.ask("/plain/x-big?0").body == files["big"]


def test_streams_max(own):
    """limits.http2_streams_max is what SETTINGS say."""
    edge = own(limits={"http2_streams_max": 7})
    with H2(edge.port) as p:
        p.started()
        assert p.server_settings[MAX_CONCURRENT_STREAMS] == 7
