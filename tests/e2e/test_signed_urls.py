"""The table of "Signed URLs" in the contract, through a running edge. The vectors with their fixed times run in
tests/unit/http; here the same cases are signed anew."""

import json
import subprocess

import pytest

from conftest import TRACK
from harness import *

PFX = "/tracks/3n3Ppam7vgaVa1iaRUc9Lp/320/"


def refused(edge, url, reason="signature", source=None):
    a = edge.ask(url, source=source)
    assert (a.status, a.get("Segue-Reason")) == (403, reason), (url, a)
    assert a.problem["status"] == 403
    assert a.get("Cache-Control") == "no-store"
    return a


GOOD = {
    "exact path": lambda: sign(TRACK),
    "uid": lambda: sign(TRACK, uid="u42"),
    "second key": lambda: sign(TRACK, kid="k2"),
    "prefix": lambda: sign(TRACK, pfx=PFX),
    "short prefix": lambda: sign(TRACK, pfx="/tracks/3n3Ppam7vgaVa1iaRUc9Lp/"),
    "rate": lambda: sign(TRACK, rate=50_000_000),
    "ip": lambda: sign(TRACK, ip="127.0.0.1"),
    "ip block": lambda: sign(TRACK, ip="127.0.0.0/8"),
    "mapped ip": lambda: sign(TRACK, ip="::ffff:127.0.0.1"),
    "within clock skew": lambda: sign(TRACK, exp=NOW() - 1),
    "path token": lambda: sign_path(TRACK),
    "path token with depth": lambda: sign_path(TRACK, depth=3),
    "path token with uid": lambda: sign_path(TRACK, depth=3, uid="u42"),
    "unsigned parameter": lambda: sign(TRACK, tail="&_HLS_msn=4"),
    "re-encoded value": lambda: sign(TRACK, uid="u-42").replace("uid=u-42", "uid=u%2D42"),
    "parameters in another order": lambda: "?".join(
        [TRACK, "&".join(reversed(sign(TRACK, uid="u42").split("?")[1].split("&")))]),
    "escaped path, signed as sent": lambda: sign(TRACK.replace("7.ogg", "%37.ogg")),
}


@pytest.mark.parametrize("name", GOOD)
def test_valid(edge, files, name):
    a = edge.ask(GOOD[name]())
    assert a.status == 200 and a.body == files["segment"], a


def altered(url):
    at = url.index("sig=") + 4
    return url[:at] + ("B" if url[at] == "A" else "A") + url[at + 1:]


