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
PARTS = ("cpu", "tls", "h2", "handshakes", "idle", "storm", "attacks", "objects", "trace")
TRACE_LINE = r"audio_trace_misses_to_lru memory=(\d+)% median=([\d.]+)"
NAMES = ("segue", *servers.PEERS)
HANDSHAKE_SECONDS_MAX = 2       # some thousand each
ATTACK_SECONDS_MAX = 3          # 1,500 requests of the well-behaved client


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
        self.certificates = {}
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

    def certificate(self, kind):
        if kind not in self.certificates:
            self.certificates[kind] = servers.Certificate(self.directory, kind).make()
        return self.certificates[kind]

    def secures(self, but=()):
        """The chosen servers that speak TLS."""
        classes = {"segue": servers.Segue, **servers.PEERS}
        return [name for name in self.chosen.only if classes[name].secures and name not in but]

    @contextlib.contextmanager
    def running(self, names, kib=None, certificate=None, limited=False):
        """Fresh servers of these names, over TLS with a certificate of that kind; one that does not start is noted
        and left out. Limited ones are those whose latency counts: they have their core before anyone else."""
        with contextlib.ExitStack() as stack:
            started = []
            for name in names:
                server = self.server(name)
                server.kib, server.limited, server.first = kib, limited, limited
                server.certificate = certificate and self.certificate(certificate)
                stack.callback(server.stop)
                try:
                    server.start()
                    if name == "segue":
                        self.refuses_forgery(server)
                    started.append(server)
                except (Failure, OSError) as failure:
                    server.stop()
                    self.note(f"{name}: {failure}" if name not in str(failure) else str(failure))
            yield started

    def refuses_forgery(self, server):
        """Figures count only if signatures are really looked at."""
        target = workload.signed_target(self.catalogue.path(self.chosen.sizes[0], 0), int(time.time()) + 3600, "u1")
        forged = target[:-10] + ("A" if target[-10] != "A" else "B") + target[-9:]
        status = load.get(server, forged)
        if status != 403:
            raise Failure(f"segue: a forged signature got {status}, not 403")

    def requests(self):
        for kib in self.chosen.sizes:
            with self.running(self.chosen.only, kib) as started:
                for scenario, indexes in (("hot", range(1)), ("set", range(workload.OBJECTS))):
                    self.scenario(started, "http/1.1", kib, scenario, indexes)

    def secure_requests(self, protocol):
        """One hot object over TLS: HTTP/1.1, or HTTP/2."""
        for kib in [kib for kib in workload.TLS_SIZES_KIB if kib in self.chosen.sizes]:
            with self.running(self.secures(), kib, certificate="ecdsa") as started:
                self.scenario(started, protocol, kib, "hot", range(1))

    def scenario(self, started, protocol, kib, scenario, indexes):
        label = f"{protocol} {kib} KiB {scenario}"
        rounds = {}
        for server in [s for s in started if s.objects or scenario == "hot"]:
            try:
                if server.objects:
                    load.warm(server, self.catalogue, kib, indexes)
                rounds[server] = []
            except (Failure, OSError) as failure:
                started.remove(server)
                self.note(f"{server.name}: {label}: {failure}")
        self.take_turns(rounds, label, lambda server: self.measure(server, protocol, kib, scenario))
        for server, measured in rounds.items():
            self.results["requests"].append({
                "server": server.name, "protocol": protocol, "kib": kib, "objects": scenario, "rounds": measured,
                "median": report.summarise(measured), "memory_bytes": server.process.memory_bytes()})

    def take_turns(self, measured, label, measure, rounds=None):
        """Adds to {server: [figures of a round]}; one that fails is noted and left out."""
        for _ in range(rounds or self.chosen.rounds):
            for server in list(measured):
                try:
                    measured[server].append(measure(server))
                except (Failure, OSError) as failure:
                    measured.pop(server)
                    self.note(f"{server.name}: {label}: {failure}")
                    continue
                found = measured[server][-1]
                print(f"  {label} round {len(measured[server])} {server.name}: "
                      + (f"p99 {found['p99_us']} us" if "asked" in found else f"{found['cpu_us']:.1f} us"),
                      file=sys.stderr, flush=True)

    def measure(self, server, protocol, kib, scenario):
        label = f"{server.name}: {protocol} {kib} KiB {scenario}"
        fetched = self.origin.fetches()
        if protocol == "h2":
            found = load.h2load(server, self.shares(kib), kib, self.chosen.seconds)
        else:
            found = load.wrk(server, self.targets[kib, scenario], self.chosen.seconds)
        fetched = self.origin.fetches() - fetched
        if found["errors"]:
            self.note(f"{label}: {found['errors']} errors")
        if fetched and server.caches:
            self.note(f"{label}: {fetched} fetches from the origin while all was cached")
        if found["bytes_per_request"] < kib << 10:
            self.note(f"{label}: answers of {found['bytes_per_request']:.0f} bytes")
        return found

    def shares(self, kib):
        """The hot object's targets, a file for each client that begins at the first line of its own."""
        key = kib, "shares"
        if key not in self.targets:
            self.targets[key] = self.catalogue.write_shares(self.directory, kib, workload.H2_CONNECTIONS)
        return self.targets[key]

    def handshakes(self):
        """With each kind of certificate, and resumed, where the certificate has no part in it. H2O keeps a connection
        whose client has said goodbye, so its handshakes cannot be counted so."""
        self.results["handshakes"] = []
        for certificate, kinds in (("ecdsa", (False, True)), ("rsa", (False,))):
            with self.running(self.secures(but=["h2o"]), certificate=certificate) as started:
                for resumed in kinds:
                    name = f"{certificate}, resumed" if resumed else f"{certificate}, full"
                    rounds = {server: [] for server in started}
                    self.take_turns(rounds, f"handshakes {name}", lambda server, resumed=resumed: load.handshakes(
                        server, resumed, min(self.chosen.seconds, HANDSHAKE_SECONDS_MAX)))
                    self.results["handshakes"] += [
                        {"server": server.name, "kind": name, "rounds": measured, "median": report.summarise(measured)}
                        for server, measured in rounds.items()]

    def idle(self):
        """Fresh servers, so that nothing but the connections is new."""
        self.results["idle"] = {}
        hot = self.targets[self.chosen.sizes[0], "hot"]
        for kind in workload.IDLE_CONNECTIONS:
            self.results["idle"][kind] = {}
            for name in [name for name in ("segue", "nginx") if name in self.chosen.only]:
                with self.running([name], certificate=None if kind == "plain" else "ecdsa") as started:
                    for server in started:
                        try:
                            self.results["idle"][kind][name] = load.idle(server, hot, kind)
                        except (Failure, OSError) as failure:
                            self.note(f"{name}: idle {kind}: {failure}")

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

    def attacks(self):
        """A well-behaved client in quiet and under each attack, in turns; every server limits each address."""
        kib = workload.BEHAVED_KIB
        if kib not in self.chosen.sizes:
            return self.note(f"attacks: they need the size {kib}")
        hot, hostile = self.shares(kib)[:2]
        attacks = load.Attacks(hot, hostile, self.catalogue.root / self.catalogue.path(kib, 0)[1:])
        self.results["attacks"] = []
        with self.running(self.secures(but=["h2o"]), kib, certificate="ecdsa", limited=True) as started:
            for server in started:
                load.warm(server, self.catalogue, kib, range(1))
            rounds = {kind: {server: [] for server in started} for kind in (None, *workload.ATTACKS)}
            for _ in range(self.chosen.rounds):
                for kind in rounds:
                    self.take_turns(rounds[kind], f"attack {kind or 'none'}",
                                    lambda server, kind=kind: self.attack(attacks, server, kind), rounds=1)
            for kind, servers_ in rounds.items():
                self.results["attacks"] += [
                    {"server": server.name, "attack": kind, "rounds": measured, "median": report.summarise(measured)}
                    for server, measured in servers_.items()]

    def attack(self, attacks, server, kind):
        found = attacks.measure(server, kind, min(self.chosen.seconds, ATTACK_SECONDS_MAX))
        if found["right"] != found["asked"]:
            self.note(f"{server.name}: attack {kind}: {found['asked'] - found['right']} of {found['asked']} of the "
                      f"well-behaved were not answered as they should be ({found['refused']} refused)")
        return found

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
        steps = {"cpu": self.requests, "tls": lambda: self.secure_requests("tls"),
                 "h2": lambda: self.secure_requests("h2"), "handshakes": self.handshakes, "idle": self.idle,
                 "storm": self.storm, "attacks": self.attacks, "objects": self.objects, "trace": self.trace}
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
