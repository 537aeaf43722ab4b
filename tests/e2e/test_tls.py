"""TLS towards listeners and towards upstreams, as openssl s_client, curl and nginx see it."""

import contextlib
import ssl
import threading

import pytest

from harness import *

SMALL = "/plain/x-small"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def listeners(*certificates, **more):
    """A plain listener that the harness asks, and one with TLS; certificates are those of Authority.listener."""
    tls = certificates[0] if len(certificates) == 1 else {"certificates": list(certificates)}
    return [{"address": f"127.0.0.1:{free_port()}"}, {"address": f"127.0.0.1:{free_port()}", "tls": tls, **more}]


def secured(edge):
    edge.tls_port = int(edge.conf["listen"][1]["address"].rpartition(":")[2])
    return edge


@pytest.fixture(scope="module")
def edge(module, origin, authority):
    """RSA and ECDSA for one name side by side, others by SNI; two workers."""
    certificates = [authority.listener(kind="ec"), authority.listener(kind="rsa"), authority.listener("other.test"),
                    authority.listener("*.wild.test", "wild.test")]
    return secured(module.edge(origin.port, listen=listeners(*certificates)))


@pytest.fixture
def own(start, origin, authority):
    def make(*certificates, more=None, **overrides):
        certificates = certificates or [authority.listener()]
        return secured(start.edge(origin.port, listen=listeners(*certificates, **(more or {})), **overrides))
    return make


GET = f"GET {SMALL} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()


class Client:
    """What openssl s_client said of a request."""

    def __init__(self, edge, *options, data=GET, name=HOST, patience=PATIENCE):
        sni = ["-servername", name] if name else ["-noservername"]
        argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{edge.tls_port}", *sni, "-ign_eof", *map(str, options)]
        done = subprocess.run(argv, input=data, capture_output=True, timeout=patience)
        self.out, self.text = done.stdout, (done.stdout + done.stderr).decode("latin-1")
        self.status = done.returncode

    @property
    def cipher(self):
        m = re.search(r"^(New|Reused), (\S+), Cipher is (\S+)", self.text, re.M)
        return m and m.groups()

    @property
    def served(self):
        return b"HTTP/1.1 200 OK\r\n" in self.out

    @property
    def subject(self):
        return re.search(r"^subject=CN = (\S+)", self.text, re.M)[1]

    def alert(self):
        assert not self.served
        m = re.search(r"(?:ssl|tls)\w* alert ([a-z ]+)", self.text, re.I)
        return m[1].strip().lower() if m else None


# --- versions, suites, certificates ---


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_versions(edge, version):
    c = Client(edge, version)
    assert c.served and c.cipher[1] == {"-tls1_2": "TLSv1.2", "-tls1_3": "TLSv1.3"}[version]


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_versions_that_are_refused(edge, version):
    c = Client(edge, version, "-cipher", "ALL:@SECLEVEL=0")
    assert c.alert() == "protocol version", c.text


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
def test_suites_of_tls_1_3(edge, suite):
    c = Client(edge, "-tls1_3", "-ciphersuites", suite)
    assert c.served and c.cipher[2] == suite


