"""Many clients on one uncached object, and objects in slices."""

import asyncio

import pytest

from harness import *


@pytest.fixture(scope="module")
def edge(module, origin):
    """One of several workers, that share what they have."""
    return module.edge(origin.port)

SLICE = 1 << 20


async def get_all(port, target, n):
    """n clients at once; all have sent their request before the first reads."""
    all_sent = asyncio.Barrier(n)

    async def one():
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        await all_sent.wait()
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        head = Answer(await reader.readuntil(b"\r\n\r\n"))
        head.body = await reader.readexactly(int(head.get("Content-Length")))
        writer.close()
        return head

    return await asyncio.gather(*(one() for _ in range(n)))


@pytest.mark.parametrize("rate", ["", "&rate=1m"])
def test_200_clients_one_fetch(edge, origin, files, fresh, rate):
    """Exactly one line in the origin's log, whatever its speed; every byte exact."""
    name = fresh()
    target = f"/plain/x-segment?{name}{rate}"
    before = edge.metric("flight_joins_total")
    for a in asyncio.run(get_all(edge.port, target, 200)):
        assert a.status == 200 and a.body == files["segment"]
    assert len(origin.requests(name)) == 1
    if rate:
        assert edge.metric("flight_joins_total") > before


def test_collapsed_misses_through_the_chain(start, origin, files, fresh):
    shield = start.shield([{"match": "/**", "url": f"http://127.0.0.1:{origin.port}"}])
    edges = [start.edge(shield.port) for _ in range(2)]
    name = fresh()
    target = f"/plain/x-segment?{name}&rate=1m"

    async def everybody():
        return await asyncio.gather(*(get_all(e.port, target, 50) for e in edges))

    for answers in asyncio.run(everybody()):
        assert all(a.body == files["segment"] for a in answers)
    assert len(origin.requests(name)) == 1


def test_private_answers_are_not_shared(edge, origin, fresh, files):
    name = fresh()
    for a in asyncio.run(get_all(edge.port, f"/plain/x-small?cc=private&{name}", 20)):
        assert a.body == files["small"]
    assert len(origin.requests(name)) == 20


def test_failure_is_everybodys(start, fresh):
    """A dead origin is asked a bounded number of times, however many want it."""
    edge = start.edge(free_port())
    for a in asyncio.run(get_all(edge.port, "/plain/x", 100)):
        assert a.status in (502, 504)
    assert edge.metric("upstream_connects_total") <= 8 * 2


# --- slices ---


