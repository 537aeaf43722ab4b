"""Processes and what they cost: start them pinned, count their CPU time and memory, end them by pid."""

import os
import pathlib
import resource
import signal
import socket
import subprocess
import time

PROGRAMS = pathlib.Path(__file__).parent.parent / "build" / "bench"
SERVER_CORE = 0
LOAD_CORE = 1
TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
FILES_MAX_WANTED = 65536


class Failure(Exception):
    """Something did not come up or answered wrongly; the run cannot be trusted."""


def raise_file_limit():
    """Ten thousand connections need as many descriptors, in the servers and in the client."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MAX_WANTED, max(hard, FILES_MAX_WANTED)))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def pinned(core, argv):
    return ["taskset", "-c", str(core), *map(str, argv)]


def core_busy_us(core):
    """Time that a core was not idle, whoever used it: the hypervisor's other guests too."""
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) * TICK_US
    raise Failure(f"there is no core {core}; this needs two")


class Process:
    """A program and its descendants. `before` is the command that starts it, to have the core before others."""

    def __init__(self, argv, core, log, before=()):
        self.log = pathlib.Path(log)
        self.name = pathlib.Path(argv[0]).name
        with open(self.log, "wb") as out:
            self.popen = subprocess.Popen([*before, *pinned(core, argv)], stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=out, start_new_session=True)

    def pids(self):
        """The root and all below it; the tree is read anew since some servers fork late."""
        children = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    children.setdefault(_stat(entry)[1], []).append(int(entry))
                except (FileNotFoundError, ProcessLookupError):
                    pass
        found = [self.popen.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def cpu_us(self):
        """User and system time of all threads so far."""
        ticks = 0
        for pid in self.pids():
            try:
                fields = _stat(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
            ticks += fields[11] + fields[12]
        return ticks * TICK_US

    def memory_bytes(self):
        """Proportional set size: resident memory, with shared pages counted once over the tree."""
        total = 0
        for pid in self.pids():
            try:
                text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
        return total * 1024

    def wait_port(self, port, seconds=20):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.popen.poll() is not None:
                raise Failure(f"{self.name} ended with {self.popen.returncode}:\n{self.tail()}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise Failure(f"{self.name} does not listen on {port}:\n{self.tail()}")

    def tail(self):
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self):
        family = self.pids()
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(5)
            except subprocess.TimeoutExpired:
                pass
        for pid in family[1:] + ([family[0]] if self.popen.poll() is None else []):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.popen.wait()


def _stat(pid):
    """Fields of /proc/PID/stat from the third on, as numbers but for the state."""
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2:].split()
    return [fields[0]] + [int(f) for f in fields[1:]]


def describe():
    """What a reader needs to judge the figures."""
    def output(*argv):
        try:
            run = subprocess.run(argv, capture_output=True, text=True, timeout=10)
            return (run.stdout + run.stderr).strip()
        except (OSError, subprocess.TimeoutExpired):
            return ""
    cpu = [line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
           if line.startswith("model name")]
    packages = output("dpkg-query", "-W", "nginx-light", "varnish", "h2o", "trafficserver", "wrk",
                      "nghttp2-client", "libssl3")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "commit": output("git", "-C", pathlib.Path(__file__).parent, "describe", "--always", "--dirty"),
        "kernel": os.uname().release,
        "cpu": f"{len(cpu)} x {cpu[0]}" if cpu else "unknown",
        "congestion_control": pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "load_average": os.getloadavg()[0],
        "packages": dict(line.split("\t") for line in packages.splitlines() if "\t" in line),
    }
