"""What is stored, for how long, for whom, and what the answer says of it (RFC 9111, 9211, 5861, 9213, 8586)."""

import email.utils

import pytest

from harness import *


def http_date(unix_s):
    return email.utils.formatdate(unix_s, usegmt=True)


def twice(edge, target, **more):
    """X-Cache of two requests, one after the other."""
    answers = [edge.ask(target, **more) for _ in range(2)]
    return [a.get("X-Cache") for a in answers]


# --- what answers say ---


def test_miss_then_hit(edge, files, fresh):
    target = f"/plain/x-small?{fresh()}"
    miss, hit = edge.ask(target), edge.ask(target)
    assert miss.get("X-Cache") == "MISS" and miss.cache_status["name"] == "segue-edge"
    assert miss.cache_status["fwd"] == "uri-miss" and "hit" not in miss.cache_status
    assert hit.get("X-Cache") == "HIT" and hit.cache_status["hit"] is True
    assert 3590 <= int(hit.cache_status["ttl"]) <= 3600
    assert hit.get("Age") is not None and int(hit.get("Age")) < 60  # RFC 9111, 5.1: MUST
    assert miss.body == hit.body == files["small"]
    same = ("Content-Type", "ETag", "Last-Modified", "Content-Length", "Date", "Server")
    assert [miss.get(f) for f in same] == [hit.get(f) for f in same]
    assert edge.curl(target) == files["small"]


def test_what_goes_up(faulty, scripted, fresh):
    path = f"/pass/{fresh()}"
    scripted.on(path, reply())
    faulty.ask(path, fields=[("Connection", "x-hop, close"), ("X-Hop", "1"), ("X-Own", "kept"), ("Via", "1.0 front"),
                             ("CDN-Loop", "other"), ("Cookie", "a=b"), ("TE", "trailers"), ("Keep-Alive", "5"),
                             ("Proxy-Authorization", "Basic x"), ("Upgrade", "h2c"), ("Authorization", "Basic abc"),
                             ("Max-Forwards", "3"), ("X-Forwarded-For", "192.0.2.1"), ("Segue-Peer", "guess")])
    (asked,) = scripted.requests(path)
    assert asked.version == "HTTP/1.1"
    for hop in ("X-Hop", "Connection", "TE", "Keep-Alive", "Upgrade", "Proxy-Authorization", "Segue-Peer"):
        assert asked.get(hop) is None, hop  # RFC 9110, 7.6.1: what is about one connection goes no further
    assert asked.get("X-Own") == "kept" and asked.get("Cookie") == "a=b"
    assert asked.get("Authorization") == "Basic abc"
    assert ", ".join(asked.all("Via")) == "1.0 front, 1.1 segue-edge"
    assert ", ".join(asked.all("CDN-Loop")).startswith("other, segue-edge")
    assert asked.get("Host") == f"127.0.0.1:{scripted.port}"


def test_what_a_shared_fill_asks(edge, fresh):
    """An answer for everybody is asked for without what is one client's."""
    path = f"/plain/echo/{fresh()}"
    a = edge.ask(path, fields=[("Cookie", "a=b"), ("Range", "bytes=0-5"), ("Cache-Control", "no-cache"),
                               ("Accept-Language", "sv"), ("If-None-Match", '"x"'), ("X-Own", "kept")])
    whole = until(lambda: (lambda w: w.get("X-Cache") == "HIT" and w)(edge.ask(path)), "the object is there")
    got = dict(part.split("=", 1) for part in whole.body.decode().split("|"))
    assert got["cookie"] == "" and got["method"] == "GET" and got["language"] == "sv"
    assert got["range"] in ("bytes=0-1048575", "")
    assert a.status in (200, 206)


def test_loop(edge, fresh):
    """RFC 8586: 508 when we have seen it ourselves, and only then."""
    got = edge.ask(f"/pass/echo/{fresh()}").body.decode()
    loop = dict(part.split("=", 1) for part in got.split("|"))["loop"]
    a = edge.ask("/plain/x-small", fields=[("CDN-Loop", loop)])
    assert a.status == 508 and a.problem
    a = edge.ask("/plain/x-small", fields=[("CDN-Loop", f"one, {loop}, two")])
    assert a.status == 508
    assert edge.ask("/plain/x-small", fields=[("CDN-Loop", "segue-edge; node=0000000000000000")]).status == 200
    assert edge.ask("/plain/x-small", fields=[("CDN-Loop", "other-cdn")]).status == 200


