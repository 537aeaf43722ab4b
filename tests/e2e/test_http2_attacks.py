"""Floods in HTTP/2, bounded in numbers, from loopback. Of each: a well-behaved client is served to the end meanwhile,
the attack is counted, the attacker is cut off where nobody honest would do the like, and memory stays bounded."""

import resource

import pytest

from h2peer import *
from harness import *

SMALL = "/plain/x-small"
MEMORY = 48 << 20  # what an attack may add to the resident set, of it 24 MiB of cache; sanitizers keep what is freed
FRESH = ("Cache-Control", "max-age=600")


@pytest.fixture(scope="module")
def edge(module, origin):
    edge = module.edge(origin.port, listen=[{"address": f"127.0.0.1:{free_port()}", "http2": True}], workers=1,
                       hosts=[HOST], memory={"size": "24MiB"}, limits={"client_rate_min": "1KB/s", "client_rate_grace": "2s"})
    for name in ("small", "big", "segment"):
        edge.ask(f"/plain/x-{name}")
    return edge


def resident(edge):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{edge.pid}/status").read_text())[1]) * 1024


class Honest(threading.Thread):
    """Asks one after another on a connection of its own, from before the attack to after it, and compares."""

    def __init__(self, edge, files):
        super().__init__()
        self.edge, self.files, self.stop, self.served, self.failure = edge, files, threading.Event(), 0, None
        self.start()

    def run(self):
        try:
            with H2(self.edge.port) as p:
                p.started()
                while not self.stop.is_set() or self.served < 20:
                    name = ["small", "segment", "text"][self.served % 3]
                    s = p.ask(f"/plain/x-{name}?{self.served % 50}")
                    assert s.status == 200 and s.body == self.files[name], s
                    self.served += 1
                    time.sleep(0.002)
        except BaseException as e:
            self.failure = e


@pytest.fixture
def attacked(edge, files):
    """Around each attack: the honest client, memory, and that the process lives."""
    before, honest = resident(edge), Honest(edge, files)
    until(lambda: honest.served > 5 or honest.failure, "the honest client is served")
    yield edge
    honest.stop.set()
    honest.join(PATIENCE)
    assert not honest.is_alive() and not honest.failure, honest.failure
    until(lambda: edge.metric("connections", state="open") <= 1, "the attackers' connections are gone")
    until(lambda: edge.metric("flights") == 0, "every fill has ended")
    if not SANITIZED:
        assert resident(edge) - before < MEMORY
    edge.check()


def attacks(edge, kind):
    return edge.metric("http2_attacks_total", kind=kind)


def flood(p, make, n, batch=100):
    """Up to n of them; returns how many were sent before the server had enough."""
    sent = 0
    try:
        while sent < n and not p.gone_away:
            p.send(b"".join(make(sent + i) for i in range(batch)))
            sent += batch
            while not p.closed and len(p.buffer) >= 9 and p.frame(0.001):
                pass
    except (Closed, TimeoutError):
        pass
    return sent


def cut_off(p):
    """The server ends the connection, and says why."""
    assert p.end() == "ENHANCE_YOUR_CALM", (p.gone_away, p.log[-5:])


def judged(edge, kind, make, n=20_000, batch=100):
    """The flood is ended by GOAWAY well before its end, and counted once."""
    before = attacks(edge, kind)
    with H2(edge.port) as p:
        p.started()
        sent = flood(p, make, n, batch)
        cut_off(p)
        assert sent < n
    assert attacks(edge, kind) > before
    return sent


def get(path=SMALL, fields=()):
    return block(request_fields(path, fields=fields))


def test_rapid_reset(attacked):
    """CVE-2023-44487: opened and cancelled at once, so that no limit of streams is ever met."""
    text = get("/plain/x-big")
    judged(attacked, "rapid_reset", lambda i: frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, text) + rst(2 * i + 1))


