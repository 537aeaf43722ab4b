"""Every error of RFC 9113's sections 3 to 8, frame by frame: what is sent, and what may come of it.

H2_PEER=PORT runs the cases that need nothing of Segue's against another server that speaks h2c there and has the
files plain/x-small and plain/x-empty: what a public server does shows that a case asks for what the RFC asks for."""

import os

import pytest

from h2peer import *
from harness import *

EMPTY, SMALL = "/plain/x-empty", "/plain/x-small"
PEER = os.environ.get("H2_PEER")


@pytest.fixture(scope="module")
def edge(module, request):
    if PEER:
        pytest.skip("needs Segue")
    origin = request.getfixturevalue("origin")
    conf = [{"address": f"127.0.0.1:{free_port()}", "http2": True}]
    return module.edge(origin.port, listen=conf, workers=1, hosts=[HOST])


@pytest.fixture(scope="module")
def port(request):
    return int(PEER) if PEER else request.getfixturevalue("edge").port


# --- what may come of it ---


def connection(*codes):
    return {f"connection {code}" for code in codes}


def either(*codes):
    """A stream error, that may be made one of the connection (5.4)."""
    return {f"stream {code}" for code in codes} | connection(*codes)


IGNORED = {"ignored"}
MALFORMED = either("PROTOCOL_ERROR") | {"status 400"}  # 8.1.1
AFTER_THE_END = IGNORED | either("STREAM_CLOSED")  # 5.1, "closed"


def outcome(p, target, allowed, patience=10):
    """What the server did about it, in the words of `allowed`."""
    try:
        if all(a.startswith("connection") for a in allowed):
            p.end(patience)
        elif "ignored" not in allowed:
            p.until(lambda: p.closed or p.gone_away or target.over, "something comes of it", patience)
        if not p.closed and not p.gone_away:
            assert p.ask(SMALL, "HEAD", patience=patience).status == 200  # which needs no window
    except Closed:
        pass
    except (TimeoutError, AssertionError) as e:
        assert "in vain" in str(e) or isinstance(e, TimeoutError), e
    if p.closed or p.gone_away:
        try:
            p.end(patience)
        except TimeoutError:
            return f"GOAWAY {p.gone_away}, but the connection stays open"
        return f"connection {p.gone_away and p.gone_away[1]}"
    if target is not None and target.reset not in (None, "NO_ERROR"):
        return f"stream {target.reset}"
    if target is not None and target.status and "ignored" not in allowed:
        return f"status {target.status}"
    return "ignored"


# --- streams in the states of 5.1 ---


def opened(p):
    """Open: the request has no end yet."""
    return p.stream(), lambda n: headers(n, block(request_fields("/pass/echo/open", "POST")), END_HEADERS)


def cancelled(p):
    s, head = opened(p)
    return s, lambda n: head(n) + rst(n)


def held(p):
    """Half-closed (remote): asked, the answer waits for a window."""
    return p.request(SMALL).head(), None


def ended(p):
    return p.ask(EMPTY), None


def on(state, *frames):
    """Sends what frames(stream number) make to a stream in this state; together with what brings it there, so that no
    answer comes between."""

    def do(p):
        s, before = state(p)
        p.send(before(s.number) if before else b"", *(f(s.number) for f in frames))
        return s

    return do


def just(*frames):
    return lambda p: p.send(*frames) and None


def get(path=SMALL, **more):
    return block(request_fields(path, **more))


def headers(stream, text=None, flags=END_HEADERS | END_STREAM, **more):
    return frame(HEADERS, flags, stream, get() if text is None else text, **more)


def trailers(stream):
    return headers(stream, block([("x-after", "all")]))


WINDOW_0 = {"window": 0}
RAW = {"preface": False}

