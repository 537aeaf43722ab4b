"""Pacing by the token's rate and by the player's own word (CMCD). Times are lower bounds only: a busy machine makes
an answer late, never early. The kernel lets the first packets of a connection go at once (an initial window of ten
packets, which on loopback are of 64 KiB), so connections here have sent something before they are measured, and
bounds leave room for the rest."""

import time

import pytest

from conftest import TRACK
from h2peer import *
from harness import *

RATE = 512 * 1024
MIB = 1 << 20


@pytest.fixture(scope="module")
def body(module, origin):
    data = random_bytes(MIB, 77)
    for prefix in ("tracks/paced/320", "plain"):
        origin.write(f"{prefix}/mib.ogg", data)
    return data


@pytest.fixture(scope="module")
def edge(module, origin):
    return module.edge(origin.port, workers=1)


@pytest.fixture(scope="module")
def heeding(module, origin):
    """Heeds players."""
    return module.edge(origin.port, workers=1, pacing={"cmcd_rtp": True})


PACED = "/tracks/paced/320/mib.ogg"


def seconds(c, target, body, fields=()):
    began = time.monotonic()
    assert c.ask(target, fields=fields).body == body
    return time.monotonic() - began


def test_the_signed_rate(edge, body):
    with edge.connect() as c:
        assert c.ask(sign(PACED)).body == body
        for rate in (RATE, 2 * RATE):
            took = seconds(c, sign(PACED, rate=rate), body)
            assert took > 0.6 * MIB / rate, f"1 MiB at {rate} bytes a second came in {took} s"
        # What asks for none has none, on the same connection; and paced again.
        took = [seconds(c, sign(PACED), body) for _ in range(5)]
        assert min(took) < 0.5 * MIB / RATE, took
        assert seconds(c, sign(PACED, rate=RATE), body) > 0.6 * MIB / RATE
    assert edge.metric("paced_requests_total", by="token") == 3
    assert edge.metric("paced_requests_total", by="cmcd") == 0


def test_two_in_a_row(edge, body):
    """Pipelined, so that the second's rate is set while the first's bytes may be on their way."""
    with edge.connect() as c:
        c.request(sign(PACED)).request(sign(PACED, rate=RATE)).request(sign(PACED))
        assert [c.answer().body == body for _ in range(3)] == [True] * 3


@pytest.fixture(scope="module")
def big(origin, files):
    """More than the kernel takes off our hands, so that a send lasts."""
    origin.write("tracks/paced/320/big.ogg", files["big"])
    return "/tracks/paced/320/big.ogg"


def test_a_paced_client_is_not_slow(start, origin, files, big):
    """Slower than client_rate_min by its token: that is as the operator wants it."""
    edge = start.edge(origin.port, workers=1, limits={"client_rate_min": "100MB/s", "client_rate_grace": "1s"})
    with edge.connect() as c:
        assert seconds(c, sign(big, rate=3_000_000), files["big"]) > 2
    assert edge.metric("slow_clients_total") == 0


@pytest.mark.parametrize("window", [WINDOW_MAX, WINDOW_DEFAULT], ids=["open", "narrow"])
def test_a_paced_client_is_not_slow_in_http_2(start, origin, files, big, window):
    edge = start.edge(origin.port, workers=1, listen=[{"address": f"127.0.0.1:{free_port()}", "http2": True}],
                      limits={"client_rate_min": "100MB/s", "client_rate_grace": "1s"})
    with H2(edge.port, connection_window=window) as p:
        p.started()
        began, s = time.monotonic(), p.request(sign(big, rate=3_000_000))
        while not s.over:
            p.frame()
            if p.window < WINDOW_DEFAULT // 2:
                p.grant(None, WINDOW_DEFAULT - p.window)
        assert s.ended and s.body == files["big"]
        assert time.monotonic() - began > 1.5  # several looks
    assert edge.metric("slow_clients_total") == 0