def test_a_real_loop_ends(start):
    """Two edges that fetch from each other."""
    first, second = free_port(), free_port()
    a = start.edge(second, signing=False, listen=[{"address": f"127.0.0.1:{first}"}])
    start.edge(first, signing=False, listen=[{"address": f"127.0.0.1:{second}"}])
    answer = a.ask("/plain/x")
    assert answer.status == 508, answer


def test_hop_by_hop_fields_of_answers(faulty, scripted, fresh):
    path = f"/dyn/{fresh()}"
    scripted.on(path, reply(body=b"abc", fields=[("Connection", "x-hop, keep-alive"), ("X-Hop", "1"),
                                                 ("Keep-Alive", "timeout=5"), ("Proxy-Authenticate", "Basic"),
                                                 ("Upgrade", "h2c"), ("Trailer", "x"), ("X-End", "kept"),
                                                 ("Cache-Control", "max-age=60")]))
    for _ in range(2):
        a = faulty.ask(path)
        assert a.body == b"abc" and a.get("X-End") == "kept"
        for name in ("X-Hop", "Keep-Alive", "Proxy-Authenticate", "Upgrade", "Trailer", "Connection"):
            assert a.get(name) is None, name


def test_unknown_fields_are_kept(faulty, scripted, fresh):
    """RFC 9111, 3.1: every field, those not known too, and each of several lines."""
    path = f"/dyn/{fresh()}"
    scripted.on(path, reply(body=b"abc", fields=[("X-One", "1"), ("Link", "<a>"), ("Link", "<b>"),
                                                 ("Cache-Control", "max-age=60")]))
    for _ in range(2):
        a = faulty.ask(path)
        assert a.get("X-One") == "1" and a.all("Link") == ["<a>", "<b>"]


def test_cache_directives_pass_through(faulty, scripted, fresh):
    """RFC 9111, 5.2: whatever they mean to us; upward where the request is passed."""
    path = f"/pass/{fresh()}"
    scripted.on(path, reply(body=b"abc", fields=[("Cache-Control", 'max-age=5, x-new="a,b", no-transform')]))
    a = faulty.ask(path, fields=[("Cache-Control", "no-cache, x-wish=1")])
    assert a.get("Cache-Control") == 'max-age=5, x-new="a,b", no-transform'
    assert scripted.requests(path)[0].get("Cache-Control") == "no-cache, x-wish=1"
    path = f"/dyn/{fresh()}"
    scripted.on(path, reply(body=b"abc", fields=[("Cache-Control", "max-age=60, x-new=1")]))
    for _ in range(2):
        assert faulty.ask(path).get("Cache-Control") == "max-age=60, x-new=1"


def test_trailers_are_not_fields(faulty, scripted, fresh):
    """RFC 9110, 6.5.1: never merged into the head; we do not pass them on."""
    path = f"/dyn/{fresh()}"
    scripted.on(path, raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n"
                          "3\r\nabc\r\n0\r\nX-T: 1\r\nContent-Length: 9\r\nSet-Cookie: a=b\r\n\r\n", "keep"))
    for _ in range(2):
        a = faulty.ask(path)
        assert a.body == b"abc" and a.get("X-T") is None and a.get("Set-Cookie") is None


def test_body_is_never_transformed(faulty, scripted, fresh):
    """RFC 9110, 7.7: neither its bytes nor what describes them, whatever a client prefers."""
    path = f"/dyn/{fresh()}"
    scripted.on(path, reply(body=b"\x1f\x8b not really gzip", fields=[
        ("Content-Encoding", "gzip"), ("Content-Type", "text/plain; charset=utf-16"), ("Content-Language", "sv"),
        ("Content-Location", "/other"), ("Cache-Control", "max-age=60")]))
    for accept in ("gzip", "identity"):
        a = faulty.ask(path, fields=[("Accept-Encoding", accept)])
        assert a.body == b"\x1f\x8b not really gzip" and a.get("Content-Encoding") == "gzip"
        assert a.get("Content-Type") == "text/plain; charset=utf-16" and a.get("Content-Location") == "/other"


def test_age_that_is_no_number_is_ignored(faulty, scripted, fresh):
    """RFC 9111, 5.1."""
    path = f"/dyn/{fresh()}"
    scripted.on(path, reply(body=b"abc", fields=[("Age", "old"), ("Cache-Control", "max-age=60")]))
    assert twice(faulty, path) == ["MISS", "HIT"]


