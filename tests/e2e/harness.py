"""What the end-to-end tests stand on: programs under test, real nginx as origin, a scripted origin for what
nginx cannot be made to do, a client that sees every byte, and a signer written from the contract alone."""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import random
import re
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("SEGUE_BUILD", "build")
SANITIZED = "asan" in BUILD.name
HOST = "audio.test"  # the name all tests ask for
PATIENCE = 30  # seconds after which something that must happen counts as not happening
NOW = lambda: int(time.time())

KEYS = {"k1": b"segue-test-key-one-0123456789abc", "k2": b"segue-test-key-two-9876543210zyx"}


def until(what, text, patience=PATIENCE):
    """Waits for a condition that is sure to come, however busy the machine; returns its value."""
    end = time.monotonic() + patience
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < end, f"waited {patience} s in vain: {text}"
        time.sleep(0.01)


def free_port():
    """Below the ephemeral range, so that no outgoing connection takes it before its program listens."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def random_bytes(n, seed):
    return random.Random(seed).randbytes(n)


# --- signing, from interfaces.md ---


def b64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def mac(first_line, params, key):
    text = "\n".join(["segue1", first_line] + [f"{name}={params[name]}" for name in sorted(params)])
    return b64url(hmac.new(key, text.encode(), hashlib.sha256).digest())


def sign(path, kid="k1", ttl=600, exp=None, key=None, tail="", **params):
    """The query form; pfx, uid, geo, ip and rate as keywords, other parameters of the URL as `tail`."""
    params = {"exp": str(exp if exp is not None else NOW() + ttl), **{k: str(v) for k, v in params.items()}}
    if kid is not None:
        params["kid"] = kid
    first = f"pfx={params['pfx']}" if "pfx" in params else f"path={path}"
    signed = {k: v for k, v in params.items() if k != "pfx"}
    sig = mac(first, signed, key or KEYS[kid or "k1"])
    return path + "?" + "&".join(f"{k}={v}" for k, v in params.items()) + tail + f"&sig={sig}"


def sign_path(path, depth=None, kid="k1", ttl=600, exp=None, **params):
    """The form with the token as first segment."""
    params = {"exp": str(exp if exp is not None else NOW() + ttl), "kid": kid,
              **{k: str(v) for k, v in params.items()}}
    first = f"path={path}"
    if depth is not None:
        first = "pfx=/" + "/".join(path.split("/")[1:depth + 1]) + "/"
    sig = mac(first, params, KEYS[kid])
    token = ([f"depth={depth}"] if depth is not None else []) + [f"{k}={v}" for k, v in params.items()]
    return "/~" + ";".join(token + [f"sig={sig}"]) + path


# --- HTTP on a socket ---


class Closed(Exception):
    """The peer ended the connection where more was due; what came is in .data."""

    def __init__(self, data, reset):
        super().__init__(f"{'reset' if reset else 'closed'} after {data[:200]!r}")
        self.data, self.reset = data, reset


class Answer:
    def __init__(self, head, body=b"", complete=True):
        lines = head.decode("latin-1").split("\r\n")
        self.line = lines[0]
        self.version, status, self.reason = (lines[0].split(" ", 2) + [""])[:3]
        self.status = int(status)
        self.fields = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:] if line]
        self.body, self.complete, self.trailer = body, complete, b""

    def all(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        assert len(values) <= 1, f"{name} stands {len(values)} times"
        return values[0] if values else default

    @property
    def problem(self):
        """The body as RFC 9457 has it; fails when it is none."""
        assert self.get("Content-Type") == "application/problem+json", self.fields
        problem = json.loads(self.body)
        assert problem["status"] == self.status and problem["title"] and problem["detail"]
        assert "sig" not in problem["detail"].replace("signed", ""), problem
        return problem

    @property
    def cache_status(self):
        """RFC 9211, the member nearest to the client as {name: ..., param: value}."""
        members = ", ".join(self.all("Cache-Status")).split(", ")
        parts = members[-1].split("; ")
        out = {"name": parts[0]}
        for part in parts[1:]:
            k, _, v = part.partition("=")
            out[k] = v or True
        return out

    def __repr__(self):
        return f"<{self.line} {self.fields} {len(self.body)} bytes: {self.body[:120]!r}>"


class Connection:
    """A client's connection that sends exactly what it is told to."""

    def __init__(self, port, source=None, address="127.0.0.1", receive_buffer=None):
        self.s = socket.socket()
        if receive_buffer:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.s.settimeout(PATIENCE)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            self.s.bind((source, 0))
        self.s.connect((address, port))
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        self.s.close()

    def reset(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.s.close()

    def send(self, data):
        self.s.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def request(self, target, method="GET", fields=(), body=b"", version="1.1", host=HOST):
        head = f"{method} {target} HTTP/{version}\r\n"
        if host is not None:
            head += f"Host: {host}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields)
        return self.send(head.encode("latin-1") + b"\r\n" + body)

    def _more(self):
        try:
            data = self.s.recv(1 << 18)
        except ConnectionResetError:
            raise Closed(self.buffer, True) from None
        if not data:
            raise Closed(self.buffer, False)
        self.buffer += data

    def _until(self, mark):
        while mark not in self.buffer:
            self._more()
        data, _, self.buffer = self.buffer.partition(mark)
        return data

    def exactly(self, n):
        parts, have = [self.buffer], len(self.buffer)
        while have < n:
            try:
                data = self.s.recv(min(1 << 18, n - have))
            except ConnectionResetError:
                data = None
            if not data:
                self.buffer = b""
                raise Closed(b"".join(parts), data is None)
            parts.append(data)
            have += len(data)
        data = b"".join(parts)
        self.buffer = data[n:]
        return data[:n]

    def head(self):
        return Answer(self._until(b"\r\n\r\n"))

    def rest(self):
        """Everything up to the connection's end."""
        try:
            while True:
                self._more()
        except Closed:
            data, self.buffer = self.buffer, b""
            return data

    def answer(self, method="GET"):
        """The next final answer with its body; 1xx before it are in .interim."""
        interim = []
        a = self.head()
        while a.status < 200:
            interim.append(a.status)
            a = self.head()
        a.interim = interim
        try:
            if method == "HEAD" or a.status in (204, 304):
                pass
            elif a.get("Transfer-Encoding") == "chunked":
                body = []
                while size := int(self._until(b"\r\n"), 16):
                    body.append(self.exactly(size))
                    assert self.exactly(2) == b"\r\n"
                a.body = b"".join(body)
                assert self.exactly(2) == b"\r\n"
            elif a.get("Content-Length") is not None:
                a.body = self.exactly(int(a.get("Content-Length")))
            else:
                a.body = self.rest()
        except Closed as e:
            a.body, a.complete = e.data, False
        return a

    def ask(self, target, method="GET", fields=(), body=b"", **more):
        return self.request(target, method, fields, body, **more).answer(method)

    def is_closed(self, patience=PATIENCE):
        """True when the peer closes it in time with nothing more said."""
        self.s.settimeout(patience)
        try:
            return self.buffer == b"" and self.s.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        finally:
            self.s.settimeout(PATIENCE)


class TLSConnection(Connection):
    """The same over TLS. Without `ca` nothing is verified; attributes of the context as keywords."""

    def __init__(self, port, ca=None, server_name=HOST, alpn=None, source=None, receive_buffer=None, **attributes):
        super().__init__(port, source, receive_buffer=receive_buffer)
        context = ssl.create_default_context(cafile=ca)
        if ca is None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(alpn)
        for name, value in attributes.items():
            setattr(context, name, value)
        try:
            # An end without close_notify is an error, not an end.
            self.s = context.wrap_socket(self.s, server_hostname=server_name, suppress_ragged_eofs=False)
        except BaseException:
            self.s.close()
            raise


def ask(port, target, method="GET", fields=(), body=b"", source=None, **more):
    with Connection(port, source) as c:
        return c.ask(target, method, fields, body, **more)


# --- processes ---


class Process:
    """A program with its log in a file; ended by its id."""

    def __init__(self, argv, log_path, env=None, **more):
        self.log_path = pathlib.Path(log_path)
        self.argv = [str(a) for a in argv]
        self.name = pathlib.Path(self.argv[0]).name
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env={**os.environ, **(env or {})}, **more)

    @property
    def pid(self):
        return self.popen.pid

    def log(self):
        return self.log_path.read_text(errors="replace")

    def signal(self, number):
        os.kill(self.popen.pid, number)

    def wait(self, patience=PATIENCE):
        return self.popen.wait(patience)

    def kill(self):
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()


