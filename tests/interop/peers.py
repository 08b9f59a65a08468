"""Clients and workers of every dialect that a zqbroker understands, in plain pyzmq.

Written from the RFCs of Majordomo and Paranoid Pirate (rfc.zeromq.org: 6/PPP, 7/MDP, 8/MMI, 18/MDP), the Guide
(chapters 3 and 4), and the manual of zqbroker.h (sections 7 and 8), never from its code: they are the second opinion
on the wire formats.

    Client (ctx, endpoint).call (service, frames, timeout_ms)       the reply's frames
    Worker (ctx, endpoint, service).serve (handler, stop)           handler (frames) -> frames, Parts or Failure

The tests also use the steps these are made of: submit and collect; ready, recv, reply, heartbeat, disconnect.
"""

import collections
import itertools
import os
import struct
import threading
import time

import zmq

MDPC01, MDPW01, MDPC02, MDPW02 = b"MDPC01", b"MDPW01", b"MDPC02", b"MDPW02"

READY, REQUEST, PARTIAL, REPLY, ERROR, HEARTBEAT, DISCONNECT, CANCEL, PROGRESS, MORE, DRAIN = (
    "READY", "REQUEST", "PARTIAL", "REPLY", "ERROR", "HEARTBEAT", "DISCONNECT", "CANCEL", "PROGRESS", "MORE", "DRAIN")

MDP01_NUMBERS = {READY: b"\1", REQUEST: b"\2", REPLY: b"\3", HEARTBEAT: b"\4", DISCONNECT: b"\5"}      # RFC 7
MDP01_WORDS = {word: word.encode() for word in MDP01_NUMBERS}
MDP02_NUMBERS = {READY: b"\1", REQUEST: b"\2", PARTIAL: b"\3", REPLY: b"\4", HEARTBEAT: b"\5", DISCONNECT: b"\6"}


class ProtocolError(AssertionError):
    """The other side sent what its protocol does not allow."""


class Timeout(Exception):
    """No answer came in time."""


class CallFailed(Exception):
    """A ZQB/1 broker said that there will be no reply. code: the worker's own, or None."""

    def __init__(self, status, text, code=None):
        super().__init__(status, text, code)
        self.status, self.text, self.code = status, text, code


class Parts(list):
    """What a handler returns to answer in several parts: a list of lists of frames, the last being the final one."""


class Failure(str):
    """What a handler returns when the work failed: a text."""


def need(condition, what, frames):
    if not condition:
        raise ProtocolError("%s: %r" % (what, [frame[:40] for frame in frames]))


def now_ms():
    return time.monotonic() * 1000


class Peer:
    """A socket that is connected to a broker, and can be opened anew."""

    socket_type = zmq.DEALER

    def __init__(self, ctx, endpoint, identity=None):
        self.ctx, self.endpoint, self.identity = ctx, endpoint, identity
        self.socket = None
        self.open()

    def open(self):
        self.socket = self.ctx.socket(self.socket_type)
        self.socket.linger = 0
        if self.identity:
            self.socket.setsockopt(zmq.IDENTITY, self.identity)
        self.connect()

    def connect(self):
        self.socket.connect(self.endpoint)

    def close(self, linger=0):
        self.socket.close(linger)

    def reopen(self):
        self.close()
        self.open()

    def send(self, frames):
        self.socket.send_multipart(frames)

    def receive(self, timeout_ms):
        """The next message, or None."""
        if self.socket.poll(max(0, timeout_ms)):
            return self.socket.recv_multipart()
        return None


# ---- proxies ------------------------------------------------------------------------------------------------------

class Proxy:
    """zmq_proxy between a ROUTER and a DEALER, in a thread of its own: it puts one address into the envelope."""

    def __init__(self, endpoint):
        self.ctx = zmq.Context()
        self.front, self.back = self.ctx.socket(zmq.ROUTER), self.ctx.socket(zmq.DEALER)
        self.endpoint = "tcp://127.0.0.1:%d" % self.front.bind_to_random_port("tcp://127.0.0.1")
        self.back.connect(endpoint)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            zmq.proxy(self.front, self.back)
        except zmq.ContextTerminated:
            self.front.close(0)
            self.back.close(0)

    def close(self):
        self.ctx.term()
        self.thread.join()


