"""Where segue-edge spends its time under the bench's own load; profile.sh is how it is called."""

import argparse
import pathlib
import re
import subprocess
import sys

import load
import run as bench
import workload
from machine import LOAD_CORE, pinned


def options():
    parser = argparse.ArgumentParser(prog="bench/profile.sh", description=__doc__)
    parser.add_argument("size", type=int, choices=workload.SIZES_KIB, nargs="?", default=32, help="KiB")
    parser.add_argument("seconds", type=int, nargs="?", default=5)
    parser.add_argument("--server", choices=bench.NAMES, default="segue")
    parser.add_argument("--set", action="store_true", help="the working set, not the one hot object")
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--edge", type=pathlib.Path, default=bench.ROOT / "build" / "segue-edge")
    parser.add_argument("--data", type=pathlib.Path, default=bench.ROOT / "bench" / "results" / "perf.data")
    return parser.parse_args()


def record(server, targets, seconds, data):
    """Load for a second longer than perf looks, so that it sees neither start nor end. Returns wrk's figures."""
    wrk = subprocess.Popen(pinned(LOAD_CORE, load.wrk_command(server, targets, seconds + 2)),
                           stdout=subprocess.PIPE, text=True)
    try:
        pids = ",".join(map(str, server.process.pids()))
        subprocess.run(["perf", "record", "-q", "-g", "-e", "cpu-clock", "-F", "4000", "-o", data, "-p", pids, "--",
                        "sleep", str(seconds)], check=True)
        return load.figures(wrk.communicate(timeout=seconds + 30)[0])
    finally:
        wrk.kill()


def top(data, count):
    """Functions by their own time, user and kernel apart, each as a share of all samples."""
    text = subprocess.run(["perf", "report", "-i", data, "--no-children", "-g", "none", "--sort", "sym", "--stdio"],
                          capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^\s*([\d.]+)%\s+\[(.)\]\s+(\S.*?)\s*$", text, re.MULTILINE)
    for title, marks in (("user", "."), ("kernel", "k")):
        mine = [(float(share), name) for share, mark, name in rows if mark in marks]
        print(f"\n{title}: {sum(share for share, _ in mine):.1f} %")
        for share, name in mine[:count]:
            print(f"  {share:5.2f} %  {name}")


def main():
    chosen = options()
    settings = argparse.Namespace(sizes=[chosen.size], edge=chosen.edge)
    chosen.data.parent.mkdir(parents=True, exist_ok=True)
    with bench.prepared(settings) as prepared:
        server = prepared.server(chosen.server)
        try:
            server.start()
            scenario = "set" if chosen.set else "hot"
            load.warm(server, prepared.catalogue, chosen.size, range(workload.OBJECTS if chosen.set else 1))
            found = record(server, prepared.targets[chosen.size, scenario], chosen.seconds, chosen.data)
        finally:
            server.stop()
    print(f"{chosen.server}, {chosen.size} KiB, {scenario}: {found['requests'] / found['duration_us'] * 1e6:,.0f} "
          "requests/s under perf")
    top(chosen.data, chosen.top)
    print(f"\nCall graphs: perf report -i {chosen.data}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