class Segue(Process):
    """segue-edge or segue-shield. Every error line, sanitizer report or death that a test did not announce is
    that test's failure (check())."""

    def __init__(self, program, folder, conf, wait=True, prefix=(), **more):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.conf_path = self.folder / "conf.yaml"
        self.conf = conf
        self.write(conf)
        self.port = int(conf["listen"][0]["address"].rpartition(":")[2])
        admin = conf.get("admin", {})
        self.socket = admin.get("socket")
        self.admin_port = int(admin["address"].rpartition(":")[2]) if "address" in admin else None
        self.allowed, self.judged, self.reloads = [], 0, 0
        self.expect_exit = 0
        env = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
        super().__init__([*prefix, BUILD / program, "-c", self.conf_path], self.folder / "log", env=env, **more)
        self.name = program
        if wait:
            until(self._is_up, f"{program} answers\n{self.log()}")

    def _is_up(self):
        assert self.popen.poll() is None, f"{self.name} ended: {self.log()}"
        try:
            with Connection(self.port) as c:
                if c.ask("/.segue/health").status != 200:
                    return False
            # One worker may answer before the others have begun.
            return self.socket is None or self.admin("/readyz").status == 200
        except (OSError, Closed):
            return False

    def write(self, conf):
        """JSON is YAML."""
        self.conf = conf
        self.conf_path.write_text(json.dumps(conf, indent=1))

    def ask(self, target, *rest, **more):
        return ask(self.port, target, *rest, **more)

    def connect(self, **more):
        return Connection(self.port, **more)

    def curl(self, target, *options):
        """Real curl; returns its output, and fails when curl does."""
        argv = ["curl", "-sS", "--max-time", str(PATIENCE), "--noproxy", "*", "-H", f"Host: {HOST}", *options,
                f"http://127.0.0.1:{self.port}{target}"]
        return subprocess.run(argv, check=True, capture_output=True).stdout

    def admin(self, target, method="GET", fields=(), body=b""):
        """Over the Unix socket."""
        c = Connection.__new__(Connection)
        c.s = socket.socket(socket.AF_UNIX)
        c.s.settimeout(PATIENCE)
        c.s.connect(self.socket)
        c.buffer = b""
        with c:
            return c.ask(target, method, fields, body, host="localhost")

    def metric(self, name, **labels):
        """The sum of the samples of this name whose labels include these."""
        total = 0.0
        for line in self.admin("/metrics").body.decode().splitlines():
            m = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if m and m[1] == self.name.replace("-", "_") + "_" + name:
                given = dict(re.findall(r'(\w+)="([^"]*)"', m[2] or ""))
                if all(given.get(k) == v for k, v in labels.items()):
                    total += float(m[3])
        return total

    def allow(self, *patterns):
        """Error lines that this test provokes."""
        self.allowed += patterns

    def reload(self, conf=None, refused=False):
        """SIGHUP, and waits until the program says what became of it."""
        if conf is not None:
            self.write(conf)
        text = "reload refused" if refused else "configuration reloaded"
        before = self.log().count(text)
        self.signal(signal.SIGHUP)
        until(lambda: self.log().count(text) > before, f"{text}\n{self.log()}")

    def check(self):
        text = self.log()[self.judged:]
        assert self.popen.poll() is None, f"{self.name} ended with {self.popen.returncode}:\n{self.log()}"
        self._check_log(text)
        self.judged += len(text)
        self.allowed.clear()

    def _check_log(self, text):
        assert "Sanitizer" not in text and "runtime error" not in text, text
        for line in text.splitlines():
            level = re.match(r"<(\d)>", line)
            bad = level is None or int(level[1]) <= 3
            assert not bad or any(re.search(p, line) for p in self.allowed), f"{self.name} logged: {line}"

    def stop(self):
        """SIGTERM, and judges how it went."""
        if self.popen.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            status = self.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end after SIGTERM:\n{self.log()}") from None
        self._check_log(self.log()[self.judged:])
        assert status == self.expect_exit, f"{self.name} ended with {status}:\n{self.log()}"