def test_newer_answer_takes_the_place(faulty, scripted, fresh):
    """RFC 9111, 4: the most recent of those that could be chosen."""
    path = f"/honour/{fresh()}"
    cc = [("Cache-Control", "max-age=600")]
    scripted.on(path, reply(body=b"one", fields=cc), reply(body=b"two", fields=cc))
    assert faulty.ask(path).body == b"one"
    assert faulty.ask(path, fields=[("Cache-Control", "no-cache")]).body == b"two"
    assert faulty.ask(path).body == b"two"


def test_validates_by_date_without_an_entity_tag(faulty, scripted, fresh):
    """RFC 9111, 4.3.1."""
    path = f"/dyn/{fresh()}"
    date = http_date(NOW() - 86400)
    scripted.on(path, reply(body=b"abc", fields=[("Last-Modified", date), ("Cache-Control", "max-age=5"), ("Age", "9")]),
                raw("HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\n\r\n", "keep"))
    faulty.ask(path)
    assert faulty.ask(path).body == b"abc"
    asked = scripted.requests(path)[1]
    assert asked.get("If-Modified-Since") == date and asked.get("If-None-Match") is None
    assert faulty.ask(path).get("X-Cache") == "HIT"


def test_date_is_added(faulty, scripted, fresh):
    """RFC 9110, 6.6.1: by a recipient with a clock, when it is missing."""
    path = f"/dyn/{fresh()}"
    scripted.on(path, reply(body=b"abc", fields=[("Cache-Control", "max-age=60")]))
    first = faulty.ask(path).get("Date")
    assert abs(email.utils.parsedate_to_datetime(first).timestamp() - NOW()) < 60
    assert faulty.ask(path).get("Date") == first


def test_surrogate_key_is_not_for_listeners(edge, fresh):
    assert edge.ask(f"/plain/x-small?tag=a&{fresh()}").get("Surrogate-Key") is None


def test_immutable_rule_tells_clients(start, origin, edge, files, fresh):
    a = edge.ask(f"/forever/x-small?{fresh()}")
    assert a.get("Cache-Control") == f"public, max-age={30 * 86400}, immutable"


# --- freshness ---


def test_freshness_of_the_origin(edge, origin, fresh, files):
    cases = {
        "max-age=60": True,
        "max-age=0": False,
        "s-maxage=60": True,
        "max-age=0,s-maxage=60": True,  # 5.2.2.10
        "max-age=60,s-maxage=0": False,
        "no-store": False,
        "private": False,
        "private,max-age=60": False,
        "max-age=60,no-store": False,
        "MAX-AGE=60": True,
        "public": False,  # nobody says for how long
        "max-age=x": False,  # 4.2.1: invalid freshness is stale
        "max-age=-1": False,
    }
    for cc, is_fresh in cases.items():
        name = fresh()
        for _ in range(2):
            assert edge.ask(f"/dyn/x-small?cc={cc}&{name}").body == files["small"]
        assert len(origin.requests(name)) == (1 if is_fresh else 2), cc


def test_age_counts(edge, fresh):
    """RFC 9111, 4.2.3: the age that it came with is part of its age."""
    target = f"/dyn/x-small?cc=max-age=100&age=40&{fresh()}"
    edge.ask(target)
    a = edge.ask(target)
    assert a.get("X-Cache") == "HIT" and 40 <= int(a.get("Age")) < 100
    assert 0 < int(a.cache_status["ttl"]) <= 60


def test_stale_is_validated(edge, origin, fresh, files):
    """RFC 9111, 4.3: asked with what is known; a 304 renews it, and the body is not sent again."""
    name = fresh()
    target = f"/dyn/x-small?cc=max-age=50&age=50&{name}"
    assert edge.ask(target).get("X-Cache") == "MISS"
    a = edge.ask(target)
    assert a.status == 200 and a.body == files["small"]
    assert a.cache_status["fwd"] == "stale" and a.cache_status["fwd-status"] == "304"
    lines = origin.requests(name)
    assert [line.split()[2] for line in lines] == ["206", "304"] and a.get("ETag") in lines[1].replace("\\x22", '"')