def slices_asked(origin, name):
    """Numbers of the slices that were fetched, in order."""
    return sorted(int(line.split('"bytes=')[1].split("-")[0]) // SLICE for line in origin.requests(name))


def test_large_object_is_fetched_by_slices(edge, origin, files, fresh):
    name = fresh()
    target = f"/plain/x-big?{name}"
    a = edge.ask(target)
    assert a.body == files["big"] and a.get("X-Cache") == "MISS" and a.get("Content-Length") == "10000000"
    assert edge.curl(target) == files["big"]
    assert slices_asked(origin, name) == list(range(10))
    assert edge.ask(target).get("X-Cache") == "HIT"


def test_range_miss_fetches_only_its_slices(edge, origin, files, fresh):
    for first, last, slices in ((5 * SLICE + 7, 5 * SLICE + 9, [5]), (0, 9, [0]), (9 * SLICE, 9 * SLICE + 1, [9]),
                                (3 * SLICE - 1, 3 * SLICE, [2, 3]), (SLICE, 4 * SLICE - 1, [1, 2, 3])):
        name = fresh()
        a = edge.ask(f"/plain/x-big?{name}", fields=[("Range", f"bytes={first}-{last}")])
        assert a.status == 206 and a.body == files["big"][first:last + 1]
        assert a.get("Content-Range") == f"bytes {first}-{last}/10000000"
        assert slices_asked(origin, name) == slices


def test_416_beyond_the_end_of_a_large_object(edge, fresh):
    for _ in range(2):
        a = edge.ask(f"/plain/x-big?{fresh()}", fields=[("Range", "bytes=10000000-")])
        assert a.status == 416 and a.get("Content-Range") == "bytes */10000000"
        a = edge.ask(f"/plain/x-big?{fresh()}", fields=[("Range", "bytes=90000000-90000001")])
        assert a.status == 416 and a.get("Content-Range") == "bytes */10000000"


def test_suffix_of_a_large_object(edge, files, fresh):
    a = edge.ask(f"/plain/x-big?{fresh()}", fields=[("Range", "bytes=-1500000")])
    assert a.status == 206 and a.body == files["big"][-1500000:]


def test_exact_multiples_of_a_slice(edge, files, fresh):
    for _ in range(2):
        assert edge.ask(f"/plain/x-long?{fresh()}").body == files["long"]


def test_head_of_a_large_object(edge, fresh):
    a = edge.ask(f"/plain/x-big?{fresh()}", "HEAD")
    assert a.get("Content-Length") == "10000000" and a.body == b""


def test_large_object_that_changes(start, files):
    """Bytes of two versions never meet in one answer: the connection breaks, and the next answer is the new one."""
    origin = start.nginx()
    old, new = random_bytes(6 * SLICE, 11), random_bytes(6 * SLICE, 12)
    origin.write("objects/x-changes", old)
    os.utime(origin.root / "objects/x-changes", (1_600_000_000, 1_600_000_000))
    edge = start.edge(origin.port)
    # A range brings slice 4 of the old version into the cache.
    assert edge.ask("/plain/x-changes", fields=[("Range", f"bytes={4 * SLICE}-{4 * SLICE}")]).body == old[4 * SLICE:][:1]
    origin.write("objects/x-changes", new)
    os.utime(origin.root / "objects/x-changes", (1_650_000_000, 1_650_000_000))
    for _ in range(4):
        with edge.connect() as c:
            a = c.ask("/plain/x-changes")
        assert a.body == (old if old.startswith(a.body) else new)[:len(a.body)]
        assert a.complete == (len(a.body) == 6 * SLICE)
    assert a.complete and a.body == new
    assert edge.ask("/plain/x-changes", fields=[("Range", f"bytes={4 * SLICE}-{4 * SLICE}")]).body == new[4 * SLICE:][:1]


def test_large_object_that_changes_while_it_is_sent(start, scripted, fresh):
    path = f"/dyn/{fresh()}"
    old, new = random_bytes(4 * SLICE, 21), random_bytes(4 * SLICE, 22)
    served = []

    def script(asked, c):
        first = int(asked.get("Range").split("=")[1].split("-")[0])
        served.append(first // SLICE)
        data, tag = (old, "old") if len(served) <= 2 else (new, "new")
        body = data[first:first + SLICE]
        c.send(f'HTTP/1.1 206 Partial Content\r\nETag: "{tag}"\r\nCache-Control: max-age=600\r\nContent-Length: '
               f"{len(body)}\r\nContent-Range: bytes {first}-{first + len(body) - 1}/{len(data)}\r\n\r\n")
        c.send(body)
        return True

    scripted.on(path, script)
    edge = start.edge(scripted.port)
    with edge.connect() as c:
        a = c.ask(path)
    assert not a.complete and old.startswith(a.body)
    until(lambda: edge.ask(path).body == new, "the new version is served whole")


def test_other_length_under_the_same_validator(start, scripted, fresh):
    """A total that differs is another version, whatever the ETag says."""
    path = f"/dyn/{fresh()}"

    def script(asked, c):
        first = int(asked.get("Range").split("=")[1].split("-")[0])
        total = 2 * SLICE if first == 0 else 2 * SLICE + 5
        n = min(SLICE, total - first)
        c.send(f'HTTP/1.1 206 Partial Content\r\nETag: "a"\r\nCache-Control: max-age=600\r\nContent-Length: {n}\r\n'
               f"Content-Range: bytes {first}-{first + n - 1}/{total}\r\n\r\n" + "x" * n)
        return True

    scripted.on(path, script)
    edge = start.edge(scripted.port)
    with edge.connect() as c:
        a = c.ask(path)
        assert not a.complete and len(a.body) == SLICE


def test_weak_validator_is_not_put_together(faulty, scripted, fresh):
    """RFC 9110, 15.3.7.3: only under a strong one; else it is asked for whole."""
    path = f"/dyn/{fresh()}"
    body = random_bytes(2 * SLICE, 31)

    def script(asked, c):
        if asked.get("Range"):
            c.send(f'HTTP/1.1 206 Partial Content\r\nETag: W/"a"\r\nContent-Length: {SLICE}\r\n'
                   f"Content-Range: bytes 0-{SLICE - 1}/{2 * SLICE}\r\n\r\n")
            c.send(body[:SLICE])
        else:
            c.send(f'HTTP/1.1 200 OK\r\nETag: W/"a"\r\nContent-Length: {2 * SLICE}\r\n\r\n')
            c.send(body)
        return True

    scripted.on(path, script)
    assert faulty.ask(path).body == body


def test_object_max(start, origin, files):
    """Larger ones are passed on, not stored."""
    edge = start.edge(origin.port, limits={"object_max": "1MiB"})
    for _ in range(2):
        assert edge.ask("/plain/x-segment").body == files["segment"]
        a = edge.ask("/plain/x-big")
        assert a.body == files["big"] and a.get("X-Cache") == "MISS"


def test_memory_is_full(start, origin, files):
    """Everything is served all the same, and memory keeps to its size."""
    edge = start.edge(origin.port, memory={"size": "16MiB"})
    for i in range(60):
        assert edge.ask(f"/plain/x-segment?{i}").body == files["segment"]
    assert edge.metric("cache_bytes") <= 16 << 20
    assert edge.metric("cache_evictions_total") > 0
    assert edge.ask("/plain/x-big").body == files["big"]
