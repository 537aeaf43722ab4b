"""The admin server: on its socket and its address, metrics, stats, object."""

import shutil
import stat

import pytest

from conftest import TRACK
from harness import *

TOKEN = "an-admin-token-of-enough-characters"


@pytest.fixture(scope="module")
def edge(module, origin):
    (module.folder / "token").write_text(TOKEN + "\n")
    (module.folder / "token").chmod(0o600)
    folder = module.folder / "admin"
    folder.mkdir()
    return module.edge(origin.port, access_log={"path": "access.log"},
                       admin={"socket": str(folder / "s"), "address": f"127.0.0.1:{free_port()}",
                              "token": str(module.folder / "token"), "hosts": ["edge1.test"]})


def over_tcp(edge, target, method="GET", token=None, host="127.0.0.1", fields=(), body=b""):
    fields = list(fields) + ([("Authorization", f"Bearer {token}")] if token else [])
    return ask(edge.admin_port, target, method, fields, body, host=host)


def test_socket_allows_all(edge):
    assert stat.S_IMODE(os.stat(edge.socket).st_mode) == 0o660
    for path in ("/metrics", "/healthz", "/readyz", "/stats"):
        assert edge.admin(path).status == 200, path
    assert edge.admin("/object?url=/nothing").status == 404


def test_tcp_is_read_only_without_the_token(edge):
    for path in ("/metrics", "/healthz", "/readyz", "/stats"):
        assert over_tcp(edge, path).status == 200, path
    for method, path in (("GET", "/object?url=/x"), ("POST", "/purge"), ("POST", "/prewarm"), ("GET", "/nothing")):
        for token in (None, "wrong", TOKEN[:-1], TOKEN + "x"):
            a = over_tcp(edge, path, method, token)
            assert a.status == 401 and a.problem and a.get("WWW-Authenticate") == "Bearer", (path, token)
    assert over_tcp(edge, "/object?url=/nothing", token=TOKEN).status == 404
    assert over_tcp(edge, "/nothing", token=TOKEN).status == 404


def test_host_of_tcp_requests(edge):
    """A name that somebody's DNS may point here is not served."""
    for host in ("127.0.0.1", f"127.0.0.1:{edge.admin_port}", "localhost", "[::1]", "edge1.test", "EDGE1.test:9180"):
        assert over_tcp(edge, "/healthz", host=host).status == 200, host
    for host in ("evil.test", "localhost.evil.test", "127.0.0.1.evil.test"):
        a = over_tcp(edge, "/metrics", host=host)
        assert a.status == 421 and a.problem, host
        assert over_tcp(edge, "/object?url=/x", host=host, token=TOKEN).status == 421


def test_methods(edge):
    a = edge.admin("/metrics", "POST")
    assert a.status == 405 and a.get("Allow") == "GET, HEAD"
    assert edge.admin("/metrics", "HEAD").status == 200


def test_admin_is_not_on_the_client_port(edge):
    for path in ("/metrics", "/stats", "/purge", "/object?url=/x"):
        assert edge.ask(path).status == 403  # signed, as any path without a rule


def test_metrics(edge, tmp_path):
    """Prometheus' own checker finds nothing to say, and what the contract names is there."""
    edge.ask("/plain/x-small?m"), edge.ask("/plain/x-small?m"), edge.ask(TRACK), edge.ask(sign(TRACK))
    for answer in (edge.admin("/metrics"), over_tcp(edge, "/metrics")):
        assert answer.get("Content-Type").startswith("text/plain; version=0.0.4")
        if shutil.which("promtool"):
            out = subprocess.run(["promtool", "check", "metrics"], input=answer.body, capture_output=True)
            assert out.returncode == 0 and not out.stderr, out
    text = answer.body.decode()
    for name in ("requests_total", "first_byte_seconds_bucket", "request_duration_seconds_bucket", "fills_started_total",
                 "flight_joins_total", "cache_objects", "cache_bytes", "cache_evictions_total",
                 "cache_admissions_total", "signatures_total", "upstream_connections", "upstream_reuses_total",
                 "upstream_errors_total", "connections", "sent_bytes_total", "upstream_received_bytes_total",
                 "config_last_reload_successful", "config_reloads_total", "build_info"):
        assert f"\nsegue_edge_{name}" in text, name
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert all(n.startswith("segue_edge_") for n in names)


