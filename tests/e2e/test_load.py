"""Clients that take their time, many that say nothing, and odd ways of leaving."""

import resource

import pytest

from harness import *


@pytest.fixture(scope="module")
def edge(module, origin):
    """One of several workers, that share what they have."""
    return module.edge(origin.port)


def test_slow_reader_is_cut_off(start, origin, files):
    """One that takes nothing, in the middle of a large body."""
    edge = start.edge(origin.port, limits={"client_rate_min": "100KB/s", "client_rate_grace": "1s"})
    edge.ask("/plain/x-big")
    with edge.connect(receive_buffer=4096) as c:
        c.request("/plain/x-big")
        c.head()
        until(lambda: edge.metric("slow_clients_total") == 1, "it is cut off")
        got = c.rest()
        assert files["big"].startswith(got) and len(got) < len(files["big"])
    until(lambda: edge.metric("connections", state="active") == 0, "nothing is left of it")


def test_reader_that_trickles_is_cut_off(start, origin, files):
    """Some bytes, but fewer than the minimum rate."""
    edge = start.edge(origin.port, limits={"client_rate_min": "10MB/s", "client_rate_grace": "1s"})
    edge.ask("/plain/x-big")
    with edge.connect(receive_buffer=4096) as c:
        c.request("/plain/x-big")
        c.head()

        def step():
            try:
                c._more()
            except Closed:
                return True
            c.buffer = c.buffer[-1:]
            time.sleep(0.02)
            return edge.metric("slow_clients_total") == 1

        until(step, "it is cut off")


def test_reader_that_is_slow_but_not_too_slow(start, origin, files):
    """A body that takes several grace periods, at more than the minimum rate."""
    edge = start.edge(origin.port, limits={"client_rate_min": "1KB/s", "client_rate_grace": "1s"})
    edge.ask("/plain/x-long")
    with edge.connect(receive_buffer=65536) as c:
        c.request("/plain/x-long")
        head = c.head()
        left, got = int(head.get("Content-Length")), []
        while left > 0:
            got.append(c.exactly(min(left, 300_000)))
            left -= len(got[-1])
            time.sleep(0.05)
        assert b"".join(got) == files["long"]
    assert edge.metric("slow_clients_total") == 0


def test_lower_rate_of_a_token_lowers_the_minimum(start, origin, files):
    """A client that reads at its own `rate` is not too slow, where another at the same pace is. The rate is also what
    it is sent at (test_pacing.py), so nobody waits here for all of it."""
    path = "/tracks/slow/320/1.ogg"
    origin.write(path[1:], files["big"])
    edge = start.edge(origin.port, limits={"client_rate_min": "100MB/s", "client_rate_grace": "1s"})
    with edge.connect(receive_buffer=65536) as patient, edge.connect(receive_buffer=65536) as other:
        patient.request(sign(path, rate=100_000))
        other.request(sign(path))
        patient.head()
        other.head()

        def step():
            patient.exactly(5_000)
            try:
                other.exactly(5_000)
            except Closed:
                return True
            time.sleep(0.05)
            return edge.metric("slow_clients_total") == 1

        until(step, "the other is cut off")
        patient.exactly(200_000)  # two seconds later still
    assert edge.metric("slow_clients_total") == 1


def test_slow_reader_does_not_hold_others(start, origin, files):
    """Readers of one fill go at their own pace."""
    edge = start.edge(origin.port)
    with edge.connect(receive_buffer=4096) as slow:
        slow.request("/plain/x-big?shared")
        slow.head()
        for _ in range(3):
            assert edge.ask("/plain/x-big?shared").body == files["big"]
        assert slow.exactly(10_000_000) == files["big"]


def test_slow_reader_of_what_is_not_kept(start, origin, files):
    """The origin is read at the pace of the one client; memory stays bounded."""
    edge = start.edge(origin.port)
    with edge.connect(receive_buffer=4096) as c:
        c.request("/pass/x-big")
        c.head()
        assert edge.ask("/pass/x-small").body == files["small"]
        assert edge.metric("upstream_received_bytes_total") < 8_000_000
        assert c.exactly(10_000_000) == files["big"]