def test_the_log_names_who_abused_it_and_how(start, origin):
    edge = start.edge(origin.port, listen=[{"address": f"127.0.0.1:{free_port()}", "http2": True}], workers=1)
    text = get()
    judged(edge, "rapid_reset", lambda i: frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, text) + rst(2 * i + 1))
    until(lambda: re.search(r"HTTP/2 connection of 127\.0\.0\.1:\d+ was closed as abuse: rapid_reset", edge.log()), edge.log())


def test_rapid_reset_of_misses(attacked):
    """Each another object: what the origin is asked is bounded, too."""
    name = random.randrange(1 << 30)
    before = attacked.metric("fills_total") or 0
    judged(attacked, "rapid_reset", lambda i: frame(
        HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, get(f"/keep/x-big?v={name}-{i}")) + rst(2 * i + 1), batch=10)
    assert (attacked.metric("fills_total") or 0) - before < 3000


def test_resets_that_the_server_is_made_to_send(attacked):
    """The like of rapid reset (CVE-2025-8671): errors of streams of which each costs a request."""
    text = get("/plain/x-big")
    with H2(attacked.port) as p:
        p.started()
        sent = flood(p, lambda i: frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, text) + window_update(2 * i + 1, 0), 20_000)
        try:
            p.end()
        except TimeoutError:
            pass
        assert p.gone_away and p.gone_away[1] in ("ENHANCE_YOUR_CALM", "PROTOCOL_ERROR") and sent < 20_000


def test_malformed_requests_without_end(attacked):
    text = get(fields=[("BAD", "x")])
    with H2(attacked.port) as p:
        p.started()
        sent = flood(p, lambda i: frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, text), 20_000)
        p.end()
        assert p.gone_away and sent < 20_000


def test_an_honest_client_that_cancels(edge, files):
    """A player that seeks cancels; that is no attack, however long it plays."""
    before = attacks(edge, "rapid_reset")
    with H2(edge.port, window=100_000) as p:
        p.started()
        for i in range(60):
            s = p.request("/plain/x-big").head()
            p.until(lambda: len(s.body) > 0, "some of it")
            p.cancel(s)
            assert p.ask(SMALL).body == files["small"]
            time.sleep(0.02)
        assert not p.gone_away
    assert attacks(edge, "rapid_reset") == before


def test_an_honest_client_that_reads_in_small_steps(edge, files):
    """Go's client under a buffered reader opens both windows after each 4 KiB: eight WINDOW_UPDATE for each DATA."""
    before = attacks(edge, "window_update")
    with H2(edge.port, window=WINDOW_DEFAULT, connection_window=WINDOW_DEFAULT) as p:
        p.started()
        for _ in range(2):
            s, read = p.request("/plain/x-big"), 0
            while not s.over:
                p.frame()
                while len(s.body) - read >= 4096 and not s.over:
                    read += 4096
                    p.send(window_update(0, 4096), window_update(s.number, 4096))
                    p.window += 4096
                    s.window += 4096
            p.grant(None, len(s.body) - read)
            assert s.ended and s.body == files["big"]
    assert attacks(edge, "window_update") == before


def test_an_honest_client_that_cancels_all(start, scripted, fresh):
    """A page is left for another while ninety requests wait: they are cancelled, and as many begun in the same
    segment. Those for which there is no place yet are refused, which is not the client's fault."""
    path, go = f"/plain/{fresh()}", threading.Event()
    scripted.on(path, lambda asked, c: go.wait(PATIENCE) and reply(200, b"late", [FRESH])(asked, c))
    edge = start.edge(scripted.port, listen=[{"address": f"127.0.0.1:{free_port()}", "http2": True}], workers=1)
    with H2(edge.port) as p:
        p.started()
        waiting, refused = [], 0
        for _ in range(4):
            text = b"".join(rst(s.number) for s in waiting)
            for s in waiting:
                s.cancelled = True
            waiting = []
            while len(waiting) < 90:
                asked = [p.stream() for _ in range(90 - len(waiting))]
                text += b"".join(frame(HEADERS, END_HEADERS | END_STREAM, s.number,
                                       p.encoder.encode(request_fields(path))) for s in asked)
                p.send(text)  # of one segment
                p.pong()
                text, waiting = b"", waiting + [s for s in asked if not s.reset]
                refused += sum(s.reset == "REFUSED_STREAM" for s in asked)
        assert refused >= 60, "cancelled requests left their places at once: this tests nothing"
        go.set()
        for s in waiting:
            s.wait()
        assert p.ask(path).body == b"late"
        assert not p.gone_away
    assert attacks(edge, "rapid_reset") == 0


