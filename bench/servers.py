"""The servers compared, one class each: its configuration as an expert would write it, and how it starts.

Common to all: one worker on one core, no access log, no limit on requests a connection, memory for the whole
working set, the query left out of the cache key (so that a signed object is one object). Those that can speak TLS 1.3
do so when they are given a certificate, with HTTP/2 for clients that offer it.
"""

import base64
import os
import pathlib
import shutil
import subprocess
import textwrap

from machine import LOAD_CORE, PROGRAMS, SERVER_CORE, Failure, Process, free_port
from workload import KID, SECRET

MAX_AGE_S = 31_536_000
MEMORY_GIB = 4
CIPHER = "TLS_AES_128_GCM_SHA256"
IDLE_TIMEOUT_S = 600
# What one address may ask for where limits are measured: twice what the well-behaved client asks.
LIMIT_PER_S = 1000
LIMIT_BURST = 100


class Certificate:
    """A key and a certificate for it that nobody trusts; the clients of the bench do not ask."""

    ALGORITHMS = {"ecdsa": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}

    def __init__(self, directory, kind):
        self.kind = kind
        self.file, self.key = (pathlib.Path(directory) / f"{kind}.{part}.pem" for part in ("cert", "key"))

    def make(self):
        done = subprocess.run(["openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost",
                               "-newkey", *self.ALGORITHMS[self.kind], "-keyout", self.key, "-out", self.file],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"openssl req: {done.stderr[-500:]}")
        self.key.chmod(0o600)
        return self


class Server:
    """A server under measurement. Subclasses write their files in configure() and return their argv."""

    name = ""
    caches = True
    objects = True   # serves the origin's objects; else the same bytes whatever is asked
    secures = False  # can speak TLS 1.3
    kib = None       # the size of the objects that will be asked for
    certificate = None      # set before it starts: it speaks TLS with this one only
    limited = False         # set before it starts: it limits each address
    first = False           # set before it starts: it has its core before anyone else
    needs = ()       # programs without which it cannot run

    def __init__(self, directory, origin):
        self.directory = pathlib.Path(directory) / self.name
        self.origin = origin
        self.port = free_port()
        self.process = None

    def start(self):
        missing = [program for program in self.needs if not shutil.which(program)]
        if missing:
            raise Failure(f"{self.name}: {', '.join(missing)} not installed")
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.process = Process(self.configure(), SERVER_CORE, self.directory / "output",
                               before=("chrt", "-f", "1") if self.first else ())
        self.process.wait_port(self.port)

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def configure(self):
        raise NotImplementedError

    def write(self, name, text, mode=0o644):
        file = self.directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
        file.chmod(mode)
        return file


def nginx_main(directory, connections):
    """What both nginx configurations begin with."""
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
        {user}
        daemon off;
        worker_processes 1;
        worker_rlimit_nofile 65536;
        pid {directory}/pid;
        error_log {directory}/error.log warn;
        events {{ use epoll; worker_connections {connections}; }}
    """


def nginx_http(directory):
    temporary = "\n".join(f"            {kind}_temp_path {directory}/{kind};"
                          for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""
            types {{ audio/ogg ogg; }}
            sendfile on;
            tcp_nopush on;
            tcp_nodelay on;
            keepalive_timeout {IDLE_TIMEOUT_S};
            keepalive_requests 1000000000;
            open_file_cache max=20000 inactive=1h;
            open_file_cache_valid 1h;
{temporary}
    """


class Origin(Server):
    """nginx serving files from the load's core; its log counts fetches exactly."""

    name = "origin"
    caches = False
    needs = ("nginx",)

    def __init__(self, directory, root):
        super().__init__(directory, None)
        self.root = root

    def start(self):
        self.directory.mkdir(parents=True)
        # It shares a core with the load; it runs first there, or a burst of clients would be measured as its own.
        self.process = Process(self.configure(), LOAD_CORE, self.directory / "output", before=("nice", "-n", "-10"))
        self.process.wait_port(self.port)

    def configure(self):
        return ["nginx", "-c", self.write("nginx.conf", f"""
            {nginx_main(self.directory, 4096)}
            http {{
            {nginx_http(self.directory)}
            log_format fetches "$request_uri $status";
            access_log {self.directory}/access.log fetches;
            server {{
                listen 127.0.0.1:{self.port} backlog=4096;
                root {self.root};
                add_header Cache-Control "public, max-age={MAX_AGE_S}";
            }}
            }}
        """)]

    def fetches(self, path=None):
        """Requests logged so far; of one path if it is given."""
        with open(self.directory / "access.log") as log:
            return sum(1 for line in log if path is None or line.split("?")[0].split(" ")[0] == path)


