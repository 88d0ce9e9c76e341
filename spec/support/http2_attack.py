"""A client of HTTP/2 at the level of frames, for specs: http2_attack.py PORT CASE [ARGUMENT]. Independent of the server's library: frames are
Python's hyperframe, header blocks its hpack. Each case prints what the server did, one fact a line; the spec knows what is right."""

import socket
import sys
import time

from hpack import Decoder, Encoder
from hyperframe.frame import (ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, PriorityFrame,
                              RstStreamFrame, SettingsFrame, WindowUpdateFrame)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PORT = int(sys.argv[1])


class Client:
    """One connection. events: what came, as (stream, what, …)."""

    def __init__(self, settings=None, preface=PREFACE, greet=True):
        self.socket = socket.create_connection(("127.0.0.1", PORT), 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.events, self.closed = b"", [], False
        self.encoder, self.decoder = Encoder(), Decoder()
        self.block, self.status, self.bodies, self.ended = b"", {}, {}, set()
        self.resets, self.goaways, self.trailers, self.pongs, self.informed, self.heads = {}, [], {}, 0, [], {}
        self.acknowledge = True
        if greet:
            self.send(preface + SettingsFrame(0, settings=settings or {}).serialize())

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            self.closed = True

    def head(self, fields, stream, end=True, flags=("END_HEADERS",)):
        frame = HeadersFrame(stream, self.encoder.encode(fields), flags=list(flags) + (["END_STREAM"] if end else []))
        return frame.serialize()

    def request(self, path, stream, method="GET", body=None, more=(), end=True):
        fields = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "localhost")] + list(more)
        data = self.head(fields, stream, end=end and body is None)
        if body is not None:
            data += DataFrame(stream, body, flags=["END_STREAM"] if end else []).serialize()
        return data

    def frame(self, frame):
        stream = frame.stream_id
        if isinstance(frame, (HeadersFrame, ContinuationFrame)):
            self.block += frame.data
            if "END_HEADERS" in frame.flags:
                fields = [(k.decode() if isinstance(k, bytes) else k, v.decode() if isinstance(v, bytes) else v)
                          for k, v in self.decoder.decode(self.block)]
                self.block = b""
                status = dict(fields).get(":status")
                if status:
                    self.heads[stream] = dict(fields)
                if status == "100":
                    self.informed.append(stream)
                elif status:
                    self.status[stream] = int(status)
                else:
                    self.trailers[stream] = dict(fields)
            if "END_STREAM" in frame.flags:
                self.ended.add(stream)
        elif isinstance(frame, DataFrame):
            self.bodies[stream] = self.bodies.get(stream, b"") + frame.data
            if "END_STREAM" in frame.flags:
                self.ended.add(stream)
        elif isinstance(frame, RstStreamFrame):
            self.resets[stream] = frame.error_code
            self.ended.add(stream)
        elif isinstance(frame, GoAwayFrame):
            self.goaways.append((frame.last_stream_id, frame.error_code))
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags and self.acknowledge:
            self.send(SettingsFrame(0, flags=["ACK"]).serialize())
        elif isinstance(frame, PingFrame) and "ACK" in frame.flags:
            self.pongs += 1

    def read(self, until, seconds=20):
        """Until the condition holds, the server closes, or the time is over."""
        deadline = time.monotonic() + seconds
        while not until(self) and not self.closed:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except socket.timeout:
                return False
            except OSError:
                data = b""
            if not data:
                self.closed = True
            self.buffer += data
            while len(self.buffer) >= 9:
                frame, length = Frame.parse_frame_header(memoryview(self.buffer[:9]))
                if len(self.buffer) < 9 + length:
                    break
                frame.parse_body(memoryview(self.buffer[9:9 + length]))
                self.buffer = self.buffer[9 + length:]
                self.frame(frame)
        return until(self)

    def answer(self, stream, seconds=20):
        self.read(lambda c: stream in c.ended, seconds)
        return self.status.get(stream), self.bodies.get(stream, b"")

    def get(self, path, stream, method="GET", body=None, more=()):
        self.send(self.request(path, stream, method, body, more))
        return self.answer(stream)

    def end(self, seconds=20):
        """Reads to the end; the last GOAWAY's error code."""
        self.read(lambda c: False, seconds)
        return self.goaways[-1][1] if self.goaways else None