# --- certificates ---

CA_CONF = """
[ca]
default_ca = tests
[tests]
database = {folder}/index
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""


def openssl(*argv, data=None):
    done = subprocess.run(["openssl", *map(str, argv)], input=data, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, (argv, done.stderr.decode())
    return done.stdout


class Authority:
    """Issues certificates as an operator's authority does, by the openssl command."""

    def __init__(self, folder, name="Tests"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self.key, self.n = self.folder / "ca.pem", self.folder / "ca.key", 0
        (self.folder / "index").write_text("")
        (self.folder / "ca.conf").write_text(CA_CONF.format(folder=self.folder))
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 10, "-keyout",
                self.key, "-out", self.certificate, "-subj", f"/CN={name}")

    def issue(self, *names, kind="ec", since="20200101000000Z", until="20400101000000Z"):
        """A certificate for these names, and its key: ("cert.pem", "key.pem") for a configuration."""
        self.n += 1
        cert, key, request = (self.folder / f"{self.n}.{end}" for end in ("pem", "key", "csr"))
        how = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else ["rsa:2048"]
        openssl("req", "-newkey", *how, "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={names[0]}", "-addext",
                "subjectAltName=" + ",".join(("IP:" if name[0].isdigit() else "DNS:") + name for name in names))
        openssl("ca", "-batch", "-notext", "-config", self.folder / "ca.conf", "-cert", self.certificate, "-keyfile",
                self.key, "-startdate", since, "-enddate", until, "-in", request, "-out", cert)
        key.chmod(0o600)
        return cert, key

    def listener(self, *names, **more):
        """The `tls` of a listener, for the name that all tests ask for unless told otherwise."""
        cert, key = self.issue(*(names or (HOST, "127.0.0.1")), **more)
        return {"certificate": str(cert), "key": str(key)}


