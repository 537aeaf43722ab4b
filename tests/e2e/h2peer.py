"""An HTTP/2 client that sees and sends single frames (RFC 9113), over plain TCP with prior knowledge or over TLS. It
sends whatever it is told to, right or wrong, and is strict with what it gets: a server that breaks the protocol fails
the test, whatever the test is about. Frames are written here and not by a library, for a library would refuse the
wrong ones."""

import select
import socket
import ssl
import struct
import time

import hpack

from harness import HOST, PATIENCE, Closed

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 0x10
NAMES = ["DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE",
         "CONTINUATION"]

END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7))
NO_RFC7540_PRIORITIES = 9

CODES = ["NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
         "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
         "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"]
CODE = {name: number for number, name in enumerate(CODES)}

WINDOW_MAX = (1 << 31) - 1
WINDOW_DEFAULT = 65535
FRAME_MAX = 16384
CONNECTION_SPECIFIC = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}


# --- frames, as bytes ---


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """Any frame; a `length` of one's own may lie."""
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(values=(), flags=0, stream=0):
    """A dict, or pairs where one stands twice."""
    pairs = values.items() if isinstance(values, dict) else values
    return frame(SETTINGS, flags, stream, b"".join(struct.pack(">HI", k, v) for k, v in pairs))


def data(stream, payload=b"", end=False, pad=None, flags=0):
    if pad is not None:
        payload, flags = bytes([pad]) + payload + bytes(pad), flags | PADDED
    return frame(DATA, flags | (END_STREAM if end else 0), stream, payload)


def ping(payload=b"12345678", flags=0, stream=0):
    return frame(PING, flags, stream, payload)


def rst(stream, code="CANCEL"):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", CODE.get(code, code)))


def goaway(last=0, code="NO_ERROR", debug=b"", stream=0):
    return frame(GOAWAY, 0, stream, struct.pack(">II", last, CODE.get(code, code)) + debug)


def window_update(stream, increment):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def priority(stream, depends=0, weight=16, exclusive=False):
    return frame(PRIORITY, 0, stream, struct.pack(">IB", depends | exclusive << 31, weight - 1))


def priority_update(stream, value):
    """RFC 9218, 7.1."""
    return frame(PRIORITY_UPDATE, 0, 0, struct.pack(">I", stream) + value.encode())


def literal(name, value, prefix=0x00):
    """A field as HPACK's literal without indexing, new name, no Huffman code; 0x40 with indexing (RFC 7541, 6.2)."""
    def text(t):
        t = t if isinstance(t, bytes) else t.encode("latin-1")
        return integer(len(t), 7) + t

    return bytes([prefix]) + text(name) + text(value)


def integer(n, bits, first=0):
    """RFC 7541, 5.1."""
    if n < (1 << bits) - 1:
        return bytes([first | n])
    out, n = [first | (1 << bits) - 1], n - ((1 << bits) - 1)
    while n >= 128:
        out.append(n % 128 + 128)
        n //= 128
    return bytes(out + [n])


def block(fields):
    """A header block that uses no dynamic table, of names and values that may be wrong."""
    return b"".join(literal(name, value) for name, value in fields)


def request_fields(path, method="GET", scheme="http", authority=HOST, fields=()):
    pseudo = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
    return [(n, v) for n, v in pseudo if v is not None] + list(fields)