class BehindProxies:
    """Mixed into a client: two proxies stand between it and the broker."""

    def connect(self):
        first = Proxy(self.endpoint)
        self.proxies = [Proxy(first.endpoint), first]
        self.socket.connect(self.proxies[0].endpoint)

    def close(self, linger=0):
        super().close(linger)
        for proxy in self.proxies:
            proxy.close()


# ---- clients ------------------------------------------------------------------------------------------------------

class Client(Peer):
    """What all clients share. A dialect gives encode (service, body) and decode (frames)."""

    partials = False    # the dialect can say that more will follow
    plain = False       # the dialect names no service; it has a frontend of its own
    number = None       # of the request under way, where the dialect has numbers

    def encode(self, service, body):
        """The message of a request."""
        raise NotImplementedError

    def decode(self, frames):
        """The answers in a message: a list of (number, final, body); body may be an exception."""
        raise NotImplementedError

    def submit(self, service, body):
        self.service, self.parts = service, []
        self.request = self.encode(service, body)
        self.send(self.request)

    def collect(self, timeout_ms=10000):
        """All frames of the reply, or None if it did not come in time. Its parts are in self.parts."""
        deadline = now_ms() + timeout_ms
        while True:
            frames = self.receive(deadline - now_ms())
            if frames is None:
                return None
            for number, final, body in self.decode(frames):
                if number != self.number:
                    continue
                if isinstance(body, Exception):
                    raise body
                self.parts.append(body)
                if final:
                    return list(itertools.chain.from_iterable(self.parts))

    def call(self, service, body, timeout_ms=10000, tries=1):
        """Asks, and asks again over a new connection when no answer comes: the Guide's Lazy Pirate."""
        self.submit(service, body)
        for attempt in range(tries):
            if attempt:
                self.reopen()
                self.parts = []
                self.send(self.request)
            reply = self.collect(timeout_ms)
            if reply is not None:
                return reply
        self.reopen()
        raise Timeout(service)


class MDP01Client(Client):
    """RFC 7, client: a REQ socket, which adds and takes away the empty frame."""

    socket_type = zmq.REQ
    leading = []

    def encode(self, service, body):
        return self.leading + [MDPC01, service] + body

    def decode(self, frames):
        head = self.leading + [MDPC01, self.service]
        need(frames[:len(head)] == head and len(frames) > len(head), "not a reply of MDP/0.1", frames)
        return [(None, True, frames[len(head):])]


class MDP01DealerClient(MDP01Client):
    """RFC 7 with a DEALER socket, which sends the empty frame itself."""

    socket_type = zmq.DEALER
    leading = [b""]


class MDP01ProxyClient(BehindProxies, MDP01Client):
    """RFC 7 behind two proxies: the envelope is address, address, empty frame."""


class MDP02Client(Client):
    """RFC 18, client: REQUEST 0x01, PARTIAL 0x02, FINAL 0x03, over a DEALER."""

    partials = True
    leading = []

    def encode(self, service, body):
        return self.leading + [MDPC02, b"\1", service] + body

    def decode(self, frames):
        head = self.leading + [MDPC02]
        rest = frames[len(head):]
        need(frames[:len(head)] == head and len(rest) > 1, "not a reply of MDP/0.2", frames)
        need(rest[0] in (b"\2", b"\3") and rest[1] == self.service, "not a reply of MDP/0.2", frames)
        return [(None, rest[0] == b"\3", rest[2:])]


class MDP02EmptyClient(MDP02Client):
    """RFC 18 with an empty frame in front, as several implementations have it."""

    leading = [b""]


class MDP02ProxyClient(BehindProxies, MDP02Client):
    """RFC 18 behind two proxies."""


class LRUClient(Client):
    """The Guide, chapter 3: any REQ client."""

    socket_type = zmq.REQ
    plain = True
    leading = []

    def encode(self, service, body):
        return self.leading + body

    def decode(self, frames):
        need(frames[:len(self.leading)] == self.leading, "no empty frame", frames)
        return [(None, True, frames[len(self.leading):])]


class LRUDealerClient(LRUClient):
    """The same with a DEALER socket, which sends the empty frame itself."""

    socket_type = zmq.DEALER
    leading = [b""]


class LRUProxyClient(BehindProxies, LRUClient):
    """A REQ client behind two proxies."""


# ---- workers ------------------------------------------------------------------------------------------------------

