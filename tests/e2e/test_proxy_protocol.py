"""PROXY headers (HAProxy's proxy-protocol.txt) from peers that are named, and from those that are not. Named is
127.0.0.2; the test speaks from there or from elsewhere."""

import contextlib
import json
import pathlib
import socket
import ssl
import struct
import subprocess

import pytest

from conftest import TRACK
from harness import *

STREAM_MODULE = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")
PROXY = "127.0.0.2"
GET = f"GET /plain/x-small HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


@pytest.fixture(scope="module")
def edge(module, origin):
    ports = [free_port(), free_port()]
    program = module.edge(
        origin.port, workers=1, timeouts={"client_head": "1s"}, access_log={"path": "access.log"},
        listen=[{"address": f"127.0.0.1:{ports[0]}"},
                {"address": f"127.0.0.1:{ports[1]}", "proxy_protocol": [PROXY, "10.0.0.0/8"]}])
    program.proxied = ports[1]
    return program


def v1(source, family="TCP4", destination="192.0.2.99", port=4711):
    return f"PROXY {family} {source} {destination} {port} 443\r\n".encode()


def v2(source=None, command=1, tlvs=b""):
    """source None: AF_UNSPEC."""
    if source is None:
        family, addresses = 0x00, b""
    elif ":" in source:
        family = 0x21
        addresses = socket.inet_pton(socket.AF_INET6, source) + bytes(16) + struct.pack(">HH", 4711, 443)
    else:
        family = 0x11
        addresses = socket.inet_aton(source) + bytes(4) + struct.pack(">HH", 4711, 443)
    body = addresses + tlvs
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack(">BBH", 0x20 | command, family, len(body)) + body


def clients_of(edge, mark, n=1):
    """Who asked for what has this in its target, by the access log, once that has n lines of it."""
    path = edge.folder / "access.log"
    lines = lambda: [json.loads(line) for line in path.read_text().splitlines() if mark in line]
    found = until(lambda: len(lines()) >= n and lines(), f"{n} lines with {mark} in the access log")
    return [line["client"] for line in found]


def ask_as(edge, header, target, source=PROXY, pieces=None):
    with Connection(edge.proxied, source) as c:
        request = header + f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
        for piece in [request] if pieces is None else [request[i:i + pieces] for i in range(0, len(request), pieces)]:
            c.send(piece)
        return c.answer()


@pytest.mark.parametrize("header, client", [
    (v1("192.0.2.1"), "192.0.2.1"),
    (v1("2001:db8::1", "TCP6", "2001:db8::2"), "2001:db8::1"),
    (v1("::ffff:192.0.2.7", "TCP6", "::1"), "192.0.2.7"),
    (b"PROXY UNKNOWN\r\n", PROXY),
    (v2("192.0.2.2"), "192.0.2.2"),
    (v2("2001:db8::3"), "2001:db8::3"),
    (v2("192.0.2.4", tlvs=b"\x01\x00\x02h2" + b"\xee\x01\x90" + bytes(400)), "192.0.2.4"),
    (v2(), PROXY),
    (v2(command=0), PROXY),
    (v2("192.0.2.5", command=0), PROXY),
], ids=lambda p: p if isinstance(p, str) else None)
@pytest.mark.parametrize("pieces", [None, 1, 7])
def test_the_named_address_is_the_client(edge, files, fresh, header, client, pieces):
    target = f"/plain/x-small?{fresh()}-{pieces}"
    assert ask_as(edge, header, target, pieces=pieces).body == files["small"]
    assert clients_of(edge, target) == [client]


def test_it_holds_for_all_requests_of_the_connection(edge, files, fresh):
    mark = fresh()
    with Connection(edge.proxied, PROXY) as c:
        c.send(v1("192.0.2.8"))
        for i in range(3):
            assert c.ask(f"/plain/x-small?{mark}-{i}").body == files["small"]
        # A second header is no request.
        assert c.send(v1("192.0.2.9")).answer().status == 400
    assert clients_of(edge, mark, 3) == ["192.0.2.8"] * 3


def test_a_signed_address_is_compared_with_the_named_one(edge, files):
    url = sign(TRACK, ip="192.0.2.0/24")
    assert ask_as(edge, v1("192.0.2.1"), url).body == files["segment"]
    assert ask_as(edge, v2("192.0.2.254"), url).status == 200
    a = ask_as(edge, v2("198.51.100.1"), url)
    assert a.status == 403 and a.get("Segue-Reason") == "address"
    assert ask_as(edge, v2(command=0), url).status == 403
    assert ask_as(edge, v1("2001:db8::1", "TCP6", "::1"), sign(TRACK, ip="2001:db8::/32")).status == 200


@pytest.mark.parametrize("first", [
    GET, b"PROXY\r\n", b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n" + GET, b"PROXY TCP5 a b 1 2\r\n" + GET,
    v1("192.0.2.1")[:-2] + b"\n" + GET, b"PROXY UNKNOWN " + b"x" * 200, b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1",
    v2("192.0.2.1")[:12] + b"\x11" + v2("192.0.2.1")[13:] + GET, v2("192.0.2.1", tlvs=b"\x01\x00\x09h2") + GET,
    v2("192.0.2.1", tlvs=bytes(3) * 200) + GET, v2("192.0.2.1", tlvs=b"\x03\x00\x04" + bytes(4)) + GET,
])
def test_anything_else_from_a_named_peer_is_closed(edge, first):
    before = edge.metric("proxy_headers_total", result="bad")
    with Connection(edge.proxied, PROXY) as c:
        c.send(first)
        assert c.is_closed()  # without a word
    assert edge.metric("proxy_headers_total", result="bad") == before + 1


