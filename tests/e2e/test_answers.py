"""Ranges and conditionals (RFC 9110, 13 and 14), answered from the cache and on a miss."""

import email.utils
import itertools

import pytest

from harness import *

N = 4096
RANGES = {
    "first": ("bytes=0-9", [(0, 9)]),
    "one byte": ("bytes=5-5", [(5, 5)]),
    "to the end": ("bytes=4000-", [(4000, 4095)]),
    "everything": ("bytes=0-", [(0, 4095)]),
    "suffix": ("bytes=-10", [(4086, 4095)]),
    "suffix longer than it is": ("bytes=-10000", [(0, 4095)]),
    "beyond the end is cut": ("bytes=4090-10000", [(4090, 4095)]),
    "unit in other letters": ("Bytes=0-9", [(0, 9)]),
    "two": ("bytes=0-9,20-29", [(0, 9), (20, 29)]),
    "two in the wrong order": ("bytes=20-29,0-9", [(20, 29), (0, 9)]),
    "with space": ("bytes= 0-9 , 20-29", [(0, 9), (20, 29)]),
    "one of two beyond": ("bytes=0-9,5000-6000", [(0, 9)]),
    "sixteen": ("bytes=" + ",".join(f"{i * 100}-{i * 100 + 9}" for i in range(16)),
                [(i * 100, i * 100 + 9) for i in range(16)]),
}


def parts_of(a):
    """Content-Range and bytes of each part of a multipart answer."""
    kind, _, boundary = a.get("Content-Type").partition("; boundary=")
    assert kind == "multipart/byteranges" and boundary
    pieces = (b"\r\n" + a.body.removeprefix(b"\r\n")).split(b"\r\n--" + boundary.encode())
    assert pieces[0] == b"" and pieces[-1].strip() == b"--"
    parts = []
    for piece in pieces[1:-1]:
        head, _, body = piece.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        assert fields["Content-Type"] == "audio/ogg"
        parts.append((fields["Content-Range"], body))
    return parts


@pytest.mark.parametrize("state", ["miss", "hit"])
@pytest.mark.parametrize("name", RANGES)
def test_range(edge, files, fresh, name, state):
    value, wanted = RANGES[name]
    target = f"/plain/x-small?{fresh()}"
    if state == "hit":
        edge.ask(target)
    a = edge.ask(target, fields=[("Range", value)])
    assert a.status == 206 and a.get("X-Cache") == state.upper(), a
    got = [(a.get("Content-Range"), a.body)] if len(wanted) == 1 else parts_of(a)
    assert got == [(f"bytes {first}-{last}/{N}", files["small"][first:last + 1]) for first, last in wanted]
    if len(wanted) > 1:
        assert a.get("Content-Range") is None
    else:
        assert a.get("Content-Type") == "audio/ogg"
    assert a.get("ETag") and a.get("Date")  # 15.3.7: what a 200 would have had
    if name == "first":
        assert edge.curl(target, "-r", "0-9") == files["small"][:10]


IGNORED = ["bytes", "bytes=", "bytes=a-b", "bytes=9-0", "bytes=-", "bytes=1-2-3", "bytes=0-9;", "items=0-9", "0-9",
           "bytes=" + ",".join(f"{i}-{i}" for i in range(17)), "bytes=0-9,x", "bytes=18446744073709551616-"[:0] or
           "bytes=--1"]


@pytest.mark.parametrize("state", ["miss", "hit"])
@pytest.mark.parametrize("value", IGNORED)
def test_range_that_is_ignored(edge, files, fresh, value, state):
    """What is no range, or of an unknown unit, or more than 16 of them: the whole object (RFC 9110, 14.2)."""
    target = f"/plain/x-small?{fresh()}"
    if state == "hit":
        edge.ask(target)
    a = edge.ask(target, fields=[("Range", value)])
    assert a.status == 200 and a.body == files["small"] and a.get("Content-Range") is None