class Worker(Peer):
    """What all workers share: registering, heartbeats, and starting anew when the broker is lost.

    A dialect gives encode (kind, frames) and decode (frames). Tokens are bytes, and are given back as they came.
    """

    plain = False               # the dialect names no service; it has a backend of its own
    partials = False            # it can answer in parts
    heartbeats_at_all = True
    heartbeats_when_idle = True
    single_frame = False        # it takes only bodies of one frame
    takes_leading_empty = True  # a reply's body may start with an empty frame
    credit = 1

    def __init__(self, ctx, endpoint, service, heartbeat_ms=2500, liveness=3, identity=None, register=True):
        self.service, self.heartbeat_ms, self.liveness = service, heartbeat_ms, liveness
        self.requests = collections.deque()
        self.heartbeats = self.disconnects = self.registered = 0
        super().__init__(ctx, endpoint, identity)
        if register:
            self.ready()

    # what a dialect defines

    def encode(self, kind, frames=()):
        """The message of a command."""
        raise NotImplementedError

    def decode(self, frames):
        """The commands in a message: a list of (kind, token, body)."""
        raise NotImplementedError

    # what it says

    def ready(self):
        self.requests.clear()
        self.registered += 1
        self.next_heartbeat = now_ms() + self.heartbeat_ms
        self.expiry = now_ms() + self.liveness * self.heartbeat_ms
        self.send(self.ready_message())

    def ready_message(self):
        return self.encode(READY, [self.service])

    def reply(self, token, body):
        self.send(self.encode(REPLY, [token, b""] + body))

    def partial(self, token, body):
        self.send(self.encode(PARTIAL, [token, b""] + body))

    def fail(self, token, text):
        """Only ZQB/1 has a word for it."""
        self.reply(token, [b""])

    def heartbeat(self):
        self.next_heartbeat = now_ms() + self.heartbeat_ms
        self.send(self.encode(HEARTBEAT))

    def disconnect(self):
        self.send(self.encode(DISCONNECT))

    # what it hears

    def handle(self, frames):
        self.expiry = now_ms() + self.liveness * self.heartbeat_ms
        for kind, token, body in self.decode(frames):
            self.take(kind, token, body)

    def take(self, kind, token, body):
        if kind == REQUEST:
            self.requests.append((token, body))
        elif kind == HEARTBEAT:
            self.heartbeats += 1
        elif kind == DISCONNECT:
            self.disconnects += 1
        else:
            raise ProtocolError("a broker does not send %s" % kind)

    def listen(self, condition, timeout_ms=10000):
        """Receives, and says nothing, until the condition holds or time is over; whether it holds."""
        deadline = now_ms() + timeout_ms
        while not condition():
            frames = self.receive(deadline - now_ms())
            if frames is None:
                return False
            self.handle(frames)
        return True

    def recv(self, timeout_ms=10000):
        """The next request as (token, body), or None; keeps the protocol going meanwhile."""
        deadline = now_ms() + timeout_ms
        while not self.requests:
            frames = self.receive(self.wake_up(deadline) - now_ms())
            disconnects = self.disconnects
            if frames is not None:
                self.handle(frames)
            if self.disconnects > disconnects:
                self.ready()
            self.keep_alive(frames is not None)
            if frames is None and now_ms() >= deadline:
                return None
        return self.requests.popleft()

    def wake_up(self, deadline):
        if not self.heartbeats_at_all:
            return deadline
        heartbeat = [self.next_heartbeat] if self.heartbeats_when_idle else []
        return min([deadline, self.expiry] + heartbeat)

    def keep_alive(self, received):
        """RFC 7: a worker sends heartbeats, and a broker that sends none for some time is gone."""
        if not self.heartbeats_at_all:
            return
        if now_ms() >= self.expiry:
            self.reopen()
            self.ready()
        elif now_ms() >= self.next_heartbeat and (received or self.heartbeats_when_idle):
            self.heartbeat()

    # the whole of it

    def answer(self, token, reply):
        if isinstance(reply, Failure):
            self.fail(token, reply)
        elif not isinstance(reply, Parts):
            self.reply(token, reply)
        elif self.partials:
            for part in reply[:-1]:
                self.partial(token, part)
            self.reply(token, reply[-1])
        else:
            self.reply(token, list(itertools.chain.from_iterable(reply)))

    def flush(self):
        """For workers that gather their answers."""

    def is_done(self):
        """Only ZQB/1 has a word for it: the broker has told it to take no more."""
        return False

    def serve(self, handler, stop):
        """Serves until stop.is_set (), then says goodbye where there is a word for it, and closes."""
        while not stop.is_set() and not self.is_done():
            request = self.recv(50)
            while request is not None:
                token, body = request
                self.answer(token, handler(body))
                request = self.requests.popleft() if self.requests else None
            self.flush()
        self.goodbye()

    def goodbye(self):
        self.disconnect()
        self.close(linger=1000)

    def start(self, handler):
        """Serves in a thread of its own, to which the worker then belongs."""
        return Running(self, handler)


