"""The tables: plain text from the results, and the goals with what was reached."""

import statistics

from workload import ATTACKS

REFERENCE = "nginx"
OURS = "segue"
SCENARIOS = {"hot": "one hot object", "set": "working set of 4,096"}
PROTOCOLS = {"http/1.1": "", "tls": ", TLS 1.3", "h2": ", HTTP/2 over TLS"}

# kib: (must, goal), as a share of nginx's CPU a request in the same run
HOT_GOALS = {4: (0.80, 0.60), 32: (0.85, 0.70), 400: (0.50, 0.36)}
SET_GOALS = {4: (1.00, 0.80), 32: (1.00, 0.80), 400: (1.00, 0.50)}
TLS_GOALS = {32: (0.75, 0.62), 400: (0.90, 0.72)}
H2_GOALS = {32: (0.70, 0.70)}
HANDSHAKE_GOALS = (1.00, 1.00)      # CPU each, as a share of nginx's
IDLE_BYTES_GOALS = (1024, 256)
IDLE_OF_NGINX_GOALS = (1.00, 1.00)  # over TLS, and with HTTP/2
ATTACK_GOAL = 2.0                   # p99 under attack, as a multiple of the quiet one
OBJECT_BYTES_GOALS = (160, 96)
STORM_WITHIN_MS = 20
TRACE_GOALS = (1.00, 0.90)


def table(rows, headings):
    """Columns as wide as they must be; the first two to the left, figures to the right."""
    cells = [headings] + [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    lines = ["  ".join(cell.ljust(w) if i < 2 else cell.rjust(w)
                       for i, (cell, w) in enumerate(zip(row, widths))).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * len(lines[0])] + lines[1:])


def summarise(rounds):
    """The median of each figure over the rounds."""
    return {name: statistics.median(one[name] for one in rounds) for name, value in rounds[0].items()
            if isinstance(value, (int, float))}


def median(rows, name, **which):
    """One figure of the row that is described so; None if there is no such row."""
    return next((row["median"][name] for row in rows or []
                 if all(row[key] == value for key, value in which.items())), None)


def of_nginx(rows, server, **which):
    """CPU of one server as a share of nginx's: the medians of rounds that took turns. None if either is missing."""
    ours, reference = (median(rows, "cpu_us", server=name, **which) for name in (server, REFERENCE))
    return ours / reference if ours and reference else None


def number(value, format_):
    return "-" if value is None else format(value, format_)


def milliseconds(us):
    return "-" if us is None else f"{us / 1000:.2f}"


def requests_table(results):
    rows = []
    for r in results["requests"]:
        m, rounds = r["median"], [one["cpu_us"] for one in r["rounds"]]
        share = of_nginx(results["requests"], r["server"], protocol=r["protocol"], kib=r["kib"], objects=r["objects"])
        rows.append([f"{r['kib']} KiB, {SCENARIOS[r['objects']]}{PROTOCOLS[r['protocol']]}", r["server"],
                     f"{m['cpu_us']:.1f}", f"{min(rounds):.1f}-{max(rounds):.1f}", number(share, ".2f"),
                     f"{m['requests_per_s']:,.0f}", *(milliseconds(m.get(key)) for key in ("p50_us", "p99_us")),
                     f"{m['core_share']:.2f}",
                     f"{m['others_share']:.2f}", f"{r['memory_bytes'] / (1 << 20):,.0f}"])
    return table(rows, ["objects", "server", "CPU us/req", "range", "of nginx", "req/s", "p50 ms", "p99 ms", "core",
                        "others", "MiB"])


def handshakes_table(results):
    rows = []
    for r in results["handshakes"]:
        m, rounds = r["median"], [one["cpu_us"] for one in r["rounds"]]
        rows.append([r["kind"], r["server"], f"{m['cpu_us']:.1f}", f"{min(rounds):.1f}-{max(rounds):.1f}",
                     number(of_nginx(results["handshakes"], r["server"], kind=r["kind"]), ".2f"),
                     f"{1e6 / m['cpu_us']:,.0f}", f"{m['per_s']:,.0f}", f"{m['core_share']:.2f}",
                     f"{m['others_share']:.2f}"])
    return table(rows, ["handshakes", "server", "CPU us each", "range", "of nginx", "a core/s", "seen/s", "core",
                        "others"])


