"""Rate limits by uid and by address, and connections an address. Rates are one an hour, so that only the burst counts
and no figure depends on how fast this machine is; tests/sim/test_proxy_limits.c has the times."""

import json

import pytest

from conftest import TRACK
from harness import *

SMALL = "/plain/x-small"


def statuses(edge, target, n, **more):
    """Each on a connection of its own: with two workers, about half go to each."""
    return [edge.ask(target() if callable(target) else target, **more).status for _ in range(n)]


def limited(a):
    assert (a.status, a.get("Segue-Reason")) == (429, "rate"), a
    assert a.problem["title"] == "Too Many Requests"
    assert a.get("Cache-Control") == "no-store"
    return int(a.get("Retry-After"))


def test_uid_across_workers(start, origin, files):
    edge = start.edge(origin.port, workers=2, rate_limit={"per_uid": "1/h", "burst": 20},
                      access_log={"path": "access.log", "format": "json"})
    url = lambda: sign(TRACK, uid="u42")
    assert statuses(edge, url, 20) == [200] * 20
    a = edge.ask(url())
    # From the first request on, one comes back after an hour.
    assert 3600 - PATIENCE * 4 <= limited(a) <= 3600
    assert statuses(edge, url, 5) == [429] * 5
    # The form with the token in the path is the same uid; another uid, and none, are others.
    assert edge.ask(sign_path(TRACK, depth=3, uid="u42")).status == 429
    assert edge.ask(sign_path(TRACK, depth=3, uid="u43")).body == files["segment"]
    assert statuses(edge, lambda: sign(TRACK), 25) == [200] * 25
    assert edge.metric("rate_limited_total", by="uid") == 7
    assert edge.metric("rate_limited_total", by="address") == 0
    assert edge.metric("rate_limit_uncounted_total") == 0
    assert edge.metric("signatures_total", result="ok") == 20 + 1 + 5 + 1 + 1 + 25
    assert "uid u42 is over rate_limit.per_uid" in edge.log() and "sig=" not in edge.log()
    lines = lambda: [json.loads(line) for line in (edge.folder / "access.log").read_text().splitlines()]
    of_uid = lambda: [line for line in lines() if line.get("status") == 429]
    until(lambda: len(of_uid()) == 7, "the access log has them")
    assert all(line["reason"] == "rate" and line["uid"] == "u42" for line in of_uid())


def test_only_a_valid_uid_counts(start, origin, files):
    """Nobody uses up another's limit by putting his uid into a URL, and a wrong signature is told so even then."""
    edge = start.edge(origin.port, rate_limit={"per_uid": "1/h", "burst": 3})
    forged = sign(TRACK, uid="u42", key=b"not-a-key-of-this-edge-0123456789")
    assert statuses(edge, forged, 10) == [403] * 10
    assert statuses(edge, sign(TRACK, uid="u42", exp=NOW() - 600), 10) == [403] * 10
    assert statuses(edge, sign(TRACK, uid="u42", ip="192.0.2.1"), 10) == [403] * 10
    # A rule without signatures looks at no uid.
    assert statuses(edge, SMALL + "?uid=u42", 10) == [200] * 10
    assert statuses(edge, sign(TRACK, uid="u42"), 4) == [200, 200, 200, 429]
    assert edge.ask(forged).get("Segue-Reason") == "signature"
    assert edge.ask(sign(TRACK, uid="u42", exp=NOW() - 600)).get("Segue-Reason") == "expired"
    assert edge.ask(sign(TRACK, uid="u42", ip="192.0.2.1")).get("Segue-Reason") == "address"
    assert edge.ask(sign(TRACK, uid="u42", geo="SE")).get("Segue-Reason") == "geo"


def test_long_uids_are_told_apart(start, origin):
    edge = start.edge(origin.port, rate_limit={"per_uid": "1/h", "burst": 1})
    same = "u" * 200
    for n in range(5):
        assert edge.ask(sign(TRACK, uid=f"{same}{n}")).status == 200
    assert edge.ask(sign(TRACK, uid=f"{same}3")).status == 429