class Running:
    """A worker that serves in a thread until stop, which raises what went wrong there."""

    def __init__(self, worker, handler):
        self.worker, self.handler = worker, handler
        self.event, self.error = threading.Event(), None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            self.worker.serve(self.handler, self.event)
        except Exception as error:      # handed over to whoever calls stop
            self.error = error
            self.worker.close()

    def stop(self):
        self.event.set()
        self.thread.join(10)
        if self.error:
            raise self.error


class MDP01Worker(Worker):
    """RFC 7, worker: an empty frame, MDPW01, the command."""

    leading, header, commands = [b""], MDPW01, MDP01_NUMBERS

    def encode(self, kind, frames=()):
        return self.leading + [self.header, self.commands[kind]] + list(frames)

    def decode(self, frames):
        head = self.leading + [self.header]
        rest = frames[len(head):]
        need(frames[:len(head)] == head and rest, "not a message for this worker", frames)
        kind = next((name for name, command in self.commands.items() if command == rest[0]), None)
        need(kind is not None, "unknown command", frames)
        if kind != REQUEST:
            need(len(rest) == 1, "frames behind a command that has none", frames)
            return [(kind, None, None)]
        need(len(rest) > 3 and rest[1] and rest[2] == b"", "not a request", frames)
        return [(kind, rest[1], rest[3:])]


class MDP01WordsWorker(MDP01Worker):
    """RFC 7 with the commands in words."""

    commands = MDP01_WORDS


class MDP01PhpWorker(MDP01Worker):
    """Leaves out the empty frame behind the client's address in REPLY, as the Guide's PHP worker does."""

    takes_leading_empty = False

    def reply(self, token, body):
        self.send(self.encode(REPLY, [token] + body))


class MDP01RubyWorker(MDP01Worker):
    """Sends heartbeats only after it received something, as the Guide's Ruby worker does."""

    heartbeats_when_idle = False


class MDP02Worker(MDP01Worker):
    """RFC 18, worker: MDPW02, the command; replies may come in parts."""

    leading, header, commands = [], MDPW02, MDP02_NUMBERS
    partials = True


class MDP02EmptyWorker(MDP02Worker):
    """RFC 18 with an empty frame in front."""

    leading = [b""]


class LRUWorker(Worker):
    """The Guide, chapter 3, load balancing: a REQ worker says READY, then each reply asks for the next request."""

    socket_type = zmq.REQ
    plain = True
    heartbeats_at_all = False
    word = b"READY"
    leading = []

    def ready_message(self):
        return self.leading + [self.word]

    def encode(self, kind, frames=()):
        need(kind == REPLY, "no such command in this dialect", [])
        return self.leading + list(frames)

    def decode(self, frames):
        need(frames[:len(self.leading)] == self.leading, "no empty frame", frames)
        rest = frames[len(self.leading):]
        need(len(rest) > 2 and rest[0] and rest[1] == b"", "not a request", frames)
        return [(REQUEST, rest[0], rest[2:])]

    def goodbye(self):
        self.close()


class LRUNumberWorker(LRUWorker):
    """The Guide, chapter 4, Simple Pirate: READY is the byte 0x01."""

    word = b"\1"


class LRUDealerWorker(LRUWorker):
    """The same with a DEALER socket, which sends the empty frame itself, and so may say anything at any time."""

    socket_type = zmq.DEALER
    leading = [b""]


