"""The life of a process: configuration and its reload, drain, logs, and what it does where it lacks something."""

import ctypes
import resource
import struct as structs

import pytest

from conftest import RULES, TRACK
from harness import *


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- configuration ---


def test_check_and_version(start, origin, tmp_path):
    edge = start.edge(origin.port)
    good = subprocess.run([BUILD / "segue-edge", "-t", "-c", edge.conf_path], capture_output=True, text=True)
    assert good.returncode == 0, good
    (tmp_path / "bad.yaml").write_text("listen: [{address: \"127.0.0.1:1\"}]\nnonsense: 1\n")
    bad = subprocess.run([BUILD / "segue-edge", "-t", "-c", tmp_path / "bad.yaml"], capture_output=True, text=True)
    assert bad.returncode != 0 and "bad.yaml" in bad.stderr and "nonsense" in bad.stderr
    for program in ("segue-edge", "segue-shield"):
        version = subprocess.run([BUILD / program, "-V"], capture_output=True, text=True)
        assert version.returncode == 0 and program in version.stdout and "io_uring" in version.stdout


def test_secrets_that_others_can_read_are_refused(start, origin):
    edge = start.edge(origin.port)
    (edge.folder / "keys.yaml").chmod(0o644)
    edge.allow("reload refused", "configuration not reloaded")
    edge.reload(refused=True)
    out = subprocess.run([BUILD / "segue-edge", "-t", "-c", edge.conf_path], capture_output=True, text=True)
    assert out.returncode != 0 and "keys.yaml" in out.stderr
    assert edge.ask(sign(TRACK)).status == 200  # the old ones go on


def test_shield_beyond_loopback_needs_peers(start, origin, tmp_path):
    conf = start.common(tmp_path, {"listen": [{"address": "0.0.0.0:1"}],
                                   "origins": [{"match": "/**", "url": f"http://127.0.0.1:{origin.port}"}]})
    (tmp_path / "shield.yaml").write_text(json.dumps(conf))
    out = subprocess.run([BUILD / "segue-shield", "-t", "-c", tmp_path / "shield.yaml"], capture_output=True, text=True)
    assert out.returncode != 0 and "peers" in out.stderr


def test_address_in_use(start, edge, tmp_path):
    conf = {**edge.conf, "admin": {"socket": str(tmp_path / "s")}, "signing": {"keys": str(edge.folder / "keys.yaml")}}
    conf.pop("access_log")
    (tmp_path / "edge.yaml").write_text(json.dumps(conf))
    out = subprocess.run([BUILD / "segue-edge", "-c", tmp_path / "edge.yaml"], capture_output=True, text=True,
                         timeout=PATIENCE)
    assert out.returncode != 0 and "cannot listen on" in out.stderr and "in use" in out.stderr


# --- reload ---


def test_bad_configuration_keeps_the_old(start, origin, files):
    edge = start.edge(origin.port)
    assert edge.ask("/plain/x-small").body == files["small"]
    good = edge.conf
    edge.allow("reload refused", "configuration not reloaded")
    for bad in ({**good, "unknown": 1}, {**good, "rules": [{"match": "no-slash"}]}, {**good, "upstreams": []}):
        edge.reload(bad, refused=True)
        assert edge.ask("/plain/x-small").get("X-Cache") == "HIT"
    edge.conf_path.write_text("{not yaml")
    edge.signal(signal.SIGHUP)
    until(lambda: edge.log().count("reload refused") == 4, "the fourth refusal")
    edge.reload(good)
    assert edge.ask("/plain/x-small").get("X-Cache") == "HIT"


def test_reload_changes_rules_and_keeps_cache_and_connections(start, origin, files):
    edge = start.edge(origin.port)
    with edge.connect() as c:
        c.ask("/plain/x-segment")
        assert c.ask("/nothing/x").status == 403
        edge.reload({**edge.conf, "rules": [{"match": "/nothing/**", "signed": False}] + RULES})
        until(lambda: c.ask("/nothing/x").status == 404, "the new rule")
        assert c.ask("/plain/x-segment").get("X-Cache") == "HIT"


