"""The loads: what is sent to a server, and the figures that come back."""

import collections
import os
import pathlib
import re
import select
import socket
import ssl
import statistics
import subprocess
import time

import machine
import workload
from machine import LOAD_CORE, PROGRAMS, SERVER_CORE, Failure, pinned
from servers import CIPHER

CONNECTIONS = 64
HERE = pathlib.Path(__file__).parent
# What clients offer that take it from OpenSSL's own configuration (wrk).
TLS_ENVIRONMENT = {**os.environ, "OPENSSL_CONF": str(HERE / "openssl.cnf")}


def run(argv, seconds):
    """Output of a load program on the load's core."""
    try:
        done = subprocess.run(pinned(LOAD_CORE, argv), capture_output=True, text=True, timeout=seconds,
                              env=TLS_ENVIRONMENT)
    except subprocess.TimeoutExpired:
        raise Failure(f"{pathlib.Path(argv[0]).name} did not end in {seconds} s") from None
    if done.returncode != 0:
        raise Failure(f"{pathlib.Path(argv[0]).name}: {done.stderr.strip()[-500:]}")
    return done.stdout


def figures(output):
    """Numbers of the line that the load programs print."""
    line = next((line for line in output.splitlines() if line.startswith("figures ")), None)
    if line is None:
        raise Failure(f"no figures in: {output[-500:]}")
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}


def connect(server):
    """A connection as the server wants it: plain, or TLS with a certificate nobody has to trust."""
    connection = socket.create_connection(("127.0.0.1", server.port), 10)
    if not server.certificate:
        return connection
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context.wrap_socket(connection)


def get(server, target, expected=None, connection=None):
    """One request. Returns its status, and Failure if a 200 is not exactly the bytes expected."""
    own = connection or connect(server)
    try:
        own.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        data = bytearray()
        while b"\r\n\r\n" not in data:
            part = own.recv(65536)
            if not part:
                raise Failure(f"connection closed before a head: {target}")
            data += part
        head, _, body = bytes(data).partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if status == 200 and not length:
            raise Failure(f"no Content-Length: {target}")
        whole = bytearray(body)
        while length and len(whole) < int(length[1]):
            part = own.recv(1 << 20)
            if not part:
                raise Failure(f"connection closed within a body: {target}")
            whole += part
        if status == 200 and expected is not None and whole != expected:
            raise Failure(f"wrong bytes: {target}")
        return status
    finally:
        if not connection:
            own.close()


def warm(server, catalogue, kib, indexes):
    """Asks for each object and compares every byte with the origin's. Twice, since Traffic Server fills its memory
    when it first reads what it wrote."""
    targets = catalogue.targets([catalogue.path(kib, i) for i in indexes], len(indexes))
    index_of = {catalogue.path(kib, i): i for i in indexes}
    with connect(server) as connection:
        for target in targets + targets:
            body = catalogue.body(kib, index_of[target.partition("?")[0]])
            status = get(server, target, body, connection)
            if status != 200:
                raise Failure(f"{server.name}: {status} for {target}\n{server.process.tail()}")


def wrk_command(server, targets_file, seconds):
    scheme = "https" if server.certificate else "http"
    return ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "--latency",
            "-s", HERE / "requests.lua", f"{scheme}://127.0.0.1:{server.port}", "--", targets_file]


class Cost:
    """What a server uses from here on: its own time, and its core's."""

    def __init__(self, server):
        self.server = server
        self.before_us, self.core_before_us = server.process.cpu_us(), machine.core_busy_us(SERVER_CORE)
        self.started = time.monotonic()

    def so_far(self, operations, took_us=None):
        """CPU microseconds an operation, and shares of the core over the time that the load says it took."""
        used_us = self.server.process.cpu_us() - self.before_us
        others_us = machine.core_busy_us(SERVER_CORE) - self.core_before_us - used_us
        took_us = took_us or (time.monotonic() - self.started) * 1e6
        if operations == 0:
            raise Failure(f"{self.server.name}: nothing completed\n{self.server.process.tail()}")
        return {"cpu_us": used_us / operations, "core_share": used_us / took_us,
                "others_share": max(0, others_us / took_us)}