def idle_table(results):
    rows = [[f"{r['connections']:,} connections, {kind}", name, f"{r['bytes_per_connection']:,.0f}",
             number(idle_of_nginx(results, kind, name), ".2f"),
             f"{r['before_bytes'] / (1 << 20):,.1f}", f"{r['with_bytes'] / (1 << 20):,.1f}"]
            for kind, servers in results["idle"].items() for name, r in servers.items()]
    return table(rows, ["idle", "server", "bytes each", "of nginx", "MiB before", "MiB with"])


def idle_bytes(results, kind, server):
    found = results.get("idle", {}).get(kind, {}).get(server)
    return found and found["bytes_per_connection"]


def idle_of_nginx(results, kind, server):
    ours, reference = (idle_bytes(results, kind, name) for name in (server, REFERENCE))
    return ours / reference if ours and reference else None


def of_quiet(results, server, attack):
    """p99 of the well-behaved client under attack, as a multiple of its p99 in quiet."""
    found, quiet = (median(results.get("attacks"), "p99_us", server=server, attack=kind) for kind in (attack, None))
    return found / quiet if found and quiet else None


def attacks_table(results):
    rows = []
    for r in results["attacks"]:
        m, rounds = r["median"], [one["p99_us"] for one in r["rounds"]]
        right = sum(one["right"] for one in r["rounds"]) / sum(one["asked"] for one in r["rounds"])
        rows.append([r["attack"] or "in quiet", r["server"], milliseconds(m["p50_us"]), milliseconds(m["p99_us"]),
                     f"{min(rounds) / 1000:.2f}-{max(rounds) / 1000:.2f}",
                     number(of_quiet(results, r["server"], r["attack"]), ".2f"), milliseconds(m["max_us"]),
                     milliseconds(m["own_p99_us"]), f"{100 * right:.1f}",
                     f"{m['attack_per_s']:,.0f}" if "attack_per_s" in m else "-",
                     f"{m['core_share']:.2f}", f"{m['others_share']:.2f}"])
    return table(rows, ["under attack", "server", "p50 ms", "p99 ms", "range", "of quiet", "max ms", "own p99",
                        "right %", "attack/s", "core", "others"])


def storm_table(results):
    rows = []
    for name, rounds in results["storm"]["servers"].items():
        for i, r in enumerate(rounds):
            rows.append([f"{r['clients']:,} clients, round {i + 1}", name, r["fetches"], r["right"],
                         *(f"{r[key] / 1000:.1f}" for key in ("p50_us", "p99_us", "max_us", "all_us"))])
    headings = ["miss storm, 400 KiB", "server", "fetches", "right", "TTFB p50 ms", "p99", "max", "all bytes"]
    return table(rows, headings) \
        + f"\nThe origin's own time to first byte, one client: {results['storm']['origin_us'] / 1000:.2f} ms"