def test_reload_in_the_middle_of_transfers(start, origin, files):
    edge = start.edge(origin.port)
    clients = []
    for i in range(4):
        c = edge.connect()
        c.request(f"/plain/x-big?rate=4m&{i}")
        clients.append((c, c.head()))
    for _ in range(3):
        edge.reload()
    for c, head in clients:
        with c:
            assert c.exactly(int(head.get("Content-Length"))) == files["big"]


def test_reload_changes_the_upstream(start, origin, files):
    other = start.nginx()
    other.write("objects/x-small", b"other")
    edge = start.edge(origin.port)
    assert edge.ask("/plain/x-small?1").body == files["small"]
    edge.reload({**edge.conf, "upstreams": [{"url": f"http://127.0.0.1:{other.port}"}]})
    n = iter(range(1 << 20))
    until(lambda: edge.ask(f"/plain/x-small?n={next(n)}").body == b"other", "the new upstream")


def test_what_needs_a_restart_says_so(start, origin):
    edge = start.edge(origin.port)
    edge.reload({**edge.conf, "memory": {"size": "256MiB"}, "workers": 1})
    assert "memory.size changed; that needs a restart" in edge.log()
    assert "workers changed; that needs a restart" in edge.log()


# --- drain ---


def test_drain_finishes_what_is_under_way(start, origin, files):
    edge = start.edge(origin.port)
    idle = edge.connect()
    assert idle.ask("/plain/x-small").status == 200
    busy = edge.connect()
    busy.request("/plain/x-big?rate=6m")
    head = busy.head()
    first = busy.exactly(1000)
    edge.signal(signal.SIGTERM)
    assert idle.is_closed()  # nothing was under way there
    with pytest.raises(ConnectionRefusedError):
        until(lambda: edge.connect().close(), "no listener any more")
    assert edge.popen.poll() is None
    assert edge.admin("/readyz").status == 503 and edge.admin("/healthz").status == 200
    assert first + busy.exactly(int(head.get("Content-Length")) - 1000) == files["big"]
    assert busy.is_closed()
    assert edge.wait() == 0
    assert not os.path.exists(edge.socket)


def test_drain_says_close(start, origin, files):
    """A request that comes on a busy connection while draining is the last."""
    edge = start.edge(origin.port)
    with edge.connect() as c:
        c.request("/plain/x-segment?rate=400k")
        head = c.head()
        edge.signal(signal.SIGTERM)
        until(lambda: "draining" in edge.log(), "draining")
        assert c.exactly(int(head.get("Content-Length"))) == files["segment"]
        assert c.is_closed()


def test_drain_has_an_end(start, origin):
    edge = start.edge(origin.port, timeouts={"drain": "300ms"})
    edge.expect_exit = 1
    with edge.connect() as c:
        c.request("/plain/x-big?rate=1k")
        c.head()
        edge.signal(signal.SIGTERM)
        edge.wait()
    assert "not drained in time" in edge.log()


def test_second_sigterm_hurries(start, origin):
    edge = start.edge(origin.port)
    with edge.connect() as c:
        c.request("/plain/x-big?rate=1k")
        c.head()
        edge.signal(signal.SIGTERM)
        until(lambda: "draining" in edge.log(), "draining")
        edge.signal(signal.SIGTERM)
        edge.expect_exit = edge.wait()


def test_signals_all_through_the_end(start, origin):
    """Whatever comes while it ends, it ends well, and leaves nothing behind (the sanitizer looks)."""
    for delays in ((0.0, 0.0), (0.001, 0.001), (0.005, 0.005), (0.01, 0.003)):
        edge = start.edge(origin.port)
        edge.ask("/plain/x-small")
        edge.signal(signal.SIGTERM)
        for delay in delays * 2:
            time.sleep(delay)
            for number in (signal.SIGHUP, signal.SIGTERM):
                if edge.popen.poll() is None:
                    edge.signal(number)
        edge.wait()