def test_address(start, origin, files):
    edge = start.edge(origin.port, workers=2, rate_limit={"per_address": "1/h", "burst": 10})
    assert statuses(edge, SMALL, 5, source="127.0.0.5") == [200] * 5
    assert statuses(edge, lambda: sign(TRACK, uid="u1"), 5, source="127.0.0.5") == [200] * 5
    assert limited(edge.ask(SMALL, source="127.0.0.5")) > 3000
    assert edge.ask(sign(TRACK, uid="u2"), source="127.0.0.5").status == 429
    a = edge.ask(SMALL, "HEAD", source="127.0.0.5")
    assert (a.status, a.get("Segue-Reason")) == (429, "rate") and int(a.get("Retry-After")) > 3000
    assert edge.ask(SMALL, source="127.0.0.6").body == files["small"]
    # Said by nobody who is trusted.
    assert edge.ask(SMALL, source="127.0.0.5", fields=[("X-Forwarded-For", "192.0.2.1")]).status == 429
    # What is no request for an object is neither limited nor counted.
    assert statuses(edge, "/.segue/health", 30, source="127.0.0.5") == [200] * 30
    assert statuses(edge, "/.segue/health", 30, source="127.0.0.7") == [200] * 30
    assert statuses(edge, SMALL, 11, source="127.0.0.7") == [200] * 10 + [429]
    assert edge.metric("rate_limited_total", by="address") == 5
    assert "127.0.0.5 is over rate_limit.per_address" in edge.log()


def test_head_counts_and_a_connection_lives_on(start, origin, files):
    edge = start.edge(origin.port, rate_limit={"per_address": "1/h", "burst": 4})
    with edge.connect(source="127.0.0.5") as c:
        assert [c.ask(SMALL, "HEAD").status for _ in range(2)] == [200, 200]
        assert [c.ask(SMALL).status for _ in range(4)] == [200, 200, 429, 429]
        assert c.ask("/.segue/health").status == 200
        assert c.ask(SMALL, "HEAD").status == 429
        assert c.ask(SMALL).status == 429


def test_curl_obeys_retry_after(start, origin, files):
    """Real curl waits as long as it is told: one request each two seconds, and --retry."""
    edge = start.edge(origin.port, rate_limit={"per_address": "30/m", "burst": 1})
    edge.curl(SMALL)
    assert edge.curl(SMALL, "--fail", "--retry", "20") == files["small"]


def test_a_uid_over_its_limit_spares_its_address(start, origin):
    """Who is refused for himself takes nothing from those behind the same address."""
    edge = start.edge(origin.port, rate_limit={"per_uid": "1/h", "per_address": "1/h", "burst": 5})
    greedy = lambda: sign(TRACK, uid="greedy")
    assert statuses(edge, greedy, 10, source="127.0.0.5") == [200] * 5 + [429] * 5
    assert statuses(edge, greedy, 20, source="127.0.0.6") == [429] * 20
    assert edge.metric("rate_limited_total", by="uid") == 25
    assert [edge.ask(sign(TRACK, uid=f"u{n}"), source="127.0.0.6").status for n in range(6)] == [200] * 5 + [429]
    assert edge.metric("rate_limited_total", by="address") == 1


def test_clients_of_a_trusted_proxy(start, origin):
    edge = start.edge(origin.port, trusted_proxies=["127.0.0.9"], rate_limit={"per_address": "1/h", "burst": 3})
    via = lambda client: edge.ask(SMALL, source="127.0.0.9", fields=[("X-Forwarded-For", client)]).status
    assert [via("192.0.2.1") for _ in range(4)] == [200, 200, 200, 429]
    assert via("192.0.2.2") == 200
    assert via("198.51.100.9, 192.0.2.1") == 429
    # An IPv4-mapped address is its IPv4 one.
    assert via("::ffff:192.0.2.1") == 429
    # IPv6 by /64.
    assert [via(f"2001:db8:1:2:{n}::1") for n in range(4)] == [200, 200, 200, 429]
    assert via("2001:db8:1:2:ffff:ffff:ffff:ffff") == 429
    assert via("2001:db8:1:3::1") == 200
    assert "2001:db8:1:2::/64 is over rate_limit.per_address" in edge.log() or "192.0.2.1 is over" in edge.log()


