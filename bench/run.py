#!/usr/bin/python3
"""make bench: Segue and public peers side by side, in one run, one table. README.md beside this says the method."""

import argparse
import contextlib
import json
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time

import load
import machine
import report
import servers
import workload
from machine import Failure

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARTS = ("cpu", "idle", "storm", "objects", "trace")
TRACE_LINE = r"audio_trace_misses_to_lru memory=(\d+)% median=([\d.]+)"
NAMES = ("segue", *servers.PEERS)


def options():
    def names(known):
        def split(text):
            chosen = text.split(",")
            unknown = [name for name in chosen if name not in known]
            if unknown:
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: known are {', '.join(known)}")
            return chosen
        return split
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of 2 s")
    parser.add_argument("--only", type=names(NAMES), default=list(NAMES), metavar="NAME,...")
    parser.add_argument("--sizes", type=names([str(kib) for kib in workload.SIZES_KIB]), metavar="KIB,...",
                        default=[str(kib) for kib in workload.SIZES_KIB])
    parser.add_argument("--parts", type=names(PARTS), default=list(PARTS), metavar="PART,...",
                        help="of " + ", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--edge", type=pathlib.Path, default=ROOT / "build" / "segue-edge", help="the program")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.seconds = 1, 2
    chosen.sizes = [int(kib) for kib in chosen.sizes]
    return chosen