@pytest.mark.parametrize("state", ["miss", "hit"])
@pytest.mark.parametrize("value", ["bytes=4096-", "bytes=5000-6000", "bytes=-0", "bytes=4096-4097,9999-",
                                   "bytes=99999999-"])
def test_416(edge, fresh, value, state):
    target = f"/plain/x-small?{fresh()}"
    if state == "hit":
        edge.ask(target)
    a = edge.ask(target, fields=[("Range", value)])
    assert a.status == 416 and a.get("Content-Range") == f"bytes */{N}" and a.problem, a


def test_range_of_an_empty_object(edge, fresh):
    target = f"/plain/x-empty?{fresh()}"
    assert edge.ask(target).body == b""
    a = edge.ask(target, fields=[("Range", "bytes=0-0")])
    assert a.status == 416 and a.get("Content-Range") == "bytes */0"
    a = edge.ask(f"/plain/x-empty?{fresh()}", fields=[("Range", "bytes=-5")])
    assert a.status in (200, 416) and a.body in (b"",) or a.get("Content-Range") == "bytes */0"


def test_range_of_head_is_ignored(edge, files):
    """Range is defined for GET only (RFC 9110, 14.2)."""
    a = edge.ask("/plain/x-small", "HEAD", [("Range", "bytes=0-9")])
    assert a.status == 200 and a.get("Content-Length") == str(N)


def test_head(edge, fresh, origin):
    target = f"/plain/x-small?{fresh()}"
    first = edge.ask(target, "HEAD")
    assert first.status == 200 and first.get("Content-Length") == str(N) and first.body == b""
    again = until(lambda: (lambda a: a.get("X-Cache") == "HIT" and a)(edge.ask(target)), "the object is there")
    same = ("Content-Type", "Content-Length", "ETag", "Last-Modified", "Accept-Ranges", "Date")
    assert [first.get(f) for f in same] == [again.get(f) for f in same]
    assert edge.curl(target, "-I").startswith(b"HTTP/1.1 200")
    assert len(origin.requests(target)) == 1


def validators(edge, target):
    a = edge.ask(target)
    return a.get("ETag"), a.get("Last-Modified")


def http_date(unix_s):
    return email.utils.formatdate(unix_s, usegmt=True)


def test_accept_ranges(edge):
    assert edge.ask("/plain/x-small").get("Accept-Ranges") == "bytes"


MODIFIED = 1_700_000_000