def test_reload_changes_the_rate(start, origin):
    edge = start.edge(origin.port, workers=2, rate_limit={"per_address": "1/h", "burst": 5})
    assert statuses(edge, SMALL, 6, source="127.0.0.5") == [200] * 5 + [429]
    # The same file: nothing begins anew.
    edge.reload()
    assert statuses(edge, SMALL, 10, source="127.0.0.5") == [429] * 10
    # Off, on both workers.
    edge.reload({**edge.conf, "rate_limit": {}})
    until(lambda: statuses(edge, SMALL, 20, source="127.0.0.5") == [200] * 20, "no limit")
    # Another burst begins anew; both workers have to have it, hence the patience.
    edge.reload({**edge.conf, "rate_limit": {"per_address": "1/h", "burst": 40}})
    until(lambda: statuses(edge, SMALL, 20, source="127.0.0.5") == [429] * 20, "the new limit holds")
    # 0/s is no limit either; and a table's size is only changed by a restart.
    edge.reload({**edge.conf, "rate_limit": {"per_address": "0/s", "table": 2048}})
    until(lambda: statuses(edge, SMALL, 20, source="127.0.0.5") == [200] * 20, "no limit")
    assert "rate_limit.table changed; that needs a restart" in edge.log()


def test_a_full_table_lets_pass(start, origin):
    """The smallest table, and more addresses than it holds: those without a place are served and counted as such."""
    edge = start.edge(origin.port, trusted_proxies=["127.0.0.9"],
                      rate_limit={"per_address": "1/h", "burst": 1, "table": 1024})
    with edge.connect(source="127.0.0.9") as c:
        for n in range(2000):
            assert c.ask(SMALL, fields=[("X-Forwarded-For", f"10.0.{n // 250}.{n % 250}")]).status == 200, n
        # All places are taken by now, or nearly.
        full = edge.metric("rate_limit_uncounted_total", table="requests")
        assert 2000 - 1024 <= full < 2000
        again = [c.ask(SMALL, fields=[("X-Forwarded-For", f"10.0.{n // 250}.{n % 250}")]).status for n in range(2000)]
    assert again.count(429) == edge.metric("rate_limited_total", by="address")
    assert 500 < again.count(429) <= 1024


# --- connections ---


def is_refused(edge, **more):
    """Closed at once, before anything is asked."""
    with edge.connect(**more) as c:
        return c.is_closed()


def test_connections_of_an_address(start, origin, files):
    edge = start.edge(origin.port, workers=2, rate_limit={"connections_per_address": 6})
    held = [edge.connect(source="127.0.0.5") for _ in range(6)]
    assert all(c.ask(SMALL).status == 200 for c in held)
    for _ in range(4):  # on whatever worker
        assert is_refused(edge, source="127.0.0.5")
    assert edge.metric("connections_refused_total", reason="address") == 4
    assert edge.metric("connections_refused_total", reason="connections_max") == 0
    assert "127.0.0.5 has its 6" in edge.log()
    # Others, and requests on those that are open, go on.
    assert edge.ask(SMALL, source="127.0.0.6").body == files["small"]
    assert all(c.ask(SMALL).body == files["small"] for c in held for _ in range(5))
    held.pop().close()
    held.pop().reset()
    held += [until(lambda: opened(edge, "127.0.0.5"), "two have left, one may come") for _ in range(2)]
    assert is_refused(edge, source="127.0.0.5")
    for c in held:
        c.close()


def opened(edge, source):
    """A connection that answers, or None where it was refused."""
    c = edge.connect(source=source)
    try:
        if c.ask("/.segue/health").status == 200:
            return c
    except (Closed, OSError):
        pass
    c.close()
    return None


def test_connections_leave_no_count(start, origin, files):
    """However a connection ends, it is taken back: after hundreds of each kind there is still place for all."""
    edge = start.edge(origin.port, workers=2, rate_limit={"connections_per_address": 4},
                      timeouts={"client_idle": "500ms", "client_head": "500ms"})
    source = "127.0.0.5"

    def closed_idle(c):
        c.close()

    def reset_idle(c):
        c.reset()

    def half_a_head(c):
        c.send("GET /plain/x-sm").close()

    def nonsense(c):
        c.send("\x01\x02\r\n\r\n").close()

    def amid_an_answer(c):
        c.request("/plain/x-big").head()
        c.reset()

    def last_request(c):
        c.ask(SMALL, fields=[("Connection", "close")])
        assert c.is_closed()

    for end in (closed_idle, reset_idle, half_a_head, nonsense, amid_an_answer, last_request):
        for _ in range(50):
            end(until(lambda: opened(edge, source), f"place after {end.__name__}"))
    # One that times out as well.
    idle = until(lambda: opened(edge, source), "place for one that idles")
    assert idle.is_closed()
    idle.close()
    until(lambda: edge.metric("connections", state="open") == 0, "all have ended")
    held = [edge.connect(source=source) for _ in range(4)]
    assert all(c.ask(SMALL).status == 200 for c in held)
    assert is_refused(edge, source=source)
    for c in held:
        c.close()