class Frame:
    def __init__(self, kind, flags, stream, payload):
        self.kind, self.flags, self.stream, self.payload = kind, flags, stream, payload

    @property
    def numbers(self):
        """The payload as 32-bit numbers, as many as there are."""
        return struct.unpack(f">{len(self.payload) // 4}I", self.payload[:len(self.payload) // 4 * 4])

    def __repr__(self):
        kind = NAMES[self.kind] if self.kind < len(NAMES) else hex(self.kind)
        return f"<{kind} stream {self.stream} flags {self.flags:#x} {len(self.payload)}: {self.payload[:40]!r}>"


class Stream:
    """What has come on one stream."""

    def __init__(self, peer, number):
        self.peer, self.number = peer, number
        self.status, self.fields, self.trailers, self.interim = None, [], None, []
        self.body, self.ended, self.reset = bytearray(), False, None
        self.cancelled = False  # by us: what was under way may still come
        self.window = peer.initial_window  # what the server may still send
        self.credit = peer.server_settings.get(INITIAL_WINDOW_SIZE, WINDOW_DEFAULT)  # what we may

    @property
    def over(self):
        return self.ended or self.reset is not None

    @property
    def complete(self):
        return self.ended and self.status is not None

    def all(self, name):
        return [v for n, v in self.fields if n == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        assert len(values) <= 1, f"{name} stands {len(values)} times"
        return values[0] if values else default

    def wait(self, patience=PATIENCE):
        """Until its end, or its reset."""
        self.peer.until(lambda: self.over, f"end of {self}", patience)
        return self

    def head(self, patience=PATIENCE):
        self.peer.until(lambda: self.status or self.over, f"head of {self}", patience)
        return self

    def __repr__(self):
        how = "ended" if self.ended else "open" if self.reset is None else f"reset {self.reset}"
        return f"<stream {self.number} {how}: {self.status} {self.fields} {len(self.body)} bytes>"


def tls_context(ca=None, alpn=("h2",), **attributes):
    context = ssl.create_default_context(cafile=ca)
    if ca is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


class H2:
    """A connection. Windows are as large as can be unless told otherwise, so that nothing has to be granted."""

    def __init__(self, port, tls=None, window=WINDOW_MAX, connection_window=WINDOW_MAX, values=None, preface=True,
                 receive_buffer=None, source=None, server_name=HOST):
        s = socket.socket()
        if receive_buffer:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        s.settimeout(PATIENCE)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            s.bind((source, 0))
        s.connect(("127.0.0.1", port))
        self.secure = tls is not None
        self.s = tls.wrap_socket(s, server_hostname=server_name) if tls else s
        assert not tls or self.s.selected_alpn_protocol() == "h2"
        self.buffer, self.closed, self.gone_away = b"", False, None
        self.streams, self.next, self.log = {}, 1, []
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.server_settings, self.settings_acks, self.pongs = {}, 0, []
        self.acknowledge = True  # the server's SETTINGS
        self.initial_window = window
        self.window, self.credit = connection_window, WINDOW_DEFAULT
        self.gathered = None  # the header block under way: (stream, first frame's flags, bytes)
        if preface:
            self.send(PREFACE, settings({ENABLE_PUSH: 0, INITIAL_WINDOW_SIZE: window, **(values or {})}),
                      window_update(0, connection_window - WINDOW_DEFAULT)
                      if connection_window > WINDOW_DEFAULT else b"")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        self.s.close()

    # --- sending ---

    def send(self, *frames):
        """Reads meanwhile, so that a server that waits for us to read does not make us wait for it."""
        rest = memoryview(b"".join(frames))
        try:
            if self.secure:
                self.s.sendall(rest)
                return self
            end = time.monotonic() + PATIENCE
            while rest:
                readable, writable, _ = select.select([] if self.closed else [self.s], [self.s], [], PATIENCE)
                assert readable or writable, "the server neither reads nor sends"
                assert time.monotonic() < end, "the server does not read"
                if readable:
                    self._receive()
                if writable:
                    rest = rest[self.s.send(rest, socket.MSG_DONTWAIT):]
        except BlockingIOError:
            return self.send(bytes(rest))
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError) as e:
            raise Closed(self.buffer, isinstance(e, ConnectionResetError)) from None
        return self

    def started(self):
        """Until both sides' settings are known to both."""
        self.until(lambda: self.settings_acks and self.server_settings, "settings")
        return self

    def stream(self, number=None):
        if number is None:
            number = self.next
        self.next = max(self.next, number + 2)
        self.streams[number] = Stream(self, number)
        return self.streams[number]

    def head(self, fields, end=True, stream=None, plain=False):
        """HEADERS with these fields; `plain`: as they are, whatever they are."""
        s = self.stream(stream)
        text = block(fields) if plain else self.encoder.encode(fields)
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), s.number, text))
        return s

    def request(self, path, method="GET", fields=(), body=None, end=True, scheme=None, authority=HOST, stream=None):
        scheme = scheme or ("https" if self.secure else "http")
        s = self.head(request_fields(path, method, scheme, authority, fields), end and body is None, stream)
        if body is not None:
            self.body(s, body, end)
        return s

    def body(self, s, text, end=True):
        """Within the windows that the server grants."""
        sent = 0
        while sent < len(text) and not s.over:
            n = min(FRAME_MAX, len(text) - sent, s.credit, self.credit)
            if n <= 0:
                self.until(lambda: (s.credit > 0 and self.credit > 0) or s.over, "the server grants more")
                continue
            s.credit -= n
            self.credit -= n
            sent += n
            self.send(data(s.number, text[sent - n:sent], end and sent == len(text)))
        if end and not text:
            self.send(data(s.number, b"", True))

    def grant(self, s, n):
        """To a stream, or with None to the connection."""
        if s is None:
            self.window += n
        else:
            s.window += n
        self.send(window_update(s.number if s else 0, n))

    def resize(self, window):
        """Another initial window, which moves those of all streams (6.9.2). The server may send by the old one until it
        has said that it knows, so what is checked is the larger of both."""
        old, self.initial_window = self.initial_window, window
        for s in self.streams.values():
            s.window += max(0, window - old)
        acks = self.settings_acks
        self.send(settings({INITIAL_WINDOW_SIZE: window}))
        self.until(lambda: self.settings_acks > acks, "SETTINGS are acknowledged")
        for s in self.streams.values():
            s.window += min(0, window - old)

    def cancel(self, s, code="CANCEL"):
        s.cancelled = True
        self.send(rst(s.number, code))

    def ask(self, path, *rest, patience=PATIENCE, **more):
        return self.request(path, *rest, **more).wait(patience)

    # --- receiving ---

    def _receive(self):
        try:
            got = self.s.recv(1 << 18)
        except (ConnectionResetError, ssl.SSLError):
            got = b""
        self.closed = self.closed or not got
        self.buffer += got

    def frame(self, patience=PATIENCE):
        """The next frame, taken note of; None at the connection's end. TimeoutError when nothing comes."""
        end = time.monotonic() + patience
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            if self.closed:
                return None
            self.s.settimeout(max(0.001, end - time.monotonic()))
            try:
                self._receive()
            finally:
                self.s.settimeout(PATIENCE)
        length = int.from_bytes(self.buffer[:3], "big")
        assert length <= FRAME_MAX, f"a frame of {length} bytes: {self.buffer[:40]!r}"
        kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
        f = Frame(kind, flags, stream, self.buffer[9:9 + length])
        self.buffer = self.buffer[9 + length:]
        self._note(f)
        self.log = self.log[-200:] + [f]
        return f

    def until(self, condition, text, patience=PATIENCE):
        end = time.monotonic() + patience
        while not condition():
            try:
                f = self.frame(max(0.001, end - time.monotonic()))
            except TimeoutError:
                raise AssertionError(f"waited {patience} s in vain: {text}; last {self.log[-5:]}") from None
            if f is None and not condition():
                raise Closed(repr((text, self.gone_away, self.log[-5:])).encode(), False)

    def pump(self, seconds):
        """Takes what comes for so long; False when the connection ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.frame(end - time.monotonic()) is None:
                    return False
            except TimeoutError:
                pass
        return True

    def pong(self, text=b"are-you?"):
        """A PING and its answer: whatever the server says to frames before is on its way."""
        before = len(self.pongs)
        self.send(ping(text))
        self.until(lambda: text in self.pongs[before:], "PING is answered")

    def end(self, patience=PATIENCE):
        """Until the server closes; returns the error of its last GOAWAY, if it sent one."""
        while self.frame(patience) is not None:
            pass
        return self.gone_away and self.gone_away[1]

    def _note(self, f):
        assert self.server_settings or f.kind == SETTINGS, f"the first frame is {f}"
        if self.gathered:
            assert f.kind == CONTINUATION and f.stream == self.gathered[0], f"{f} within a header block"
        s = self.streams.get(f.stream)
        if f.kind in (DATA, HEADERS, RST_STREAM) and s is None:
            assert f.stream % 2, f"{f} on a stream that nobody opened"
            s = self.stream(f.stream)  # opened by a frame that a test made itself
        if f.kind == DATA:
            self._data(s, f)
        elif f.kind == HEADERS:
            assert not s.over or s.cancelled, f"{f} after the end of {s}"
            text = self._unpadded(f)
            self._gather(f.stream, f.flags, text[5:] if f.flags & PRIORITISED else text, f.flags & END_HEADERS)
        elif f.kind == CONTINUATION:
            assert self.gathered, f"{f} out of the blue"
            self._gather(*self.gathered[:2], self.gathered[2] + f.payload, f.flags & END_HEADERS)
        elif f.kind == RST_STREAM:
            assert len(f.payload) == 4
            s.reset = self._code(f.numbers[0])
        elif f.kind == SETTINGS:
            self._settings(f)
        elif f.kind == PING:
            assert f.stream == 0 and len(f.payload) == 8
            if f.flags & ACK:
                self.pongs.append(f.payload)
            else:
                self.send(ping(f.payload, ACK))
        elif f.kind == GOAWAY:
            last, code = f.numbers[:2]
            assert f.stream == 0 and (self.gone_away is None or last <= self.gone_away[0])
            self.gone_away = last, self._code(code), f.payload[8:]
        elif f.kind == WINDOW_UPDATE:
            assert 0 < f.numbers[0] <= WINDOW_MAX
            if f.stream == 0:
                self.credit += f.numbers[0]
            elif s:
                s.credit += f.numbers[0]
        elif f.kind == PUSH_PROMISE:
            raise AssertionError(f"{f} though push is off")

    @staticmethod
    def _code(number):
        assert number < len(CODES), number
        return CODES[number]

    @staticmethod
    def _unpadded(f):
        if not f.flags & PADDED:
            return f.payload
        assert f.payload[0] < len(f.payload)
        return f.payload[1:len(f.payload) - f.payload[0]]

    def _data(self, s, f):
        assert s.status and (not s.over or s.cancelled), f"{f} on {s}"
        s.window -= len(f.payload)
        self.window -= len(f.payload)
        assert not f.payload or (s.window >= 0 and self.window >= 0), f"{f} beyond the window"
        s.body += self._unpadded(f)
        s.ended = bool(f.flags & END_STREAM)

    def _gather(self, stream, flags, text, last):
        self.gathered = None if last else (stream, flags, text)
        if not last:
            return
        s, fields = self.streams[stream], self.decoder.decode(text)
        for name, _ in fields:
            assert name == name.lower() and name not in CONNECTION_SPECIFIC, fields
        end = bool(flags & END_STREAM)
        if s.status:
            assert end and not any(n.startswith(":") for n, _ in fields), f"trailers {fields}"
            s.trailers = fields
        else:
            assert fields[0][0] == ":status" and not any(n.startswith(":") for n, _ in fields[1:]), fields
            if int(fields[0][1]) < 200:
                assert not end
                s.interim.append(int(fields[0][1]))
                return
            s.status, s.fields = int(fields[0][1]), fields[1:]
        s.ended = end

    def _settings(self, f):
        assert f.stream == 0 and len(f.payload) % 6 == 0
        if f.flags & ACK:
            assert not f.payload
            self.settings_acks += 1
            return
        before = self.server_settings.get(INITIAL_WINDOW_SIZE, WINDOW_DEFAULT)
        values = dict(struct.unpack(">HI", f.payload[i:i + 6]) for i in range(0, len(f.payload), 6))
        assert values.get(ENABLE_PUSH, 0) == 0 and values.get(INITIAL_WINDOW_SIZE, 0) <= WINDOW_MAX
        assert FRAME_MAX <= values.get(MAX_FRAME_SIZE, FRAME_MAX) < 1 << 24
        self.server_settings = {0: 0, **self.server_settings, **values}
        for s in self.streams.values():
            s.credit += self.server_settings.get(INITIAL_WINDOW_SIZE, WINDOW_DEFAULT) - before
        self.encoder.header_table_size = min(4096, self.server_settings.get(HEADER_TABLE_SIZE, 4096))
        if self.acknowledge:
            self.send(settings(flags=ACK))