def test_continuation_flood(attacked):
    """CVE-2024-27316 and others: a header block without end."""
    piece = block([("x-filler", "y" * 500)])
    before = attacks(attacked, "continuation")
    with H2(attacked.port) as p:
        p.started()
        p.send(frame(HEADERS, END_STREAM, 1, get()))
        sent = flood(p, lambda i: frame(CONTINUATION, 0, 1, piece), 20_000, 1)
        try:
            p.end()
        except TimeoutError:
            pass
        assert p.gone_away and p.gone_away[1] in ("ENHANCE_YOUR_CALM", "PROTOCOL_ERROR", "INTERNAL_ERROR") and sent < 2000
    assert attacks(attacked, "continuation") > before


def test_empty_continuations(attacked):
    before = attacks(attacked, "continuation")
    with H2(attacked.port) as p:
        p.started()
        p.send(frame(HEADERS, END_STREAM, 1, get()))
        sent = flood(p, lambda i: frame(CONTINUATION, 0, 1, b""), 20_000)
        p.end()
        assert p.gone_away and sent < 20_000
    assert attacks(attacked, "continuation") > before


def test_settings_flood(attacked):
    """CVE-2019-9515: each has to be acknowledged."""
    judged(attacked, "settings", lambda i: settings({INITIAL_WINDOW_SIZE: WINDOW_MAX - i % 2}), 50_000)


def test_large_settings(attacked):
    judged(attacked, "settings", lambda i: settings([(0x99, n) for n in range(2000)]), 20_000, 5)


def test_ping_flood(attacked):
    """CVE-2019-9512."""
    judged(attacked, "ping", lambda i: ping(), 100_000, 1000)


def test_ping_flood_that_reads_nothing(attacked):
    """Answers pile up at the server: it has to stop."""
    with socket.create_connection(("127.0.0.1", attacked.port), 10) as s:
        s.sendall(PREFACE + settings({}))
        s.settimeout(10)
        sent = 0
        try:
            while sent < 100 << 20:
                sent += s.send(ping() * 1000)
        except OSError:
            pass
        assert sent < 100 << 20


def test_empty_data(attacked):
    """CVE-2019-9518."""
    before = attacks(attacked, "empty_frames")
    with H2(attacked.port) as p:
        p.started()
        s = p.request("/pass/x-small", "POST", end=False)
        sent = flood(p, lambda i: data(s.number), 100_000, 1000)
        cut_off(p)
        assert sent < 100_000
    assert attacks(attacked, "empty_frames") > before


def test_priority_flood(attacked):
    judged(attacked, "priority", lambda i: priority(2 * (i % 1000) + 1, depends=2 * (i % 7) + 2001), 200_000, 1000)


def test_priority_update_flood(attacked):
    judged(attacked, "priority", lambda i: priority_update(2 * (i % 50) + 1, f"u={i % 8}"), 200_000, 1000)


def test_priorities_of_streams_that_never_come(attacked):
    """RFC 9218, 7.1: no more of them are kept than there may be streams."""
    with H2(attacked.port) as p:
        p.started()
        assert flood(p, lambda i: priority_update(2 * i + 1, "u=1"), 20_000) < 20_000
        assert p.end() in ("PROTOCOL_ERROR", "ENHANCE_YOUR_CALM")


def test_window_update_flood(attacked):
    """Of the connection and of a stream, a byte each."""
    before = attacks(attacked, "window_update")
    with H2(attacked.port, connection_window=WINDOW_DEFAULT, window=0) as p:
        p.started()
        s = p.request("/plain/x-big").head()
        s.window = p.window = WINDOW_MAX
        assert flood(p, lambda i: window_update([0, s.number][i % 2], 1), 100_000, 1000) < 100_000
        cut_off(p)
    assert attacks(attacked, "window_update") > before