def test_connections_of_trusted_proxies_are_theirs(start, origin):
    edge = start.edge(origin.port, trusted_proxies=["127.0.0.9"], rate_limit={"connections_per_address": 2})
    held = [edge.connect(source="127.0.0.9") for _ in range(20)]
    assert all(c.ask(SMALL).status == 200 for c in held)
    for c in held:
        c.close()
    assert edge.metric("connections_refused_total") == 0


def test_clients_that_a_proxy_header_names(start, origin):
    """They are counted once the header has said who they are, and the proxy never is."""
    listen = [{"address": f"127.0.0.1:{free_port()}"},
              {"address": f"127.0.0.1:{free_port()}", "proxy_protocol": ["127.0.0.9"]}]
    edge = start.edge(origin.port, workers=2, listen=listen,
                      rate_limit={"connections_per_address": 2, "per_address": "1/h", "burst": 5})
    port = int(listen[1]["address"].rpartition(":")[2])
    header = lambda client: f"PROXY TCP{6 if ':' in client else 4} {client} {client} 4711 80\r\n"
    silent = [Connection(port, "127.0.0.9") for _ in range(10)]
    held = [Connection(port, "127.0.0.9").send(header(client))
            for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2:0:0:2")]
    assert all(c.ask(SMALL).status == 200 for c in held)
    for client in ("192.0.2.1", "2001:db8::3"):
        with Connection(port, "127.0.0.9").send(header(client)) as c:
            assert c.is_closed()
    assert edge.metric("connections_refused_total", reason="address") == 2
    # The two have asked once each.
    assert [held[0].ask(SMALL).status for _ in range(4)] == [200, 200, 200, 429]
    assert [held[2].ask(SMALL).status for _ in range(5)] == [200] * 4 + [429]
    for c in held + silent:
        c.close()
    until(lambda: edge.metric("connections", state="open") == 0, "all have ended")
    with Connection(port, "127.0.0.9").send(header("2001:db8::3")) as a:
        with Connection(port, "127.0.0.9").send(header("2001:db8::3")) as b:
            assert a.ask(SMALL).status == b.ask(SMALL).status == 200


def test_reload_brings_a_connection_limit(start, origin):
    """Those that were open before count."""
    edge = start.edge(origin.port, workers=2)
    held = [edge.connect(source="127.0.0.5") for _ in range(5)]
    assert all(c.ask(SMALL).status == 200 for c in held)
    edge.reload({**edge.conf, "rate_limit": {"connections_per_address": 5}})
    until(lambda: all(is_refused_soon(edge) for _ in range(10)), "the limit on both workers")
    # A lower one ends none that is open.
    edge.reload({**edge.conf, "rate_limit": {"connections_per_address": 1}})
    assert all(c.ask(SMALL).status == 200 for c in held)
    for c in held:
        c.close()
    until(lambda: opened(edge, "127.0.0.5"), "place for one").close()


def is_refused_soon(edge):
    c = opened(edge, "127.0.0.5")
    if c is not None:
        c.close()
    return c is None


def test_curl_is_refused(start, origin, files):
    edge = start.edge(origin.port, rate_limit={"connections_per_address": 1})
    until(lambda: edge.metric("connections", state="open") == 0, "the harness has gone")
    with edge.connect() as c:
        assert c.ask(SMALL).status == 200
        with pytest.raises(subprocess.CalledProcessError):
            edge.curl(SMALL)
    until(lambda: edge.metric("connections", state="open") == 0, "it has gone")
    assert edge.curl(SMALL) == files["small"]


def test_shield(start, origin, files):
    shield = start.shield([{"url": f"http://127.0.0.1:{origin.port}"}],
                          rate_limit={"per_address": "1/h", "burst": 3, "connections_per_address": 5})
    assert [shield.ask(SMALL, source="127.0.0.5").status for _ in range(4)] == [200, 200, 200, 429]
    held = [shield.connect(source="127.0.0.6") for _ in range(5)]
    assert all(c.ask("/.segue/health").status == 200 for c in held)
    assert is_refused(shield, source="127.0.0.6")
    for c in held:
        c.close()