FRAMES = [
    # 3.4 HTTP/2 connection preface
    ("3.4-first-frame-is-ping", just(PREFACE, ping()), connection("PROTOCOL_ERROR"), RAW),
    ("3.4-first-frame-is-headers", just(PREFACE, headers(1)), connection("PROTOCOL_ERROR"), RAW),
    ("3.4-first-frame-is-an-ack", just(PREFACE, settings(flags=ACK)), connection("PROTOCOL_ERROR"), RAW),
    ("3.4-first-frame-is-goaway", just(PREFACE, goaway()), connection("PROTOCOL_ERROR"), RAW),

    # 4.1 frame format
    ("4.1-unknown-type", just(frame(0x42, 0xff, 0, b"x" * 100)), IGNORED),
    ("4.1-unknown-type-on-idle-stream", just(frame(0x42, 0, 77, b"")), IGNORED),
    ("4.1-unknown-type-on-open-stream", on(held, lambda n: frame(0x42, 0xff, n, b"x" * 100)), IGNORED, WINDOW_0),
    ("4.1-undefined-flags", just(ping(flags=0xfe)), IGNORED),
    ("4.1-reserved-bit", just(ping(stream=1 << 31)), IGNORED),
    ("4.1-reserved-bit-of-window-update", just(window_update(0, 1 << 31 | 1)), IGNORED, {"connection_window": 65535}),

    # 4.2 frame size
    ("4.2-data-too-large", on(opened, lambda n: data(n, bytes(16385))), either("FRAME_SIZE_ERROR")),
    ("4.2-headers-too-large", just(headers(1, get(fields=[("x", "y" * 16400)]))), connection("FRAME_SIZE_ERROR")),
    ("4.2-continuation-too-large", just(headers(1, flags=END_STREAM), frame(CONTINUATION, END_HEADERS, 1, block(
        [("x", "y" * 16400)]))), connection("FRAME_SIZE_ERROR")),
    ("4.2-settings-too-large", just(settings([(0x99, 1)] * 2731)), connection("FRAME_SIZE_ERROR")),
    ("4.2-unknown-too-large", just(frame(0x42, 0, 0, bytes(16385))), connection("FRAME_SIZE_ERROR") | IGNORED),
    ("4.2-only-a-head-of-2^24-1", just(frame(DATA, 0, 1, b"", length=(1 << 24) - 1)), connection(
        "FRAME_SIZE_ERROR", "PROTOCOL_ERROR")),

    # 4.3 field section compression
    ("4.3-index-0", just(headers(1, get() + b"\x80")), connection("COMPRESSION_ERROR")),
    ("4.3-index-beyond-the-table", just(headers(1, get() + b"\xff\x80\x01")), connection("COMPRESSION_ERROR")),
    ("4.3-name-index-beyond-the-table", just(headers(1, get() + b"\x7f\x80\x01\x01a")), connection("COMPRESSION_ERROR")),
    ("4.3-huffman-padding-too-long", just(headers(1, get() + b"\x00\x81\xff\x01a")), connection("COMPRESSION_ERROR")),
    ("4.3-huffman-end-of-string", just(headers(1, get() + b"\x00\x84\xff\xff\xff\xff\x01a")), connection(
        "COMPRESSION_ERROR")),
    ("4.3-number-too-large", just(headers(1, get() + b"\xff" * 12 + b"\x01")), connection("COMPRESSION_ERROR")),
    ("4.3-table-larger-than-allowed", just(headers(1, integer(1 << 20, 5, 0x20) + get())), connection("COMPRESSION_ERROR")),
    ("4.3-table-size-after-a-field", just(headers(1, get() + b"\x20")), connection("COMPRESSION_ERROR")),
    ("4.3-cut-in-a-field", just(headers(1, get() + b"\x00\x05abc")), connection("COMPRESSION_ERROR")),
    ("4.3-table-size-0", lambda p: p.send(headers(1, b"\x20" + get())) and p.stream(1), {"status 200"}),
    ("4.3-error-in-trailers", on(opened, lambda n: headers(n, b"\x80")), connection("COMPRESSION_ERROR")),

    # 5.1 stream states
    ("5.1-idle-data", just(data(1, b"x", True)), connection("PROTOCOL_ERROR")),
    ("5.1-idle-rst-stream", just(rst(1)), connection("PROTOCOL_ERROR")),
    ("5.1-idle-window-update", just(window_update(1, 1)), connection("PROTOCOL_ERROR")),
    ("5.1-idle-continuation", just(frame(CONTINUATION, END_HEADERS, 1, get())), connection("PROTOCOL_ERROR")),
    ("5.1-idle-priority", just(priority(1)), IGNORED),
    ("5.1-idle-of-the-server-data", just(data(2, b"x")), connection("PROTOCOL_ERROR")),
    ("5.1-idle-of-the-server-window-update", just(window_update(2, 1)), connection("PROTOCOL_ERROR")),
    ("5.1-idle-of-the-server-rst-stream", just(rst(2)), connection("PROTOCOL_ERROR")),
    ("5.1-half-closed-data", on(held, lambda n: data(n, b"x")), either("STREAM_CLOSED"), WINDOW_0),
    ("5.1-half-closed-empty-data", on(held, lambda n: data(n, b"", True)), either("STREAM_CLOSED"), WINDOW_0),
    ("5.1-half-closed-headers", on(held, headers), either("STREAM_CLOSED"), WINDOW_0),
    ("5.1-half-closed-trailers", on(held, trailers), either("STREAM_CLOSED"), WINDOW_0),
    ("5.1-half-closed-continuation", on(held, lambda n: frame(CONTINUATION, END_HEADERS, n, b"")), connection(
        "PROTOCOL_ERROR", "STREAM_CLOSED"), WINDOW_0),
    ("5.1-half-closed-window-update", lambda p: p.grant(held(p)[0], 10), IGNORED, WINDOW_0),
    ("5.1-half-closed-priority", on(held, priority), IGNORED, WINDOW_0),
    ("5.1-half-closed-rst-stream", on(held, rst), IGNORED, WINDOW_0),
    ("5.1-closed-data", on(ended, lambda n: data(n, b"x")), AFTER_THE_END),
    ("5.1-closed-headers", on(ended, headers), AFTER_THE_END | connection("PROTOCOL_ERROR")),
    ("5.1-closed-continuation", on(ended, lambda n: frame(CONTINUATION, END_HEADERS, n, b"")), connection(
        "PROTOCOL_ERROR", "STREAM_CLOSED")),
    ("5.1-closed-window-update", on(ended, lambda n: window_update(n, 10)), IGNORED),
    ("5.1-closed-rst-stream", on(ended, rst), IGNORED),
    ("5.1-closed-priority", on(ended, priority), IGNORED),
    ("5.1-reset-data", on(cancelled, lambda n: data(n, b"x")), AFTER_THE_END),
    ("5.1-reset-headers", on(cancelled, trailers), AFTER_THE_END | connection("PROTOCOL_ERROR")),
    ("5.1-reset-window-update", on(cancelled, lambda n: window_update(n, 1)), AFTER_THE_END),
    ("5.1-reset-twice", on(cancelled, rst), AFTER_THE_END),
    ("5.1-reset-priority", on(cancelled, priority), IGNORED),

    # 5.1.1 stream identifiers
    ("5.1.1-even", just(headers(2)), connection("PROTOCOL_ERROR")),
    ("5.1.1-zero", just(headers(0)), connection("PROTOCOL_ERROR")),
    ("5.1.1-lower-than-the-last", lambda p: p.send(headers(5), headers(3)) and (p.stream(5), p.stream(3))[1],
     connection("PROTOCOL_ERROR", "STREAM_CLOSED")),

    # 5.3, 6.3 priority, which is deprecated: of its errors only those of its form are left. RFC 7540, 5.3.1, has one more.
    ("5.3.1-depends-on-itself", just(priority(7, depends=7)), IGNORED | either("PROTOCOL_ERROR")),
    ("5.3.2-headers-with-priority", lambda p: p.send(headers(1, struct.pack(">IB", 0, 15) + get(), END_HEADERS
                                                             | END_STREAM | PRIORITISED)) and p.stream(1), {"status 200"}),

    # 5.4.2 no RST_STREAM for an RST_STREAM
    ("5.4.2-rst-stream-is-not-answered", on(opened, rst), IGNORED),
    ("5.4.2-unknown-error-code", on(opened, lambda n: rst(n, 0xdeadbeef)), IGNORED),

    # 5.5 extensions
    ("5.5-unknown-frame-in-a-header-block", just(headers(1, flags=END_STREAM), frame(0x42, 0, 1, b"x")), connection(
        "PROTOCOL_ERROR")),
    ("5.5-unknown-setting", just(settings({0x99: 1, 0xffff: 1 << 31})), IGNORED),

    # 6.1 DATA
    ("6.1-stream-0", just(data(0, b"x")), connection("PROTOCOL_ERROR")),
    ("6.1-padding-as-long-as-the-frame", on(opened, lambda n: frame(DATA, PADDED, n, b"\x06hello")), connection(
        "PROTOCOL_ERROR")),
    ("6.1-padding-longer-than-the-frame", on(opened, lambda n: frame(DATA, PADDED, n, b"\xffhello")), connection(
        "PROTOCOL_ERROR")),
    ("6.1-padded-without-a-length", on(opened, lambda n: frame(DATA, PADDED, n, b"")), connection(
        "PROTOCOL_ERROR", "FRAME_SIZE_ERROR")),
    ("6.1-nothing-but-padding", on(opened, lambda n: data(n, b"", pad=255)), IGNORED),
    ("6.1-padded", on(opened, lambda n: data(n, b"hello", True, pad=9)), {"status 200"}),

    # 6.2 HEADERS
    ("6.2-padding-longer-than-the-block", just(headers(1, b"\x06hello", END_HEADERS | PADDED)), connection("PROTOCOL_ERROR")),
    ("6.2-padding-over-the-priority", just(headers(1, b"\x04" + bytes(5) + b"abc", END_HEADERS | PADDED | PRIORITISED)),
     connection("PROTOCOL_ERROR")),
    ("6.2-padded-without-a-length", just(headers(1, b"", END_HEADERS | PADDED)), connection(
        "PROTOCOL_ERROR", "FRAME_SIZE_ERROR")),
    ("6.2-priority-without-its-fields", just(headers(1, b"\0\0\0", END_HEADERS | PRIORITISED)), connection(
        "PROTOCOL_ERROR", "FRAME_SIZE_ERROR")),
    ("6.2-padded", lambda p: p.send(headers(1, b"\x03" + get() + bytes(3), END_HEADERS | END_STREAM | PADDED))
     and p.stream(1), {"status 200"}),

    # 6.3 PRIORITY
    ("6.3-stream-0", just(priority(0)), connection("PROTOCOL_ERROR")),
    ("6.3-length", on(opened, lambda n: frame(PRIORITY, 0, n, bytes(4))), either("FRAME_SIZE_ERROR")),
    ("6.3-length-on-idle-stream", just(frame(PRIORITY, 0, 9, bytes(6))), connection("FRAME_SIZE_ERROR") | IGNORED),

    # 6.4 RST_STREAM
    ("6.4-stream-0", just(rst(0)), connection("PROTOCOL_ERROR")),
    ("6.4-too-short", on(opened, lambda n: frame(RST_STREAM, 0, n, bytes(3))), connection("FRAME_SIZE_ERROR")),
    ("6.4-too-long", on(opened, lambda n: frame(RST_STREAM, 0, n, bytes(5))), connection("FRAME_SIZE_ERROR")),

    # 6.5 SETTINGS
    ("6.5-stream-not-0", just(settings({}, stream=1)), connection("PROTOCOL_ERROR")),
    ("6.5-length", just(frame(SETTINGS, 0, 0, bytes(5))), connection("FRAME_SIZE_ERROR")),
    ("6.5-ack-with-payload", just(settings({1: 1}, flags=ACK)), connection("FRAME_SIZE_ERROR")),
    ("6.5-ack-that-nobody-waits-for", just(settings(flags=ACK)), IGNORED | connection("PROTOCOL_ERROR")),
    ("6.5-empty", just(settings({})), IGNORED),
    ("6.5.2-enable-push-2", just(settings({ENABLE_PUSH: 2})), connection("PROTOCOL_ERROR")),
    ("6.5.2-window-2^31", just(settings({INITIAL_WINDOW_SIZE: 1 << 31})), connection("FLOW_CONTROL_ERROR")),
    ("6.5.2-window-2^32-1", just(settings({INITIAL_WINDOW_SIZE: (1 << 32) - 1})), connection("FLOW_CONTROL_ERROR")),
    ("6.5.2-frame-16383", just(settings({MAX_FRAME_SIZE: 16383})), connection("PROTOCOL_ERROR")),
    ("6.5.2-frame-0", just(settings({MAX_FRAME_SIZE: 0})), connection("PROTOCOL_ERROR")),
    ("6.5.2-frame-2^24", just(settings({MAX_FRAME_SIZE: 1 << 24})), connection("PROTOCOL_ERROR")),
    ("6.5.2-everything-at-its-largest", just(settings({
        HEADER_TABLE_SIZE: (1 << 32) - 1, MAX_CONCURRENT_STREAMS: (1 << 32) - 1, INITIAL_WINDOW_SIZE: WINDOW_MAX,
        MAX_HEADER_LIST_SIZE: (1 << 32) - 1})), IGNORED),
    ("6.5.2-everything-at-its-smallest", just(settings({
        HEADER_TABLE_SIZE: 0, MAX_CONCURRENT_STREAMS: 0, INITIAL_WINDOW_SIZE: 0, MAX_FRAME_SIZE: 16384})), IGNORED),
    ("6.5.2-priorities-2", just(settings({NO_RFC7540_PRIORITIES: 2})), IGNORED | connection("PROTOCOL_ERROR")),

    # 6.6 PUSH_PROMISE, which a client never sends (8.4)
    ("6.6-from-a-client", on(opened, lambda n: frame(PUSH_PROMISE, END_HEADERS, n, struct.pack(">I", 2) + get())),
     connection("PROTOCOL_ERROR")),
    ("6.6-stream-0", just(frame(PUSH_PROMISE, END_HEADERS, 0, struct.pack(">I", 2) + get())), connection("PROTOCOL_ERROR")),

    # 6.7 PING
    ("6.7-stream-not-0", just(ping(stream=1)), connection("PROTOCOL_ERROR")),
    ("6.7-too-short", just(ping(b"1234567")), connection("FRAME_SIZE_ERROR")),
    ("6.7-too-long", just(ping(b"123456789")), connection("FRAME_SIZE_ERROR")),
    ("6.7-ack-that-nobody-waits-for", just(ping(flags=ACK)), IGNORED),

    # 6.8 GOAWAY
    ("6.8-stream-not-0", just(goaway(stream=1)), connection("PROTOCOL_ERROR")),
    ("6.8-too-short", just(frame(GOAWAY, 0, 0, bytes(7))), connection("FRAME_SIZE_ERROR")),

    # 6.9 WINDOW_UPDATE
    ("6.9-zero-on-a-stream", on(held, lambda n: window_update(n, 0)), either("PROTOCOL_ERROR"), WINDOW_0),
    ("6.9-zero-on-the-connection", just(window_update(0, 0)), connection("PROTOCOL_ERROR")),
    ("6.9-too-short", just(frame(WINDOW_UPDATE, 0, 0, bytes(3))), connection("FRAME_SIZE_ERROR")),
    ("6.9-too-long", on(held, lambda n: frame(WINDOW_UPDATE, 0, n, b"\0\0\0\x01\0")), connection("FRAME_SIZE_ERROR"), WINDOW_0),
    ("6.9.1-overflow-of-the-connection", just(window_update(0, WINDOW_MAX)), connection("FLOW_CONTROL_ERROR")),
    ("6.9.1-overflow-of-a-stream", on(held, lambda n: window_update(n, WINDOW_MAX), lambda n: window_update(n, WINDOW_MAX)),
     either("FLOW_CONTROL_ERROR"), {**WINDOW_0, "connection_window": 65535}),
    ("6.9.1-overflow-of-a-stream-by-one", on(opened, lambda n: window_update(n, WINDOW_MAX - 65534)), either(
        "FLOW_CONTROL_ERROR"), {"window": 65535}),
    ("6.9.1-as-large-as-can-be", on(opened, lambda n: window_update(n, WINDOW_MAX - 65535)), IGNORED, {"window": 65535}),
    ("6.9.2-overflow-by-settings", on(opened, lambda n: window_update(n, WINDOW_MAX - 65535), lambda n: settings(
        {INITIAL_WINDOW_SIZE: 65536})), connection("FLOW_CONTROL_ERROR"), {"window": 65535}),

    # RFC 9218, 7.1 PRIORITY_UPDATE
    ("9218-7.1-stream-not-0", just(frame(PRIORITY_UPDATE, 0, 1, struct.pack(">I", 3) + b"u=1")), connection("PROTOCOL_ERROR")),
    ("9218-7.1-of-stream-0", just(priority_update(0, "u=1")), connection("PROTOCOL_ERROR")),
    ("9218-7.1-too-short", just(frame(PRIORITY_UPDATE, 0, 0, bytes(3))), connection("FRAME_SIZE_ERROR")),
    ("9218-7.1-of-a-push", just(priority_update(2, "u=1")), connection("PROTOCOL_ERROR")),
    ("9218-7.1-nonsense", just(priority_update(1, "(((")), IGNORED | either("PROTOCOL_ERROR")),
    ("9218-7.1-empty", just(priority_update(1, "")), IGNORED),
    ("9218-7.1-of-a-closed-stream", lambda p: p.send(priority_update(ended(p)[0].number, "u=1")) and None, IGNORED),

    # 6.10 CONTINUATION
    ("6.10-stream-0", just(headers(1, flags=END_STREAM), frame(CONTINUATION, END_HEADERS, 0, b"")), connection("PROTOCOL_ERROR")),
    ("6.10-of-another-stream", just(headers(1, flags=END_STREAM), frame(CONTINUATION, END_HEADERS, 3, b"")), connection(
        "PROTOCOL_ERROR")),
    ("6.10-after-the-end-of-headers", just(headers(1), frame(CONTINUATION, END_HEADERS, 1, b"")), connection("PROTOCOL_ERROR")),
    ("6.10-after-data", on(opened, lambda n: data(n, b"x"), lambda n: frame(CONTINUATION, END_HEADERS, n, b"")),
     connection("PROTOCOL_ERROR")),
    *((f"6.10-{name}-within-a-header-block", just(headers(1, flags=END_STREAM), between), connection("PROTOCOL_ERROR"))
      for name, between in [("data", data(1, b"x")), ("headers", headers(1)), ("headers-of-another", headers(3)),
                            ("priority", priority(3)), ("rst-stream", rst(1)), ("settings", settings({})),
                            ("ping", ping()), ("goaway", goaway()), ("window-update", window_update(0, 1))]),
    ("6.10-in-pieces", lambda p: p.send(headers(1, get()[:1], END_STREAM), *(
        frame(CONTINUATION, 0, 1, get()[i:i + 20]) for i in range(1, 61, 20)), frame(
            CONTINUATION, END_HEADERS, 1, get()[61:])) and p.stream(1), {"status 200"}),
    ("6.10-empty-pieces", lambda p: p.send(headers(1, b"", END_STREAM), frame(CONTINUATION, 0, 1, get()), frame(
        CONTINUATION, END_HEADERS, 1, b"")) and p.stream(1), {"status 200"}),
]