def test_unknown_frames_without_end(attacked):
    judged(attacked, "unknown_frames", lambda i: frame(0x42, 0, 0, bytes(100)), 50_000, 500)


def test_zero_length_headers(attacked):
    """CVE-2019-9516: fields of no length each cost their overhead."""
    text = get() + b"\x00\x00\x00" * 3000
    with H2(attacked.port) as p:
        p.started()
        s = p.stream(1)
        p.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, text))
        refused(p, s)


def refused(p, s):
    """By an answer, a reset, or the end of the connection."""
    try:
        p.until(lambda: s.over or p.gone_away, "it is refused", 10)
    except Closed:
        pass
    assert p.closed or p.gone_away or s.reset or s.status in (400, 431), s


@pytest.mark.parametrize("n,length,ok", [(90, 50, True), (101, 10, False), (500, 10, False), (4, 5000, False), (1, 17000, False)])
def test_header_lists_have_a_limit(attacked, n, length, ok):
    """100 fields and 16 KiB, as in HTTP/1.1: 431 or a reset."""
    text = get(fields=[(f"x-{i}", "y" * length) for i in range(n)])
    with H2(attacked.port) as p:
        p.started()
        s = p.stream(1)
        pieces = [text[i:i + FRAME_MAX] for i in range(0, len(text), FRAME_MAX)]
        p.send(frame(HEADERS, END_STREAM | (END_HEADERS if len(pieces) == 1 else 0), 1, pieces[0]), *(
            frame(CONTINUATION, END_HEADERS if i == len(pieces) - 2 else 0, 1, piece) for i, piece in enumerate(pieces[1:])))
        if ok:
            assert s.wait().status == 200
        else:
            refused(p, s)
            if not p.gone_away:
                assert p.ask(SMALL).status == 200


def test_header_bomb(attacked):
    """HPACK: one entry of 4 KiB in the table, then a byte for each time it is meant: a megabyte in 300 bytes."""
    with H2(attacked.port) as p:
        p.started()
        s = p.stream(1)
        p.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, get() + literal("x-bomb", "b" * 4000, 0x40)))
        s.wait()
        stopped = 0
        for i in range(200):
            s = p.stream()
            try:
                p.send(frame(HEADERS, END_HEADERS | END_STREAM, s.number, get() + bytes([0xbe]) * 300))
                refused(p, s)
                stopped += 1
            except Closed:
                break
            if p.gone_away or p.closed:
                break
        assert stopped


def test_bombs_of_many_connections(attacked):
    """The decoder's table is what a connection may keep; a hundred of them are bounded as one is."""
    held = []
    for i in range(100):
        p = H2(attacked.port)
        p.started()
        held.append(p)
        s = p.stream(1)
        p.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, get() + b"".join(literal(f"x-{i}-{j}", "b" * 900, 0x40) for j in range(4))))
        assert s.wait().status == 200
    for p in held:
        p.close()


def test_tiny_windows(attacked, files):
    """CVE-2019-9511, slow reading: large bodies behind windows of a byte. They may not hold more than their share of
    memory, and are cut off for being too slow."""
    held = []
    for i in range(20):
        p = H2(attacked.port, window=1)
        p.started()
        for _ in range(50):
            p.request("/plain/x-big")
        held.append(p)
    before = attacked.metric("slow_clients_total")
    for _ in range(20):
        for p in held:
            try:
                p.send(b"".join(window_update(s.number, 1) for s in p.streams.values()))
                for s in p.streams.values():
                    s.window += 1
                p.pump(0.001)
            except Closed:
                pass
    until(lambda: attacked.metric("slow_clients_total") > before, "somebody is too slow")
    for p in held:
        p.close()