def test_a_pace_below_one_packet_a_look(start, origin, files, big):
    """Loopback's packets have 64 KiB: at this rate most looks see none that was taken."""
    edge = start.edge(origin.port, workers=1, limits={"client_rate_min": "1MB/s", "client_rate_grace": "1s"})
    with edge.connect() as c:
        c.request(sign(big, rate=30_000)).head()
        end = time.monotonic() + 6
        while time.monotonic() < end:
            c.exactly(10_000)
    assert edge.metric("slow_clients_total") == 0


def test_who_does_not_even_take_that_is_cut_off(start, origin, big):
    edge = start.edge(origin.port, workers=1, limits={"client_rate_min": "10MB/s", "client_rate_grace": "1s"})
    with edge.connect(receive_buffer=4096) as c:
        c.request(sign(big, rate=RATE)).head()
        until(lambda: edge.metric("slow_clients_total") == 1, "it is cut off")


def test_a_player_says_what_is_enough(heeding, body):
    kbit_s = RATE * 8 // 1000
    with heeding.connect() as c:
        assert c.ask("/plain/mib.ogg").body == body
        least = 0.6 * MIB / RATE
        assert seconds(c, f"/plain/mib.ogg?CMCD=bs%2Crtp%3D{kbit_s}%2Csid%3D%22a%22", body) > least
        assert min(seconds(c, "/plain/mib.ogg", body) for _ in range(5)) < least
        assert seconds(c, "/plain/mib.ogg", body, [("CMCD-Status", f"rtp={kbit_s}")]) > least
        # The lower of the two rates.
        assert seconds(c, sign(PACED, rate=RATE), body, [("CMCD-Status", "rtp=100000")]) > least
        assert seconds(c, sign(PACED, rate=1 << 40), body, [("CMCD-Status", f"rtp={kbit_s}")]) > least
    assert heeding.metric("paced_requests_total", by="cmcd") == 3
    assert heeding.metric("paced_requests_total", by="token") == 1


@pytest.mark.parametrize("said", ["rtp=0", "rtp=-1", "rtp=x", "bs", "rtp=1,", "", "rtp=4294967296"])
def test_nonsense_paces_nobody(heeding, body, said):
    before = heeding.metric("paced_requests_total")
    assert heeding.ask("/plain/mib.ogg", fields=[("CMCD-Status", said)]).body == body
    assert heeding.metric("paced_requests_total") == before


def test_a_player_is_not_heeded_below_the_least(start, origin, body):
    edge = start.edge(origin.port, workers=1, pacing={"cmcd_rtp": True, "cmcd_rtp_min": "100MB/s"})
    with edge.connect() as c:
        assert min(seconds(c, "/plain/mib.ogg?CMCD=rtp%3D1", body) for _ in range(5)) < 2  # at 1 kbit/s it takes hours
    assert edge.metric("paced_requests_total", by="cmcd") == 5


def test_nor_where_the_operator_does_not_say_so(edge, body):
    assert edge.ask("/plain/mib.ogg?CMCD=rtp%3D1").body == body
    assert edge.metric("paced_requests_total", by="cmcd") == 0


def test_cmcd_is_no_part_of_the_object(edge, origin, files, fresh):
    """/plain/ keeps the whole query, /keep/ and /dyn/ as their rules say."""
    name = fresh()
    url = f"/plain/x-small?{name}=1"
    assert edge.ask(f"{url}&CMCD=bl%3D1%2Csid%3D%22a%22").body == files["small"]
    until(lambda: edge.metric("flights") == 0, "the fill has ended")
    for more in ("&CMCD=bl%3D2", "&%43MCD=bl%3D2", "&CMCD", ""):
        assert edge.ask(url + more).get("X-Cache") == "HIT", more
    assert edge.ask(f"/plain/x-small?CMCD=bl%3D3&{name}=1").get("X-Cache") == "HIT"
    assert edge.ask(f"{url}&cmcd=1").get("X-Cache") == "MISS"  # names have their case
    (line, other) = origin.requests(name)
    assert "CMCD" not in line and "cmcd=1" in other
    # What is passed on without being stored keeps it: it is the origin's to read.
    edge.ask(f"/pass/x-small?{name}&CMCD=bl%3D9")
    assert any("CMCD=bl%3D9" in line for line in origin.requests(name))