@pytest.mark.parametrize("after_ms", [0, 5, 10, 15, 20, 30])
def test_sigterm_at_any_moment_of_the_start(start, origin, after_ms):
    edge = start.edge(origin.port, wait=False)
    time.sleep(after_ms / 1000)
    edge.signal(signal.SIGTERM)
    status = edge.wait()
    assert status in (0, -signal.SIGTERM)  # the latter before it has begun to look at signals
    edge.expect_exit = status


# --- access log ---


def test_access_log_json(start, origin, files):
    edge = start.edge(origin.port, access_log={"path": "access.log", "format": "json"}, hosts=[HOST], workers=1)
    log = edge.folder / "access.log"
    url = sign(TRACK, uid="u42")
    edge.ask(url, fields=[("User-Agent", "test/1"), ("Referer", "https://page/?a=b&sig=REFERER"), ("Range", "bytes=0-9")])
    # Its first bytes came before the fill's end: only then is the next a hit, and no line of another kind.
    until(lambda: edge.metric("flights") == 0, "the fill has ended")
    edge.ask(url)
    edge.ask(sign(TRACK, exp=NOW() - 100))
    edge.ask(sign_path(TRACK, depth=3))
    edge.ask("/plain/x-small?\xfc\"\\")
    with edge.connect() as c:
        c.send("nonsense\r\n\r\n").answer()
    # Lines of the harness's health questions come first.
    ours = lambda: [line for line in lines_of(log) if "/.segue/" not in line.get("target", "")]
    lines = until(lambda: (lambda found: len(found) == 6 and found)(ours()), "six lines")
    a, b, c, d, e, f = lines
    assert a["status"] == 206 and a["cache"] == "miss" and a["body_bytes"] == 10 and a["uid"] == "u42"
    assert a["kid"] == "k1" and a["user_agent"] == "test/1" and a["range"] == "bytes=0-9" and a["host"] == HOST
    assert a["method"] == "GET" and a["protocol"] == "HTTP/1.1" and a["client"] == "127.0.0.1"
    assert a["target"].startswith(TRACK + "?exp=") and a["sent_bytes"] > 10 and 0 <= a["ttfb"] <= a["duration"]
    assert b["status"] == 200 and b["cache"] == "hit" and b["body_bytes"] == len(files["segment"])
    assert c["status"] == 403 and c["reason"] == "expired"
    assert d["status"] == 200 and d["target"].startswith("/~depth=3;")
    assert f["status"] == 400
    text = log.read_text() + edge.log()
    assert "REFERER" not in text
    for u in (url, sign_path(TRACK, depth=3)):
        assert u.partition("sig=")[2][:43] not in text


def test_no_signature_in_any_log(start, origin):
    """Whatever way it comes: query, path, twice, re-encoded, wrong, in a bad request."""
    edge = start.edge(origin.port, access_log={"path": "access.log", "format": "combined"})
    secret = "A" * 20 + "SECRET" + "A" * 17
    for url in (TRACK + f"?exp=1&sig={secret}", TRACK + f"?SIG={secret}", TRACK + f"?%73ig={secret}",
                f"/~exp=1;sig={secret}{TRACK}", f"/~sig={secret}/../x", TRACK + f"?sig={secret}&sig={secret}",
                f"/plain/x-small?sig={secret}", f"/plain/%zz?sig={secret}", f"/nothing/{secret}?x=1"[:9] + f"?sig={secret}"):
        edge.ask(url)
        edge.ask(url, "POST")
    edge.ask("/any/dead?sig=" + secret, "POST")
    edge.stop()
    text = (edge.folder / "access.log").read_text() + edge.log()
    assert text.count("\n") > 18 and "SECRET" not in text


