"""Where segue-edge spends its time under the bench's own load; profile.sh is how it is called."""

import argparse
import collections
import pathlib
import re
import subprocess
import sys

import load
import run as bench
import servers
import workload


def options():
    parser = argparse.ArgumentParser(prog="bench/profile.sh", description=__doc__)
    parser.add_argument("size", type=int, choices=workload.SIZES_KIB, nargs="?", default=32, help="KiB")
    parser.add_argument("seconds", type=int, nargs="?", default=5)
    parser.add_argument("--server", choices=bench.NAMES, default="segue")
    parser.add_argument("--load", choices=("http/1.1", "tls", "h2", "full", "resumed"), default="http/1.1",
                        help="requests, over TLS, over HTTP/2; or handshakes, full or resumed")
    parser.add_argument("--certificate", choices=servers.Certificate.ALGORITHMS, default="ecdsa")
    parser.add_argument("--set", action="store_true", help="the working set, not the one hot object")
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--edge", type=pathlib.Path, default=bench.ROOT / "build" / "segue-edge")
    parser.add_argument("--data", type=pathlib.Path, default=bench.ROOT / "bench" / "results" / "perf.data")
    return parser.parse_args()


def measure(bench_run, server, chosen, seconds):
    """Figures of the load that was chosen, over so many seconds."""
    if chosen.load in ("full", "resumed"):
        return load.handshakes(server, chosen.load == "resumed", seconds)
    if chosen.load == "h2":
        return load.h2load(server, bench_run.shares(chosen.size), chosen.size, seconds)
    return load.wrk(server, bench_run.targets[chosen.size, "set" if chosen.set else "hot"], seconds)


def record(bench_run, server, chosen):
    """Load for two seconds longer than perf looks, so that it sees neither start nor end."""
    pids = ",".join(map(str, server.process.pids()))
    perf = subprocess.Popen(["sh", "-c", 'sleep 1; exec "$@"', "-", "perf", "record", "-q", "-g", "-e", "cpu-clock",
                             "-F", "4000", "-o", chosen.data, "-p", pids, "--", "sleep", str(chosen.seconds)])
    try:
        found = measure(bench_run, server, chosen, chosen.seconds + 2)
        if perf.wait(30) != 0:
            raise SystemExit("perf record failed")
        return found
    finally:
        perf.kill()


def top(data, count):
    """Functions by their own time, user and kernel apart, each as a share of all samples. What a library has no
    names for counts as the library's."""
    text = subprocess.run(["perf", "report", "-i", data, "--no-children", "-g", "none", "--sort", "dso,sym", "--stdio"],
                          capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^\s*([\d.]+)%\s+(\S+)\s+\[(.)\]\s+(\S.*?)\s*$", text, re.MULTILINE)
    shares = {"user": collections.Counter(), "kernel": collections.Counter()}
    for share, library, mark, name in rows:
        where = shares["kernel" if mark == "k" else "user"]
        where[f"({library})" if name.startswith("0x") else name] += float(share)
    for title, found in shares.items():
        print(f"\n{title}: {found.total():.1f} %")
        for name, share in found.most_common(count):
            print(f"  {share:5.2f} %  {name}")


def main():
    chosen = options()
    chosen.sizes, chosen.only = [chosen.size], [chosen.server]
    chosen.data.parent.mkdir(parents=True, exist_ok=True)
    with bench.prepared(chosen) as prepared:
        certificate = None if chosen.load == "http/1.1" else chosen.certificate
        with prepared.running([chosen.server], chosen.size, certificate) as started:
            if not started:
                return 1
            load.warm(started[0], prepared.catalogue, chosen.size, range(workload.OBJECTS if chosen.set else 1))
            found = record(prepared, started[0], chosen)
    print(f"{chosen.server}, {chosen.load}, {chosen.size} KiB: {found['cpu_us']:.1f} us each under perf")
    top(chosen.data, chosen.top)
    print(f"\nCall graphs: perf report -i {chosen.data}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