class Segue(Server):
    """Ours: every request's signature is validated."""

    name = "segue"
    secures = True

    def __init__(self, directory, origin, program):
        super().__init__(directory, origin)
        self.program = pathlib.Path(program)

    def built(self):
        return self.program.exists()

    def start(self):
        if not self.built():
            raise Failure("segue: not built")
        super().start()

    def configure(self):
        secret = base64.b64encode(SECRET).decode()
        own = self.certificate
        tls = f", tls: {{certificate: {own.file}, key: {own.key}}}" if own else ""
        limits = f"rate_limit: {{per_address: {LIMIT_PER_S}/s, burst: {LIMIT_BURST}}}" if self.limited else ""
        self.write("keys.yaml", f"{{default_kid: {KID}, keys: [{{kid: {KID}, secret: {secret}}}]}}\n", 0o600)
        return [self.program.resolve(), "-c", self.write("edge.yaml", f"""\
            listen:
              - {{address: "127.0.0.1:{self.port}"{tls}}}
            admin: {{socket: {self.directory}/edge.sock}}
            workers: 1
            memory: {{size: {MEMORY_GIB}GiB}}
            upstreams:
              - {{url: "http://127.0.0.1:{self.origin.port}"}}
            signing: {{required: true, keys: keys.yaml, lifetime_max: 1d}}
            {limits}
            rules:
              - {{match: "/tracks/**", ttl: 1y, immutable: true, track: "/tracks/{{track}}/{{quality}}/{{n}}.{{ext}}"}}
        """)]


class Nginx(Server):
    name = "nginx"
    needs = ("nginx",)
    secures = True

    def tls(self):
        """One cipher, as the clients offer it. Tickets need no cache of sessions."""
        return f"""
            ssl_certificate {self.certificate.file};
            ssl_certificate_key {self.certificate.key};
            ssl_protocols TLSv1.3;
            ssl_conf_command Ciphersuites {CIPHER};
            http2_max_concurrent_streams 128;
        """ if self.certificate else ""

    def limit(self, zone):
        if not self.limited:
            return ""
        if zone:
            return f"limit_req_zone $binary_remote_addr zone=address:10m rate={LIMIT_PER_S}r/s; limit_req_status 429;"
        return f"limit_req zone=address burst={LIMIT_BURST} nodelay;"

    def configure(self):
        return ["nginx", "-c", self.write("nginx.conf", f"""
            {nginx_main(self.directory, 16384)}
            http {{
            {nginx_http(self.directory)}
            access_log off;
            {self.limit(zone=True)}
            proxy_cache_path {self.directory}/cache levels=1:2 keys_zone=audio:64m max_size=8g inactive=1d
                             use_temp_path=off;
            upstream origin {{ server 127.0.0.1:{self.origin.port}; keepalive 64; }}
            server {{
                listen 127.0.0.1:{self.port} backlog=4096{" ssl http2" if self.certificate else ""};
                {self.tls()}
                location / {{
                    {self.limit(zone=False)}
                    proxy_pass http://origin;
                    proxy_http_version 1.1;
                    proxy_set_header Connection "";
                    proxy_cache audio;
                    proxy_cache_key $uri;
                    proxy_cache_valid 200 1d;
                    proxy_cache_lock on;
                    proxy_cache_lock_age 60s;
                    proxy_cache_lock_timeout 60s;
                }}
            }}
            }}
        """)]


class Varnish(Server):
    name = "varnish"
    needs = ("varnishd", "gcc")      # it compiles its configuration
    # Its log is shared memory, always written; leaving out what a request writes is as near to "off" as it has.
    UNLOGGED = ("Begin", "End", "Hit", "Link", "ReqAcct", "ReqHeader", "ReqMethod", "ReqProtocol", "ReqStart",
                "ReqURL", "ReqUnset", "RespHeader", "RespProtocol", "RespReason", "RespStatus", "RespUnset",
                "Timestamp", "VCL_call", "VCL_return")

    def configure(self):
        vcl = self.write("segue.vcl", f"""\
            vcl 4.1;
            backend origin {{ .host = "127.0.0.1"; .port = "{self.origin.port}"; }}
            sub vcl_recv {{ return (hash); }}
            sub vcl_hash {{
                hash_data(regsub(req.url, "\\?.*$", ""));
                return (lookup);
            }}
        """)
        parameters = {"thread_pools": 1, "thread_pool_min": 100, "timeout_idle": IDLE_TIMEOUT_S,
                      "listen_depth": 4096, "vsl_mask": ",".join(f"-{tag}" for tag in self.UNLOGGED)}
        return ["varnishd", "-F", "-a", f"127.0.0.1:{self.port}", "-f", vcl, "-s", f"malloc,{MEMORY_GIB}g",
                "-n", self.directory / "work", "-j", "none",
                *[word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]]