def ids(cases):
    names = [c[0] for c in cases]
    assert len(set(names)) == len(names)
    return names


@pytest.mark.parametrize("case", FRAMES, ids=ids(FRAMES))
def test_frames(port, case):
    name, send, allowed, options = (*case, {})[:4]
    with H2(port, **options) as p:
        if options.get("preface", True):
            p.started()
        target = None
        try:
            target = send(p)
        except Closed:
            pass
        got = outcome(p, target, allowed)
        assert got in allowed, (got, p.gone_away, p.log[-6:])
    with H2(port) as p:  # whatever it was, the next is served
        assert p.ask(SMALL).status == 200


# --- 8: requests that are no requests ---


def fields(*more, **pseudo):
    """The fields of a request, with pseudo-fields changed by name (None leaves one out)."""
    return request_fields(pseudo.pop("path", "/pass/echo/malformed"), fields=more, **pseudo)


def moved(name):
    """A pseudo-field after a regular one."""
    all_ = fields()
    return [f for f in all_ if f[0] != name] + [("x", "y")] + [f for f in all_ if f[0] == name]


def sends(fields, *rest, end=True):
    """HEADERS in plain form, and more frames at once, so that no answer overtakes them."""

    def do(p):
        s = p.stream()
        p.send(headers(s.number, block(fields), END_HEADERS | (END_STREAM if end else 0)), *(f(s.number) for f in rest))
        return s

    return do