def test_expires(faulty, scripted, fresh):
    for expires, stored in ((http_date(NOW() + 3600), True), (http_date(NOW() - 10), False), ("0", False),
                            ("never", False)):
        path = f"/dyn/{fresh()}"
        scripted.on(path, reply(body=b"abc", fields=[("Expires", expires), ("Date", http_date(NOW()))]))
        assert twice(faulty, path) == ["MISS", "HIT" if stored else "MISS"], expires


def test_expires_is_second_to_max_age(faulty, scripted, fresh):
    path = f"/dyn/{fresh()}"
    scripted.on(path, reply(body=b"abc", fields=[("Expires", "0"), ("Cache-Control", "max-age=60")]))
    assert twice(faulty, path) == ["MISS", "HIT"]


def test_rule_ttl_is_second_to_the_origin(edge, fresh):
    assert twice(edge, f"/plain/x-small?{fresh()}") == ["MISS", "HIT"]
    a, b = (edge.ask(t) for t in [f"/plain/x-small?cc=max-age=5&{fresh()}"] * 2)
    assert int(b.cache_status.get("ttl", 0)) <= 5


def test_override(edge, fresh):
    """`override: true`: always the rule's ttl, but never what is private or not to be stored."""
    target = f"/override/x-small?cc=max-age=1&{fresh()}"
    edge.ask(target)
    assert int(edge.ask(target).cache_status["ttl"]) > 3000
    assert twice(edge, f"/override/x-small?cc=no-cache&{fresh()}") == ["MISS", "HIT"]
    assert twice(edge, f"/override/x-small?cc=no-store&{fresh()}") == ["MISS", "MISS"]
    assert twice(edge, f"/override/x-small?cc=private&{fresh()}") == ["MISS", "MISS"]


def test_no_cache_is_asked_each_time(edge, origin, fresh, files):
    """RFC 9111, 5.2.2.4: never without a successful validation."""
    name = fresh()
    target = f"/dyn/x-small?cc=no-cache&{name}"
    for _ in range(3):
        assert edge.ask(target).body == files["small"]
    assert len(origin.requests(name)) == 3


def test_cdn_cache_control(edge, fresh):
    """RFC 9213: the targeted field stands in place of Cache-Control, and goes on to others."""
    target = f"/dyn/x-small?cc=no-store&cdn=max-age=60&{fresh()}"
    assert twice(edge, target) == ["MISS", "HIT"]
    assert edge.ask(target).get("Cache-Control") == "no-store"
    assert twice(edge, f"/dyn/x-small?cc=max-age=60&cdn=no-store&{fresh()}") == ["MISS", "MISS"]


def test_must_understand(edge, fresh):
    """RFC 9111, 5.2.2.3: a status that is understood overrides no-store; another is not stored."""
    assert twice(edge, f"/dyn/x-small?cc=must-understand,no-store,max-age=60&{fresh()}") == ["MISS", "HIT"]


def test_negative_answers(edge, origin, fresh):
    """A 404 without freshness is kept for negative_ttl, which stops a stampede on a dead object."""
    for status in (404, 410):
        name = fresh()
        assert twice(edge, f"/plain/status/{status}?{name}") == ["MISS", "HIT"]
        name = fresh()
        assert twice(edge, f"/negative/status/{status}?{name}") == ["MISS", "MISS"]
        assert len(origin.requests(name)) == 2


def test_500_is_not_stored(edge, origin, fresh):
    name = fresh()
    for _ in range(2):
        a = edge.ask(f"/plain/status/500?{name}")
        assert a.status == 500 and a.body == b"broken\n"
    assert len(origin.requests(name)) == 2


def test_redirect_is_not_followed(edge, fresh):
    a = edge.ask(f"/plain/status/302?{fresh()}")
    assert a.status == 302 and a.get("Location").endswith("/plain/x-small")


def test_204(edge, fresh):
    with edge.connect() as c:
        for _ in range(2):
            a = c.ask(f"/plain/status/204?cc=max-age=60&{fresh()}")
            assert a.status == 204 and a.get("Content-Length") is None and a.get("Transfer-Encoding") is None


# --- stale answers ---


def test_stale_while_revalidate(edge, origin, fresh, files):
    """RFC 5861, 3: the stale one at once, and one request behind its back."""
    name = fresh()
    target = f"/dyn/x-small?cc=max-age=50,stale-while-revalidate=500&age=60&{name}"
    assert edge.ask(target).get("X-Cache") == "MISS"
    a = edge.ask(target)
    assert a.get("X-Cache") == "STALE" and a.body == files["small"]
    assert a.cache_status["hit"] is True and int(a.cache_status["ttl"]) <= -10
    until(lambda: len(origin.requests(name)) == 2, "the refresh behind")