class H2O(Server):
    """Static files and no cache: what a fast server costs when it has nothing to decide."""

    name = "h2o"
    needs = ("h2o",)
    caches = False
    secures = True

    def configure(self):
        ssl = f""", ssl: {{certificate-file: {self.certificate.file}, key-file: {self.certificate.key},
                           minimum-version: TLSv1.3}}""" if self.certificate else ""
        user = "user: root" if os.geteuid() == 0 else ""
        return ["h2o", "-c", self.write("h2o.yaml", f"""\
            {user}
            num-threads: 1
            max-connections: 16384
            http1-request-timeout: {IDLE_TIMEOUT_S}
            http2-idle-timeout: {IDLE_TIMEOUT_S}
            listen: {{host: 127.0.0.1, port: {self.port}{ssl}}}
            hosts:
              default:
                paths:
                  /: {{file.dir: {self.origin.root}}}
        """)]


class TrafficServer(Server):
    name = "ats"
    needs = ("traffic_server",)
    SETTINGS = {
        "exec_thread.autoconfig": "INT 0", "exec_thread.limit": "INT 1", "exec_thread.affinity": "INT 0",
        "accept_threads": "INT 0", "task_threads": "INT 1",
        "cache.ram_cache.size": f"INT {MEMORY_GIB << 30}", "cache.ram_cache.algorithm": "INT 1",
        "cache.ram_cache.use_seen_filter": "INT 0", "cache.threads_per_disk": "INT 2",
        "http.cache.required_headers": "INT 0", "http.insert_request_via_str": "INT 0",
        "http.insert_client_ip": "INT 0", "http.insert_squid_x_forwarded_for": "INT 0",
        "http.insert_age_in_response": "INT 1", "http.normalize_ae": "INT 0",
        "http.keep_alive_no_activity_timeout_in": f"INT {IDLE_TIMEOUT_S}",
        "log.logging_enabled": "INT 0", "admin.user_id": "STRING #-1", "hostdb.host_file.path": "STRING NULL",
        "url_remap.remap_required": "INT 1", "reverse_proxy.enabled": "INT 1",
        "net.connections_throttle": "INT 30000", "net.listen_backlog": "INT 4096",
    }

    def configure(self):
        packaged = pathlib.Path("/etc/trafficserver")
        shutil.copytree(packaged, self.directory / "etc")
        for folder in ("run", "log", "cache"):
            (self.directory / folder).mkdir()
        settings = {**self.SETTINGS, "http.server_ports": f"STRING {self.port}:ip-in=127.0.0.1"}
        self.write("etc/records.config",
                   "".join(f"CONFIG proxy.config.{name} {value}\n" for name, value in settings.items()))
        self.write("etc/storage.config", f"{self.directory}/cache {2 * MEMORY_GIB}G\n")
        self.write("etc/plugin.config", "")
        self.write("etc/remap.config", f"map / http://127.0.0.1:{self.origin.port}/ "
                   "@plugin=cachekey.so @pparam=--remove-all-params=true\n")
        root = self.directory
        layout = {"prefix": root, "exec_prefix": root, "bindir": "/usr/bin", "sbindir": "/usr/sbin",
                  "sysconfdir": root / "etc", "datadir": root, "includedir": root, "libdir": "/usr/lib",
                  "libexecdir": "/usr/lib/trafficserver/modules", "localstatedir": root, "runtimedir": root / "run",
                  "logdir": root / "log", "cachedir": root / "cache"}
        runroot = self.write("runroot.yaml", "".join(f"{key}: {value}\n" for key, value in layout.items()))
        return ["traffic_server", f"--run-root={runroot}"]


class Floor(Server):
    """Segue's own I/O layer that answers whatever comes with one run of bytes: what receiving and sending alone
    cost on this machine, and so what no cache on top of it can fall below."""

    name = "floor"
    caches = False
    objects = False

    def configure(self):
        return [PROGRAMS / "io_floor", "-p", self.port, "-b", self.kib]


PEERS = {cls.name: cls for cls in (Nginx, Varnish, H2O, TrafficServer, Floor)}
