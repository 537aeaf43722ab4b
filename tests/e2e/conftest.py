"""Servers that most tests share, started once. A test that stops, breaks or reconfigures one takes its own from
`start`. Whatever program logged an error, died or was caught by a sanitizer meanwhile fails the test."""

import base64
import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from harness import *  # noqa: E402,F403

RULES = [
    {"match": "/tracks/**", "ttl": "1y", "immutable": True, "track": "/tracks/{track}/{quality}/{n}.{ext}"},
    {"match": "/signedkeep/**", "ttl": "1h", "keep_query": ["v"]},
    {"match": "/plain/**", "ttl": "1h", "signed": False},
    {"match": "/keep/**", "ttl": "1h", "signed": False, "keep_query": ["v"]},
    {"match": "/dyn/**", "signed": False},
    {"match": "/post/**", "ttl": "1h", "signed": False, "methods": ["GET", "HEAD", "POST", "PUT", "DELETE"]},
    {"match": "/any/**", "ttl": "1h", "signed": False, "methods": "all"},
    {"match": "/pass/**", "cache": False, "signed": False, "methods": "all"},
    {"match": "/auth/**", "ttl": "1h", "signed": False, "store_authorization": True},
    {"match": "/cookie/**", "ttl": "1h", "signed": False, "store_set_cookie": True},
    {"match": "/honour/**", "ttl": "1h", "signed": False, "client_cache_control": True},
    {"match": "/override/**", "ttl": "1h", "override": True, "signed": False},
    {"match": "/forever/**", "ttl": "30d", "immutable": True, "signed": False},
    {"match": "/sie/**", "signed": False, "stale_if_error": "1h"},
    {"match": "/swr/**", "signed": False, "stale_while_revalidate": "1h"},
    {"match": "/negative/**", "signed": False, "negative_ttl": "0s"},
]


class Starter:
    """Makes programs with generated configurations, and ends them."""

    def __init__(self, folder):
        self.folder, self.running, self.n = pathlib.Path(folder), [], 0

    def _next(self, name):
        self.n += 1
        return self.folder / f"{name}-{self.n}"

    def keys(self, folder, keys=KEYS, default_kid=None):
        folder.mkdir(parents=True, exist_ok=True)
        text = (f"default_kid: {default_kid}\n" if default_kid else "") + "keys:\n"
        for kid, secret in keys.items():
            text += f"  - {{kid: {kid}, secret: {base64.b64encode(secret).decode()}}}\n"
        new = folder / "keys.new"
        new.write_text(text)
        new.chmod(0o600)
        new.rename(folder / "keys.yaml")

    def common(self, folder, overrides):
        folder.mkdir(parents=True, exist_ok=True)
        conf = {
            "listen": [{"address": f"127.0.0.1:{free_port()}"}],
            "admin": {"socket": str(folder / "admin.sock")},
            "workers": 2,
            "memory": {"size": "128MiB"},
        }
        conf.update(overrides)
        return conf

    def edge(self, upstream, signing=True, wait=True, prefix=(), process=None, **overrides):
        folder = self._next("edge")
        ports = upstream if isinstance(upstream, list) else [{"url": f"http://127.0.0.1:{upstream}"}]
        conf = self.common(folder, {"upstreams": ports, "rules": RULES, **overrides})
        if signing:
            self.keys(folder)
            conf["signing"] = {"required": True, "keys": "keys.yaml", "clock_skew": "5s", "lifetime_max": "1d",
                               **(signing if isinstance(signing, dict) else {})}
        else:
            conf["rules"] = [{k: v for k, v in rule.items() if k != "signed"} for rule in conf["rules"]]
        program = Segue("segue-edge", folder, conf, wait, prefix, **(process or {}))
        self.running.append(program)
        return program

    def shield(self, origins, **overrides):
        folder = self._next("shield")
        rules = [{k: v for k, v in rule.items() if k != "signed"} for rule in RULES]
        conf = self.common(folder, {"origins": origins, "rules": rules, **overrides})
        program = Segue("segue-shield", folder, conf)
        self.running.append(program)
        return program

    def nginx(self, root=None, port=None, tls=None):
        folder = self._next("nginx")
        if root is None:
            root = folder / "root"
            (root / "objects").mkdir(parents=True)
        program = Nginx(folder, root, port, tls)
        self.running.append(program)
        return program

    def scripted(self):
        origin = ScriptedOrigin()
        self.running.append(origin)
        return origin

    def forget(self, program):
        self.running.remove(program)

    def stop(self):
        failures = []
        for program in reversed(self.running):
            try:
                program.stop()
            except AssertionError as e:
                failures.append(str(e))
        assert not failures, "\n".join(failures)