def test_stale_while_revalidate_of_the_rule(edge, origin, fresh):
    name = fresh()
    target = f"/swr/x-small?cc=max-age=50&age=60&{name}"
    edge.ask(target)
    assert edge.ask(target).get("X-Cache") == "STALE"


def test_must_revalidate_is_never_stale(edge, origin, fresh):
    """RFC 9111, 5.2.2.2 and 5.2.2.8, 4.2.4; s-maxage does the same (5.2.2.10)."""
    for cc in ("max-age=50,must-revalidate", "max-age=50,proxy-revalidate", "s-maxage=50"):
        name = fresh()
        target = f"/swr/x-small?cc={cc}&age=60&{name}"
        edge.ask(target)
        assert edge.ask(target).get("X-Cache") != "STALE", cc
        assert len(origin.requests(name)) == 2


def test_beyond_stale_while_revalidate(edge, origin, fresh):
    name = fresh()
    target = f"/dyn/x-small?cc=max-age=50,stale-while-revalidate=5&age=60&{name}"
    edge.ask(target)
    assert edge.ask(target).get("X-Cache") != "STALE"


def test_stale_if_error_with_the_origin_killed(start, files):
    """RFC 5861, 4. What may not be served stale is an honest 502 or 504."""
    origin = start.nginx()
    origin.write("objects/x-small", files["small"])
    edge = start.edge(origin.port)
    may = ["/dyn/x-small?cc=max-age=50,stale-if-error=500&age=60", "/sie/x-small?cc=max-age=50&age=60",
           "/sie/x-small?cc=max-age=50&age=61&head"]
    must_not = ["/sie/x-small?cc=max-age=50,must-revalidate&age=60", "/sie/x-small?cc=s-maxage=50&age=60",
                "/dyn/x-small?cc=max-age=50,stale-if-error=5&age=60", "/sie/x-small?cc=no-cache"]
    still = "/plain/x-small"
    for target in may + must_not + [still]:
        assert edge.ask(target).status == 200
    origin.kill()
    for target in may:
        for _ in range(2):
            a = edge.ask(target, "HEAD" if "head" in target else "GET")
            assert a.status == 200 and a.get("X-Cache") == "STALE", (target, a)
            assert int(a.get("Age")) >= 60 and int(a.cache_status["ttl"]) < 0
            assert a.body == files["small"] or "head" in target
    for target in must_not + ["/plain/x-small?another"]:
        a = edge.ask(target)
        assert a.status in (502, 504) and a.problem, (target, a)
    assert edge.ask(still).get("X-Cache") == "HIT"
    start.forget(origin)
    # And when it is back, so is the fresh answer.
    start.nginx(origin.root, origin.port)
    until(lambda: edge.ask(may[0]).get("X-Cache") == "HIT" or edge.ask(may[0]).cache_status.get("fwd-status"),
          "the origin is asked again")


def test_stale_if_error_on_5xx(faulty, scripted, fresh):
    path = f"/dyn/{fresh()}"
    good = reply(body=b"good", fields=[("Cache-Control", "max-age=1,stale-if-error=600"), ("Age", "5"),
                                       ("ETag", '"1"')])
    scripted.on(path, good, reply(503, b"down"), reply(500, b"down"), good)
    assert faulty.ask(path).body == b"good"
    for _ in range(2):
        a = faulty.ask(path)
        assert a.status == 200 and a.body == b"good" and a.get("X-Cache") == "STALE"
    assert faulty.ask(path).get("X-Cache") != "STALE"


def test_origin_fails_without_anything_stored(faulty, scripted, fresh):
    path = f"/dyn/{fresh()}"
    scripted.on(path, reply(503, b"down", [("Retry-After", "7")]))
    a = faulty.ask(path)
    assert a.status == 503 and a.body == b"down" and a.get("Retry-After") == "7"


# --- for whom ---