# --- origins ---

NGINX_TLS = """ ssl;
        ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3; {more}
        add_header X-SNI $ssl_server_name always; add_header X-ALPN $ssl_alpn_protocol always;
        add_header X-TLS $ssl_protocol always; add_header X-Connection $connection always"""

NGINX_CONF = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    log_format count '$request_method $request_uri $status "$http_range" "$http_if_none_match"';
    access_log {folder}/access.log count;
    client_body_temp_path {folder}/tmp1; proxy_temp_path {folder}/tmp2; fastcgi_temp_path {folder}/tmp3;
    uwsgi_temp_path {folder}/tmp4; scgi_temp_path {folder}/tmp5;
    default_type audio/ogg;
    types {{ audio/ogg ogg; text/plain txt; application/vnd.apple.mpegurl m3u8; }}
    client_max_body_size 100m;
    keepalive_requests 100000;
    map $arg_rate $limit {{ default $arg_rate; '' 0; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096{tls};
        root {root};
        limit_rate $limit;
        add_header Cache-Control $arg_cc always;
        add_header CDN-Cache-Control $arg_cdn always;
        add_header Age $arg_age always;
        add_header Vary $arg_vary always;
        add_header Set-Cookie $arg_cookie always;
        add_header Surrogate-Key $arg_tag always;
        location / {{ rewrite ^/[a-z]+/(x-.*)$ /objects/$1; }}
        location /objects/ {{ }}
        location /plain/gzip/ {{ gzip on; gzip_types *; gzip_min_length 1; gzip_vary on; gzip_proxied any; alias {root}/objects/; }}
        location /plain/noetag/ {{ etag off; alias {root}/objects/; }}
        location /plain/bare/ {{ etag off; if_modified_since off; max_ranges 0; alias {root}/objects/;
                                add_header Last-Modified ''; }}
        location /any/ {{ return 200 "$request_method $request_uri\\n"; }}
        location ~ ^/[a-z]+/echo/ {{ default_type text/plain; return 200
            "host=$http_host|via=$http_via|loop=$http_cdn_loop|range=$http_range|cookie=$http_cookie|authorization=$http_authorization|language=$http_accept_language|x-own=$http_x_own|connection=$http_connection|hop=$http_x_hop|peer=$http_segue_peer|uri=$request_uri|method=$request_method|expect=$http_expect"; }}
        location ~ ^/[a-z]+/status/404 {{ return 404 "gone\\n"; }}
        location ~ ^/[a-z]+/status/410 {{ return 410 "gone\\n"; }}
        location ~ ^/[a-z]+/status/500 {{ return 500 "broken\\n"; }}
        location ~ ^/[a-z]+/status/503 {{ return 503 "busy\\n"; }}
        location ~ ^/[a-z]+/status/204 {{ return 204; }}
        location ~ ^/[a-z]+/status/302 {{ return 302 /plain/x-small; }}
        location ~ ^/[a-z]+/status/201 {{ return 201 "made\\n"; }}
    }}
}}
"""


class Nginx(Process):
    """A real origin. Whatever the first segment of the path, x-NAME is one file, so that rules of the edge can be
    told apart by it; parameters of the query become fields of the answer."""

    def __init__(self, folder, root, port=None, tls=None):
        """tls: (certificate, key), and more lines of nginx's own."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.root, self.port, self.tls = folder, pathlib.Path(root), port or free_port(), tls
        lines = "" if tls is None else NGINX_TLS.format(certificate=tls[0], key=tls[1], more="".join(tls[2:]))
        (folder / "nginx.conf").write_text(NGINX_CONF.format(folder=folder, root=root, port=self.port, tls=lines))
        super().__init__(["nginx", "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"],
                         folder / "log")
        until(self._is_up, f"nginx answers {self.log()}")
        self.sentinels = 0

    def _is_up(self):
        assert self.popen.poll() is None, self.log()
        try:
            return self.ask("/any/up").status in (200, 400)  # 400: it asks for a certificate
        except (OSError, Closed):
            return False

    def ask(self, target):
        if self.tls is None:
            return ask(self.port, target)
        with TLSConnection(self.port) as c:
            return c.ask(target)

    def requests(self, part):
        """Lines of its log that hold this text. nginx writes a line when it has sent the answer, before it looks at
        a later request: once ours is logged, so is all that we have had an answer for."""
        self.sentinels += 1
        mark = f"/any/sentinel-{self.sentinels} "
        self.ask(mark.strip())
        log = self.folder / "access.log"
        text = until(lambda: (lambda t: mark in t and t)(log.read_text()), "nginx logs")
        return [line for line in text.splitlines() if part in line]

    def stop(self):
        self.signal(signal.SIGTERM)
        self.wait()

    def write(self, name, data):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".new")
        temporary.write_bytes(data)
        temporary.rename(path)