def say(*facts):
    print(*facts, flush=True)


def eventually(client, stream, body):
    """What /cancelled answers in the end."""
    for i in range(1000):
        found = client.get("/cancelled", stream + 2 * i)[1].decode()
        if found == body:
            break
        time.sleep(0.02)
    return found


def healthy():
    """Whether somebody else is answered: nobody may be made to wait."""
    return "healthy" if Client().get("/count", 1)[0] == 200 else "starved"


def case_split():
    """One byte at a time; then, on a connection each, cut in two at every place."""
    client = Client(greet=False)
    data = (PREFACE + SettingsFrame(0).serialize() + client.request("/echo?x", 1, "POST", b"hello", [("x-name", "value")])
            + client.request("/count", 3) + PingFrame(0, b"12345678").serialize())
    for i in range(len(data)):
        client.send(data[i:i + 1])
    status, body = client.answer(1)
    say("bytes", status, body.decode().replace("\n", " "))
    say("second", *client.answer(3))
    client.read(lambda c: c.pongs == 1)
    say("pongs", client.pongs)
    good = 0
    for cut in range(1, len(data)):
        client = Client(greet=False)
        client.send(data[:cut])
        time.sleep(0.002)
        client.send(data[cut:])
        good += client.answer(1)[0] == 200 and client.answer(3)[0] == 200
        client.socket.close()
    say("cuts", "all" if good == len(data) - 1 else good)


def case_rapid_reset():
    client = Client()
    data = b"".join(client.request("/sleep/50", 2 * i + 1) + RstStreamFrame(2 * i + 1, 8).serialize() for i in range(5000))
    client.send(data)
    say("goaway", client.end())
    say(healthy())


def case_some_resets():
    """What a client with impatient users does is all right."""
    client = Client()
    for i in range(100):
        client.send(client.request("/sleep/20", 2 * i + 1) + RstStreamFrame(2 * i + 1, 8).serialize())
    say(*client.get("/sleep/1", 201))


def case_streams():
    client = Client()
    client.send(b"".join(client.request("/echo", 2 * i + 1, "POST", end=False) for i in range(200)))
    client.read(lambda c: len(c.resets) == 72)
    say("refused", len(client.resets), set(client.resets.values()), min(client.resets))
    client.send(DataFrame(1, b"first", flags=["END_STREAM"]).serialize())
    say("first", client.answer(1)[0])
    say("next", client.get("/count", 401)[0])