def test_vary(edge, origin, fresh):
    """RFC 9111, 4.1: one answer for each set of the fields that it names."""
    name = fresh()
    target = f"/dyn/x-small?cc=max-age=60&vary=Accept-Language,X-Own&{name}"
    sv, en = [("Accept-Language", "sv")], [("Accept-Language", "en")]
    assert [edge.ask(target, fields=f).get("X-Cache") for f in (sv, en, sv, en, [], [])] == \
        ["MISS", "MISS", "HIT", "HIT", "MISS", "HIT"]
    # Whitespace and the split into lines make no other request (4.1, normalisation is allowed).
    assert edge.ask(target, fields=[("accept-language", "  sv ")]).get("X-Cache") == "HIT"
    assert len(origin.requests(name)) == 3


def test_vary_asterisk(edge, origin, fresh):
    name = fresh()
    assert twice(edge, f"/dyn/x-small?cc=max-age=60&vary=*&{name}") == ["MISS", "MISS"]
    assert len(origin.requests(name)) == 2


def test_encodings_are_variants(edge, fresh, files):
    """nginx compresses and says Vary: Accept-Encoding; each client gets what it can read."""
    import gzip

    target = f"/plain/gzip/x-text?{fresh()}"
    for _ in range(2):
        a = edge.ask(target, fields=[("Accept-Encoding", "gzip")])
        assert a.get("Content-Encoding") == "gzip" and gzip.decompress(a.body) == files["text"]
        b = edge.ask(target)
        assert b.get("Content-Encoding") is None and b.body == files["text"]
    assert edge.ask(target, fields=[("Accept-Encoding", "gzip")]).get("X-Cache") == "HIT"
    assert edge.ask(target).get("X-Cache") == "HIT"


def test_set_cookie(edge, origin, fresh):
    """Not stored unless the rule allows; then without the cookie, which is one client's."""
    name = fresh()
    target = f"/plain/x-small?cookie=a&{name}"
    for _ in range(2):
        assert edge.ask(target).get("Set-Cookie") == "a"
    assert len(origin.requests(name)) == 2
    target = f"/cookie/x-small?cookie=a&{fresh()}"
    answers = [edge.ask(target) for _ in range(2)]
    assert answers[1].get("X-Cache") == "HIT" and answers[1].get("Set-Cookie") is None


def test_authorization(edge, origin, fresh):
    """RFC 9111, 3.5: only with public, must-revalidate or s-maxage, and where the rule allows."""
    auth = [("Authorization", "Bearer abc")]
    for path, cc, stored in (("plain", "public,max-age=60", False), ("auth", "max-age=60", False),
                             ("auth", "public,max-age=60", True), ("auth", "s-maxage=60", True),
                             ("auth", "max-age=60,must-revalidate", True)):
        name = fresh()
        got = twice(edge, f"/{path}/x-small?cc={cc}&{name}", fields=auth)
        assert got == ["MISS", "HIT" if stored else "MISS"], (path, cc)
    # The field itself goes up, and the answer to one client is not the other's.
    got = [edge.ask(f"/plain/echo/{name}", fields=[("Authorization", f"Basic {x}")]).body for x in ("one", "two")]
    assert b"authorization=Basic one|" in got[0] and b"authorization=Basic two|" in got[1]


def test_client_directives(edge, fresh):
    """A CDN does not let clients reach the origin at will, unless the rule says so; only-if-cached costs nothing."""
    target = f"/plain/x-small?{fresh()}"
    a = edge.ask(target, fields=[("Cache-Control", "only-if-cached")])
    assert a.status == 504 and a.problem  # RFC 9111, 5.2.1.7
    edge.ask(target)
    for directive in ("no-cache", "no-store", "max-age=0", "min-fresh=99999", "only-if-cached"):
        assert edge.ask(target, fields=[("Cache-Control", directive)]).get("X-Cache") == "HIT", directive
    target = f"/honour/x-small?{fresh()}"
    edge.ask(target)
    assert edge.ask(target).get("X-Cache") == "HIT"
    for directive in ("no-cache", "min-fresh=99999"):
        a = edge.ask(target, fields=[("Cache-Control", directive)])
        assert a.cache_status.get("fwd") == "stale", (directive, a)
    target = f"/honour/x-small?cc=max-age=50&age=60&{fresh()}"
    edge.ask(target)
    assert edge.ask(target, fields=[("Cache-Control", "max-stale")]).get("X-Cache") == "STALE"