class PPPWorker(Worker):
    """RFC 6: a DEALER; READY and HEARTBEAT are single frames, 0x01 and 0x02; requests are address, empty, body."""

    plain = True
    ready_word, heartbeat_word = b"\1", b"\2"

    def ready_message(self):
        return [self.ready_word]

    def encode(self, kind, frames=()):
        need(kind in (REPLY, HEARTBEAT), "no such command in this dialect", [])
        return [self.heartbeat_word] if kind == HEARTBEAT else list(frames)

    def decode(self, frames):
        if len(frames) == 1:
            need(frames[0] == self.heartbeat_word, "not a heartbeat", frames)
            return [(HEARTBEAT, None, None)]
        need(len(frames) > 2 and frames[0] and frames[1] == b"", "not a request", frames)
        need(len(frames) == 3 or not self.single_frame, "more than three frames", frames)
        return [(REQUEST, frames[0], frames[2:])]

    def goodbye(self):
        self.close()


class PPPGuideWorker(PPPWorker):
    """ppworker of the Guide: it understands requests of three frames only."""

    single_frame = True


class PPPWordsWorker(PPPWorker):
    """Paranoid Pirate in words."""

    ready_word, heartbeat_word = b"READY", b"HEARTBEAT"


# ---- ZQB/1, from section 8 of the manual --------------------------------------------------------------------------

ZQB_MAGIC = b"ZQB\1"
ZQB_TYPES = {READY: 1, REQUEST: 2, PARTIAL: 3, REPLY: 4, ERROR: 5, HEARTBEAT: 6, DISCONNECT: 7, CANCEL: 8, PROGRESS: 9,
             MORE: 10, DRAIN: 11}
ZQB_KINDS = {number: kind for kind, number in ZQB_TYPES.items()}
AGAIN, UNBEGUN, ONE_WAY, FAIL_FAST, SURVEY, WINDOW = (1 << bit for bit in range(6))       # flags
(SERVICE, CREDIT, STATUS, TEXT, BEAT, PRIORITY, DEADLINE, DELAY, ATTEMPTS, BACKOFF, UNIQUE, AFFINITY, DONE,
 CODE, USER) = range(1, 16)     # tags of fields; DONE is that of progress
(ENOWORKER, EQUEUEFULL, EEXPIRED, EREFUSED, ELOST, ECANCELLED, EFAILED, EMALFORMED,     # ZQB_ERRORS
 EDENIED) = range(1, 10)
DETACHED = 0x80000000
WINDOW_PARTS, GRANT_PARTS = 32, 16      # parts under way at most; a reader says MORE for so many

Command = collections.namedtuple("Command", "kind id fields body flags", defaults=(0, {}, [], 0))


def number_of(command, tag, default=None):
    """The value of a field that is one number, of whatever size."""
    value = command.fields.get(tag)
    return default if value is None else int.from_bytes(value, "big")


def progress_of(command):
    """(done, total) of a PROGRESS, or of the end of a survey; None if it has none."""
    value = command.fields.get(DONE)
    return None if value is None else struct.unpack(">QQ", value)


def zqb_asks(priority=None, deadline=None, delay=None, attempts=None, backoff=None, unique=None, affinity=None,
             one_way=False, fail_fast=False, survey=False):
    """The fields and flags of a REQUEST that asks for this. Priority 0 is normal, times are ms, backoff a pair."""
    fields = {PRIORITY: priority is not None and struct.pack(">B", 128 + priority),
              DEADLINE: deadline is not None and struct.pack(">I", deadline),
              DELAY: delay is not None and struct.pack(">I", delay),
              ATTEMPTS: attempts is not None and struct.pack(">H", attempts),
              BACKOFF: backoff is not None and struct.pack(">II", *backoff), UNIQUE: unique, AFFINITY: affinity}
    flags = ONE_WAY * one_way | FAIL_FAST * fail_fast | SURVEY * survey
    return {tag: value for tag, value in fields.items() if value}, flags


def zqb_request(number, service, body, **asks):
    """The command of a request with such wishes."""
    fields, flags = zqb_asks(**asks)
    return Command(REQUEST, number, {SERVICE: service, **fields}, body, flags)