def test_the_log_says_who_sent_none(edge):
    with Connection(edge.proxied, PROXY) as c:
        assert c.send(GET).is_closed()
    until(lambda: f"{PROXY}:" in edge.log() and "began with no PROXY header" in edge.log(), "it is logged")


def test_a_header_that_does_not_come_in_time(edge):
    before = edge.metric("proxy_headers_total", result="late")
    with Connection(edge.proxied, PROXY) as silent, Connection(edge.proxied, PROXY) as slow:
        slow.send(v1("192.0.2.1")[:20])
        assert silent.is_closed() and slow.is_closed()
    assert edge.metric("proxy_headers_total", result="late") == before + 2


def test_the_head_after_it_has_its_own_time(edge):
    with Connection(edge.proxied, PROXY) as c:
        c.send(v1("192.0.2.1") + b"GET /")
        assert c.answer().status == 408


def test_who_looks_whether_the_port_is_open_is_no_error(edge):
    bad, late = (edge.metric("proxy_headers_total", result=r) for r in ("bad", "late"))
    for _ in range(3):
        Connection(edge.proxied, PROXY).close()
    with Connection(edge.proxied, PROXY) as c:
        c.send(v1("192.0.2.1")[:9])
        c.s.shutdown(socket.SHUT_WR)
        assert c.is_closed()
    assert (edge.metric("proxy_headers_total", result="bad"), edge.metric("proxy_headers_total", result="late")) == \
        (bad, late)


def test_a_peer_that_is_not_named_is_a_client(edge, files, fresh):
    target = f"/plain/x-small?{fresh()}"
    assert ask_as(edge, b"", target, source="127.0.0.3").body == files["small"]
    assert clients_of(edge, target) == ["127.0.0.3"]
    for header in (v1("192.0.2.1"), v2("192.0.2.1")):
        assert ask_as(edge, header, target, source="127.0.0.3").status == 400
        with edge.connect(source=PROXY) as c:  # nor is one that is named at another listener
            assert c.send(header + GET).answer().status == 400


def test_the_list_follows_a_reload(start, origin, files):
    edge = start.edge(origin.port)
    with edge.connect(source=PROXY) as c:
        assert c.ask("/plain/x-small").status == 200
        conf = {**edge.conf, "listen": [{**edge.conf["listen"][0], "proxy_protocol": [PROXY]}]}
        edge.reload(conf)
        assert c.ask("/plain/x-small").status == 200  # a connection stays what it was
    with edge.connect(source=PROXY) as c:
        assert c.send(v1("192.0.2.1")).ask("/plain/x-small").body == files["small"]
    with edge.connect(source=PROXY) as c:
        assert c.send(GET).is_closed()


def test_curl(edge, files):
    argv = ["curl", "-sS", "--max-time", str(PATIENCE), "--noproxy", "*", "--interface", PROXY, "-H", f"Host: {HOST}",
            f"http://127.0.0.1:{edge.proxied}/plain/x-small"]
    assert subprocess.run([*argv, "--haproxy-protocol"], check=True, capture_output=True).stdout == files["small"]
    assert subprocess.run(argv, capture_output=True).returncode == 52  # an empty reply


@pytest.mark.skipif(not STREAM_MODULE.exists(), reason="nginx has no stream module: apt-get install libnginx-mod-stream")
def test_nginx_passes_connections_on(edge, files, fresh, tmp_path):
    port = free_port()
    (tmp_path / "nginx.conf").write_text(f"""
        load_module {STREAM_MODULE};
        daemon off; master_process off; worker_processes 1; pid {tmp_path}/pid; error_log {tmp_path}/error.log warn;
        events {{ worker_connections 64; }}
        stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{edge.proxied}; proxy_bind {PROXY};
                          proxy_protocol on; }} }}""")
    nginx = Process(["nginx", "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", tmp_path / "error.log"],
                    tmp_path / "log")
    try:
        def is_up():
            with contextlib.suppress(OSError, Closed):
                return ask(port, "/.segue/health").status == 200
        until(is_up, "nginx passes on")
        target = f"/plain/x-small?{fresh()}"
        assert ask(port, target, source="127.0.0.7").body == files["small"]
        assert clients_of(edge, target) == ["127.0.0.7"]
        assert ask(port, sign(TRACK, ip="127.0.0.7"), source="127.0.0.7").body == files["segment"]
        assert ask(port, sign(TRACK, ip="127.0.0.7"), source="127.0.0.8").status == 403
    finally:
        nginx.signal(15)
        nginx.wait()


def test_tls_begins_after_the_header(start, origin, files, tmp_path):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", tmp_path / "key.pem",
                    "-out", tmp_path / "cert.pem"], check=True, capture_output=True)
    (tmp_path / "key.pem").chmod(0o600)
    ports = [free_port(), free_port()]
    edge = start.edge(origin.port, access_log={"path": "access.log"}, listen=[
        {"address": f"127.0.0.1:{ports[0]}"},
        {"address": f"127.0.0.1:{ports[1]}", "proxy_protocol": [PROXY],
         "tls": {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}}])
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    for pieces in (None, 5):
        with Connection(ports[1], PROXY) as c:
            header = v2("192.0.2.77")
            for i in range(0, len(header), pieces or len(header)):
                c.send(header[i:i + (pieces or len(header))])
            c.s = context.wrap_socket(c.s, server_hostname=HOST)
            assert c.ask(sign(TRACK, ip="192.0.2.77")).body == files["segment"]
    assert set(clients_of(edge, TRACK)) == {"192.0.2.77"}
    with Connection(ports[1], PROXY) as c, pytest.raises(OSError):
        context.wrap_socket(c.s, server_hostname=HOST)  # without a header: closed