def test_query_is_part_of_the_key(edge, fresh):
    a, b = f"/plain/echo/{fresh()}?a=1", None
    b = a.replace("a=1", "a=2")
    assert edge.ask(a).get("X-Cache") == "MISS" and edge.ask(b).get("X-Cache") == "MISS"
    assert edge.ask(a).body != edge.ask(b).body
    path = f"/keep/echo/{fresh()}"
    assert f"uri={path}?v=1|" in edge.ask(f"{path}?b=2&v=1&c=3").body.decode()
    assert edge.ask(f"{path}?v=1&other=9").get("X-Cache") == "HIT"
    assert edge.ask(f"{path}?v=2").get("X-Cache") == "MISS"


def test_one_canonical_path(edge, origin, fresh):
    """Escapes of unreserved characters are the characters (RFC 3986, 6.2.2.2); the others upper case."""
    name = fresh()
    assert edge.ask(f"/plain/echo/{name}-%7Ea%2cb").get("X-Cache") == "MISS"
    assert edge.ask(f"/plain/%65cho/{name}-~a%2Cb").get("X-Cache") == "HIT"
    assert f" /plain/echo/{name}-~a%2Cb " in origin.requests(name)[0]


def test_pass_is_not_cached(edge, origin, fresh):
    name = fresh()
    for _ in range(2):
        a = edge.ask(f"/pass/x-small?cc=max-age=60&{name}")
        assert a.get("X-Cache") == "MISS" and a.cache_status["fwd"] == "bypass"
    assert len(origin.requests(name)) == 2


def test_pass_ranges_and_conditionals_are_the_origins(edge, files, fresh):
    a = edge.ask(f"/pass/x-small?{fresh()}", fields=[("Range", "bytes=0-9")])
    assert a.status == 206 and a.body == files["small"][:10]
    etag = a.get("ETag")
    a = edge.ask(f"/pass/x-small?{fresh()}", fields=[("If-None-Match", etag)])
    assert a.status == 304 and a.body == b""
    assert edge.ask("/pass/x-small", "HEAD").get("Content-Length") == "4096"


def test_origin_without_validators_or_ranges(edge, files, fresh):
    """What the origin cannot give in slices comes whole."""
    for name in ("small", "long"):
        target = f"/plain/bare/x-{name}?{fresh()}"
        for _ in range(2):
            assert edge.ask(target).body == files[name]
    target = f"/plain/noetag/x-small?{fresh()}"
    assert twice(edge, target) == ["MISS", "HIT"]


# --- the chain ---


def test_edge_and_shield(start, origin, files, fresh):
    shield = start.shield([{"match": "/**", "url": f"http://127.0.0.1:{origin.port}"}])
    edge = start.edge(shield.port)
    target = f"/plain/x-segment?tag=a&{fresh()}"
    a = edge.ask(target)
    assert a.body == files["segment"]
    names = [m.split(";")[0] for m in ", ".join(a.all("Cache-Status")).split(", ")]
    assert names[-1] == "segue-edge"
    # Another edge finds it at the shield, with the age that it has there.
    other = start.edge(shield.port)
    assert other.ask(target).body == files["segment"]
    assert len(origin.requests(target)) == 1
    # The tags are for caches: the shield passes them on, the edge does not.
    assert shield.ask(target).get("Surrogate-Key") == "a"
    assert edge.ask(target).get("Surrogate-Key") is None


def test_peer_token(start, origin, files):
    folder = start.folder
    (folder / "token").write_text("a-token-of-32-characters-or-more\n")
    (folder / "token").chmod(0o600)
    shield = start.shield([{"match": "/**", "url": f"http://127.0.0.1:{origin.port}"}],
                          peers={"token": str(folder / "token")})
    upstream = {"url": f"http://127.0.0.1:{shield.port}"}
    good = start.edge([{**upstream, "peer_token": str(folder / "token")}])
    bad = start.edge([upstream])
    assert good.ask("/plain/x-small").body == files["small"]
    assert bad.ask("/plain/x-small").status == 403
    assert shield.ask("/plain/x-small").status == 403
    # What a client sends under that name is not passed on.
    assert bad.ask("/plain/x-small?1", fields=[("Segue-Peer", "a-token-of-32-characters-or-more")]).status == 403


def test_backup_upstream(start, origin, files):
    dead = free_port()
    edge = start.edge([{"url": f"http://127.0.0.1:{dead}"},
                       {"url": f"http://127.0.0.1:{origin.port}", "backup": True}])
    for i in range(5):
        assert edge.ask(f"/plain/x-small?{i}").body == files["small"]