def post(*more, path="/pass/echo/body"):
    return fields(*more, method="POST", path=path)


REQUESTS = [
    # 8.1 framing
    ("8.1-trailers-without-end-stream", sends(post(), lambda n: headers(n, block([("x", "y")]), END_HEADERS), end=False),
     MALFORMED),
    ("8.1-pseudo-field-in-trailers", sends(post(), lambda n: data(n, b"x"), lambda n: headers(n, block([(":path", "/")])),
                                           end=False), MALFORMED),
    ("8.1-upper-case-in-trailers", sends(post(), lambda n: headers(n, block([("X", "y")])), end=False), MALFORMED),
    ("8.1-connection-in-trailers", sends(post(), lambda n: headers(n, block([("connection", "x")])), end=False), MALFORMED),

    # 8.1.1 malformed messages: content-length against DATA
    ("8.1.1-content-length-too-large", sends(post(("content-length", "2")), lambda n: data(n, b"x", True), end=False), MALFORMED),
    ("8.1.1-content-length-too-small", sends(post(("content-length", "2")), lambda n: data(n, b"xyz", True), end=False), MALFORMED),
    ("8.1.1-content-length-without-body", sends(post(("content-length", "2"))), MALFORMED),
    ("8.1.1-content-length-0-with-body", sends(post(("content-length", "0")), lambda n: data(n, b"x", True), end=False), MALFORMED),
    ("8.1.1-content-length-and-trailers", sends(post(("content-length", "2")), lambda n: data(n, b"x"), trailers, end=False),
     MALFORMED),
    ("8.1.1-content-length-no-number", sends(post(("content-length", "1x")), lambda n: data(n, b"x", True), end=False), MALFORMED),
    ("8.1.1-content-length-negative", sends(post(("content-length", "-1")), lambda n: data(n, b"x", True), end=False), MALFORMED),
    ("8.1.1-content-length-with-sign", sends(post(("content-length", "+1")), lambda n: data(n, b"x", True), end=False), MALFORMED),
    ("8.1.1-content-length-empty", sends(post(("content-length", "")), lambda n: data(n, b"x", True), end=False), MALFORMED),
    ("8.1.1-content-length-beyond-64-bits", sends(post(("content-length", "18446744073709551617")), lambda n: data(
        n, b"x", True), end=False), MALFORMED | {"status 413"}),
    ("8.1.1-content-length-twice-and-different", sends(post(("content-length", "1"), ("content-length", "2")), lambda n: data(
        n, b"x", True), end=False), MALFORMED),
    ("8.1.1-content-length-list", sends(post(("content-length", "1, 2")), lambda n: data(n, b"x", True), end=False), MALFORMED),
    ("8.1.1-get-with-content-length-without-body", sends(fields(("content-length", "5"))), MALFORMED),

    # 8.2 fields
    ("8.2.1-upper-case", sends(fields(("X-Upper", "y"))), MALFORMED),
    ("8.2.1-upper-case-within", sends(fields(("x-uPper", "y"))), MALFORMED),
    *((f"8.2.1-name-with-{code:#04x}", sends(fields((f"x{chr(code)}y", "z"))), MALFORMED)
      for code in [0, 1, 0xa, 0xd, 0x20, 0x3a, 0x7f, 0x80, 0xff]),
    ("8.2.1-name-empty", sends(fields(("", "z"))), MALFORMED),
    *((f"8.2.1-value-with-{code:#04x}", sends(fields(("x", f"y{chr(code)}z"))), MALFORMED) for code in [0, 0xa, 0xd]),
    *((f"8.2.1-value-{name}", sends(fields(("x", value))), MALFORMED)
      for name, value in [("begins-with-space", " y"), ("begins-with-tab", "\ty"), ("ends-with-space", "y "),
                          ("ends-with-tab", "y\t")]),
    *((f"8.2.1-{name[1:]}-with-{code:#04x}", sends([(n, v + chr(code) if n == name else v) for n, v in fields()]),
       MALFORMED) for name in [":path", ":authority", ":method", ":scheme"] for code in [0, 0xa, 0xd, 0x20]),
    *((f"8.2.2-{name}", sends(fields((name, value))), MALFORMED)
      for name, value in [("connection", "close"), ("connection", "x")][:1] + [
          ("keep-alive", "1"), ("proxy-connection", "close"), ("transfer-encoding", "chunked"), ("upgrade", "h2c")]),
    ("8.2.2-transfer-encoding-with-body", sends(post(("transfer-encoding", "chunked")), lambda n: data(
        n, b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n", True), end=False), MALFORMED),
    ("8.2.2-te-gzip", sends(fields(("te", "gzip"))), MALFORMED),
    ("8.2.2-te-trailers-and-gzip", sends(fields(("te", "trailers, gzip"))), MALFORMED),
    ("8.2.2-te-trailers", sends(fields(("te", "trailers"), path=SMALL)), {"status 200"}),
    ("8.2.3-cookies-in-pieces", sends(fields(("cookie", "a=1"), ("cookie", "b=2"), path=SMALL)), {"status 200"}),

    # 8.3 control data
    ("8.3-unknown-pseudo-field", sends(fields() + [(":unknown", "x")]), MALFORMED),
    ("8.3-status-in-a-request", sends(fields() + [(":status", "200")]), MALFORMED),
    ("8.3-protocol-without-leave", sends([(":method", "CONNECT"), (":protocol", "websocket"), *fields()[1:]]), MALFORMED),
    *((f"8.3-{name[1:]}-after-a-field", sends(moved(name)), MALFORMED) for name in [":method", ":scheme", ":authority", ":path"]),
    *((f"8.3-{name[1:]}-twice", sends([f for f in fields() for _ in range(1 + (f[0] == name))]), MALFORMED)
      for name in [":method", ":scheme", ":authority", ":path"]),
    *((f"8.3.1-no-{name}", sends(fields(**{name: None})), MALFORMED) for name in ["method", "scheme", "path"]),
    *((f"8.3.1-empty-{name}", sends(fields(**{name: ""})), MALFORMED) for name in ["method", "scheme", "path", "authority"]),
    ("8.3.1-nothing", sends([]), MALFORMED),
    ("8.3.1-no-pseudo-fields", sends([("host", HOST)]), MALFORMED),
    ("8.3.1-path-without-slash", sends(fields(path="pass/echo/malformed")), MALFORMED),
    ("8.3.1-path-is-a-uri", sends(fields(path=f"http://{HOST}/pass/echo/malformed")), MALFORMED),
    ("8.3.1-path-with-fragment", sends(fields(path="/pass/echo/malformed#x")), MALFORMED),
    ("8.3.1-asterisk-of-get", sends(fields(path="*")), MALFORMED),
    ("8.3.1-authority-with-user", sends(fields(authority=f"me@{HOST}")), MALFORMED | {"status 421"}),
    ("8.3.1-no-authority-and-no-host", sends(fields(authority=None)), MALFORMED),
    ("8.3.1-host-for-authority", sends(fields(("host", HOST), authority=None, path=SMALL)), {"status 200"}),
    ("8.3.1-host-as-authority", sends(fields(("host", HOST), path=SMALL)), {"status 200"}),
    ("8.3.1-host-unlike-authority", sends(fields(("host", "other.test"))), MALFORMED),
    ("8.3.1-host-twice", sends(fields(("host", HOST), ("host", HOST), authority=None)), MALFORMED),
    ("8.5-connect", sends([(":method", "CONNECT"), (":authority", f"{HOST}:443")]), {
        "status 405", "status 501", "status 400"} | either("REFUSED_STREAM", "CONNECT_ERROR", "PROTOCOL_ERROR")),
    ("8.5-connect-with-path", sends([(":method", "CONNECT"), (":authority", HOST), (":path", "/"), (":scheme", "http")]), MALFORMED),
    ("8.5-connect-without-authority", sends([(":method", "CONNECT")]), MALFORMED),
]


@pytest.mark.parametrize("case", REQUESTS, ids=ids(REQUESTS))
def test_requests(port, request, case):
    """Over a connection that may go on, and nothing of what is malformed comes to the origin as another request."""
    name, send, allowed = case
    with H2(port) as p:
        p.started()
        target = send(p)
        got = outcome(p, target, allowed)
        assert got in allowed, (got, target, p.gone_away, p.log[-6:])
    if not PEER and allowed == MALFORMED:
        assert request.getfixturevalue("origin").requests("/pass/echo/malformed") == []


# --- what takes more than one line to say ---


@pytest.mark.parametrize("text", [PREFACE[:18] + b"XX\r\n\r\n", PREFACE[:14] + b"\r\nSM\r\n\r\n" + bytes(9),
                                  PREFACE[:-2] + b"\n\n" + settings({})], ids=["letters", "line", "ends"])
def test_preface_that_is_wrong(port, text):
    """3.4: a connection error; GOAWAY may be left out."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as s:
        s.sendall(text)
        s.settimeout(PATIENCE)
        try:
            while s.recv(65536):
                pass
        except ConnectionResetError:
            pass
    with H2(port) as p:
        assert p.ask(SMALL).status == 200


def test_everything_byte_by_byte(port):
    """3.4, 4.1: TCP has no frames."""
    with H2(port, preface=False) as p:
        for byte in PREFACE + settings({ENABLE_PUSH: 0}) + headers(1):
            p.send(bytes([byte]))
        p.initial_window = p.window = WINDOW_DEFAULT
        s = p.stream(1).wait()
        assert s.status == 200 and len(s.body) == 4096


def test_header_block_in_eight_pieces_byte_by_byte(port):
    """6.10: as many CONTINUATIONs as are allowed, however TCP cuts them."""
    text = get()
    with H2(port) as p:
        p.started()
        cuts = [i * len(text) // 9 for i in range(10)]
        pieces = [text[a:b] for a, b in zip(cuts, cuts[1:])]
        for byte in headers(1, pieces[0], END_STREAM) + b"".join(
                frame(CONTINUATION, END_HEADERS if i == 7 else 0, 1, piece) for i, piece in enumerate(pieces[1:])):
            p.send(bytes([byte]))
        assert p.stream(1).wait().status == 200


def test_everything_in_one_segment(port):
    """3.4: a client need not wait for the server's settings."""
    with H2(port, preface=False) as p:
        p.initial_window = p.window = WINDOW_DEFAULT
        streams = [p.stream(n) for n in range(1, 20, 2)]
        p.send(PREFACE, settings({}), *(headers(s.number) for s in streams), ping(b"together"))
        for s in streams:
            assert s.wait().status == 200 and len(s.body) == 4096
        p.until(lambda: p.pongs == [b"together"], "PING is answered")


def test_server_begins_with_settings(port):
    """3.4, 5.1.2, 6.5: the first frame (h2peer checks), with a limit of streams that is no limit on browsers."""
    with H2(port) as p:
        p.started()
        assert p.server_settings.get(MAX_CONCURRENT_STREAMS, 0) >= 100
        assert p.server_settings.get(ENABLE_PUSH, 0) == 0


def test_compression_state_outlives_refused_requests(port):
    """4.3: what a malformed request puts into the table stays there, and later ones may use it."""
    with H2(port) as p:
        p.started()
        bad = p.stream()
        p.send(headers(bad.number, get() + literal("x-kept", SMALL, 0x40) + literal("BAD", "y")))
        p.until(lambda: bad.over, "it is refused")
        good = p.stream()
        # Index 62 is the newest entry; its name x-kept is used for the new field.
        p.send(headers(good.number, get() + integer(62, 7, 0x80) + integer(62, 4) + b"\x01z"))
        assert good.wait().status == 200


def test_more_streams_than_allowed(edge):
    """5.1.2: REFUSED_STREAM or PROTOCOL_ERROR; the others go on."""
    with H2(edge.port, window=0) as p:
        p.started()
        n = p.server_settings[MAX_CONCURRENT_STREAMS]
        streams = [p.request(SMALL) for _ in range(n)]
        one_more = p.request(SMALL)
        try:
            p.until(lambda: one_more.over or p.gone_away, "the last is refused")
        except Closed:
            pass
        if p.gone_away:
            assert p.gone_away[1] in ("PROTOCOL_ERROR", "ENHANCE_YOUR_CALM")
        else:
            assert one_more.reset in ("REFUSED_STREAM", "PROTOCOL_ERROR")
            for s in streams:
                p.grant(s, 4096)
            assert all(s.wait().status == 200 and len(s.body) == 4096 for s in streams)


def test_streams_over_and_over(port):
    """5.1.2: those that have ended do not count."""
    with H2(port) as p:
        p.started()
        for _ in range(5):
            streams = [p.request(SMALL) for _ in range(90)]
            assert all(s.wait().status == 200 for s in streams)


def test_last_stream_number(port):
    """5.1.1: 2^31-1 is a stream; after it comes a new connection."""
    with H2(port) as p:
        p.started()
        assert p.ask(SMALL, stream=WINDOW_MAX).status == 200


@pytest.mark.parametrize("kind", ["settings", "ping"])
def test_acknowledged_in_order(port, kind):
    """6.5.3, 6.7: each once, with what it carried."""
    with H2(port) as p:
        p.started()
        acks = p.settings_acks
        p.send(*(settings({INITIAL_WINDOW_SIZE: 1000 + i}) if kind == "settings" else ping(b"%08d" % i) for i in range(10)))
        p.pong()
        if kind == "settings":
            assert p.settings_acks == acks + 10
        else:
            assert p.pongs == [b"%08d" % i for i in range(10)] + [b"are-you?"]


def test_settings_in_order(port):
    """6.5: of a value that stands twice the last holds."""
    with H2(port, window=0) as p:
        p.started()
        s = p.request(SMALL).head()
        s.window = p.initial_window = 4096
        p.send(settings([(INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 1), (INITIAL_WINDOW_SIZE, 4096)]))
        assert len(s.wait().body) == 4096


def test_goaway_of_a_client(port):
    """6.8: what is under way ends well, then the server closes, too."""
    with H2(port, window=0) as p:
        p.started()
        s = p.request(SMALL).head()
        p.send(goaway(), window_update(s.number, 4096))
        s.window += 4096
        assert len(s.wait().body) == 4096
        p.close()


def test_windows_are_kept_to_the_byte(port):
    """6.9.1: h2peer checks each frame; here that all of it comes."""
    with H2(port, window=1, connection_window=WINDOW_DEFAULT) as p:
        p.started()
        s = p.request(SMALL).head()
        for n in [1, 2, 1000, 0, 3]:
            have = len(s.body)
            due = s.window
            p.until(lambda: len(s.body) == have + due, "as much as the window allows")
            p.pong()
            assert len(s.body) == have + due
            if n:
                p.grant(s, n)
        p.grant(s, 100_000)
        assert len(s.wait().body) == 4096


def test_window_that_becomes_negative(port):
    """6.9.2: SETTINGS take back what was granted; the server waits until there is more than nothing."""
    with H2(port, window=1000) as p:
        p.started()
        s = p.request(SMALL).head()
        p.until(lambda: len(s.body) == 1000, "all that the window allows")
        p.resize(500)
        assert s.window == -500
        p.grant(s, 500)
        p.pong()
        assert len(s.body) == 1000
        p.grant(s, 1)
        p.until(lambda: len(s.body) == 1001, "the next byte")
        p.resize(10_000)
        assert len(s.wait().body) == 4096


def test_settings_do_not_move_the_window_of_the_connection(port):
    """6.9.2."""
    with H2(port, window=100_000, connection_window=WINDOW_DEFAULT) as p:
        p.started()
        for _ in range(15):
            assert len(p.ask(SMALL).body) == 4096
        p.resize(200_000)
        s = p.request(SMALL).head()
        p.pong()
        p.until(lambda: len(s.body) == 4095, "the last of the connection's window")
        p.pong()
        assert not s.over
        p.grant(None, 1)
        assert len(s.wait().body) == 4096


def test_empty_answer_needs_no_window(port):
    """6.9.1: nothing but the end is sent, whatever the window."""
    with H2(port, window=0) as p:
        p.started()
        assert p.ask(EMPTY).status == 200
        s = p.ask(SMALL, "HEAD")
        assert s.status == 200 and s.get("content-length") == "4096" and not s.body


def test_body_beyond_the_window(edge, scripted_edge):
    """6.9: the server takes no more than it has granted, and grants no more than it can pass on."""
    scripted, edge = scripted_edge
    go = threading.Event()
    scripted.on("/pass/held", lambda asked, c: go.wait(PATIENCE) and False)
    with H2(edge.port) as p:
        p.started()
        s = p.request("/pass/held", "POST", end=False)
        sent = 0
        while sent < 64 << 20:
            try:
                p.until(lambda: s.credit > 0 and p.credit > 0, "more is granted", patience=1)
            except AssertionError:
                break
            n = min(FRAME_MAX, s.credit, p.credit)
            p.send(data(s.number, bytes(n)))
            s.credit -= n
            p.credit -= n
            sent += n
        assert sent < 64 << 20, "the server takes without end what nobody reads"
        p.send(data(s.number, bytes(max(s.credit, p.credit) + 1)))
        try:
            p.until(lambda: p.gone_away or s.reset, "it is refused")
        except Closed:
            pass
        assert "FLOW_CONTROL_ERROR" in (s.reset, p.gone_away and p.gone_away[1])
    go.set()


@pytest.fixture(scope="module")
def scripted_edge(module):
    if PEER:
        pytest.skip("needs Segue")
    scripted = module.scripted()
    conf = [{"address": f"127.0.0.1:{free_port()}", "http2": True}]
    return scripted, module.edge(scripted.port, listen=conf, workers=1)


def test_padding_counts(scripted_edge):
    """6.1, 6.9.1: the whole payload is flow-controlled; padding is granted again, so that a body of mostly padding ends."""
    scripted, edge = scripted_edge
    scripted.on("/pass/padded", lambda asked, c: reply(200, read_body(asked, c))(asked, c))
    with H2(edge.port) as p:
        p.started()
        s = p.request("/pass/padded", "POST", end=False)
        for i in range(1000):
            p.until(lambda: s.credit >= 257 and p.credit >= 257, "padding is granted again")
            s.credit -= 257
            p.credit -= 257
            p.send(data(s.number, b"%d" % (i % 10), i == 999, pad=255))
        assert s.wait().body == b"0123456789" * 100


def test_trailers_of_a_request(scripted_edge):
    """8.1: they end the body."""
    scripted, edge = scripted_edge
    scripted.on("/pass/trailers", lambda asked, c: reply(200, read_body(asked, c))(asked, c))
    with H2(edge.port) as p:
        s = p.request("/pass/trailers", "POST", end=False)
        p.send(data(s.number, b"body"), trailers(s.number))
        assert (s.wait().status, s.body) == (200, b"body")


def test_cookies_are_one_field_above(scripted_edge):
    """8.2.3."""
    scripted, edge = scripted_edge
    scripted.on("/pass/cookies", reply(200, b"x"))
    with H2(edge.port) as p:
        assert p.ask("/pass/cookies", fields=[("cookie", "a=1"), ("cookie", "b=2; c=3")]).status == 200
    asked, = scripted.requests("/pass/cookies")
    assert asked.get("Cookie") == "a=1; b=2; c=3"
    assert asked.get("Host") and asked.get("Connection") is None and asked.get("TE") is None


def test_answer_before_the_end_of_the_request(scripted_edge):
    """8.1: the whole answer, then RST_STREAM with NO_ERROR where the server wants no more of the body; other streams
    go on."""
    scripted, edge = scripted_edge
    scripted.on("/pass/early", lambda asked, c: c.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno") and False)
    scripted.on("/pass/other", reply(200, b"other"))
    with H2(edge.port) as p:
        s = p.request("/pass/early", "POST", [("content-length", "1000000")], end=False)
        p.until(lambda: s.ended or s.reset, "the answer")
        assert (s.status, bytes(s.body), s.ended) == (403, b"no", True)
        p.until(lambda: s.reset == "NO_ERROR", "and that no more is wanted")
        assert p.ask("/pass/other").body == b"other"


def test_origin_that_breaks_off_resets_the_stream(scripted_edge):
    """5.4.2, 8.1: a body that is not whole must not look whole."""
    scripted, edge = scripted_edge
    scripted.on("/pass/cut", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort"))
    scripted.on("/pass/other", reply(200, b"other"))
    with H2(edge.port) as p:
        s = p.ask("/pass/cut")
        assert s.reset in ("INTERNAL_ERROR", "CANCEL") or s.status == 502, s
        assert p.ask("/pass/other").body == b"other"


def test_upgrade_to_h2c_is_not_done(edge):
    """3.1: the upgrade is gone; the request is answered as it is."""
    a = edge.ask(SMALL, fields=[("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")])
    assert (a.status, a.version) == (200, "HTTP/1.1")


def test_no_prior_knowledge_without_leave(start, origin):
    """3.3: a plain listener without `http2` takes the preface for what it is in HTTP/1: nonsense."""
    edge = start.edge(origin.port)
    with edge.connect() as c:
        c.send(PREFACE + settings({}))
        assert c.rest().startswith(b"HTTP/1.1 ")


@pytest.mark.skipif(bool(PEER), reason="needs Segue")
def test_errors_are_counted(edge):
    before = edge.metric("http2_goaways_total", reason="error")
    with H2(edge.port) as p:
        p.started()
        p.send(data(0, b"x"))
        assert p.end() == "PROTOCOL_ERROR"
    assert edge.metric("http2_goaways_total", reason="error") == before + 1