def wrk(server, targets_file, seconds):
    """CPU microseconds a request and what a client sees, over one fixed time."""
    cost = Cost(server)
    found = figures(run(wrk_command(server, targets_file, seconds), seconds + 30))
    return {
        **cost.so_far(found["requests"], found["duration_us"]),
        "requests_per_s": found["requests"] / found["duration_us"] * 1e6,
        "p50_us": found["p50_us"], "p99_us": found["p99_us"],
        "bytes_per_request": found["bytes"] / found["requests"], "errors": found["errors"],
    }


def h2load_command(server, targets_file, seconds):
    return ["h2load", "-c1", f"-m{workload.H2_STREAMS}", "-D", seconds, "--tls13-ciphers", CIPHER, "--groups", "X25519",
            "-B", f"https://127.0.0.1:{server.port}", "-i", targets_file]


def h2load_figures(output):
    """Of one client: answers, bytes of bodies and what went wrong; Failure if it spoke something else."""
    spoken = dict(re.findall(r"^(TLS Protocol|Cipher|Application protocol): (\S+)", output, re.MULTILINE))
    if spoken != {"TLS Protocol": "TLSv1.3", "Cipher": CIPHER, "Application protocol": "h2"}:
        raise Failure(f"h2load: negotiated {spoken}")
    answers = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", output)
    statuses = re.search(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
    body_bytes = re.search(r"\((\d+)\) data", output)
    if not answers or not statuses or not body_bytes:
        raise Failure(f"h2load: no figures in: {output[-500:]}")
    succeeded, failed, errored = map(int, answers.groups())
    return {"succeeded": succeeded, "errors": failed + errored + sum(map(int, statuses.groups())),
            "bytes": int(body_bytes[1])}


def h2load(server, targets_files, kib, seconds):
    """CPU microseconds a request over HTTP/2: a client for each file, each with one connection and many streams.

    A request is as many bytes as the object has: when time is up, a server that sends a little on every stream has
    done much for answers that are not complete, and one that sends them in turn has not."""
    cost = Cost(server)
    clients = [subprocess.Popen(pinned(LOAD_CORE, h2load_command(server, file, seconds)), text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for file in targets_files]
    found = collections.Counter()
    try:
        for client in clients:
            found.update(h2load_figures(client.communicate(timeout=seconds + 30)[0]))
    except subprocess.TimeoutExpired:
        raise Failure(f"{server.name}: h2load did not end") from None
    finally:
        for client in clients:
            client.kill()
            client.wait()
    requests = found["bytes"] / (kib << 10)
    return {**cost.so_far(requests, seconds * 1e6), "requests_per_s": requests / seconds,
            "bytes_per_request": found["bytes"] / max(1, found["succeeded"]), "errors": found["errors"]}


def handshakes(server, resumed, seconds):
    """CPU microseconds a handshake, with the connection it needs."""
    cost = Cost(server)
    found = figures(run([PROGRAMS / "handshake", server.port, seconds, workload.HANDSHAKES_AT_ONCE,
                         "resumed" if resumed else "full"], seconds + 30))
    return {**cost.so_far(found["handshakes"], found["duration_us"]),
            "per_s": found["handshakes"] / found["duration_us"] * 1e6}


def await_ready(program, name):
    """Until a load program says that it is; it is ended if it does not."""
    ready = select.select([program.stdout], [], [], 60)[0]
    if not ready or program.stdout.readline().strip() != "ready":
        program.kill()
        raise Failure(f"{name}: {program.stderr.read()[-500:]}")


def background(argv, nice=0):
    command = pinned(LOAD_CORE, argv)
    return subprocess.Popen(["nice", "-n", str(nice), *command] if nice else command, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def idle(server, targets_file, kind):
    """Memory of the server before and with many connections, each of which has asked once."""
    count = workload.IDLE_CONNECTIONS[kind]
    with open(targets_file) as targets:
        get(server, targets.readline().strip())
    time.sleep(0.5)
    before = server.process.memory_bytes()
    holder = background([PROGRAMS / "idle", server.port, count, targets_file, kind])
    try:
        await_ready(holder, f"{server.name}: idle")
        time.sleep(1)
        held = server.process.memory_bytes()
    finally:
        holder.stdin.close()
        holder.wait(10)
    return {"connections": count, "before_bytes": before, "with_bytes": held,
            "bytes_per_connection": (held - before) / count}


class Attacks:
    """A client that asks at a fixed, modest rate, and attackers that are bounded in theirs.

    All share the load's core, and the figure must not be the client's own waiting for it: so it runs there before
    anything else (SCHED_FIFO), the attackers after everything else, and it says how late it was to ask."""

    def __init__(self, targets_file, attack_targets_file, body_file):
        self.targets_file, self.attack_targets_file, self.body_file = targets_file, attack_targets_file, body_file

    def steady(self, server, per_s, seconds, targets_file, role):
        return [PROGRAMS / "steady", server.port, per_s, seconds, targets_file, self.body_file, role]

    def attack_command(self, server, kind, seconds):
        per_s = workload.ATTACKS[kind]
        if kind == "requests":
            return self.steady(server, per_s, seconds, self.attack_targets_file, "flood")
        return [PROGRAMS / "attack", server.port, per_s, seconds, self.attack_targets_file, kind]

    def behaved(self, server, seconds):
        cost = Cost(server)
        found = figures(run(["chrt", "-f", "1", *self.steady(server, workload.BEHAVED_PER_S, seconds,
                                                             self.targets_file, "behaved")], seconds + 30))
        return {**found, **cost.so_far(found["asked"])}

    def measure(self, server, kind, seconds):
        """What the client sees while the attack lasts; `kind` None: in quiet."""
        if kind is None:
            return self.behaved(server, seconds)
        attacker = background(self.attack_command(server, kind, seconds + 2), nice=19)
        try:
            await_ready(attacker, f"{server.name}: {kind}")
            time.sleep(0.5)
            found = self.behaved(server, seconds)
            output, errors = attacker.communicate(timeout=seconds + 30)
            if attacker.returncode != 0:
                raise Failure(f"{server.name}: {kind}: {errors[-500:]}")
        except subprocess.TimeoutExpired:
            raise Failure(f"{server.name}: {kind}: the attack did not end") from None
        finally:
            attacker.kill()
            attacker.wait()
        attack = figures(output)
        return {**found, "attack": attack,
                "attack_per_s": attack.get("operations", attack.get("asked")) / (seconds + 2)}


class Storm:
    """A thousand clients at once on an object nobody has asked for yet."""

    def __init__(self, catalogue, origin, directory):
        self.catalogue, self.origin, self.directory = catalogue, origin, pathlib.Path(directory)
        self.asked = collections.Counter()      # objects that a server has had already

    def fire(self, server, clients):
        path = self.catalogue.storm_path(self.asked[server.name] % workload.STORM_OBJECTS)
        self.asked[server.name] += 1
        if self.asked[server.name] > workload.STORM_OBJECTS and server.caches:
            raise Failure(f"only {workload.STORM_OBJECTS} objects for a storm")
        targets = self.directory / "targets-storm.txt"
        targets.write_text("\n".join(self.catalogue.targets([path], clients)) + "\n")
        before = self.origin.fetches(path)
        found = figures(run([PROGRAMS / "storm", server.port, clients, targets, self.catalogue.root / path[1:]], 90))
        time.sleep(0.2)     # the origin logs a request when it has ended
        return {**found, "fetches": self.origin.fetches(path) - before}

    def origin_alone(self, rounds=20):
        """Time to first byte of the origin's own, one client at a time; the median."""
        return statistics.median(self.fire(self.origin, 1)["p50_us"] for _ in range(rounds))


def program_output(name, seconds, *argv):
    """A measurement that is a program of its own; None when it is not built."""
    program = PROGRAMS / name
    return run([program, *argv], seconds) if program.exists() else None