def test_10000_idle_connections(start, origin, files):
    """They cost little and disturb nobody. Half of them never speak, half have been served."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = 10_000
    assert hard >= n + 1000, "the limit of open files is too low for this test: raise ulimit -Hn"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    edge = start.edge(origin.port)
    edge.ask("/plain/x-small")
    resident = lambda: int(pathlib.Path(f"/proc/{edge.pid}/statm").read_text().split()[1]) * 4096
    before = resident()
    held = []
    try:
        for i in range(n):
            # Many addresses of the loopback net: one has only 28,000 ports for all tests of this machine.
            s = socket.socket()
            s.bind((f"127.0.1.{1 + i % 8}", 0))
            s.connect(("127.0.0.1", edge.port))
            held.append(s)
            if i % 2:
                s.sendall(f"GET /plain/x-small HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            if i % 100 == 99:  # let their answers come before more is asked
                for s in held[-99::2]:
                    s.settimeout(PATIENCE)
                    have = 0
                    while have < 4096:
                        have += len(s.recv(8192))
        until(lambda: edge.metric("connections", state="open") >= n, "all are accepted")
        for i in range(50):
            assert edge.ask("/plain/x-small").get("X-Cache") == "HIT"
            assert edge.ask(f"/plain/x-segment?{i}").body == files["segment"]
        if not SANITIZED:
            assert resident() - before < 64 << 20  # far below a buffer for each
        assert edge.metric("connections_refused_total") == 0
    finally:
        for s in held:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: edge.metric("connections", state="open") <= 1, "all are gone")


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_clients_that_leave_at_any_moment(start, origin, files, fresh, leave):
    """Before the head's end, in a miss, in a body, in a pipeline: nothing breaks and nothing is left. The time limits
    are there because Linux's multishot receive can miss an end that comes together with the last bytes."""
    edge = start.edge(origin.port, timeouts={"client_head": "1s", "client_idle": "1s"})
    name = fresh()
    for i in range(60):
        c = edge.connect()
        target = f"/plain/x-{['small', 'segment', 'big'][i % 3]}?{name}-{i // 6}"
        text = f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n" * (1 + i % 4)
        c.send(text[:len(text) - (i * 7) % 40])
        if i % 5 == 0:
            try:
                c._more()
            except Closed:
                pass
        getattr(c, leave)()
    until(lambda: edge.metric("connections", state="open") <= 1, "all are gone")
    until(lambda: edge.metric("flights") == 0, "every fill has ended")
    assert edge.ask(f"/plain/x-big?{name}-0").body == files["big"]


def test_many_clients_of_many_objects(edge, files, fresh):
    """A mixture for a while, every byte compared."""
    name, failures = fresh(), []

    def client(seed):
        rng = random.Random(seed)
        try:
            with edge.connect() as c:
                for _ in range(60):
                    which = rng.choice(["small", "segment", "text", "long", "empty"])
                    target, data = f"/plain/x-{which}?{name}-{rng.randrange(6)}", files[which]
                    if rng.random() < 0.5 and data:
                        first = rng.randrange(len(data))
                        last = min(len(data) - 1, first + rng.randrange(200_000))
                        a = c.ask(target, fields=[("Range", f"bytes={first}-{last}")])
                        if a.status != 206 or a.body != data[first:last + 1]:
                            failures.append((target, first, last, a))
                    else:
                        a = c.ask(target)
                        if a.status != 200 or a.body != data:
                            failures.append((target, a))
        except (Closed, OSError) as e:
            failures.append(repr(e))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures[:3]


def test_random_bytes(edge, files):
    """Whatever comes: an answer or an end, and the next client is served."""
    rng = random.Random(99)
    base = f"GET /plain/x-small HTTP/1.1\r\nHost: {HOST}\r\nRange: bytes=0-5\r\nX-A: b\r\n\r\n".encode()
    for i in range(300):
        data = bytearray(base * rng.randrange(1, 3))
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data))
            kind = rng.randrange(3)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at:at + rng.randrange(1, 9)]
            else:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
        with edge.connect() as c:
            c.send(bytes(data))
            c.s.shutdown(socket.SHUT_WR)
            c.rest()
    assert edge.ask("/plain/x-small").body == files["small"]