def zqb_command(command, detach_over=1024):
    """The bytes of a command, and the frames that follow the first frame because of it. kind may be a number."""
    fields = b"".join(struct.pack(">BB", tag, len(value)) + value for tag, value in command.fields.items())
    block, detached = b"", []
    for frame in command.body:
        if len(frame) > detach_over:
            block += struct.pack(">I", DETACHED | len(frame))
            detached.append(frame)
        else:
            block += struct.pack(">I", len(frame)) + frame
    kind = ZQB_TYPES.get(command.kind, command.kind)
    head = struct.pack(">IBBHQ", 16 + len(fields) + len(block), kind, command.flags, len(fields), command.id)
    return head + fields + block, detached


def zqb_pack(life, commands, detach_over=1024):
    """The frames of a message with these commands."""
    first, detached = ZQB_MAGIC + life, []
    for command in commands:
        packed, frames = zqb_command(command, detach_over)
        first += packed
        detached += frames
    return [first] + detached


def zqb_again(frames):
    """A message of one REQUEST, sent once more: with the flag AGAIN."""
    first = bytearray(frames[0])
    first[len(ZQB_MAGIC) + 8 + 5] |= AGAIN
    return [bytes(first)] + frames[1:]


def zqb_fields(data):
    """Tag to value."""
    fields, at = {}, 0
    while at < len(data):
        need(at + 2 <= len(data) and at + 2 + data[at + 1] <= len(data), "a field is cut short", [data])
        fields[data[at]] = data[at + 2:at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    return fields


def zqb_body(data, detached):
    """The frames of a body block; takes those it mentions from detached."""
    body, at = [], 0
    while at < len(data):
        need(at + 4 <= len(data), "a body block is cut short", [data])
        size, = struct.unpack_from(">I", data, at)
        at += 4
        if size & DETACHED:
            need(detached and len(detached[0]) == size & ~DETACHED, "a large frame is missing", [data])
            body.append(detached.pop(0))
        else:
            need(at + size <= len(data), "a body frame is cut short", [data])
            body.append(data[at:at + size])
            at += size
    return body


def zqb_unpack(frames):
    """A message's life and commands. Types that are not known keep their number as kind."""
    first, detached = frames[0], list(frames[1:])
    need(len(first) >= 28 and first[:4] == ZQB_MAGIC, "not a message of ZQB/1", frames)
    commands, at = [], 12
    while at < len(first):
        need(at + 16 <= len(first), "a command is cut short", frames)
        size, kind, flags, fields_size, number = struct.unpack_from(">IBBHQ", first, at)
        need(16 + fields_size <= size <= len(first) - at, "the size of a command lies", frames)
        block = at + 16 + fields_size
        commands.append(Command(ZQB_KINDS.get(kind, kind), number, zqb_fields(first[at + 16:block]),
                                zqb_body(first[block:at + size], detached), flags))
        at += size
    need(not detached, "frames that no command mentions", frames)
    return first[4:12], commands


class ZQBClient(Client):
    """A client of ZQB/1. It may have many requests under way; call has one."""

    partials = True
    grants = True       # it says MORE as it reads
    detach_over = 1024

    def __init__(self, ctx, endpoint, identity=None, life=None):
        self.life = life or os.urandom(8)
        self.numbers = itertools.count(1)
        self.broker_life = self.request = None
        self.progress = []      # (done, total, text) of the request under way
        self.unread = collections.Counter()     # parts since the last MORE, by number
        super().__init__(ctx, endpoint, identity)

    def send_commands(self, *commands):
        self.send(zqb_pack(self.life, commands, self.detach_over))

    def encode(self, service, body, **asks):
        self.number, self.progress = next(self.numbers), []
        return zqb_pack(self.life, [zqb_request(self.number, service, body, **asks)], self.detach_over)

    def ask(self, service, body, **asks):
        """As submit, with wishes: see zqb_asks. Returns the number."""
        self.service, self.parts = service, []
        self.request = self.encode(service, body, **asks)
        self.send(self.request)
        return self.number

    def cancel(self, number=None):
        self.send_commands(Command(CANCEL, number or self.number))

    def commands(self, frames):
        """The commands in a message; when the broker was started anew, it is asked again."""
        life, commands = zqb_unpack(frames)
        restarted = self.broker_life not in (None, life)
        self.broker_life = life
        if restarted and self.request:
            self.send(self.request)
        for command in commands:
            need(command.kind in (PARTIAL, REPLY, ERROR, PROGRESS, HEARTBEAT), "not for a client", frames)
        return commands

    def more(self, number, parts):
        self.send_commands(Command(MORE, number, {CREDIT: struct.pack(">H", parts)}))

    def read_part(self, number):
        """A client says MORE for every 16 parts that it has read."""
        self.unread[number] += 1
        if self.grants and self.unread[number] == GRANT_PARTS:
            self.more(number, GRANT_PARTS)
            self.unread[number] = 0

    def ask_again(self):
        """Over a new connection: what was under way over the old one will never be read."""
        self.reopen()
        self.send(zqb_again(self.request))
        self.more(self.number, WINDOW_PARTS)

    def decode(self, frames):
        answers = []
        for command in self.commands(frames):
            if command.kind == ERROR:
                answers.append((command.id, True, zqb_failure(command)))
            elif command.kind == PROGRESS and command.id == self.number:
                self.progress.append((*progress_of(command), command.fields.get(TEXT, b"").decode()))
            elif command.kind in (PARTIAL, REPLY):
                if command.kind == PARTIAL:
                    self.read_part(command.id)
                elif DONE in command.fields and command.id == self.number:
                    self.progress.append((*progress_of(command), ""))
                answers.append((command.id, command.kind == REPLY, command.body))
        return answers

    def next_commands(self, count, timeout_ms=10000):
        """So many commands, heartbeats left out, or fewer if time is over. It says nothing of what it has read."""
        commands, deadline = [], now_ms() + timeout_ms
        while len(commands) < count:
            frames = self.receive(deadline - now_ms())
            if frames is None:
                break
            commands += [command for command in zqb_unpack(frames)[1] if command.kind != HEARTBEAT]
        return commands


def zqb_status(command):
    """The status of an ERROR or a DISCONNECT, or None."""
    return number_of(command, STATUS)


def zqb_failure(command):
    """An ERROR as an exception."""
    return CallFailed(zqb_status(command), command.fields.get(TEXT, b"").decode(), number_of(command, CODE))


class ZQBDetachedClient(ZQBClient):
    """Sends every body frame on its own, however small."""

    detach_over = -1


class ZQBInlineClient(ZQBClient):
    """Packs every body frame, however large."""

    detach_over = 1 << 30


class ZQBProxyClient(BehindProxies, ZQBClient):
    """ZQB/1 behind two proxies."""


def zqb_number(token):
    """A token as the id that it is in ZQB/1."""
    return struct.unpack(">Q", token)[0]


class ZQBWorker(Worker):
    """A worker of ZQB/1. A token is the 8 bytes of an id."""

    partials = True
    detach_over = 1024

    def __init__(self, *args, credit=None, **options):
        self.life, self.broker_lives = os.urandom(8), []
        self.credit = credit or self.credit
        self.status = None
        self.asked = {}         # the commands of all requests, by token: their fields and flags
        self.cancelled = []     # tokens of which nobody wants an answer any more
        self.granted, self.sent = collections.Counter(), collections.Counter()      # parts, by token
        self.drains = 0         # how often the broker said DRAIN
        super().__init__(*args, **options)

    def send_commands(self, *commands):
        self.send(zqb_pack(self.life, commands, self.detach_over))

    def ready_message(self):
        self.asked.clear()
        self.drains = 0
        fields = {SERVICE: self.service}
        if self.credit != 1:
            fields[CREDIT] = struct.pack(">H", self.credit)
        return zqb_pack(self.life, [Command(READY, 0, fields)])

    def encode(self, kind, frames=()):
        frames = list(frames)
        number = zqb_number(frames[0]) if frames else 0
        return zqb_pack(self.life, [Command(kind, number, {}, frames[2:])], self.detach_over)

    # what only this dialect has

    def fail(self, token, text, code=None):
        fields = {TEXT: text.encode()}
        if code is not None:
            fields[CODE] = struct.pack(">I", code)
        self.send_commands(Command(ERROR, zqb_number(token), fields))

    def refuse(self, token):
        self.send_commands(Command(ERROR, zqb_number(token), {STATUS: struct.pack(">H", EREFUSED)}))

    def report(self, token, done, total, text=None):
        """How far it is."""
        fields = {DONE: struct.pack(">QQ", done, total)}
        if text is not None:
            fields[TEXT] = text.encode()
        self.send_commands(Command(PROGRESS, zqb_number(token), fields))

    def drain(self):
        self.send_commands(Command(DRAIN))

    def left(self, token):
        """The milliseconds until the deadline, or None."""
        return number_of(self.asked[token], DEADLINE)

    def caller(self, token):
        """The user whose request it is, or None: a broker says who, or nothing."""
        return self.asked[token].fields.get(USER)

    def may_send(self, token):
        """Whether one part more may be under way."""
        asked = self.asked.get(token)
        return not (asked and asked.flags & WINDOW) or self.sent[token] < WINDOW_PARTS + self.granted[token]

    def answer(self, token, reply):
        """Of many parts, those that may be under way; then it waits until the client has read, or wants no more."""
        parts = reply[:-1] if isinstance(reply, Parts) else []
        for part in parts:
            while not self.may_send(token) and token not in self.cancelled:
                self.listen(lambda: self.may_send(token) or token in self.cancelled, self.heartbeat_ms)
                self.keep_alive(True)
            self.sent[token] += 1
            self.partial(token, part)
        super().answer(token, reply[-1] if parts else reply)

    def is_done(self):
        return self.drains > 0

    # what it hears

    def handle(self, frames):
        """A broker whose life has changed was restarted: register again, forget what was held."""
        life = zqb_unpack(frames)[0]
        restarted = bool(self.broker_lives) and self.broker_lives[-1] != life
        if not self.broker_lives or restarted:
            self.broker_lives.append(life)
        registered = self.registered
        super().handle(frames)
        if restarted and not any(kind == DISCONNECT for kind, _, _ in self.decode(frames)):
            self.ready()
        need(self.registered - registered <= 1, "registered twice", frames)

    def take(self, kind, token, body):
        command = body
        if kind == REQUEST:
            self.asked[token] = command
        elif kind == DISCONNECT:
            self.status = zqb_status(command)
        elif kind == CANCEL:
            self.cancelled.append(token)
        elif kind == MORE:
            self.granted[token] += number_of(command, CREDIT)
        elif kind == DRAIN:
            self.drains += 1
        if kind not in (CANCEL, MORE, DRAIN):
            super().take(kind, token, command.body)

    def decode(self, frames):
        return [(command.kind, struct.pack(">Q", command.id), command) for command in zqb_unpack(frames)[1]]


class ZQBBatchWorker(ZQBWorker):
    """Holds up to ten requests, and answers all that it has in one message."""

    credit = 10

    def __init__(self, *args, **options):
        self.answers = []
        super().__init__(*args, **options)

    def reply(self, token, body):
        self.answers.append(Command(REPLY, zqb_number(token), {}, body))

    def partial(self, token, body):
        self.answers.append(Command(PARTIAL, zqb_number(token), {}, body))

    def flush(self):
        if self.answers:
            self.send_commands(*self.answers)
            self.answers = []


class ZQBDetachedWorker(ZQBWorker):
    """Sends every body frame on its own, however small."""

    detach_over = -1


CLIENTS = {
    "mdp01_req": MDP01Client,
    "mdp01_dealer": MDP01DealerClient,
    "mdp01_behind_proxies": MDP01ProxyClient,
    "mdp02": MDP02Client,
    "mdp02_with_empty_frame": MDP02EmptyClient,
    "mdp02_behind_proxies": MDP02ProxyClient,
    "lru_req": LRUClient,
    "lru_dealer": LRUDealerClient,
    "lru_behind_proxies": LRUProxyClient,
    "zqb1": ZQBClient,
    "zqb1_all_detached": ZQBDetachedClient,
    "zqb1_all_inline": ZQBInlineClient,
    "zqb1_behind_proxies": ZQBProxyClient,
}

WORKERS = {
    "mdp01": MDP01Worker,
    "mdp01_in_words": MDP01WordsWorker,
    "mdp01_php": MDP01PhpWorker,
    "mdp01_ruby": MDP01RubyWorker,
    "mdp02": MDP02Worker,
    "mdp02_with_empty_frame": MDP02EmptyWorker,
    "lru_req": LRUWorker,
    "lru_req_number": LRUNumberWorker,
    "lru_dealer": LRUDealerWorker,
    "ppp": PPPWorker,
    "ppp_of_the_guide": PPPGuideWorker,
    "ppp_in_words": PPPWordsWorker,
    "zqb1": ZQBWorker,
    "zqb1_batches": ZQBBatchWorker,
    "zqb1_all_detached": ZQBDetachedWorker,
}