def test_access_log_combined_and_rotation(start, origin, files):
    edge = start.edge(origin.port, access_log={"path": "access.log", "format": "combined"})
    log = edge.folder / "access.log"
    edge.ask("/plain/x-small", fields=[("User-Agent", 'quote " it'), ("Referer", "http://r/")])
    until(lambda: "x-small" in log.read_text(), "a line")
    (line,) = [x for x in log.read_text().splitlines() if "x-small" in x]
    assert re.fullmatch(r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET /plain/x-small HTTP/1\.1" 200 '
                        r'4096 "http://r/" "quote (\\"|\\x22) it"', line), line
    # logrotate moves the file, then sends SIGHUP.
    log.rename(log.with_suffix(".1"))
    edge.ask("/plain/x-small?before")
    edge.reload()
    edge.ask("/plain/x-small?after")
    until(lambda: log.exists() and "after" in log.read_text(), "the new file")
    both = log.read_text() + log.with_suffix(".1").read_text()
    assert both.count("before") == 1 and both.count("?after") == 1


# --- what it may lack ---


def test_file_descriptors_run_out(start, origin, files):
    """Who is connected is served; others wait or are refused; afterwards all is as before."""
    limit = 150

    def few_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    edge = start.edge(origin.port, process={"preexec_fn": few_files})
    edge.allow("no more connections can be accepted", "descriptor")
    edge.ask("/plain/x-small")
    held = []
    for _ in range(limit + 50):
        held.append(edge.connect())
    until(lambda: "Too many open files" in edge.log(), "it says so")
    assert held[0].ask("/plain/x-small").body == files["small"]  # a hit needs none
    a = held[1].ask("/plain/x-small?miss")  # a miss wants one: an honest answer either way
    assert a.status in (200, 502, 503)
    for c in held:
        c.close()
    until(lambda: edge.ask("/plain/x-small?later").status == 200, "it recovers")
    assert edge.ask("/plain/x-small").body == files["small"]


def test_io_uring_is_forbidden(start, origin):
    """A clear error that names the sysctl. Forbidden by a seccomp filter, as containers do."""
    assert os.uname().machine == "x86_64"
    setup_nr, eperm = 425, 1
    # BPF: load the number of the system call; io_uring_setup fails with EPERM, all else is allowed.
    program = b"".join(structs.pack("HBBI", *i) for i in (
        (0x20, 0, 0, 0), (0x15, 0, 1, setup_nr), (0x06, 0, 0, 0x00050000 | eperm), (0x06, 0, 0, 0x7FFF0000)))
    libc = ctypes.CDLL(None, use_errno=True)

    def forbid():
        buffer = ctypes.create_string_buffer(program, len(program))
        filter_ = structs.pack("HxxxxxxQ", 4, ctypes.addressof(buffer))
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        if libc.prctl(22, 2, ctypes.c_char_p(filter_), 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
            os._exit(99)

    edge = start.edge(origin.port, wait=False, process={"preexec_fn": forbid})
    edge.expect_exit = 1
    edge.allow("io_uring")
    assert edge.wait() == 1
    assert "io_uring is not permitted" in edge.log() and "kernel.io_uring_disabled" in edge.log()


def test_no_room_for_more_connections(start, origin, files):
    edge = start.edge(origin.port, workers=1, limits={"connections_max": 10})
    until(lambda: edge.metric("connections", state="open") == 0, "the harness has gone")
    held = [edge.connect() for _ in range(10)]
    assert all(c.ask("/plain/x-small").status == 200 for c in held)
    with edge.connect() as c:
        assert c.is_closed()
    assert edge.metric("connections_refused_total") >= 1
    held.pop().close()
    until(lambda: edge.metric("connections", state="open") == 9, "one has gone")
    assert edge.ask("/plain/x-small").body == files["small"]
    for c in held:
        c.close()