@pytest.mark.parametrize("suite", [f"ECDHE-{kind}-{cipher}" for kind in ("ECDSA", "RSA")
                                   for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")])
def test_suites_of_tls_1_2(edge, suite):
    c = Client(edge, "-tls1_2", "-cipher", suite)
    assert c.served and c.cipher[2] == suite


@pytest.mark.parametrize("suite", ["AES128-GCM-SHA256", "AES128-SHA", "AES256-SHA256", "ECDHE-RSA-AES128-SHA",
                                   "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-RSA-AES256-SHA384",
                                   "DHE-RSA-AES128-SHA", "AECDH-AES128-SHA", "ADH-AES128-GCM-SHA256", "NULL-SHA256",
                                   "ECDHE-ECDSA-NULL-SHA", "CAMELLIA128-SHA"])
def test_suites_that_are_refused(edge, suite):
    """No forward secrecy, no authentication, or CBC."""
    c = Client(edge, "-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0")
    assert c.alert() == "handshake failure", c.text


@pytest.mark.parametrize("options,kind", [
    (["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"], "RSA-PSS"), (["-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256"], "ECDSA"),
    (["-tls1_3"], "ECDSA"), (["-tls1_2", "-sigalgs", "RSA+SHA256", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "RSA"),
    (["-tls1_2", "-sigalgs", "ECDSA+SHA256"], "ECDSA")])
def test_certificate_that_the_client_can_verify(edge, authority, options, kind):
    c = Client(edge, *options, "-CAfile", authority.certificate, "-verify_return_error", "-verify_hostname", HOST)
    assert c.served and re.search(r"Peer signature type: (\S+)", c.text)[1] == kind


@pytest.mark.parametrize("name,subject", [(HOST, HOST), (HOST.upper(), HOST), ("other.test", "other.test"), ("wild.test", "*.wild.test"),
                                          ("a.wild.test", "*.wild.test"), ("a.b.wild.test", HOST), ("xwild.test", HOST),
                                          ("unknown.test", HOST), (None, HOST)])
def test_name_picks_the_certificate(edge, name, subject):
    """SNI; a wildcard stands for one label (RFC 9525, 6.3); the first serves unknown names."""
    assert Client(edge, name=name).subject == subject


@pytest.mark.parametrize("offer,got", [("h2", "h2"), ("h2,http/1.1", "h2"), ("http/1.1,h2", "h2"), ("http/1.1", "http/1.1"),
                                       ("nonsense,http/1.1", "http/1.1")])
def test_alpn(edge, offer, got):
    c = Client(edge, "-alpn", offer, data=GET if got == "http/1.1" else b"no preface" * 10)
    assert f"ALPN protocol: {got}\n" in c.text and c.served == (got == "http/1.1")


def test_alpn_not_offered(edge):
    c = Client(edge)
    assert "No ALPN negotiated" in c.text and c.served


def test_alpn_unknown(edge):
    """RFC 7301, 3.2."""
    assert Client(edge, "-alpn", "spdy/3").alert() == "no application protocol"


def test_alpn_without_http2(own):
    edge = own(more={"http2": False})
    assert "ALPN protocol: http/1.1" in Client(edge, "-alpn", "h2,http/1.1").text
    assert Client(edge, "-alpn", "h2").alert() == "no application protocol"


def test_curl_verifies(edge, authority, files):
    for more in (["--tlsv1.3"], ["--tls-max", "1.2"], ["--http1.1"], ["--http2"]):
        argv = ["curl", "-sS", "--max-time", PATIENCE, "--cacert", authority.certificate, "--resolve",
                f"{HOST}:{edge.tls_port}:127.0.0.1", *more, f"https://{HOST}:{edge.tls_port}/plain/x-big"]
        assert subprocess.run([str(a) for a in argv], check=True, capture_output=True).stdout == files["big"]


def test_no_compression_and_safe_renegotiation(edge):
    text = Client(edge, "-tls1_2").text
    assert "Compression: NONE" in text and "Secure Renegotiation IS supported" in text
    assert "Extended master secret: yes" in text


# --- sessions ---


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_sessions_are_resumed(own, tmp_path, version):
    """With tickets, by whichever worker, and after a reload."""
    edge, file = own(workers=2), tmp_path / "session"
    first = Client(edge, version, "-sess_out", file)
    assert first.served and first.cipher[0] == "New"
    for i in range(12):
        if i == 8:
            edge.reload()
        again = Client(edge, version, "-sess_in", file)
        assert again.served and again.cipher[0] == "Reused", i
    assert edge.metric("tls_handshakes_total", result="resumed") == 12


def test_ticket_of_another_process_is_no_error(own, tmp_path):
    file = tmp_path / "session"
    Client(own(), "-sess_out", file)
    c = Client(own(), "-sess_in", file)
    assert c.served and c.cipher[0] == "New"


def piped(*argv):
    """A program whose standard input stays open; ended when it goes out of scope."""
    return subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_early_data_is_refused(edge, tmp_path, authority):
    """RFC 8446, 4.2.10: a client that sends some has to send it again; what came early is not a request. The edge's own
    sessions do not allow it, so the client brings another server's."""
    port, file, early = free_port(), tmp_path / "session", tmp_path / "early"
    cert, key = authority.issue(HOST)
    early.write_bytes(GET)
    with piped("openssl", "s_server", "-accept", port, "-cert", cert, "-key", key, "-early_data", "-max_early_data", 16384) as server:
        until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, "s_server listens")
        with piped("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", HOST, "-sess_out", file) as client:
            until(lambda: file.exists() and b"END" in file.read_bytes(), "the session has come")
            client.kill()
        server.kill()
    c = Client(edge, "-tls1_3", "-sess_in", file, "-early_data", early)
    assert "Early data was rejected" in c.text, c.text
    assert c.out.count(b"HTTP/1.1 200 OK") == 1
    assert "Max Early Data: 0" in Client(edge, "-tls1_3").text


def test_renegotiation_is_refused(edge):
    argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{edge.tls_port}", "-tls1_2", "-servername", HOST]
    p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    p.stdin.write(b"R\n")
    p.stdin.flush()
    time.sleep(0.5)
    try:
        text, _ = p.communicate(GET, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        p.kill()
        raise
    assert b"RENEGOTIATING" in text and (b"no renegotiation" in text or b"alert unexpected message" in text), text[-500:]
    assert Client(edge).served


def test_keys_are_updated(edge, files):
    """RFC 8446, 4.6.3: before the request and again."""
    argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{edge.tls_port}", "-tls1_3", "-servername", HOST]
    p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in (b"K\n", b"k\n", b"K\n"):
        p.stdin.write(line)
        p.stdin.flush()
        time.sleep(0.2)
    p.stdin.write(GET)
    p.stdin.flush()
    out = b""
    end = time.monotonic() + PATIENCE
    while files["small"] not in out and time.monotonic() < end:
        got = os.read(p.stdout.fileno(), 65536)
        if not got:
            break
        out += got
    p.kill()
    p.wait()
    assert files["small"] in out and out.count(b"KEYUPDATE") == 3


# --- reload ---


def test_replaced_certificates(own, authority, files):
    """New connections get the new one, an open one goes on."""
    tls = authority.listener()
    edge = own(tls)
    serial = lambda: re.search(r"Serial Number:\s*(\S+)", openssl("x509", "-noout", "-text", data=re.search(
        rb"-----BEGIN.*?END CERTIFICATE-----", Client(edge).out, re.S)[0]).decode())[1]
    before = serial()
    with TLSConnection(edge.tls_port, authority.certificate) as c:
        c.request("/plain/x-big")
        head = c.head()
        cert, key = authority.issue(HOST)
        os.replace(cert, tls["certificate"])
        os.replace(key, tls["key"])
        edge.reload()
        assert serial() != before
        assert c.exactly(int(head.get("Content-Length"))) == files["big"]
        assert c.ask(SMALL).body == files["small"]


def test_certificate_that_does_not_fit_its_key(own, authority, files):
    """The reload is refused, and the old one serves."""
    tls = authority.listener()
    edge = own(tls)
    cert, _ = authority.issue(HOST)
    os.replace(cert, tls["certificate"])
    edge.allow("not reloaded", tls["key"], tls["certificate"])
    edge.reload(refused=True)
    with TLSConnection(edge.tls_port, authority.certificate) as c:
        assert c.ask(SMALL).body == files["small"]


def check(conf_path):
    done = subprocess.run([str(BUILD / "segue-edge"), "-t", "-c", str(conf_path)], capture_output=True, timeout=PATIENCE)
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("what", ["mode", "no-key", "no-certificate", "no-pem", "mismatch", "swapped"])
def test_what_a_check_refuses(authority, tmp_path, what):
    """With file, line and key of the configuration."""
    cert, key = authority.issue(HOST)
    bad = "key"
    if what == "mode":
        key.chmod(0o644)
    elif what == "no-key":
        key = tmp_path / "none"
    elif what == "no-certificate":
        cert, bad = tmp_path / "none", "certificate"
    elif what == "no-pem":
        cert.write_text("nonsense")
        bad = "certificate"
    elif what == "mismatch":
        _, key = authority.issue(HOST)
    else:
        cert, key, bad = key, cert, "(certificate|key)"
    path = tmp_path / "conf.yaml"
    path.write_text(f"""listen:
  - {{address: "127.0.0.1:{free_port()}"}}
  - address: "127.0.0.1:{free_port()}"
    tls:
      certificate: {cert}
      key: {key}
upstreams:
  - {{url: "http://127.0.0.1:1"}}
rules:
  - {{match: "/**"}}
""")
    status, text = check(path)
    assert status != 0 and re.search(rf"conf\.yaml:[3-6]: listen\[1\]\.tls\S*", text), text
    assert re.search(rf"tls\.{bad}", text) or str(key) in text or str(cert) in text, text
    if what == "mode":
        assert str(key) in text and re.search("644|read", text), text
        key.chmod(0o640)  # a group may
        assert check(path)[0] == 0


# --- handshakes that go wrong ---


def hello(version=None):
    """A real ClientHello's bytes."""
    import ssl
    context = ssl.create_default_context()
    if version:
        context.maximum_version = version
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=HOST)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def all_of(s, patience=PATIENCE):
    s.settimeout(patience)
    got = b""
    try:
        while more := s.recv(65536):
            got += more
    except ConnectionResetError:
        pass
    return got


@pytest.mark.parametrize("what", ["nothing", "a-byte", "half", "head-only", "whole"])
def test_handshake_that_stalls(own, what):
    edge = own(timeouts={"client_hello": "400ms", "client_handshake": "800ms"})
    text = hello()
    with socket.create_connection(("127.0.0.1", edge.tls_port)) as s:
        s.sendall({"nothing": b"", "a-byte": text[:1], "half": text[:len(text) // 2], "head-only": text[:5], "whole": text}[what])
        all_of(s, 15)
    until(lambda: edge.metric("tls_handshakes_total", result="timeout") == 1, "it is counted")
    assert edge.metric("tls_handshakes") == 0
    assert Client(edge).served


@pytest.mark.parametrize("text", [b"\0" * 100, b"\xff" * 5000, b"\x16\x03\x01\xff\xff" + b"a" * 65535, b"\x16\x03\x01\0\0" * 1000,
                                  b"\x17\x03\x03\0\x10" + b"x" * 16, b"\x15\x03\x03\0\x02\x02\x28", b"\x80\x2e\x01\x03\x01" + b"a" * 60,
                                  b"\x16\x03\x01\0\x04\x01\xff\xff\xff", b"\x14\x03\x03\0\x01\x01" * 200,
                                  b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"SSH-2.0-x\r\n"],
                         ids=lambda t: t[:8].hex())
def test_no_hello(edge, text):
    """An alert or an end; never an answer, never a wait."""
    with socket.create_connection(("127.0.0.1", edge.tls_port)) as s:
        s.sendall(text)
        got = all_of(s, 15)
        assert got == b"" or got[0] == 0x15 or got.startswith(b"HTTP/1.1 400 ")
    assert Client(edge).served


def test_failures_are_counted(own):
    edge = own()
    Client(edge, "-alpn", "spdy/3")
    Client(edge, "-tls1_2", "-cipher", "AES128-SHA")
    until(lambda: edge.metric("tls_handshakes_total", result="failed") == 2, "both are counted")
    assert Client(edge).served
    assert edge.metric("tls_handshakes_total", result="full") == 1


class Pipe:
    """A TLS client whose bytes a test passes on itself."""

    def __init__(self, edge, pieces, ca=None):
        import ssl
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.inside, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.inside, self.out, server_hostname=HOST)
        self.want = (ssl.SSLWantReadError,)
        self.s = socket.create_connection(("127.0.0.1", edge.tls_port), PATIENCE)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pieces = pieces

    def do(self, what, *arguments):
        while True:
            try:
                result = what(*arguments)
                self.flush()
                return result
            except self.want:
                self.flush()
                got = self.s.recv(65536)
                assert got, "the server closed"
                self.inside.write(got)

    def flush(self):
        for piece in self.pieces(self.out.read()):
            self.s.sendall(piece)


def one_by_one(data):
    return [data[i:i + 1] for i in range(len(data))]


def small_records(data):
    """Handshake records split into records of a byte each; others as they are."""
    while data:
        n = 5 + int.from_bytes(data[3:5], "big")
        if data[0] == 22 and not small_records.done:
            yield from (data[:3] + b"\0\x01" + data[i:i + 1] for i in range(5, n))
            small_records.done = True
        else:
            yield data[:n]
        data = data[n:]


@pytest.mark.parametrize("how", ["segments", "records"])
def test_hello_in_pieces(edge, files, how):
    small_records.done = False
    p = Pipe(edge, one_by_one if how == "segments" else small_records)
    p.do(p.tls.do_handshake)
    p.do(p.tls.write, GET)
    got = b""
    while files["small"] not in got:
        got += p.do(p.tls.read, 65536)
    p.s.close()


def test_many_hellos_at_once(own):
    """More than limits.tls_handshakes_max that stall: those who hurry are served when the others' time is over, and
    connections that stand are not held at all."""
    edge = own(limits={"tls_handshakes_max": 8}, timeouts={"client_hello": "1s", "client_handshake": "1s"})
    with TLSConnection(edge.tls_port) as c:
        assert c.ask(SMALL).status == 200
        stalled = [socket.create_connection(("127.0.0.1", edge.tls_port)) for _ in range(40)]
        for s in stalled:
            s.sendall(hello())
        for _ in range(20):
            assert c.ask(SMALL).status == 200
        assert Client(edge).served
        for s in stalled:
            s.close()
    until(lambda: edge.metric("tls_handshakes") == 0, "nothing is left")


# --- what is carried ---


def test_close_notify_of_the_server(edge):
    with TLSConnection(edge.tls_port) as c:
        c.request(SMALL, fields=[("Connection", "close")])
        assert c.answer().status == 200 and c.rest() == b""  # an end without it would be an error


def test_close_notify_of_the_client(edge):
    with TLSConnection(edge.tls_port) as c:
        assert c.ask(SMALL).status == 200
        c.s.unwrap().close()


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_every_byte_of_a_large_body(edge, files, version):
    """Through small receive buffers, read slowly at first."""
    import ssl
    with TLSConnection(edge.tls_port, receive_buffer=4096, maximum_version=getattr(ssl.TLSVersion, version)) as c:
        c.request("/plain/x-big")
        length, got = int(c.head().get("Content-Length")), []
        for _ in range(20):
            got.append(c.exactly(1000))
            time.sleep(0.01)
        got.append(c.exactly(length - 20_000))
        assert b"".join(got) == files["big"]


def test_many_requests_on_a_connection(edge, files):
    with TLSConnection(edge.tls_port) as c:
        for i in range(50):
            name = ["small", "segment", "text", "empty", "long"][i % 5]
            assert c.ask(f"/plain/x-{name}").body == files[name]
        data = files["long"]
        assert c.ask("/plain/x-long", fields=[("Range", "bytes=1048570-2097160")]).body == data[1048570:2097161]


def test_pipelined(edge, files):
    with TLSConnection(edge.tls_port) as c:
        for _ in range(20):
            c.request(SMALL)
        for _ in range(20):
            assert c.answer().body == files["small"]


@pytest.mark.parametrize("size", [1, 16384, 3_000_000])
def test_body_upward(start, scripted, authority, fresh, size):
    edge, path, body = secured(start.edge(scripted.port, listen=listeners(authority.listener()))), f"/pass/{fresh()}", random_bytes(size, 1)
    scripted.on(path, lambda asked, c: reply(200, read_body(asked, c))(asked, c))
    with TLSConnection(edge.tls_port) as c:
        assert c.ask(path, "POST", [("Content-Length", str(size))], body).body == body


def test_slow_reader_over_tls_is_cut_off(own, files):
    edge = own(limits={"client_rate_min": "100KB/s", "client_rate_grace": "1s"})
    with TLSConnection(edge.tls_port, receive_buffer=4096) as c:
        c.request("/plain/x-big")
        c.head()
        until(lambda: edge.metric("slow_clients_total") == 1, "it is cut off")


@pytest.mark.parametrize("leave", ["close", "reset", "half"])
def test_clients_that_leave(own, files, leave):
    edge, text = own(timeouts={"client_hello": "1s", "client_handshake": "1s", "client_head": "1s", "client_idle": "1s"}), hello()
    for i in range(30):
        if i % 2:
            c = Connection(edge.tls_port)
            c.send(text[:i * len(text) // 30])
        else:
            c = TLSConnection(edge.tls_port)
            c.request(f"/plain/x-big?{i}")
        if leave == "half":
            c.s.shutdown(socket.SHUT_WR) if i % 2 else socket.socket.shutdown(c.s, socket.SHUT_WR)
        getattr(c, "reset" if leave == "reset" else "close")()
    until(lambda: edge.metric("connections", state="open") <= 1, "all are gone")
    until(lambda: edge.metric("flights") == 0, "every fill has ended")
    until(lambda: edge.metric("tls_handshakes") == 0, "no handshake is left")


def test_sigterm_finishes(own, files):
    edge = own()
    with TLSConnection(edge.tls_port, receive_buffer=65536) as c:
        c.request("/plain/x-big")
        length = int(c.head().get("Content-Length"))
        edge.signal(signal.SIGTERM)
        assert c.exactly(length) == files["big"]
    assert edge.wait() == 0


# --- upstreams over TLS ---


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("other"), "Somebody else")


def nginx_with(starter, files, certificate, *more):
    nginx = starter.nginx(tls=(*certificate, *more))
    for name in ("small", "big"):
        nginx.write(f"objects/x-{name}", files[name])
    return nginx


@pytest.fixture(scope="module")
def secure_origin(module, authority, files):
    return nginx_with(module, files, authority.issue("localhost", "127.0.0.1"))


def upstream(nginx, host="127.0.0.1", **tls):
    return [{"url": f"https://{host}:{nginx.port}", **({"tls": tls} if tls else {})}]


def test_upstream(start, secure_origin, authority, files):
    """Verified by the authority of the configuration; HTTP/1.1 by ALPN; connections are used again."""
    edge = start.edge(upstream(secure_origin, "localhost", ca=str(authority.certificate)), workers=1)
    assert edge.ask("/plain/x-big").body == files["big"]
    assert edge.ask("/plain/x-big").get("X-Cache") == "HIT"
    answers = [edge.ask("/pass/x-small") for _ in range(6)]
    assert all(a.body == files["small"] for a in answers)
    assert {a.get("X-SNI") for a in answers} == {"localhost"} and answers[0].get("X-TLS") == "TLSv1.3"
    assert answers[0].get("X-ALPN") in ("http/1.1", None, "")
    assert len({a.get("X-Connection") for a in answers}) == 1


def test_upstream_by_address_has_no_sni(start, secure_origin, authority, files):
    """RFC 6066, 3: no literal addresses; the certificate names the address."""
    edge = start.edge(upstream(secure_origin, ca=str(authority.certificate)), workers=1)
    a = edge.ask("/pass/x-small")
    assert a.body == files["small"] and not a.get("X-SNI")


def refuses(edge, *reasons):
    """502, and a log that says why."""
    edge.allow(".")
    assert edge.ask("/pass/x-small").status == 502
    until(lambda: any(re.search(r, edge.log(), re.I) for r in reasons), f"{reasons}: {edge.log()}")
    assert edge.metric("tls_upstream_handshakes_failed_total") > 0


def test_upstream_of_an_unknown_authority(start, secure_origin, other_authority):
    refuses(start.edge(upstream(secure_origin), workers=1), "issuer", "unknown ca", "self.signed", "authority")
    refuses(start.edge(upstream(secure_origin, ca=str(other_authority.certificate)), workers=1), "issuer", "unknown ca", "authority")


def test_upstream_of_another_name(start, authority, files):
    nginx = nginx_with(start, files, authority.issue("other.test"))
    for host in ("localhost", "127.0.0.1"):
        refuses(start.edge(upstream(nginx, host, ca=str(authority.certificate)), workers=1), "hostname", "name", "mismatch")


def test_upstream_refusals_are_one_line_that_says_what_to_do(start, authority, files):
    """Who was expected to be there; and of TLS 1.3 what comes only after our handshake: that we have to say who we are."""
    nginx = nginx_with(start, files, authority.issue("other.test"))
    edge = start.edge(upstream(nginx, "localhost", ca=str(authority.certificate)), workers=1)
    refuses(edge, "the TLS handshake failed: the certificate is for another name than localhost for /pass/x-small")
    assert edge.log().count("another name") == 1 and "Protocol error" not in edge.log()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("localhost", "127.0.0.1"))
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def refuse():
        """Reads on after its alert: to close with the request unread would reset the connection, and take the alert's place."""
        with contextlib.suppress(OSError):
            while True:
                with context.wrap_socket(listener.accept()[0], server_side=True, do_handshake_on_connect=False) as tls:
                    with contextlib.suppress(ssl.SSLError):
                        tls.do_handshake()
                    tls.settimeout(10)
                    while socket.socket.recv(tls, 65536):
                        pass

    thread = threading.Thread(target=refuse)
    thread.start()
    edge = start.edge([{"url": f"https://127.0.0.1:{listener.getsockname()[1]}", "tls": {"ca": str(authority.certificate)}}], workers=1)
    edge.allow(".")
    assert edge.ask("/pass/x-small").status == 502
    until(lambda: "alert 116 (certificate required)" in edge.log(), edge.log())
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_upstream_that_has_expired(start, authority, files):
    nginx = nginx_with(start, files, authority.issue("localhost", "127.0.0.1", until="20210101000000Z"))
    refuses(start.edge(upstream(nginx, ca=str(authority.certificate)), workers=1), "expired")


def test_upstream_unverified_by_wish(start, secure_origin, files):
    edge = start.edge(upstream(secure_origin, verify=False), workers=1)
    assert edge.ask("/plain/x-small").body == files["small"]


def test_upstream_that_speaks_no_tls(start, origin, authority):
    edge = start.edge(upstream(origin, ca=str(authority.certificate)), workers=1)
    edge.allow(".")
    assert edge.ask("/pass/x-small").status == 502


def test_upstream_whose_handshake_stalls(start, authority):
    listener = socket.create_server(("127.0.0.1", free_port()))
    edge = start.edge([{"url": f"https://127.0.0.1:{listener.getsockname()[1]}", "tls": {"ca": str(authority.certificate)}}],
                      workers=1, timeouts={"upstream_connect": "500ms", "upstream_first_byte": "1s"})
    edge.allow(".")
    assert edge.ask("/pass/x-small").status in (502, 504)
    listener.close()


def test_upstream_that_wants_to_know_us(start, authority, files):
    """A client certificate."""
    nginx = nginx_with(start, files, authority.issue("localhost", "127.0.0.1"),
                       f"ssl_verify_client on; ssl_client_certificate {authority.certificate};")
    cert, key = authority.issue("edge.test")
    edge = start.edge(upstream(nginx, ca=str(authority.certificate), certificate=str(cert), key=str(key)), workers=1)
    assert edge.ask("/pass/x-small").body == files["small"]


def test_posts_upward_over_tls(start, secure_origin, authority):
    edge = start.edge(upstream(secure_origin, ca=str(authority.certificate)), workers=1)
    body = random_bytes(2_000_000, 4)
    a = edge.ask("/pass/echo/x", "POST", [("Content-Length", str(len(body)))], body)
    assert a.status == 200 and b"method=POST" in a.body


def test_edge_to_shield(start, origin, authority, files):
    """Both tiers with TLS between them."""
    port = free_port()
    shield = start.shield([{"match": "/**", "url": f"http://127.0.0.1:{origin.port}"}],
                          listen=[{"address": f"127.0.0.1:{free_port()}"}, {"address": f"127.0.0.1:{port}", "tls": authority.listener("localhost")}])
    edge = start.edge([{"url": f"https://localhost:{port}", "tls": {"ca": str(authority.certificate)}}], workers=1)
    assert edge.ask("/plain/x-big?tiers").body == files["big"]
    assert edge.ask("/plain/x-big?tiers", fields=[("Range", "bytes=3000000-3000009")]).body == files["big"][3000000:3000010]
    assert shield.metric("tls_handshakes_total", result="full") >= 1