def noncanonical(url):
    """The last of 43 characters carries four bits; another one with the same four is another text of the same MAC."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return url[:-1] + alphabet[alphabet.index(url[-1]) ^ 1]


BAD = {
    "no token": lambda: TRACK,
    "no sig": lambda: sign(TRACK).partition("&sig=")[0],
    "altered sig": lambda: altered(sign(TRACK)),
    "non-canonical sig": lambda: noncanonical(sign(TRACK)),
    "short sig": lambda: sign(TRACK)[:-1],
    "padded sig": lambda: sign(TRACK) + "=",
    "empty sig": lambda: sign(TRACK).partition("sig=")[0] + "sig=",
    "encoded sig": lambda: (lambda u: u.partition("sig=")[0] + "sig=%" + f"{ord(u[u.index('sig=') + 4]):02X}"
                            + u[u.index("sig=") + 5:])(sign(TRACK)),
    "another path": lambda: sign(TRACK).replace("/7.ogg", "/8.ogg"),
    "unknown key": lambda: sign(TRACK, kid="k9", key=KEYS["k1"]),
    "wrong key": lambda: sign(TRACK, kid="k1", key=KEYS["k2"]),
    "no kid among several": lambda: sign(TRACK, kid=None, key=KEYS["k1"]),
    "sig twice": lambda: (lambda u: u + "&" + u.rpartition("&")[2])(sign(TRACK)),
    "exp twice": lambda: sign(TRACK, tail=f"&exp={NOW() + 600}"),
    "uid twice": lambda: sign(TRACK, uid="u1", tail="&uid=u1"),
    "uid added": lambda: sign(TRACK) + "&uid=u42",
    "uid altered": lambda: sign(TRACK, uid="u42").replace("uid=u42", "uid=u43"),
    "uid taken out": lambda: sign(TRACK, uid="u42").replace("&uid=u42", ""),
    "uid outside its alphabet": lambda: sign(TRACK, uid="u%2042", key=KEYS["k1"]),
    "exp missing": lambda: TRACK + "?kid=k1&sig=" + mac(f"path={TRACK}", {"kid": "k1"}, KEYS["k1"]),
    "exp not a number": lambda: sign(TRACK, exp="soon"),
    "exp of 12 digits": lambda: sign(TRACK, exp="999999999999"),
    "exp beyond lifetime_max": lambda: sign(TRACK, exp=NOW() + 86400 + 600),
    "path outside prefix": lambda: sign(TRACK.replace("/320/", "/96/"), pfx=PFX),
    "prefix that does not end in a slash": lambda: sign(TRACK, pfx=PFX[:-1]),
    "prefix that is too short": lambda: sign(TRACK, pfx="/tracks/"),
    "prefix signed as a path": lambda: (lambda p: TRACK + f"?pfx={PFX}&exp={p}&kid=k1&sig="
                                        + mac(f"path={PFX}", {"exp": p, "kid": "k1"}, KEYS["k1"]))(str(NOW() + 600)),
    "ip malformed": lambda: sign(TRACK, ip="300.1.1.1"),
    "ip block with host bits beyond": lambda: sign(TRACK, ip="127.0.0.0/33"),
    "rate of nothing": lambda: sign(TRACK, rate=0),
    "geo malformed": lambda: sign(TRACK, geo="se"),
    "token in both places": lambda: sign_path(TRACK) + sign(TRACK)[len(TRACK):],
    "path token altered": lambda: altered(sign_path(TRACK)),
    "path token of another path": lambda: sign_path(TRACK).replace("/7.ogg", "/8.ogg"),
    "path token, deeper than allowed": lambda: sign_path(TRACK, depth=1),
    "path token with pfx": lambda: sign_path(TRACK, pfx=PFX),
    "path token of another prefix": lambda: sign_path(TRACK, depth=3).replace("/320/", "/96/"),
    "expired, with a wrong MAC": lambda: altered(sign(TRACK, exp=NOW() - 600)),
    "address, with a wrong MAC": lambda: altered(sign(TRACK, ip="192.0.2.1")),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_as_signature(edge, name):
    refused(edge, BAD[name]())


def test_expired(edge):
    refused(edge, sign(TRACK, exp=NOW() - 6), "expired")
    refused(edge, sign_path(TRACK, depth=3, exp=NOW() - 3600), "expired")
    # Expiry is judged before the address, and after everything that makes a signature invalid.
    refused(edge, sign(TRACK, exp=NOW() - 60, ip="192.0.2.1"), "expired")


def test_address(edge, files):
    url = sign(TRACK, ip="127.0.0.2")
    refused(edge, url, "address")
    assert edge.ask(url, source="127.0.0.2").body == files["segment"]
    block = sign(TRACK, ip="127.0.0.2/31")
    refused(edge, block, "address", source="127.0.0.4")
    assert edge.ask(block, source="127.0.0.3").status == 200
    refused(edge, sign(TRACK, ip="2001:db8::/32"), "address")
    refused(edge, sign_path(TRACK, depth=3, ip="127.0.0.2"), "address")


def test_country_not_known(edge):
    """Without a geo database no country is known, so any market is refused."""
    refused(edge, sign(TRACK, geo="SE,NO"), "geo")
    refused(edge, sign(TRACK, geo="-US"), "geo")
    refused(edge, sign(TRACK, geo="SE", ip="127.0.0.2"), "address")  # the address comes first


PATHS = ["/tracks/../7.ogg", "/tracks/./7.ogg", "/tracks/%2e%2e/7.ogg", "/tracks/.%2E/7.ogg", "//tracks/7.ogg",
         "/tracks//7.ogg", "/tracks/a%2Fb", "/tracks/a%2fb", "/tracks/a%5Cb", "/tracks/a%00b", "/tracks/a\\b",
         "/tracks/a%0Ab"[:-3] + "\x01", "/tracks/\xe9", "/tracks/%zz", "/tracks/%1", "/tracks/%", "/tracks/.."]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("form", ["bare", "query", "path"])
def test_path_that_may_not_be(edge, path, form):
    """400 comes before the signature: even a well-signed one does not help."""
    url = {"bare": lambda: path, "query": lambda: sign(path), "path": lambda: sign_path(path)}[form]()
    a = edge.ask(url)
    assert a.status == 400 and a.problem, a
    assert a.get("Segue-Reason") is None


def test_path_that_may_not_be_unsigned(edge):
    """Everywhere: a rule that ignores tokens is no way around it."""
    for path in PATHS:
        assert edge.ask(path.replace("/tracks", "/plain")).status == 400, path


def test_token_segment_may_hold_an_escaped_slash(edge, files):
    """The segment up to the next '/' is taken off before the path is judged."""
    url = sign_path(TRACK, depth=3, ip="127.0.0.0/8")
    assert edge.ask(url.replace("127.0.0.0/8", "127.0.0.0%2F8")).body == files["segment"]


def test_no_rule_means_signed_and_not_cached(edge, origin, fresh):
    path = f"/{fresh()}/nothing"
    refused(edge, path)
    for _ in range(2):
        a = edge.ask(sign(path))
        assert a.status == 404 and a.get("X-Cache") == "MISS"
    assert len(origin.requests(path)) == 2


def test_unsigned_rule_ignores_tokens(edge, files):
    """Not even a wrong one matters there; and it is part of the query as any other parameter."""
    assert edge.ask("/plain/x-small?sig=wrong&exp=1&uid=u").body == files["small"]
    assert edge.ask(altered(sign("/plain/x-small", uid="u"))).body == files["small"]


def test_one_object_whatever_the_token(edge, origin, fresh, files):
    """Tokens never enter the cache key, nor go up."""
    name = fresh()
    path = f"/tracks/{name}/320/7.ogg"
    origin.write(path[1:], files["small"])
    urls = [sign(path), sign(path, uid="u1"), sign(path, kid="k2"), sign(path, pfx=f"/tracks/{name}/320/"),
            sign_path(path), sign_path(path, depth=2, uid="u2"), sign(path, tail="&whatever=1")]
    for i, url in enumerate(urls):
        a = edge.ask(url)
        assert a.body == files["small"] and a.get("X-Cache") == ("HIT" if i else "MISS"), url
    lines = origin.requests(name)
    assert len(lines) == 1 and f"GET {path} " in lines[0]


def test_kept_parameters_beside_a_token(edge, origin, fresh):
    path = f"/signedkeep/echo/{fresh()}"
    a = edge.ask(sign(path, uid="u1", tail="&v=2&w=3"))
    assert f"uri={path}?v=2|" in a.body.decode()
    assert edge.ask(sign(path, tail="&v=2")).get("X-Cache") == "HIT"
    assert edge.ask(sign(path, tail="&v=3")).get("X-Cache") == "MISS"


def test_playlist_through_a_path_token(edge, files):
    """A player resolves the segments' relative URLs against the playlist's, token and all."""
    playlist = sign_path("/tracks/3n3Ppam7vgaVa1iaRUc9Lp/320/list.m3u8", depth=3, uid="u42")
    lines = edge.curl(playlist).decode().split()
    segments = [line for line in lines if line.endswith(".ogg")]
    assert segments == ["7.ogg", "8.ogg"]
    folder = playlist.rpartition("/")[0]
    assert edge.curl(f"{folder}/7.ogg") == files["segment"]
    assert edge.curl(f"{folder}/8.ogg") == files["small"]
    refused(edge, folder.replace("/320", "/96") + "/7.ogg")


def test_head_and_ranges_are_signed_alike(edge, files):
    url = sign(TRACK)
    assert edge.ask(url, "HEAD").status == 200
    a = edge.ask(url, fields=[("Range", "bytes=10-19")])
    assert (a.status, a.body) == (206, files["segment"][10:20])
    assert edge.ask(TRACK, "HEAD").status == 403
    assert edge.ask(TRACK, fields=[("If-None-Match", "*")]).status == 403


def test_seguectl_signs_what_the_edge_takes(edge, files):
    keys = edge.folder / "keys.yaml"

    def run(*argv):
        return subprocess.run([BUILD / "seguectl", *argv], capture_output=True, text=True, check=False)

    for options in ([], ["--uid", "u42"], ["--pfx", PFX], ["--depth", "3"], ["-p"], ["-p", "--depth", "3"],
                    ["--ip", "127.0.0.1"], ["--rate", "100MiB/s"], ["--kid", "k2"]):
        kid = [] if "--kid" in options else ["--kid", "k1"]
        out = run("sign", "--keys", keys, "--ttl", "1h", *kid, *options, TRACK)
        assert out.returncode == 0, out
        assert edge.ask(out.stdout.strip()).body == files["segment"], options
        assert run("verify", "--keys", keys, "--client", "127.0.0.1", out.stdout.strip()).returncode == 0, options


def test_trusted_proxy_says_who_the_client_is(start, origin, files):
    edge = start.edge(origin.port, trusted_proxies=["127.0.0.9"])
    url = sign(TRACK, ip="192.0.2.7")
    forwarded = [("X-Forwarded-For", "198.51.100.1, 192.0.2.7")]
    refused(edge, url, "address", source="127.0.0.9")
    assert edge.ask(url, source="127.0.0.9", fields=forwarded).body == files["segment"]
    # Anybody else only claims it.
    assert edge.ask(url, source="127.0.0.8", fields=forwarded).get("Segue-Reason") == "address"
    assert edge.ask(url, source="127.0.0.9", fields=[("X-Forwarded-For", "192.0.2.7, 198.51.100.1")]).status == 403


def test_optional_signing(start, origin, files):
    edge = start.edge(origin.port, signing={"required": False})
    assert edge.ask(TRACK).body == files["segment"]
    refused(edge, altered(sign(TRACK)))


def test_default_kid(start, origin, files):
    edge = start.edge(origin.port)
    start.keys(edge.folder, default_kid="k2")
    edge.reload()
    until(lambda: edge.ask(sign(TRACK, kid=None, key=KEYS["k2"])).status == 200, "default_kid takes effect")
    refused(edge, sign(TRACK, kid=None, key=KEYS["k1"]))
    start.keys(edge.folder, {"k1": KEYS["k1"]})  # the only key there is
    edge.reload()
    until(lambda: edge.ask(sign(TRACK, kid=None, key=KEYS["k1"])).status == 200, "the only key takes effect")


def test_keys_rotate_without_a_refusal(start, origin, files):
    """A key is added, signers change over, the old one goes: no request is refused and no connection lost."""
    edge = start.edge(origin.port)
    signing = {"kid": "k1"}
    stop, failures, counts = threading.Event(), [], {"k1": 0, "k3": 0}
    KEYS["k3"] = b"segue-test-key-three-abcdefghijk"

    def listen():
        with edge.connect() as c:
            while not stop.is_set():
                kid = signing["kid"]
                try:
                    a = c.ask(sign(TRACK, kid=kid))
                except (Closed, OSError) as e:
                    failures.append(repr(e))
                    return
                if a.status != 200 or a.body != files["segment"]:
                    failures.append(a)
                counts[kid] += 1

    threads = [threading.Thread(target=listen) for _ in range(4)]
    for t in threads:
        t.start()
    try:
        until(lambda: counts["k1"] > 20, "requests flow")
        start.keys(edge.folder, {k: KEYS[k] for k in ("k1", "k3")})
        edge.reload()
        # Every worker has it once new connections have been told so a few times over.
        until(lambda: all(edge.ask(sign(TRACK, kid="k3")).status == 200 for _ in range(20)), "the new key is known")
        signing["kid"] = "k3"
        until(lambda: counts["k3"] > 20, "requests flow")
        start.keys(edge.folder, {"k3": KEYS["k3"]})
        edge.reload()
        until(lambda: all(edge.ask(sign(TRACK, kid="k1")).status == 403 for _ in range(20)), "the old key is gone")
        after = counts["k3"]
        until(lambda: counts["k3"] > after + 20 or failures, "requests flow")
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert not failures, failures[:3]


def test_keys_have_a_time(start, origin):
    edge = start.edge(origin.port)
    secret = base64.b64encode(KEYS["k1"]).decode()
    (edge.folder / "keys.yaml").write_text(
        f"keys:\n  - {{kid: k1, secret: {secret}, not_before: {NOW() + 3600}}}\n"
        f"  - {{kid: k2, secret: {secret}, not_after: {NOW() - 3600}}}\n"
        f"  - {{kid: k4, secret: {secret}, not_before: {NOW() - 60}, not_after: {NOW() + 3600}}}\n")
    edge.reload()
    until(lambda: edge.ask(sign(TRACK, kid="k4", key=KEYS["k1"])).status == 200, "the keys are read")
    refused(edge, sign(TRACK, kid="k1"))
    refused(edge, sign(TRACK, kid="k2", key=KEYS["k1"]))


def test_an_escape_leads_around_no_rule(start, origin, files):
    """What a rule says of "(" it says of "%28", which is the same file at the origin."""
    origin.write("locked (a+b)/x.ogg", files["small"])
    edge = start.edge(origin.port, rules=[{"match": "/locked%20(a+b)/**"}, {"match": "/**", "signed": False}])
    assert edge.ask("/plain/x-small").status == 200
    for path in ("/locked%20(a+b)/x.ogg", "/locked%20%28a+b)/x.ogg", "/locked%20(a%2Bb)/x.ogg", "/locked%20(a+b%29/x.ogg"):
        assert edge.ask(path).status == 403, path
        assert edge.ask(sign(path)).body == files["small"], path