def test_connection_window_of_nothing(attacked):
    """A window that never opens: the streams are ended after the grace, not held for ever."""
    with H2(attacked.port, connection_window=WINDOW_DEFAULT) as p:
        p.started()
        streams = [p.request("/plain/x-big") for _ in range(20)]
        try:
            p.until(lambda: p.gone_away or any(s.reset for s in streams), "the server has enough", 25)
        except Closed:
            pass


def test_windows_that_open_by_turns(attacked):
    """Now the connection's window is zero, now those of all streams: whoever looks at one kind alone finds it open, and
    nothing goes out."""
    with H2(attacked.port, connection_window=WINDOW_DEFAULT) as p:
        p.started()
        streams = [p.request("/plain/x-big") for _ in range(20)]
        try:
            p.until(lambda: p.window == 0, "the connection's window is used up")
            before = sum(len(s.body) for s in streams)
            for _ in range(10):
                time.sleep(1.2)
                p.send(settings({INITIAL_WINDOW_SIZE: 0}), window_update(0, 1))
                p.window += 1
                p.pong(b"all-shut")
                p.send(settings({INITIAL_WINDOW_SIZE: WINDOW_MAX}))
                p.pong(b"all-open")
                if p.gone_away or any(s.reset for s in streams):
                    return
            assert not "held", sum(len(s.body) for s in streams) - before
        except Closed:
            pass


def test_reader_that_reads_nothing(attacked):
    """Windows wide open, but the socket is not read: what waits for it is bounded, and has its time."""
    held = []
    for _ in range(10):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", attacked.port))
        s.sendall(PREFACE + settings({INITIAL_WINDOW_SIZE: WINDOW_MAX}) + window_update(0, WINDOW_MAX - 65535) + b"".join(
            frame(HEADERS, END_HEADERS | END_STREAM, n, get("/plain/x-big")) for n in range(1, 200, 2)))
        held.append(s)
    before = attacked.metric("slow_clients_total")
    until(lambda: attacked.metric("slow_clients_total") > before, "somebody is too slow")
    for s in held:
        s.close()


def test_streams_that_never_end(attacked):
    """Requests whose bodies never come: as many as allowed, and each only for its time."""
    held = []
    for _ in range(20):
        p = H2(attacked.port)
        p.started()
        for _ in range(100):
            p.request("/pass/x-small", "POST", [("content-length", "10")], end=False)
        held.append(p)
    held[-1].pong()
    for p in held:
        p.close()


def test_many_connections_that_say_hello(attacked):
    """500 with a preface and nothing more: an idle connection costs little."""
    before, held = resident(attacked), []
    for _ in range(500):
        p = H2(attacked.port)
        held.append(p)
    for p in held:
        p.started()
    if not SANITIZED:
        assert (resident(attacked) - before) / 500 < 48 << 10
    for p in held:
        p.close()


def test_random_frames(attacked):
    """Whatever comes: an answer or an end, and the next client is served."""
    rng = random.Random(7)
    for i in range(200):
        try:
            with H2(attacked.port) as p:
                for _ in range(rng.randrange(1, 20)):
                    kind, stream = rng.choice([*range(11), 0x10]), rng.choice([0, 1, 1, 3, 5, 2])
                    body = rng.choice([b"", rng.randbytes(rng.randrange(12)), get(), struct.pack(">I", rng.randrange(1 << 32))])
                    p.send(frame(kind, rng.choice([0, 1, 4, 5, 0x25, 0xff]), stream, body))
        except Closed:
            pass


def test_mutated_conversations(attacked):
    rng = random.Random(8)
    base = (PREFACE + settings({INITIAL_WINDOW_SIZE: 70000}) + frame(HEADERS, END_HEADERS, 1, get()) + data(1, b"body", True)
            + window_update(0, 1000) + frame(HEADERS, END_HEADERS | END_STREAM, 3, get(fields=[("range", "bytes=0-5")]))
            + priority(3) + ping() + rst(3) + settings(flags=ACK))
    for i in range(300):
        text = bytearray(base)
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(24, len(text))
            text[at:at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        with socket.create_connection(("127.0.0.1", attacked.port), 10) as s:
            try:
                s.sendall(bytes(text))
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except ConnectionResetError:
                pass