def test_metrics_count(edge, files):
    def now():
        return [edge.metric("requests_total", status="2xx", result="hit"), edge.metric("sent_bytes_total"),
                edge.metric("signatures_total", result="expired"), edge.metric("fills_started_total"),
                edge.metric("requests_total", status="4xx"), edge.metric("upstream_received_bytes_total")]

    edge.ask("/plain/x-segment?c")
    before = now()
    edge.ask("/plain/x-segment?c")
    edge.ask(sign(TRACK, exp=NOW() - 100))
    edge.ask("/plain/x-small?counted")
    # A request is counted after its last byte went out.
    until(lambda: now()[0] == before[0] + 1 and now()[4] == before[4] + 1 and now()[3] == before[3] + 1, "counted")
    after = now()
    assert after[1] - before[1] > len(files["segment"]) and after[2] == before[2] + 1
    assert after[5] - before[5] == 4096
    assert edge.metric("request_duration_seconds_count", result="hit") >= 1


def test_reload_metrics(start, origin):
    edge = start.edge(origin.port)
    assert edge.metric("config_last_reload_successful") == 1
    edge.allow("reload refused", "not reloaded")
    good = edge.conf
    edge.reload({**good, "unknown": 1}, refused=True)
    until(lambda: edge.metric("config_last_reload_successful") == 0, "the failure shows")
    edge.reload(good)
    until(lambda: edge.metric("config_last_reload_successful") == 1, "the success shows")


def test_stats(edge):
    a = over_tcp(edge, "/stats")
    assert a.get("Content-Type") == "application/json"
    stats = json.loads(a.body)
    assert stats and "requests" in a.body.decode()


def test_object(edge, fresh):
    path = f"/plain/x-small?{fresh()}"
    quoted = path.replace("?", "%3F")
    assert edge.admin(f"/object?url={quoted}").status == 404
    edge.ask(path)
    edge.ask(path)
    a = edge.admin(f"/object?url={quoted}")
    o = json.loads(a.body)
    assert a.status == 200 and o["state"] == "fresh" and o["size"] == 4096 and o["tier"] == "memory"
    assert 0 <= o["age"] < 60 and 3500 < o["ttl"] <= 3600 and o["url"] == path and "tags" in o
    assert edge.admin("/object").status == 400
    assert edge.admin("/object?url=/../x").status == 400


def test_object_tells_its_hits(edge):
    def hits():
        return json.loads(edge.admin("/object?url=/plain/x-small").body)["hits"]

    edge.ask("/plain/x-small")
    before = hits()
    edge.ask("/plain/x-small")
    assert hits() == before + 1


def test_object_of_a_signed_url(edge):
    """The path is enough: tokens are not part of the key."""
    edge.ask(sign(TRACK))
    assert json.loads(edge.admin(f"/object?url={TRACK}").body)["size"] == 400 * 1024


def test_object_that_varies(edge, fresh):
    name = fresh()
    path = f"/dyn/x-small?cc=max-age=60&vary=X-Own&{name}"
    edge.ask(path, fields=[("X-Own", "a")])
    a = edge.admin("/object?url=" + path.replace("?", "%3F").replace("&", "%26").replace("=", "%3D"))
    assert a.status == 200 and json.loads(a.body)["size"] == 4096


def test_stuck_admin_clients_do_not_stick_it(edge):
    """More than it has places for, each saying half a word."""
    held = []
    for _ in range(80):
        c = Connection.__new__(Connection)
        c.s = socket.create_connection(("127.0.0.1", edge.admin_port))
        c.s.send(b"GET /met")
        held.append(c)
    assert edge.ask("/plain/x-small").status == 200  # clients do not notice
    for c in held:
        c.s.close()
    until(lambda: edge.admin("/healthz").status == 200, "it answers again")


def test_hostile_heads(edge):
    for text in (b"\0" * 100 + b"\r\n\r\n", b"GET /metrics HTTP/1.1\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n", b"POST /purge HTTP/1.1\r\n"
                 b"Host: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"A" * 40000):
        with Connection(edge.admin_port) as c:
            try:
                c.send(text)
                assert c.answer().status >= 400
            except (Closed, OSError):
                pass
    assert edge.admin("/healthz").status == 200
