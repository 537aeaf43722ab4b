"""Countries: signed `geo`, `markets` of rules, the rights file, and both files replaced while they are in use. Clients
of many countries are a trusted proxy's word; the databases are made by tests/geo/mmdb.pl."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess

import pytest

from conftest import TRACK
from harness import *

MMDB = pathlib.Path(__file__).resolve().parent.parent / "geo" / "mmdb.pl"
WHERE = {"SE": "192.0.2.1", "NO": "192.0.2.200", "US": "198.51.100.9", "FR": "2001:db8:1::5", "": "203.0.113.1"}
NETWORKS = ["192.0.2.0/25=SE", "192.0.2.128/25=NO", "198.51.100.0/24=US", "2001:db8:1::/48=FR"]
RULES = [
    {"match": "/tracks/**", "ttl": "1y"},
    {"match": "/nordic/**", "ttl": "1h", "signed": False, "markets": "SE,NO"},
    {"match": "/list/**", "ttl": "1h", "signed": False, "markets": ["SE", "NO"]},
    {"match": "/but/**", "ttl": "1h", "signed": False, "markets": "-US"},
    {"match": "/plain/**", "ttl": "1h", "signed": False},
]


def make_mmdb(path, *networks, shape="nested", size=28):
    new = path.with_name(path.name + ".new")
    subprocess.run([MMDB, new, shape, "6", str(size), *networks], check=True)
    new.rename(path)


def write(path, text):
    """As a careful operator replaces a file."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.rename(path)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mmdb")
    for shape in ("flat", "nested"):
        make_mmdb(folder / f"{shape}.mmdb", *NETWORKS, shape=shape)
    make_mmdb(folder / "swapped.mmdb", "192.0.2.0/25=NO", "192.0.2.128/25=SE", "127.0.0.0/8=FR")
    return folder


@pytest.fixture
def edge_at(start, origin, places):
    """An edge whose database is its own copy."""

    def make(shape="nested", **more):
        folder = start._next("geo")
        folder.mkdir()
        database = folder / "country.mmdb"
        shutil.copy(places / f"{shape}.mmdb", database)
        edge = start.edge(origin.port, geo={"database": str(database)}, rules=RULES,
                          trusted_proxies=["127.0.0.1"], access_log={"path": "access.log", "format": "json"}, **more)
        edge.database = database
        return edge

    return make


def ask_from(edge, country, target, *rest, **more):
    return edge.ask(target, *rest, fields=[("X-Forwarded-For", WHERE[country])], **more)


def verdict(answer):
    return answer.get("Segue-Reason") or answer.status


def verdicts(edge, target):
    return {c: verdict(ask_from(edge, c, target() if callable(target) else target)) for c in WHERE}


@pytest.mark.parametrize("shape", ["flat", "nested"])
def test_signed_geo(edge_at, shape, files):
    edge = edge_at(shape)
    assert ask_from(edge, "SE", sign(TRACK, geo="SE,NO")).body == files["segment"]
    assert verdicts(edge, lambda: sign(TRACK, geo="SE,NO")) == {"SE": 200, "NO": 200, "US": "geo", "FR": "geo", "": "geo"}
    assert verdicts(edge, lambda: sign(TRACK, geo="-US,CA")) == {"SE": 200, "NO": 200, "US": "geo", "FR": 200, "": "geo"}
    assert verdicts(edge, lambda: sign_path(TRACK, depth=2, geo="FR")) == {"SE": "geo", "NO": "geo", "US": "geo", "FR": 200,
                                                                         "": "geo"}
    assert verdicts(edge, lambda: sign(TRACK)) == dict.fromkeys(WHERE, 200)
    refused = ask_from(edge, "US", sign(TRACK, geo="SE"))
    assert refused.status == 403 and refused.problem["detail"] == "not available in this market"
    # The order of the contract: what makes it no good token, expiry and address come before the country.
    assert verdict(ask_from(edge, "US", sign(TRACK, geo="se"))) == "signature"
    assert verdict(ask_from(edge, "US", sign(TRACK, geo="SE", ttl=-60))) == "expired"
    assert verdict(ask_from(edge, "US", sign(TRACK, geo="SE", ip="192.0.2.0/24"))) == "address"
    assert edge.metric("geo_blocked_total", by="url") == edge.metric("signatures_total", result="geo") == 10
    assert edge.metric("geo_blocked_total", by="rule") == 0