class Bench:
    """One run: the origin, the objects, and the results so far."""

    def __init__(self, chosen, directory, origin, catalogue, targets):
        self.chosen, self.directory, self.origin = chosen, directory, origin
        self.catalogue, self.targets = catalogue, targets
        settings = {**vars(chosen), "edge": str(chosen.edge)}
        self.results = {"machine": machine.describe(), "settings": settings, "requests": [], "notes": []}

    def note(self, text):
        if text in self.results["notes"]:
            return
        self.results["notes"].append(text)
        print(f"  ! {text}", file=sys.stderr, flush=True)

    def server(self, name):
        if name == "segue":
            return servers.Segue(self.directory, self.origin, self.chosen.edge)
        return servers.PEERS[name](self.directory, self.origin)

    @contextlib.contextmanager
    def running(self, names, kib=None):
        """Fresh servers of these names; one that does not start is noted and left out."""
        with contextlib.ExitStack() as stack:
            started = []
            for name in names:
                server = self.server(name)
                server.kib = kib
                stack.callback(server.stop)
                try:
                    server.start()
                    if name == "segue":
                        self.refuses_forgery(server)
                    started.append(server)
                except Failure as failure:
                    server.stop()
                    self.note(str(failure))
            yield started

    def refuses_forgery(self, server):
        """Figures count only if signatures are really looked at."""
        target = workload.signed_target(self.catalogue.path(self.chosen.sizes[0], 0), int(time.time()) + 3600, "u1")
        forged = target[:-10] + ("A" if target[-10] != "A" else "B") + target[-9:]
        status = load.get(server.port, forged)
        if status != 403:
            raise Failure(f"segue: a forged signature got {status}, not 403")

    def requests(self):
        for kib in self.chosen.sizes:
            with self.running(self.chosen.only, kib) as started:
                for scenario, indexes in (("hot", range(1)), ("set", range(workload.OBJECTS))):
                    self.scenario(started, kib, scenario, indexes)

    def scenario(self, started, kib, scenario, indexes):
        rounds = {}
        for server in [s for s in started if s.objects or scenario == "hot"]:
            try:
                if not server.objects:
                    rounds[server] = []
                    continue
                load.warm(server, self.catalogue, kib, indexes)
                rounds[server] = []
            except (Failure, OSError) as failure:
                started.remove(server)
                self.note(f"{server.name}: {kib} KiB {scenario}: {failure}")
        for turn in range(self.chosen.rounds):
            for server in list(rounds):
                try:
                    rounds[server].append(self.measure(server, kib, scenario))
                except Failure as failure:
                    rounds.pop(server)
                    started.remove(server)
                    self.note(f"{server.name}: {kib} KiB {scenario}: {failure}")
                    continue
                print(f"  {kib} KiB {scenario} round {turn + 1} {server.name}: "
                      f"{rounds[server][-1]['cpu_us']:.1f} us", file=sys.stderr, flush=True)
        for server, measured in rounds.items():
            self.results["requests"].append({
                "server": server.name, "kib": kib, "objects": scenario, "rounds": measured,
                "median": report.summarise(measured), "memory_bytes": server.process.memory_bytes()})

    def measure(self, server, kib, scenario):
        fetched = self.origin.fetches()
        found = load.wrk(server, self.targets[kib, scenario], self.chosen.seconds)
        fetched = self.origin.fetches() - fetched
        if found["errors"]:
            self.note(f"{server.name}: {kib} KiB {scenario}: {found['errors']} errors")
        if fetched and server.caches:
            self.note(f"{server.name}: {kib} KiB {scenario}: {fetched} fetches from the origin while all was cached")
        if found["bytes_per_request"] < kib << 10:
            self.note(f"{server.name}: {kib} KiB {scenario}: answers of {found['bytes_per_request']:.0f} bytes")
        return found

    def idle(self):
        """Fresh servers, so that nothing but the connections is new."""
        self.results["idle"] = {}
        hot = self.targets[self.chosen.sizes[0], "hot"]
        for name in [name for name in ("segue", "nginx") if name in self.chosen.only]:
            with self.running([name]) as started:
                for server in started:
                    try:
                        self.results["idle"][name] = load.idle(server, hot, workload.IDLE_CONNECTIONS)
                    except (Failure, OSError) as failure:
                        self.note(f"{name}: idle: {failure}")

    def storm(self):
        """Whoever caches; and the origin itself as well, which shows what this machine and client can do."""
        storm = load.Storm(self.catalogue, self.origin, self.directory)
        self.results["storm"] = {"origin_us": storm.origin_alone(), "servers": {}}
        caches = [name for name in self.chosen.only if name == "segue" or servers.PEERS[name].caches]
        with self.running(caches) as started:
            for _ in range(self.chosen.rounds):
                for server in (*started, self.origin):
                    try:
                        found = storm.fire(server, workload.STORM_CLIENTS)
                        self.results["storm"]["servers"].setdefault(server.name, []).append(found)
                    except Failure as failure:
                        self.note(f"{server.name}: storm: {failure}")

    def objects(self):
        output = load.program_output("object_memory", 300)
        if output is None:
            return self.note("object_memory: not built")
        # It may be measured in more than one way; the least favourable is the figure.
        found = [float(value) for value in re.findall(r"object_overhead_bytes\s+(-?[\d.]+)", output)]
        if not found:
            self.note("object_memory: no figure in its output")
        self.results["objects"] = {"output": output}
        self.results["object_overhead_bytes"] = max(found, default=None)

    def trace(self):
        output = load.program_output("trace", 3600, *(["-s", "1"] if self.chosen.quick else []))
        if output is None:
            return self.note("trace: not built")
        of_lru = {percent: float(value) for percent, value in re.findall(TRACE_LINE, output)}
        if not of_lru:
            self.note("trace: no figure in its output")
        self.results["trace"] = {"output": output, "of_lru": of_lru}

    def run(self):
        steps = {"cpu": self.requests, "idle": self.idle, "storm": self.storm, "objects": self.objects,
                 "trace": self.trace}
        for part in self.chosen.parts:
            print(f"{part} ...", file=sys.stderr, flush=True)
            try:
                steps[part]()
            except Failure as failure:
                self.note(f"{part}: {failure}")
        self.results["goals"] = report.goals(self.results)
        return self.results


@contextlib.contextmanager
def prepared(chosen):
    """A bench with its objects written and its origin up; everything is gone afterwards."""
    workload.check_vectors(ROOT / "tests" / "vectors" / "signed-urls.json")
    machine.raise_file_limit()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="segue-bench-"))
    directory.chmod(0o755)
    try:
        catalogue = workload.Catalogue(directory / "files", chosen.sizes)
        catalogue.write()
        targets = catalogue.write_targets(directory)
        origin = servers.Origin(directory, catalogue.root)
        try:
            origin.start()
            yield Bench(chosen, directory, origin, catalogue, targets)
        finally:
            origin.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def write_results(results):
    folder = ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    name = time.strftime("%Y%m%d-%H%M%S")
    text = report.render(results)
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / f"{name}.txt").write_text(text)
    print(text)
    print(f"bench/results/{name}.txt and .json")


def main():
    chosen = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))   # so that the servers are ended on the way out
    with prepared(chosen) as bench:
        results = bench.run()
    write_results(results)
    missed = [goal["name"] for goal in results["goals"] if goal["must_reached"] is False]
    return 1 if results["notes"] or missed else 0


if __name__ == "__main__":
    sys.exit(main())