@pytest.mark.parametrize("state", ["miss", "hit"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_not_modified(edge, fresh, method, state):
    etag, date = validators(edge, "/plain/x-small")
    cases = [[("If-None-Match", etag)], [("If-None-Match", "*")], [("If-None-Match", f'"a", W/{etag}, "b"')],
             [("If-None-Match", '"a"'), ("If-None-Match", etag)],
             [("If-Modified-Since", date)], [("If-Modified-Since", http_date(MODIFIED + 3600))],
             [("If-None-Match", etag), ("If-Modified-Since", http_date(0))],  # the first rules (13.1.3)
             [("If-None-Match", etag), ("Range", "bytes=0-9")]]
    for fields in cases:
        target = f"/plain/x-small?{fresh()}"
        if state == "hit":
            edge.ask(target)
        a = edge.ask(target, method, fields)
        assert a.status == 304 and a.body == b"", fields
        # 15.4.5: what a 200 would have had of these; and nothing that describes a body that is not there.
        assert a.get("ETag") == etag and a.get("Date")
        assert a.get("Content-Length") is None and a.get("Content-Type") is None
        # The miss fills the cache with a whole answer; ours may have come before its end.
        until(lambda: edge.ask(target).get("X-Cache") == "HIT", "the object is there")


@pytest.mark.parametrize("state", ["miss", "hit"])
def test_modified(edge, files, fresh, state):
    etag, date = validators(edge, "/plain/x-small")
    cases = [[("If-None-Match", '"other"')], [("If-None-Match", etag.strip('"'))],
             [("If-Modified-Since", http_date(MODIFIED - 1))], [("If-Modified-Since", "yesterday")],
             [("If-None-Match", '"other"'), ("If-Modified-Since", date)]]
    for fields in cases:
        target = f"/plain/x-small?{fresh()}"
        if state == "hit":
            edge.ask(target)
        a = edge.ask(target, fields=fields)
        assert a.status == 200 and a.body == files["small"], fields


def test_obsolete_dates(edge):
    """RFC 9110, 5.6.7: recipients accept all three."""
    for date in ("Tue, 14 Nov 2023 22:13:20 GMT", "Tuesday, 14-Nov-23 22:13:20 GMT", "Tue Nov 14 22:13:20 2023"):
        assert edge.ask("/plain/x-small", fields=[("If-Modified-Since", date)]).status == 304, date


def test_preconditions_of_origins_are_not_a_caches(edge, files):
    """RFC 9111, 4.3.2: If-Match and If-Unmodified-Since are not applicable to a cache."""
    for fields in ([("If-Match", '"other"')], [("If-Unmodified-Since", http_date(0))]):
        assert edge.ask("/plain/x-small", fields=fields).body == files["small"]


def test_preconditions_reach_the_origin_where_it_is_passed(edge):
    """RFC 9110, 13.1.1: nginx judges If-Match."""
    assert edge.ask("/pass/x-small", fields=[("If-Match", '"other"')]).status == 412


@pytest.mark.parametrize("state", ["miss", "hit"])
def test_if_range(edge, files, fresh, state):
    etag, date = validators(edge, "/plain/x-small")
    cases = [(etag, 206), ('"other"', 200), ("W/" + etag, 200), (date, 206), (http_date(MODIFIED + 1), 200),
             ("nonsense", 200)]
    for value, status in cases:
        target = f"/plain/x-small?{fresh()}"
        if state == "hit":
            edge.ask(target)
        a = edge.ask(target, fields=[("Range", "bytes=0-9"), ("If-Range", value)])
        assert a.status == status, (value, a)
        assert a.body == (files["small"][:10] if status == 206 else files["small"])


def test_if_range_without_range(edge, files):
    assert edge.ask("/plain/x-small", fields=[("If-Range", '"other"')]).body == files["small"]


def test_404_has_no_ranges_or_conditions(edge, fresh):
    """RFC 9110, 13.2.1 and 14.2: only where the answer would be 200."""
    target = f"/plain/status/404?{fresh()}"
    for _ in range(2):
        a = edge.ask(target, fields=[("Range", "bytes=0-1"), ("If-None-Match", "*")])
        assert a.status == 404 and a.body == b"gone\n"


@pytest.mark.parametrize("first,last", [(0, 0), (1048575, 1048576), (1048576, 2097151), (2000000, 9000000),
                                        (9999999, 9999999), (5_000_000, 5_000_001)])
def test_range_across_slices(edge, files, first, last):
    a = edge.ask("/plain/x-big", fields=[("Range", f"bytes={first}-{last}")])
    assert a.status == 206 and a.get("Content-Range") == f"bytes {first}-{last}/10000000"
    assert a.body == files["big"][first:last + 1]


def test_multipart_across_slices(edge, files):
    ranges = [(1048570, 1048580), (9_000_000, 9_999_999), (0, 5), (3_000_000, 6_000_000)]
    a = edge.ask("/plain/x-big", fields=[("Range", "bytes=" + ",".join(f"{f}-{t}" for f, t in ranges))])
    assert a.status == 206
    assert parts_of(a) == [(f"bytes {f}-{t}/10000000", files["big"][f:t + 1]) for f, t in ranges]


def test_multipart_of_a_miss_across_slices(edge, files, fresh):
    ranges = [(9_000_000, 9_000_010), (0, 5), (5_000_000, 5_000_010)]
    a = edge.ask(f"/plain/x-big?{fresh()}",
                 fields=[("Range", "bytes=" + ",".join(f"{f}-{t}" for f, t in ranges))])
    assert a.status == 206
    assert parts_of(a) == [(f"bytes {f}-{t}/10000000", files["big"][f:t + 1]) for f, t in ranges]