def test_a_client_without_a_proxy(edge_at, places):
    """Loopback has no country, and may not claim one; looked up once a connection, and anew in another database."""
    edge = edge_at()
    forwarded = [("X-Forwarded-For", WHERE["SE"])]
    assert verdict(edge.ask("/nordic/x-small", fields=forwarded, source="127.0.0.2")) == "geo"
    with edge.connect() as c:
        before = edge.metric("geo_lookups_total", result="unknown")
        assert [verdict(c.ask(sign(TRACK, geo="FR"))) for _ in range(3)] == ["geo"] * 3
        assert edge.metric("geo_lookups_total", result="unknown") == before + 1
        # Its proxy speaks of others between its own.
        assert c.ask("/nordic/x-small", fields=forwarded).status == 200
        assert verdict(c.ask("/nordic/x-small")) == "geo"
        assert edge.metric("geo_lookups_total", result="unknown") == before + 1
        shutil.copy(places / "swapped.mmdb", edge.database)
        edge.reload()
        until(lambda: c.ask(sign(TRACK, geo="FR")).status == 200, "the connection's country is looked up anew")
        assert c.ask("/nordic/x-small", fields=[("X-Forwarded-For", WHERE["SE"])]).status == 200


def test_markets_of_rules(edge_at):
    edge = edge_at()
    nordic = {"SE": 200, "NO": 200, "US": "geo", "FR": "geo", "": "geo"}
    for _ in range(2):  # from the origin, and from the cache
        assert verdicts(edge, "/nordic/x-small") == nordic
    assert verdicts(edge, "/list/x-small") == nordic
    assert verdicts(edge, "/but/x-small") == {"SE": 200, "NO": 200, "US": "geo", "FR": 200, "": "geo"}
    assert verdicts(edge, "/plain/x-small") == dict.fromkeys(WHERE, 200)
    assert ask_from(edge, "US", "/nordic/x-small", "HEAD").status == 403
    assert edge.metric("geo_blocked_total", by="rule") == 3 * 3 + 2 + 1
    assert edge.metric("geo_blocked_total", by="url") == 0


def test_access_log_has_client_and_country(edge_at):
    edge = edge_at()
    for country in WHERE:
        ask_from(edge, country, "/nordic/x-small?log")
    edge.ask("/nordic/x-small?log")
    path = edge.folder / "access.log"
    lines = until(lambda: (lambda l: len(l) == 6 and l)(
        [json.loads(line) for line in path.read_text().splitlines() if "?log" in line]), "the lines are there")
    assert sorted((l["client"], l.get("country")) for l in lines) == sorted(
        [(address, country or None) for country, address in WHERE.items()] + [("127.0.0.1", None)], key=str)
    assert {l.get("reason") for l in lines if l["status"] == 403} == {"geo"}


# --- rights ---


def test_rights(edge_at, start):
    folder = start._next("rights")
    folder.mkdir()
    rights = folder / "rights"
    rights.write_text("# who may hear what\n/plain/echo/a SE,NO\n/plain/echo/a/free all\n/plain/echo/a/free/gone none\n/tracks none\n")
    edge = edge_at(rights=str(rights))
    assert verdicts(edge, "/plain/echo/a/x") == {"SE": 200, "NO": 200, "US": "geo", "FR": "geo", "": "geo"}
    assert verdicts(edge, "/plain/echo/a/free/x") == dict.fromkeys(WHERE, 200)
    assert verdicts(edge, "/plain/echo/a/free/gone/x") == dict.fromkeys(WHERE, "rights")
    assert verdicts(edge, "/plain/echo/ab/x") == dict.fromkeys(WHERE, 200)
    # Another spelling leads around nothing, and a signature helps nobody. It is looked at first.
    assert verdict(ask_from(edge, "US", "/pl%61in/echo/%61/x")) == "geo"
    assert verdict(ask_from(edge, "SE", sign(TRACK))) == "rights"
    assert verdict(ask_from(edge, "SE", TRACK)) == "signature"
    assert verdict(ask_from(edge, "US", sign(TRACK, geo="SE"))) == "geo"
    taken_down = ask_from(edge, "SE", sign(TRACK))
    assert taken_down.status == 403 and taken_down.problem["detail"] == "no longer available"
    assert edge.metric("taken_down_total") == 5 + 2
    assert edge.metric("geo_blocked_total", by="rights") == 3 + 1
    assert edge.metric("rights_entries") == 4