def goals(results):
    """[name, must, goal, ours, must reached, goal reached]; the last two None where nothing was measured."""
    found = []

    def add(name, must, goal, ours, format_=".2f", must_text=None, strict=False):
        """Without a must, a miss fails nothing, but stands there."""
        ok = None if ours is None or must is None else ours < must if strict else ours <= must
        found.append({"name": name, "must": must_text or number(must, format_), "goal": format(goal, format_),
                      "ours": number(ours, format_), "must_reached": ok,
                      "goal_reached": None if ours is None else ours <= goal})

    for scenario, wanted in (("hot", HOT_GOALS), ("set", SET_GOALS)):
        for kib, (must, goal) in wanted.items():
            add(f"CPU as a share of nginx, {kib} KiB, {SCENARIOS[scenario]}", must, goal,
                of_nginx(results["requests"], OURS, protocol="http/1.1", kib=kib, objects=scenario), strict=must == 1,
                must_text="below 1" if must == 1 else None)
    for protocol, wanted in (("tls", TLS_GOALS), ("h2", H2_GOALS)):
        for kib, (must, goal) in wanted.items():
            add(f"CPU as a share of nginx, {kib} KiB, {SCENARIOS['hot']}{PROTOCOLS[protocol]}", must, goal,
                of_nginx(results["requests"], OURS, protocol=protocol, kib=kib, objects="hot"))
    for kind in ("ecdsa, full", "ecdsa, resumed", "rsa, full"):
        add(f"CPU a handshake as a share of nginx, {kind}", *HANDSHAKE_GOALS,
            of_nginx(results.get("handshakes"), OURS, kind=kind))
    add("bytes an idle connection", *IDLE_BYTES_GOALS, idle_bytes(results, "plain", OURS), ",.0f")
    for kind in ("tls", "h2"):
        add(f"bytes an idle connection as a share of nginx{PROTOCOLS[kind]}", *IDLE_OF_NGINX_GOALS,
            idle_of_nginx(results, kind, OURS))
    add("bytes an object beside body, key, head", *OBJECT_BYTES_GOALS, results.get("object_overhead_bytes"), ",.0f")
    found.append(storm_goal(results))
    for attack in ATTACKS:
        add(f"p99 of a well-behaved client, multiple of quiet: {attack}", None, ATTACK_GOAL,
            of_quiet(results, OURS, attack))
    for percent in (1, 10):
        add(f"misses as a share of LRU's, memory {percent} % of catalogue", *TRACE_GOALS,
            results.get("trace", {}).get("of_lru", {}).get(str(percent)), ".3f", "below 1", strict=True)
    return found


def storm_goal(results):
    rounds = results.get("storm", {}).get("servers", {}).get(OURS)
    goal = {"name": "storm: fetches, wrong answers; p99 past origin's", "must": "1, 0", "ours": "-",
            "goal": f"{STORM_WITHIN_MS} ms", "must_reached": None, "goal_reached": None}
    if rounds:
        fetches = max(rounds, key=lambda r: abs(r["fetches"] - 1))["fetches"]
        wrong = max(r["clients"] - r["right"] for r in rounds)
        late_ms = (statistics.median(r["p99_us"] for r in rounds) - results["storm"]["origin_us"]) / 1000
        goal.update(ours=f"{fetches}, {wrong}; {late_ms:.1f} ms", must_reached=fetches == 1 and wrong == 0)
        goal["goal_reached"] = goal["must_reached"] and late_ms <= STORM_WITHIN_MS
    return goal


def goals_table(results):
    def mark(reached):
        return "-" if reached is None else "yes" if reached else "NO"
    rows = [[g["name"], "", g["must"], g["goal"], g["ours"], mark(g["must_reached"]), mark(g["goal_reached"])]
            for g in results["goals"]]
    return table(rows, ["goals", "", "must", "goal", "ours", "must", "goal"])


def render(results):
    m = results["machine"]
    parts = [
        f"Segue bench, {m['date']}, commit {m['commit']}\n{m['cpu']}, Linux {m['kernel']}, "
        f"TCP {m['congestion_control']}, load average at start {m['load_average']:.1f}\n"
        + ", ".join(f"{name} {version}" for name, version in m["packages"].items())
        + f"\n{results['settings']['rounds']} rounds of {results['settings']['seconds']} s that take turns, medians; "
        "no access log anywhere; segue validates a signature on every request"]
    if results["requests"]:
        parts.append(requests_table(results))
    if results.get("handshakes"):
        parts.append(handshakes_table(results))
    if results.get("idle"):
        parts.append(idle_table(results))
    if results.get("storm"):
        parts.append(storm_table(results))
    if results.get("attacks"):
        parts.append(attacks_table(results))
    for name in ("objects", "trace"):
        if results.get(name, {}).get("output"):
            parts.append(results[name]["output"].rstrip())
    parts.append(goals_table(results))
    if results["notes"]:
        parts.append("Not as it should be:\n" + "\n".join(f"- {note}" for note in results["notes"]))
    return "\n\n".join(parts) + "\n"