@pytest.fixture(scope="session", autouse=True)
def built():
    for name in ("segue-edge", "segue-shield", "seguectl"):
        assert (BUILD / name).exists(), f"{BUILD / name} is missing: run make"
    for tool in ("nginx", "curl", "openssl", "nghttp", "h2load"):
        assert shutil.which(tool), f"{tool} is missing: packaging/install-deps.sh check"


@pytest.fixture(scope="session")
def session(tmp_path_factory):
    starter = Starter(tmp_path_factory.mktemp("session"))
    yield starter
    starter.stop()


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """For servers that one file shares."""
    starter = Starter(tmp_path_factory.mktemp("module"))
    yield starter
    starter.stop()


@pytest.fixture
def start(tmp_path):
    starter = Starter(tmp_path)
    yield starter
    starter.stop()


@pytest.fixture(autouse=True)
def no_errors(session, module):
    yield
    for program in session.running + module.running:
        if isinstance(program, Segue):
            program.check()
        elif isinstance(program, ScriptedOrigin):
            failures, program.failures = program.failures, []
            assert not failures, failures


TRACK = "/tracks/3n3Ppam7vgaVa1iaRUc9Lp/320/7.ogg"


@pytest.fixture(scope="session")
def files():
    """What the origin has, by name: tests compare with these bytes."""
    return {
        "small": random_bytes(4096, 1),
        "segment": random_bytes(400 * 1024, 2),
        "big": random_bytes(10_000_000, 3),
        "long": random_bytes(3 * (1 << 20), 4),
        "text": b"one line of text\n" * 200,
        "empty": b"",
    }


@pytest.fixture(scope="session")
def origin(session, files):
    nginx = session.nginx()
    for name, data in files.items():
        nginx.write(f"objects/x-{name}", data)
    nginx.write(TRACK[1:], files["segment"])
    nginx.write("tracks/3n3Ppam7vgaVa1iaRUc9Lp/320/8.ogg", files["small"])
    nginx.write("tracks/3n3Ppam7vgaVa1iaRUc9Lp/96/7.ogg", files["small"])
    nginx.write("tracks/3n3Ppam7vgaVa1iaRUc9Lp/320/list.m3u8", b"#EXTM3U\n#EXTINF:10,\n7.ogg\n#EXTINF:10,\n8.ogg\n")
    for prefix in ("dyn", "sie"):
        (nginx.root / prefix).mkdir(exist_ok=True)
    # Old enough that Last-Modified is a strong validator (RFC 9110, 8.8.2.2).
    for path in nginx.root.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return nginx


@pytest.fixture(scope="session")
def edge(session, origin):
    """The edge that most tests ask, in front of nginx. One worker: with two, a client that has its last byte may ask
    again before the other worker has put the object in, and see a miss."""
    return session.edge(origin.port, hosts=[HOST, "127.0.0.1"], workers=1,
                        access_log={"path": "access.log", "format": "json"})


@pytest.fixture(scope="session")
def scripted(session):
    return session.scripted()


@pytest.fixture(scope="session")
def faulty(session, scripted):
    """An edge in front of the scripted origin. No short limits: it is in Python, and the machine may be busy."""
    return session.edge(scripted.port, hosts=[HOST], workers=1)


_unique = iter(range(1, 1 << 30))


@pytest.fixture
def fresh():
    """A name that no other test uses, for an object of one's own."""
    return lambda: f"u{next(_unique)}"