def flood(frame, count=20000):
    client = Client()
    client.send(client.request("/echo", 1, "POST", end=False))
    data = frame.serialize() if isinstance(frame, Frame) else frame
    for _ in range(count // 100):
        client.send(data * 100)
        if client.closed:
            break
    say("goaway", client.end())
    say(healthy())


def case_ping_flood():
    flood(PingFrame(0, b"12345678"))


def case_settings_flood():
    flood(SettingsFrame(0, settings={1: 100}))


def case_priority_flood():
    flood(PriorityFrame(5, depends_on=0, stream_weight=3))


def case_empty_data_flood():
    flood(DataFrame(1, b""))


def case_malformed_flood():
    client = Client()
    client.send(b"".join(client.head([(":method", "GET")], 2 * i + 1) for i in range(5000)))
    say("goaway", client.end())
    say(healthy())


def case_continuation_flood():
    client = Client()
    client.send(client.head([(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")], 1, flags=()))
    for i in range(20000):
        client.send(ContinuationFrame(1, client.encoder.encode([("x%d" % i, "y" * 50)])).serialize())
        if client.closed:
            break
    client.end()
    say("closed", client.closed)
    say(healthy())


def case_keepalive():
    """PINGs and stray SETTINGS beside requests are not a flood."""
    client = Client()
    good = 0
    for i in range(1500):
        client.send(PingFrame(0, b"12345678").serialize())
        good += client.get("/count", 2 * i + 1)[0] == 200
    say("good", good, "pongs", client.pongs)


def case_windows():
    """A stream without window waits, is reset after write_timeout, and nobody else minds."""
    client = Client({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    client.send(client.request("/big/100000", 1))
    client.send(client.request("/big/1000", 3) + WindowUpdateFrame(3, window_increment=1000).serialize())
    say("second", client.answer(3)[0], len(client.bodies[3]))
    say("first", client.status.get(1), 1 in client.ended)
    client.send(WindowUpdateFrame(1, window_increment=10).serialize())
    client.read(lambda c: len(c.bodies.get(1, b"")) == 10)
    say("ten", len(client.bodies.get(1, b"")))
    began = time.monotonic()
    client.answer(1)
    say("reset", client.resets.get(1), time.monotonic() - began > 0.5)
    say("next", client.get("/nothing", 5)[0])


def case_connection_window():
    client = Client({SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 20})
    client.send(client.request("/big/200000", 1) + client.request("/nothing", 3))
    say("other", client.answer(3)[0])
    client.read(lambda c: len(c.bodies.get(1, b"")) == 65535)
    say("sent", len(client.bodies[1]))
    client.send(WindowUpdateFrame(0, window_increment=1 << 20).serialize())
    say("all", client.answer(1)[0], len(client.bodies[1]))


def case_half_closed():
    """Data behind the end of a stream is that stream's error, at most the connection's; another client sees nothing of it."""
    client = Client()
    client.send(client.request("/sleep/100", 1) + client.request("/sleep/50", 3) + DataFrame(1, b"more").serialize())
    client.answer(1)
    client.read(lambda c: c.goaways or 3 in c.ended, 2)
    say("error", client.resets.get(1) or client.goaways[-1][1])
    say(healthy())


def case_vanish():
    client = Client()
    client.send(client.request("/wait", 1, "POST", b"x") + client.request("/stream/echo", 3, "POST", b"x", end=False))
    client.answer(3, 0.2)
    client.socket.close()
    say("cancelled", eventually(Client(), 1, "1 0"))


def case_cancel():
    client = Client()
    client.send(client.request("/wait", 1, "POST", b"x") + client.request("/wait", 3, "POST", b"x") + client.request("/sleep/100", 5))
    time.sleep(0.05)
    client.send(RstStreamFrame(1, 8).serialize())
    say("other", client.answer(5)[0])
    say("cancelled", eventually(client, 7, "1 1"))
    client.send(RstStreamFrame(3, 8).serialize())
    say("cancelled", eventually(client, 1001, "2 0"))


def case_heads():
    client = Client()
    say("large", client.get("/count", 1, more=[("x", "y" * 17000)])[0])
    say("many", client.get("/count", 3, more=[("x%d" % i, "y") for i in range(101)])[0])
    say("just", client.get("/count", 5, more=[("x%d" % i, "y") for i in range(98)])[0])
    # a field of 4 kB in the dynamic table, referred to a hundred times with a byte each
    client.get("/count", 7, more=[("bomb", "b" * 3900)])
    say("bomb", client.get("/count", 9, more=[("bomb", "b" * 3900)] * 90)[0])
    say("path", client.get("/" + "a" * 9000, 11)[0])
    say("next", client.get("/count", 13)[0])


def case_malformed():
    get, path, scheme, host = (":method", "GET"), (":path", "/count"), (":scheme", "http"), (":authority", "a")
    post, good = (":method", "POST"), [(":method", "GET"), (":path", "/count"), (":scheme", "http"), (":authority", "a")]
    rows = [
        ("no method", [path, scheme, host]), ("no path", [get, scheme, host]), ("no scheme", [get, path, host]), ("no authority", [get, path, scheme]),
        ("two methods", [get, get, path, scheme, host]), ("two paths", [get, path, path, scheme, host]), ("empty path", [get, (":path", ""), scheme, host]),
        ("pseudo behind a field", [get, path, scheme, ("x", "y"), host]), ("unknown pseudo", good + [(":what", "x")]), ("status", good + [(":status", "200")]),
        ("upper case", good + [("X-Name", "y")]), ("connection", good + [("connection", "close")]), ("keep-alive", good + [("keep-alive", "5")]),
        ("upgrade", good + [("upgrade", "h2c")]), ("transfer-encoding", good + [("transfer-encoding", "chunked")]), ("te", good + [("te", "gzip")]),
        ("space in a name", good + [("a b", "c")]), ("line break in a value", good + [("a", "b\r\nc")]), ("NUL in a value", good + [("a", "b\0c")]),
        ("negative length", [post, path, scheme, host, ("content-length", "-1")]),
        ("two lengths", [post, path, scheme, host, ("content-length", "1"), ("content-length", "2")]),
        ("relative path", [get, (":path", "count"), scheme, host]), ("star", [get, (":path", "*"), scheme, host]),
        ("fragment", [get, (":path", "/count#a"), scheme, host]), ("blank in the path", [get, (":path", "/a b"), scheme, host]),
        ("list of hosts", [get, path, scheme, (":authority", "a,b")]), ("another host", good + [("host", "b")]),
        ("CONNECT", [(":method", "CONNECT"), host]), ("a long method", [(":method", "M" * 40), path, scheme, host]),
        ("host alone", [get, path, scheme, ("host", "a")]), ("the same host", good + [("host", "A")]), ("te trailers", good + [("te", "trailers")]),
    ]
    client = Client()
    for number, (name, fields) in enumerate(rows):
        stream = 2 * number + 1
        client.send(client.head(fields, stream))
        client.answer(stream)
        say(name + ":", client.status.get(stream) or "reset %s" % client.resets.get(stream))
    say("next", client.get("/count", 2 * len(rows) + 1)[0])
    client = Client()
    say("short body:", client.get("/echo", 1, "POST", b"ab", [("content-length", "3")])[0] or "reset %s" % client.resets.get(1))
    say("long body:", client.get("/echo", 3, "POST", b"abcd", [("content-length", "3")])[0] or "reset %s" % client.resets.get(3))
    say("next", client.get("/count", 5)[0])


def case_broken():
    """What ends a connection, each on one of its own: error code of its GOAWAY."""
    def row(name, make, greet=True):
        client = Client(greet=greet)
        client.send(make(client))
        say(name + ":", client.end(), "closed" if client.closed else "open")
    row("preface", lambda c: PREFACE[:18] + b"XX\r\n\r\n" + SettingsFrame(0).serialize(), False)
    row("no settings", lambda c: PREFACE + PingFrame(0, b"12345678").serialize(), False)
    row("frame of 16385 bytes", lambda c: c.request("/echo", 1, "POST", end=False) + DataFrame(1, b"x" * 16385).serialize())
    row("hpack", lambda c: HeadersFrame(1, b"\xff\xff\xff\xff\xff\xff\xff\xff", flags=["END_HEADERS", "END_STREAM"]).serialize())
    row("hpack index", lambda c: HeadersFrame(1, b"\xfe", flags=["END_HEADERS", "END_STREAM"]).serialize())
    row("even stream", lambda c: c.request("/count", 2))
    row("stream 0", lambda c: c.head([(":method", "GET")], 1).replace(b"\0\0\0\1", b"\0\0\0\0", 1))
    row("data on an idle stream", lambda c: DataFrame(5, b"x").serialize())
    row("reset of an idle stream", lambda c: RstStreamFrame(5, 8).serialize())
    row("window of an idle stream", lambda c: WindowUpdateFrame(5, window_increment=1).serialize())
    row("window overflow", lambda c: WindowUpdateFrame(0, window_increment=(1 << 31) - 1).serialize() * 2)
    row("increment of 0", lambda c: WindowUpdateFrame(0, window_increment=1).serialize()[:-4] + b"\0\0\0\0")
    row("ping of 7 bytes", lambda c: b"\0\0\7\6\0\0\0\0\0" + b"1234567")
    row("settings of 5 bytes", lambda c: b"\0\0\5\4\0\0\0\0\0" + b"12345")
    row("initial window of 2^31", lambda c: SettingsFrame(0, settings={4: 1 << 31}).serialize())
    row("another frame inside a head", lambda c: c.head([(":method", "GET")], 1, flags=()) + PingFrame(0, b"12345678").serialize())
    row("continuation alone", lambda c: ContinuationFrame(1, b"", flags=["END_HEADERS"]).serialize())
    row("push promise", lambda c: b"\0\0\4\5\4\0\0\0\1\0\0\0\2")
    row("padding beyond the frame", lambda c: c.request("/echo", 1, "POST", end=False) + b"\0\0\1\0\10\0\0\0\1\5")
    row("HTTP/1.1 behind it", lambda c: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 700)
    say(healthy())


def case_bodies():
    """max_body = 100000, max_buffered = 300000"""
    client = Client()
    client.send(client.request("/echo", 1, "POST", end=False, more=[("content-length", "100001")]))
    say("announced", client.answer(1)[0])
    client.send(client.request("/echo", 3, "POST", end=False))
    for _ in range(10):
        client.send(DataFrame(3, b"x" * 10000).serialize())
    client.send(DataFrame(3, b"x").serialize())
    say("too large", client.answer(3)[0])
    streams = [5, 7, 9, 11]
    for stream in streams:
        client.send(client.request("/echo", stream, "POST", end=False) + DataFrame(stream, b"x" * 10000).serialize() * 9)
    client.read(lambda c: c.status)
    client.read(lambda c: any(s in c.ended for s in streams), 2)
    say("too much", sorted(str(client.status.get(s)) for s in streams))
    for stream in streams:
        if stream not in client.ended:
            client.send(DataFrame(stream, b"", flags=["END_STREAM"]).serialize())
    say("rest", sorted(client.answer(s)[0] for s in streams))
    say("next", client.get("/echo", 13, "POST", b"x" * 16000)[0], client.get("/buffered", 15)[1].decode())


def case_slow():
    """head_timeout, body_timeout and idle_timeout are 1 s"""
    client = Client()
    client.send(client.request("/echo", 1, "POST", end=False, body=b"x"))
    client.send(client.request("/sleep/1500", 3))
    say("body", client.answer(1)[0], client.answer(3)[0])
    client.send(client.head([(":method", "GET"), (":path", "/")], 5, flags=()))
    say("head", client.end(), client.closed)
    client = Client(greet=False)
    client.acknowledge = False
    client.send(PREFACE)
    say("settings", client.end(), client.closed)
    client = Client()
    say("served", client.get("/count", 1)[0])
    say("idle", client.end(), client.closed)


def case_slow_reader():
    """Nothing of a large answer is read: it is cut off after write_timeout, nobody else waits."""
    client = Client({SettingsFrame.INITIAL_WINDOW_SIZE: (1 << 31) - 1})
    client.send(WindowUpdateFrame(0, window_increment=1 << 30).serialize() + client.request("/big/20000000", 1))
    time.sleep(0.3)
    say(healthy())
    time.sleep(float(sys.argv[3]))
    client.read(lambda c: 1 in c.ended)
    say("cut off", client.closed or client.resets.get(1) == 8, len(client.bodies.get(1, b"")) < 20000000)


def case_trailers():
    client = Client()
    status, body = client.get("/trailers", 1, "POST", b"hello")
    say(status, body.decode(), client.trailers[1]["grpc-status"], client.trailers[1]["x-http"])
    status, body = client.get("/trailers", 3, "POST", b"")
    say(status, repr(body.decode()), client.trailers.get(3))  # one block only
    client.send(client.request("/echo", 5, "POST", b"hello", end=False) + client.head([("x-checksum", "1")], 5))
    say(*client.answer(5)[1].decode().split("\n")[-1:])
    client.send(client.request("/echo", 7, "POST", end=False, more=[("expect", "100-continue")]))
    client.read(lambda c: c.informed)
    client.send(DataFrame(7, b"body", flags=["END_STREAM"]).serialize())
    say("continue", client.informed, client.answer(7)[0])
    say("padded", client.get("/count", 9)[0])
    client.send(client.request("/echo", 11, "POST", end=False) + DataFrame(11, b"hello", pad_length=200, flags=["END_STREAM", "PADDED"]).serialize())
    say(client.answer(11)[1].decode().split("\n")[-1])


def case_stream():
    client = Client()
    client.send(client.request("/stream/echo", 1, "POST", end=False))
    for piece in (b"one", b"two", b"three"):
        client.send(DataFrame(1, piece).serialize())
        size = len(client.bodies.get(1, b"")) + len(piece)
        client.read(lambda c, size=size: len(c.bodies.get(1, b"")) == size)
        say(client.bodies.get(1, b"").decode())
    client.send(client.request("/sleep/10", 3))
    say("other", client.answer(3)[0])
    client.send(DataFrame(1, b"", flags=["END_STREAM"]).serialize())
    client.answer(1)
    say("end", client.status[1], client.trailers[1]["pieces"], client.trailers[1]["why"])
    client.send(client.request("/stream/late", 5, "POST", end=False))
    client.answer(5)
    say("late", client.status[5], client.heads[5].get("why"))  # nothing but a head
    client.send(client.request("/stream/raise", 7, "POST", b"x"))
    client.answer(7)
    say("raise", client.resets.get(7))
    client.send(client.request("/stream/big", 9))
    client.read(lambda c: len(c.bodies.get(9, b"")) > 0)
    say("blocked", 9 in client.ended)
    client.send(RstStreamFrame(9, 8).serialize())
    client.send(WindowUpdateFrame(0, window_increment=1 << 24).serialize())
    say("cancelled", eventually(client, 11, "1 0"))


def case_concurrent():
    """A hundred streams of one connection wait at the same time: 30 s one after the other."""
    client = Client()
    began = time.monotonic()
    client.send(b"".join(client.request("/sleep/300", 2 * i + 1) for i in range(100)))
    good = sum(client.answer(2 * i + 1)[0] == 200 for i in range(100))
    say(good, time.monotonic() - began < 20)


def case_drain():
    client = Client()
    client.send(client.request("/sleep/600", 1) + client.request("/stop", 3, "POST", b""))
    say("stop", client.answer(3)[0])
    client.read(lambda c: c.goaways)
    say("notice", client.goaways[0])
    client.send(client.request("/count", 5))  # was on its way
    say("late", client.answer(5)[0])
    say("slow", client.answer(1)[0])
    client.end()
    say("last", client.goaways[-1], client.closed)


def case_many():
    """Requests of all kinds mixed on several connections; nothing may get lost."""
    clients = [Client() for _ in range(8)]
    for round_ in range(20):
        for client in clients:
            base = round_ * 20
            client.send(b"".join(client.request("/sleep/%d" % (i % 3 * 5), base + 2 * i + 1) if i % 2 else
                                 client.request("/echo", base + 2 * i + 1, "POST", b"x" * (i * 1000)) for i in range(10)))
    good = sum(client.answer(2 * i + 1)[0] == 200 for client in clients for i in range(200))
    say(good)


globals()["case_" + sys.argv[2]]()
