"""The loads: what is sent to a server, and the figures that come back."""

import collections
import pathlib
import re
import select
import socket
import statistics
import subprocess
import time

import machine
import workload
from machine import LOAD_CORE, PROGRAMS, SERVER_CORE, Failure, pinned

CONNECTIONS = 64
HERE = pathlib.Path(__file__).parent


def run(argv, seconds):
    """Output of a load program on the load's core."""
    try:
        done = subprocess.run(pinned(LOAD_CORE, argv), capture_output=True, text=True, timeout=seconds)
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


def get(port, target, expected=None, connection=None):
    """One request. Returns its status, and Failure if a 200 is not exactly the bytes expected."""
    own = connection or socket.create_connection(("127.0.0.1", port), 10)
    try:
        own.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
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
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        for target in targets + targets:
            body = catalogue.body(kib, index_of[target.partition("?")[0]])
            status = get(server.port, target, body, connection)
            if status != 200:
                raise Failure(f"{server.name}: {status} for {target}\n{server.process.tail()}")


def wrk_command(server, targets_file, seconds):
    return ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "--latency",
            "-s", HERE / "requests.lua", f"http://127.0.0.1:{server.port}", "--", targets_file]


def wrk(server, targets_file, seconds):
    """CPU microseconds a request and what a client sees, over one fixed time."""
    before_us, core_before_us = server.process.cpu_us(), machine.core_busy_us(SERVER_CORE)
    found = figures(run(wrk_command(server, targets_file, seconds), seconds + 30))
    used_us = server.process.cpu_us() - before_us
    others_us = machine.core_busy_us(SERVER_CORE) - core_before_us - used_us
    if found["requests"] == 0:
        raise Failure(f"{server.name}: no request completed\n{server.process.tail()}")
    return {
        "cpu_us": used_us / found["requests"],
        "requests_per_s": found["requests"] / found["duration_us"] * 1e6,
        "p50_us": found["p50_us"], "p99_us": found["p99_us"],
        "core_share": used_us / found["duration_us"], "others_share": max(0, others_us / found["duration_us"]),
        "bytes_per_request": found["bytes"] / found["requests"], "errors": found["errors"],
    }


def idle(server, targets_file, count):
    """Memory of the server before and with `count` connections, each of which has asked once."""
    with open(targets_file) as targets:
        get(server.port, targets.readline().strip())
    time.sleep(0.5)
    before = server.process.memory_bytes()
    holder = subprocess.Popen(pinned(LOAD_CORE, [PROGRAMS / "idle", server.port, count, targets_file]),
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        ready = select.select([holder.stdout], [], [], 60)[0]
        if not ready or holder.stdout.readline().strip() != "ready":
            holder.kill()
            raise Failure(f"{server.name}: idle: {holder.stderr.read()[-500:]}")
        time.sleep(1)
        held = server.process.memory_bytes()
    finally:
        holder.stdin.close()
        holder.wait(10)
    return {"connections": count, "before_bytes": before, "with_bytes": held,
            "bytes_per_connection": (held - before) / count}


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
