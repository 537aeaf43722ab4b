"""Live figures out of a segue-edge's /metrics: what happened since a moment ago.

The names of the metrics stand here and nowhere else in the demo.
"""
import collections
import math
import re
import time
import urllib.request

REQUESTS = "segue_edge_requests_total"
SENT = "segue_edge_sent_bytes_total"
FIRST_BYTE = "segue_edge_first_byte_seconds_bucket"
STATUS = ("status", "class")  # the labels' names; the first that is there counts
RESULT = ("result", "cache")
HITS = {"hit", "stale", "revalidated"}  # answered with the body that was there
NOT_CACHED = {"none", "pass", "local", "refused", "error", ""}  # no say in the hit ratio

# Never through a proxy that the environment names.
LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))

SAMPLE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse(text):
    """Prometheus text format 0.0.4 to {name: [(labels, value)]}."""
    samples = collections.defaultdict(list)
    for line in text.splitlines():
        found = SAMPLE.match(line)
        if found and not line.startswith("#"):
            samples[found.group(1)].append((dict(LABEL.findall(found.group(2) or "")), float(found.group(3))))
    return samples


def label(labels, names):
    return next((labels[name] for name in names if name in labels), "")


class Reading:
    """The counters at one instant."""

    def __init__(self, samples, at):
        self.at = at
        self.requests = collections.Counter()  # by (status class, result)
        self.sent = sum(value for _, value in samples.get(SENT, []))
        self.first_byte = collections.Counter()  # by upper bound in seconds, cumulative
        for labels, value in samples.get(REQUESTS, []):
            self.requests[label(labels, STATUS), label(labels, RESULT)] += value
        for labels, value in samples.get(FIRST_BYTE, []):
            self.first_byte[float(labels["le"])] += value
        self.missing = [name for name in (REQUESTS, SENT, FIRST_BYTE) if name not in samples]


def read(address):
    with LOOPBACK.open(f"http://{address}/metrics", timeout=5) as answer:
        return Reading(parse(answer.read().decode()), time.monotonic())


def quantile(share, older, newer):
    """Within the bucket in which it lies as if evenly spread, as histogram_quantile does. None: nothing happened."""
    bounds = sorted(newer)
    counts = [newer[bound] - older.get(bound, 0) for bound in bounds]
    if not counts or counts[-1] <= 0:
        return None
    rank = share * counts[-1]
    below, low = 0, 0.0
    for bound, count in zip(bounds, counts):
        if count >= rank:
            if math.isinf(bound):
                return low  # beyond the last finite bound: at least that
            return low + (bound - low) * (rank - below) / max(count - below, 1e-9)
        below, low = count, bound
    return low


class Figures:
    """Rates over the last second; ratio and quantile over the last ten, since a second holds few requests."""

    WINDOW_SECONDS = 10

    def __init__(self, first):
        self.readings = collections.deque([first])

    def add(self, reading):
        self.readings.append(reading)
        while len(self.readings) > 2 and reading.at - self.readings[1].at >= self.WINDOW_SECONDS:
            self.readings.popleft()

    def line(self):
        oldest, previous, newest = self.readings[0], self.readings[-2], self.readings[-1]
        passed = max(newest.at - previous.at, 1e-3)
        recent = newest.requests - previous.requests
        window = newest.requests - oldest.requests
        cached = sum(count for (_, result), count in window.items() if result not in NOT_CACHED)
        hits = sum(count for (_, result), count in window.items() if result in HITS)
        refused = sum(count for (status, _), count in newest.requests.items() if status == "4xx")
        failed = sum(count for (status, _), count in newest.requests.items() if status == "5xx")
        p99 = quantile(0.99, oldest.first_byte, newest.first_byte)
        return "   ".join((
            f"{sum(recent.values()) / passed:7.1f} requests/s",
            f"{100 * hits / cached:5.1f} % hits" if cached else "    - % hits",
            f"{size((newest.sent - previous.sent) / passed):>10}/s",
            "p99 first byte " + (f"{p99 * 1000:7.2f} ms" if p99 is not None else "      - ms"),
            f"4xx {refused:.0f}  5xx {failed:.0f}"))


def size(count):
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