def test_take_down_without_geo(start, origin, files):
    """Effective for the next request on an open connection, by SIGHUP and by itself, though the object is cached."""
    folder = start._next("rights")
    folder.mkdir()
    rights = folder / "rights"
    write(rights, "# nothing yet\n")
    edge = start.edge(origin.port, rights=str(rights))
    with edge.connect() as c:
        assert c.ask(sign(TRACK)).body == files["segment"]
        write(rights, "/tracks/3n3Ppam7vgaVa1iaRUc9Lp none\n")
        edge.reload()
        until(lambda: verdict(c.ask(sign(TRACK))) == "rights", "the take-down holds after SIGHUP")
        assert c.ask("/plain/x-small").status == 200

        write(rights, "# it was a mistake\n")
        until(lambda: c.ask(sign(TRACK)).status == 200, "the file is seen to have changed")
        write(rights, "/tracks/3n3Ppam7vgaVa1iaRUc9Lp none\n/plain none\n")
        until(lambda: verdict(c.ask("/plain/x-small")) == "rights", "the take-down holds by itself")
        assert verdict(c.ask(sign(TRACK))) == "rights"
        assert edge.metric("territory_replacements_total", file="rights", result="ok") == 2

        edge.allow(r"rights:2: expected `all`, `none` or markets.* stays", r"rights:1: names markets.* stays")
        write(rights, "/tracks none\n/plain NONE\n")
        until(lambda: "rights:2: expected" in edge.log(), "the mistake is logged")
        assert verdict(c.ask("/plain/x-small")) == "rights"
        write(rights, "/plain SE\n")
        until(lambda: "rights:1: names markets" in edge.log(), "markets need geo")
        assert verdict(c.ask(sign(TRACK))) == "rights"
        assert edge.log().count("rights:2: expected") == 1
        assert edge.metric("territory_replacements_total", file="rights", result="error") == 2

        edge.allow("reload refused", "configuration not reloaded")
        edge.reload(refused=True)
        assert verdict(c.ask(sign(TRACK))) == "rights"


def test_shield_takes_down(start, origin):
    folder = start._next("rights")
    folder.mkdir()
    (folder / "rights").write_text("/plain/gone none\n")
    shield = start.shield([{"url": f"http://127.0.0.1:{origin.port}"}], rights=str(folder / "rights"))
    assert verdict(shield.ask("/plain/gone/x-small")) == "rights"
    assert shield.ask("/plain/x-small").status == 200


# --- the database ---


def test_database_replaced_while_serving(edge_at, places, files):
    """Nobody is answered wrongly or not at all meanwhile: each answer is right by one of the two databases."""
    edge = edge_at()

    def client(stop):
        seen, n = set(), 0
        with edge.connect() as c:
            while not stop():
                for country in ("SE", "NO"):
                    a = c.ask(sign(TRACK, geo="SE"), fields=[("X-Forwarded-For", WHERE[country])])
                    assert a.status == 403 and verdict(a) == "geo" or a.body == files["segment"]
                    seen.add((country, a.status))
                    n += 1
        return seen, n

    done = []
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(client, lambda: done) for _ in range(3)]
        try:
            for source, country in [("swapped", "NO"), ("flat", "SE"), ("swapped", "NO")]:
                new = edge.database.with_name("new")
                shutil.copy(places / f"{source}.mmdb", new)
                new.rename(edge.database)
                until(lambda: ask_from(edge, country, sign(TRACK, geo="SE")).status == 200, f"{source} is in use")
        finally:
            done.append(True)
        results = [c.result() for c in clients]
    for seen, n in results:
        assert n > 20 and seen >= {("SE", 200), ("SE", 403), ("NO", 200), ("NO", 403)}, (seen, n)
    assert edge.metric("territory_replacements_total", file="geo", result="ok") == 3
    assert edge.metric("geo_database_build_timestamp_seconds") > 1.7e9


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "empty", "gone", "no countries"])
def test_damaged_database_keeps_the_old(edge_at, places, damage):
    edge = edge_at()
    good = edge.database.read_bytes()
    assert ask_from(edge, "SE", sign(TRACK, geo="SE")).status == 200
    edge.allow(r"country\.mmdb.*stays until the file is replaced by a good one", "reload refused", "not reloaded")
    if damage == "truncated":
        os.truncate(edge.database, len(good) // 2)
    elif damage == "overwritten":
        with open(edge.database, "r+b") as f:
            f.write(b"\xff" * len(good))
    elif damage == "empty":
        os.truncate(edge.database, 0)
    elif damage == "gone":
        edge.database.unlink()
    else:
        make_mmdb(edge.database, "192.0.2.0/24=SE", shape="asn")
    until(lambda: "stays until" in edge.log(), "the damage is logged")
    edge.reload(refused=True)
    assert "geo.database: " in edge.log()
    for _ in range(3):
        assert verdicts(edge, lambda: sign(TRACK, geo="SE")) == {"SE": 200, "NO": "geo", "US": "geo", "FR": "geo",
                                                                 "": "geo"}
    assert edge.log().count("stays until") == 1
    shutil.copy(places / "swapped.mmdb", edge.database)
    until(lambda: ask_from(edge, "NO", sign(TRACK, geo="SE")).status == 200, "a good one is taken again")


def test_check_finds_what_is_wrong(edge_at):
    edge = edge_at()
    argv = [BUILD / "segue-edge", "-t", "-c", edge.conf_path]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 0
    keep = edge.database.read_bytes()
    edge.allow(r"country\.mmdb.*stays")
    os.truncate(edge.database, 100)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    line = 1 + edge.conf_path.read_text().split('"database"')[0].count("\n")
    assert done.returncode == 1
    assert done.stderr.strip() == (f"{edge.conf_path}:{line}: geo.database: {edge.database} is no MaxMind DB, or not all of "
                                   "one")
    edge.database.write_bytes(keep)