class Asked:
    """A request as the scripted origin got it."""

    def __init__(self, answer_head, connection):
        lines = answer_head.decode("latin-1").split("\r\n")
        self.method, self.target, self.version = lines[0].split(" ")
        self.fields = [tuple(p.strip() for p in line.split(":", 1)) for line in lines[1:] if line]
        self.connection = connection
        self.body, self.has_body = b"", False

    def all(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        assert len(values) <= 1
        return values[0] if values else default


class ScriptedOrigin:
    """For what nginx cannot be made to do. on(path, script): script(asked, connection) sends what it likes and says by
    True that the connection may go on. A list of scripts is used up one a request, its last again and again."""

    def __init__(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.port = free_port()
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(1024)
        self.scripts, self.asked, self.lock = {}, {}, threading.Lock()
        self.failures = []
        threading.Thread(target=self._accept, daemon=True).start()

    def on(self, path, *scripts):
        with self.lock:
            self.scripts[path] = list(scripts)
            self.asked[path] = []

    def requests(self, path):
        with self.lock:
            return list(self.asked[path])

    def _accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, s):
        c = Connection.__new__(Connection)
        c.s, c.buffer = s, b""
        s.settimeout(PATIENCE)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                asked = Asked(c._until(b"\r\n\r\n"), c)
                path = asked.target.split("?")[0]
                with self.lock:
                    scripts = self.scripts[path]
                    script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
                    self.asked[path].append(asked)
                if not script(asked, c):
                    break
        except (Closed, OSError):
            pass
        except Exception as e:  # a script's own mistake must not look like the program's
            self.failures.append(repr(e))
        finally:
            s.close()

    def stop(self):
        self.listener.close()


def read_body(asked, c):
    """The body of a request, as it was framed; read once."""
    if asked.has_body:
        return asked.body
    asked.has_body = True
    if asked.get("Transfer-Encoding") == "chunked":
        while size := int(c._until(b"\r\n"), 16):
            asked.body += c.exactly(size)
            c.exactly(2)
        c.exactly(2)
    elif asked.get("Content-Length"):
        asked.body = c.exactly(int(asked.get("Content-Length")))
    return asked.body


def reply(status=200, body=b"", fields=(), length=None, line=None, close=False):
    """A script that answers so, whatever is asked."""
    head = line or f"HTTP/1.1 {status} Whatever"
    head += "\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields)
    if length is not False:
        head += f"Content-Length: {len(body) if length is None else length}\r\n"

    def script(asked, c):
        read_body(asked, c)
        c.send(head + "\r\n")
        if asked.method != "HEAD":
            c.send(body)
        return not close

    return script


def raw(data, end="close"):
    """A script that sends these bytes; then closes, resets, or keeps the connection."""

    def script(asked, c):
        c.send(data)
        if end == "reset":
            time.sleep(0.05)  # let what was sent arrive: a reset may overtake it
            c.reset()
        return end == "keep"

    return script
