#!/usr/bin/env python3
"""Chaos with real processes: zqbrokerd, 20 workers and 20 clients of four dialects, all of which are killed, stopped
and cut off at random.

    chaos.py [--seconds N] [--seed N] [--transport tcp|ipc] [--only WHOM-WHAT,...] [--verbose]

For each transport it first measures how long it takes, from kill -9 of a worker at work, until another begins its
request, in each dialect; what becomes of workers and clients that were turned away for a while (tcp); and, beside the
rest, when the requests of workers that are stopped at work are begun by others, and what becomes of requests while a
broker stands still. Then come rounds of at most half a minute.

In a round, 20 workers and 20 clients (peer.c) do numbered requests: of each 8 speak ZQB/1, 4 MDP/0.1, 4 MDP/0.2, and 4
are plain REQ sockets at the --lru pair of the same broker. All serve and ask for one service, so that any client is
served by any worker. Meanwhile they and the broker are killed with -9 and started again, stopped and continued, or
leave with SIGTERM; over tcp each of them has a proxy of its own (proxy.py), which cuts, delays, drops, refuses, doubles
and garbles connections. At the end of a round the disturbances stop, the clients ask nothing more, everything ends, and
what the peers wrote down is compared. The seed, which is printed, decides what is done to whom; the processes
themselves do not obey it.

Every second request of a ZQB/1 client asks for something besides: a priority, a deadline, a delay, to be executed but
once for all with the same key, ... (WISHES). Workers also drain, give requests back, answer in many parts, and stop
working for nobody.

WHAT MUST HOLD, in all dialects: each request has exactly one outcome at the client that asked, if that was not killed:
a reply that is right, an error that is explained, or its own giving up; nobody hears of what he did not ask; a reply
comes from a worker that executed it. ZQB/1 clients may hear that a request was lost too often, or cut off by the end of
a broker, that its deadline is over, and, for a moment after the start of a broker, that there is no worker, or none that
will do it, if they asked so; the others have no words for that, and can only time out. What is one way is never answered.
Nothing is begun before its time. Requests with the same key are not executed at the same time. What a worker has begun
that drains, it ends.

THE RULE for executions, from section 3 of the manual. A request gets into a broker when its client sends it. With ZQB/1
that broker must not have it (any more), otherwise it is joined. So it gets in at most as often as the client sends it,

    ZQB/1         sent  <=  1 + 2 P + T + M
    the others    sent  <=  1 + P + min (T, retries)        each time as another request, as they have no numbers

    P  disturbances of the client, of its connection or of the broker while it was outstanding: for each the client may
       send it again once when it is connected again, and, with ZQB/1, once when it hears that the broker is another
    T  its time divided by the time-out: so often its own time-out came. With MDP, one request of a client is under way
       at a time, and the time of the next one runs from when it is over
    M  time-outs of other requests of its client meanwhile, but at most T + 1: a client that hears nothing at all for so
       long then sends everything again

What is one way is sent once; of unique requests, those of all that have the same key at that time are added up. Each
time it got in, workers get it at most `attempts` times (3, or 1 if it asks so), and a second time only if the first was
lost; who drains loses nothing. So

    executions  <=  min (attempts x sent, sent + D)

    D  disturbances of the workers that executed it, and of the broker, from when it was asked to its last execution

and, with ZQB/1, in one life of the broker, where its end is no reason to send it again,

    executions  <=  attempts x (1 + 2 P' + T + M)           P' is P without the ends of brokers

A request that nothing happened to is executed once. And while a broker has a request of ZQB/1, a retry joins it: it is
not begun again while a worker that nothing happened to is at it. Disturbances count for SLACK longer than they last:
that is how long it takes until everybody has noticed and come back.

Environment: ZQBROKERD, ZQB_CHAOS_PEER (programs; below tests/build), ZQB_CHAOS_RSS_MB (64, the most that the broker may
hold).
"""
import argparse
import asyncio
import collections
import errno
import os
import random
import re
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from proxy import Proxy  # noqa: E402

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BROKER = os.path.join(TOP, os.environ.get("ZQBROKERD", "tests/build/zqbrokerd"))
PEER = os.path.join(TOP, os.environ.get("ZQB_CHAOS_PEER", "tests/build/chaos/peer"))
RSS_MOST = int(os.environ.get("ZQB_CHAOS_RSS_MB", "64")) << 20

WORKERS, CLIENTS, FIRST_CLIENT, SERVICE = 20, 20, 100, "job"
HEARTBEAT_MS, ATTEMPTS = 300, 3
DIALECTS = ("ZQB/1", "MDP/0.1", "MDP/0.2", "LRU")
MIXED = ("ZQB/1", *DIALECTS)  # of four workers or clients each
# Of a client: time-out in ms, retries. Without numbers a try that is not over in time was in vain.
PACES = {"ZQB/1": ((300, 9), (500, 5), (1000, 3), (2500, 2)), "others": ((800, 5), (1000, 3), (1500, 3), (2500, 2))}
OUTSTANDING = {"ZQB/1": 8, "MDP/0.1": 2, "MDP/0.2": 2, "LRU": 1}  # of a client
PER_SECOND = 25  # of a client
EVENTS_PER_SECOND = 14
ROUND = 30  # seconds
SLACK = 1_500_000_000  # ns
AWAY = 400_000_000  # ns; clients that are back sooner have never been thought gone
FROZEN = 4.0  # seconds, of which the peers of a frozen broker lose their patience after 0.9
LATE = 200_000_000  # ns; so late a time-out may be noticed
PATIENCE = 15
STOPPED = 4  # workers
SLOW_HEARTBEAT_MS = 5000  # of the measured broker and its workers, who are lost after three
REDISPATCH_MS = 1000

# peer.c has the same
RECORD = struct.Struct("QQIIII")
SUBMIT, REPLY, ERROR, WRONG, STRANGER, CANCEL, NOT_TAKEN, BEGIN, DAMAGED, FINISH, SENT, LED, REFUSED = range(1, 14)
(PLAIN, PRIORITY, DEADLINE, UNIQUE, ONE_WAY, AFFINITY, FAIL_FAST, ONCE, BACKOFF, DELAYED, PICKY,
 REPORTED), WISHES, PLAIN_NUMBERS = range(12), 24, 0x40000000
DEADLINE_MS, DELAY_MS, KEYS = 1500, 150, 2


def header_number(pattern):
    with open(os.path.join(TOP, "zqbroker.h")) as file:
        return int(re.search(pattern, file.read()).group(1))


ZQB_ERRNO = 156384712 + 1000
ENOWORKER = ZQB_ERRNO + header_number(r"X \(ZQB_ENOWORKER, +(\d+)")
EREFUSED = ZQB_ERRNO + header_number(r"X \(ZQB_EREFUSED, +(\d+)")
EEXPIRED = ZQB_ERRNO + header_number(r"X \(ZQB_EEXPIRED, +(\d+)")
ELOST = ZQB_ERRNO + header_number(r"X \(ZQB_ELOST, +(\d+)")
ECANCELLED = ZQB_ERRNO + header_number(r"X \(ZQB_ECANCELLED, +(\d+)")
ENDED = ("replied", "failed", "expired", "cancelled", "dead", "client_gone", "queued", "running")
NAMES = {errno.ETIMEDOUT: "ETIMEDOUT", ELOST: "ELOST", ECANCELLED: "ECANCELLED", ENOWORKER: "ENOWORKER",
         EREFUSED: "EREFUSED", EEXPIRED: "EEXPIRED"}


def wish_of(number):
    """What a request of ZQB/1 asks for."""
    return PLAIN if number & PLAIN_NUMBERS else number % WISHES


def key_of(number):
    """What a unique request has in common with others."""
    return number // WISHES % KEYS


class Fault(Exception):
    """What must not be."""


def memory(pid, field="VmRSS"):
    """Bytes that a process has in memory."""
    with open("/proc/%s/status" % pid) as file:
        return int(re.search(field + r":\s+(\d+) kB", file.read()).group(1)) << 10


def show(name, text):
    print("# %s: %s" % (name, text), flush=True)


# ---- processes ----------------------------------------------------------------------------------------------------

class Process:
    """A program that was started. Its end is an event; what it was not told to end with is a fault."""

    alive = set()

    def __init__(self, name, command, log, talks=False, blocked=()):
        pipe = subprocess.PIPE if talks else subprocess.DEVNULL
        self.name, self.expected, self.reader = name, set(), None
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.pid = self.process.pid
        self.ended = asyncio.get_running_loop().create_future()
        self.pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self.pidfd, self.reap)
        Process.alive.add(self)

    def reap(self):
        if self.process.poll() is None:
            return
        asyncio.get_running_loop().remove_reader(self.pidfd)
        os.close(self.pidfd)
        Process.alive.discard(self)
        self.ended.set_result(self.process.returncode)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe and self.reader is None:
                pipe.close()

    def send(self, number):
        if number == signal.SIGKILL:
            self.expected = {-signal.SIGKILL}
        if number in (signal.SIGTERM, signal.SIGUSR1):
            self.expected = {0}
        if not self.ended.done():
            self.process.send_signal(number)

    async def end(self, number):
        """Sends a signal, and waits for the end."""
        self.send(number)
        try:
            return await asyncio.wait_for(asyncio.shield(self.ended), PATIENCE)
        except asyncio.TimeoutError:
            raise Fault("%s does not end with signal %d" % (self.name, number)) from None

    def fault(self):
        """How it ended, if not as it should."""
        if not self.ended.done() or self.ended.result() in self.expected:
            return None
        return "%s (pid %d) ended with status %d" % (self.name, self.pid, self.ended.result())

    async def line(self, patience=PATIENCE):
        if self.reader is None:
            loop = asyncio.get_running_loop()
            self.reader = asyncio.StreamReader()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self.reader), self.process.stdout)
        try:
            line = await asyncio.wait_for(self.reader.readline(), patience)
        except asyncio.TimeoutError:
            line = b""
        if not line:
            raise Fault("%s ended, or says nothing" % self.name)
        return line.decode().strip()

    def tell(self, text):
        os.write(self.process.stdin.fileno(), text.encode())

    async def ask(self, question):
        self.tell(question + "\n")
        answer = await self.line()
        if not answer.startswith("ok"):
            raise Fault("%s: %s" % (question, answer))
        return answer[2:].split()


def kill_all():
    for one in list(Process.alive):
        one.process.kill()
        one.process.wait()


class Place:
    """A transport and a folder: where a broker is, and what belongs to it. The programs are copies, as somebody may be
    building others."""

    def __init__(self, transport, folder, verbose=False):
        self.transport, self.folder, self.verbose = transport, folder, verbose
        self.log = open(os.path.join(folder, transport + ".log"), "ab")
        self.endpoints = ["tcp://127.0.0.1:*" if transport == "tcp" else "ipc://%s/socket%d" % (folder, i)
                          for i in range(3)]  # for all dialects but LRU, for LRU clients, for LRU workers

    def path(self, name):
        return os.path.join(self.folder, "%s-%s" % (self.transport, name))

    def endpoint(self, dialect, role):
        return self.endpoints[0 if dialect != "LRU" else 1 if role == "client" else 2]

    def port(self, dialect, role):
        return int(self.endpoint(dialect, role).rsplit(":", 1)[1])

    def control(self):
        return self.peer("control", "control", self.endpoints[0], talks=True)

    def peer(self, name, *command, talks=False):
        command = [self.folder + "/peer", *map(str, command)]
        return Process(name, command, self.log, talks, blocked=[signal.SIGTERM, signal.SIGUSR1])  # until it can

    async def broker(self, heartbeat_ms=HEARTBEAT_MS, lru=True):
        command = [self.folder + "/zqbrokerd", "--bind", self.endpoints[0], "--heartbeat", str(heartbeat_ms)]
        command += ["--lru", *self.endpoints[1:], SERVICE] if lru else []
        command += ["-v"] if self.verbose else []
        process, bound = Process("broker", command, self.log, talks=True), []
        while (line := await process.line()) != "ready":
            bound.append(line.split()[1])
        self.endpoints[:len(bound)] = bound
        return process

    async def stats(self, control):
        return {name: int(value) for name, value in (pair.split("=") for pair in await control.ask("mmi.stats"))}

    async def until(self, control, service, wanted):
        """Until a service is as wanted: "queued=0 running=0 workers=20"."""
        deadline, line = time.monotonic() + PATIENCE, None
        while line != wanted and time.monotonic() < deadline:
            if line is not None:
                await asyncio.sleep(0.005)  # of this there is no event
            words = await control.ask("mmi.services")
            at = words.index(service) if service in words else -4
            line = " ".join(words[at + 1:at + 4]) or "none"
        if line != wanted:
            workers = " ".join(await control.ask("mmi.workers")).split(service + " ")
            raise Fault("waited in vain for %s; it is %s; %s" % (wanted, line, [one for one in workers if " load=0 " not in one]))


# ---- how long a request waits when its worker is killed, or stands still ------------------------------------------

class Holders:
    """Workers of one dialect that hold what they get, and say when they got it."""

    def __init__(self, place, dialect, count, heartbeat_ms):
        self.place, self.count, self.began = place, count, {}
        command = ("hold", dialect, place.endpoint(dialect, "worker"), SERVICE, heartbeat_ms)
        self.processes = [place.peer("hold%d" % i, *command, talks=True) for i in range(count)]

    async def ready(self, control):
        await self.place.until(control, SERVICE, "queued=0 running=0 workers=%d" % self.count)
        for one in self.processes:
            self.listen(one)

    def listen(self, one):
        self.began[asyncio.ensure_future(one.line(None))] = one

    async def next_begun(self):
        """Who began a request, and when: ns."""
        done, _ = await asyncio.wait(self.began, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise Fault("nobody began a request")
        one = done.pop()
        return self.began.pop(one), int(one.result())

    def answer(self, one):
        one.tell("!")
        self.listen(one)

    async def end(self, broker, callers, answers):
        for one in (*self.began, *answers):
            one.cancel()
        await asyncio.gather(*self.began, *answers, return_exceptions=True)
        await asyncio.gather(*(one.end(signal.SIGKILL) for one in self.processes + callers if not one.expected))
        if await broker.end(signal.SIGTERM) != 0:
            raise Fault("the broker ended with status %d" % broker.ended.result())


async def killed(place, dialect, kills):
    """Milliseconds from kill -9 of a worker at work until another has begun its request, many times."""
    broker = await place.broker(SLOW_HEARTBEAT_MS, dialect == "LRU")
    holders = Holders(place, dialect, kills + 1, SLOW_HEARTBEAT_MS)
    control, caller, taken, answers = place.control(), place.control(), [], []
    try:
        await holders.ready(control)
        for _ in range(kills):
            answers = [asyncio.ensure_future(caller.ask(SERVICE))]
            worker, _ = await holders.next_begun()
            at = time.monotonic_ns()
            worker.send(signal.SIGKILL)
            other, begun = await holders.next_begun()
            taken.append((begun - at) / 1e6)
            holders.answer(other)
            await answers[0]
    finally:
        await holders.end(broker, [control, caller], answers)
    return taken


async def stopped(place, dialect):
    """Milliseconds from SIGSTOP of workers at work until others have begun their requests. They are at work for a while
    before: libzmq waits for nothing more from a connection when a message came over it after the last heartbeat of
    ZMTP, until the next heartbeat, so that it does not notice who is stopped in between."""
    broker = await place.broker(lru=False)
    holders = Holders(place, dialect, 2 * STOPPED, HEARTBEAT_MS)
    control, callers, taken, answers = place.control(), [place.control() for _ in range(STOPPED)], [], []
    try:
        await holders.ready(control)
        answers = [asyncio.ensure_future(one.ask(SERVICE)) for one in callers]
        workers = [(await holders.next_begun())[0] for _ in range(STOPPED)]
        await asyncio.sleep(2 * HEARTBEAT_MS / 1000)
        at = time.monotonic_ns()
        for one in workers:
            one.send(signal.SIGSTOP)
        for _ in range(STOPPED):
            other, begun = await holders.next_begun()
            taken.append((begun - at) / 1e6)
            holders.answer(other)
        await asyncio.gather(*answers)
    finally:
        await holders.end(broker, [control, *callers], answers)
    return taken


def spread(taken):
    middle = statistics.median(taken)
    return "median %.2f ms, least %.2f, most %.2f, of %d" % (middle, min(taken), max(taken), len(taken))


# ---- peers that are turned away -----------------------------------------------------------------------------------

async def turned_away(place):
    """Something in front of the broker takes connections and ends them at once, as a load balancer does whose server is
    away. When a worker and a client that this happened to for a while get through, it is as if it had not happened:
    nothing is lost, nothing done twice. What is wrong with that, in each dialect."""
    tries = [turned_away_in(Place(place.transport, place.folder), dialect) for dialect in DIALECTS]
    return sum(await asyncio.gather(*tries), [])


async def turned_away_in(place, dialect):
    broker = await place.broker()
    files, proxies, ways = [], [], []
    for role in ("worker", "client"):
        files.append(place.path("away-%s-%s" % (dialect.replace("/", ""), role)))
        proxies.append(Proxy(place.port(dialect, role)))
        await proxies[-1].start()
        proxies[-1].refusing, proxies[-1].turned_away = True, asyncio.Queue()
        ways.append("tcp://127.0.0.1:%d" % proxies[-1].port)
    outstanding, sent = (10, 10) if dialect == "ZQB/1" else (OUTSTANDING[dialect], 1)
    worker = place.peer("worker", "worker", dialect, ways[0], SERVICE, files[0], 1, 1, HEARTBEAT_MS)
    client = place.peer("client", "client", dialect, ways[1], SERVICE, files[1], FIRST_CLIENT << 16 | 1, 1, 10000, 1,
                        outstanding, 1000, "plain")
    for proxy in reversed(proxies):  # the client comes through first, and its requests wait for the worker
        for _ in range(8):
            await asyncio.wait_for(proxy.turned_away.get(), PATIENCE)
    client.send(signal.SIGTERM)
    control = place.control()
    for proxy in reversed(proxies):
        proxy.refusing = False
        await (place.until(control, SERVICE, "queued=%d running=0 workers=0" % sent) if proxy is proxies[1]
               else asyncio.wait_for(asyncio.shield(client.ended), PATIENCE))
    await worker.end(signal.SIGTERM)
    await control.end(signal.SIGKILL)
    await broker.end(signal.SIGTERM)
    for proxy in proxies:
        proxy.stop()
    told = tell(files)
    fine = told["replies"] + told["cancelled"] == told["requests"] and told["replies"] == told["executions"]
    return [] if fine and not told["errors"] else ["%s: %s" % (dialect, told)]


def records(files):
    """(number, kind, detail) of all that a few peers wrote down."""
    for path in files:
        with open(path, "rb") as file:
            for number, _, kind, detail, _, _ in RECORD.iter_unpack(file.read()):
                yield number, kind, detail


def tell(files):
    """What a few peers wrote down, in numbers."""
    told = collections.Counter()
    for _, kind, detail in records(files):
        told[kind] += 1
        if kind == ERROR:
            told[NAMES.get(detail, detail)] += 1
    return {"requests": told[SUBMIT], "executions": told[BEGIN], "replies": told[REPLY], "cancelled": told[CANCEL],
            "errors": {name: count for name, count in told.items() if not isinstance(name, int) or name > REFUSED}}


# ---- a broker that stands still -----------------------------------------------------------------------------------

async def frozen(place):
    """A broker is stopped for long, and continued. All think that it is gone, and come back; nobody is lost, so no
    request may be given up for that. What is wrong with that."""
    broker, count, faults = await place.broker(), 20, []
    files = [place.path("frozen%d" % i) for i in range(count + len(DIALECTS))]
    workers = []
    for i in range(count):
        dialect = MIXED[i % len(MIXED)]
        endpoint = place.endpoint(dialect, "worker")
        workers.append(place.peer("worker%d" % i, "worker", dialect, endpoint, SERVICE, files[i], i, 0, HEARTBEAT_MS))
    control = place.control()
    await place.until(control, SERVICE, "queued=0 running=0 workers=%d" % count)
    clients = []
    for i, dialect in enumerate(DIALECTS):
        endpoint, outstanding = place.endpoint(dialect, "client"), 200 if dialect == "ZQB/1" else OUTSTANDING[dialect]
        clients.append(place.peer("client", "client", dialect, endpoint, SERVICE, files[count + i],
                                  FIRST_CLIENT + i << 16, 2, 10000, 1, outstanding, 1000, "plain"))
    while not all(os.path.exists(one) and tell([one])["replies"] >= 20 for one in files[count:]):
        await asyncio.sleep(0.01)  # of this there is no event
    broker.send(signal.SIGSTOP)
    await asyncio.sleep(FROZEN)
    broker.send(signal.SIGCONT)
    await asyncio.gather(*(one.end(signal.SIGTERM) for one in clients))
    told = tell(files)
    if told["errors"] or told["replies"] + told["cancelled"] != told["requests"]:
        faults = [str(told)]
    await asyncio.gather(*(one.end(signal.SIGTERM) for one in workers))
    await control.end(signal.SIGKILL)
    await broker.end(signal.SIGTERM)
    return faults


# ---- a round of chaos ---------------------------------------------------------------------------------------------

class Target:
    """What can be disturbed: the broker, or a worker or a client, which after its end is started again as another."""

    def __init__(self, chaos, kind, slot):
        self.chaos, self.kind, self.slot, self.name = chaos, kind, slot, kind if kind == "broker" else kind + str(slot)
        self.process = self.proxy = None
        self.life, self.busy = 0, False
        self.dialect = MIXED[slot // 4 % len(MIXED)]
        self.pace = PACES.get(self.dialect, PACES["others"])[slot % 4]
        self.disturbed = []  # (from, to, what), ns
        self.killed = {}     # who: when
        self.drained = set()  # who

    def who(self):
        return (self.slot + (FIRST_CLIENT if self.kind == "client" else 0)) << 16 | self.life

    async def start(self):
        place = self.chaos.place
        self.life = self.life % 65535 + 1
        if self.kind == "broker":
            self.process = await place.broker()
        else:
            endpoint = ("tcp://127.0.0.1:%d" % self.proxy.port if self.proxy else
                        place.endpoint(self.dialect, self.kind))
            credit = self.chaos.dice.choice((0, 0, 1, 4)) if self.dialect == "ZQB/1" else 0
            more = ((credit, HEARTBEAT_MS) if self.kind == "worker" else
                    (self.who(), *self.pace, OUTSTANDING[self.dialect], PER_SECOND))
            self.process = place.peer(self.name, self.kind, self.dialect, endpoint, SERVICE, place.path(self.name),
                                      self.who(), *more)
        self.chaos.processes.append(self.process)

    # ---- what can be done to it, as the dice want it

    async def kill(self, dice, number=signal.SIGKILL):
        self.killed[self.who()] = time.monotonic_ns()
        await self.process.end(number)
        await asyncio.sleep(dice.choice((0, dice.uniform(0, 0.1), dice.uniform(0, 0.5))))
        await self.start()

    async def terminate(self, dice):
        await self.kill(dice, signal.SIGTERM)

    async def drain(self, dice):
        self.drained.add(self.who())
        await self.kill(dice, signal.SIGUSR1)

    async def freeze(self, dice):
        self.process.send(signal.SIGSTOP)
        await asyncio.sleep(dice.choice((dice.uniform(0, 0.1), dice.uniform(0, 2.5))))
        self.process.send(signal.SIGCONT)


class Chaos:
    """A broker and its peers over one transport, for several rounds."""

    WEIGHTS = {  # how often what is done to whom
        ("worker", "kill"): 28, ("worker", "terminate"): 10, ("worker", "freeze"): 14, ("worker", "drain"): 10,
        ("client", "kill"): 10, ("client", "freeze"): 8,
        ("broker", "kill"): 2, ("broker", "terminate"): 1, ("broker", "freeze"): 1,
        ("worker", "cut"): 5, ("worker", "refuse"): 2, ("worker", "delay"): 4, ("worker", "drop"): 3,
        ("worker", "double"): 4, ("worker", "garble"): 3,
        ("client", "cut"): 5, ("client", "refuse"): 2, ("client", "delay"): 4, ("client", "drop"): 3,
        ("client", "double"): 4, ("client", "garble"): 3,
    }
    MOST = {"worker": 8, "client": 8, "broker": 1}  # that are disturbed at once

    def __init__(self, place, seed):
        self.place, self.dice = place, random.Random(seed)
        self.weights = {(kind, action): weight for (kind, action), weight in self.WEIGHTS.items()
                        if hasattr(Target, action) or place.transport == "tcp"}
        self.tally, self.memory, self.descriptors, self.processes = collections.Counter(), [], [], []
        self.broker = Target(self, "broker", 0)
        self.peers = [Target(self, "worker", i) for i in range(WORKERS)] + [Target(self, "client", i) for i in range(CLIENTS)]
        self.targets = self.peers + [self.broker]
        self.faults = collections.defaultdict(list)  # case: what was found

    async def open(self):
        await self.broker.start()
        for one in self.peers:
            if self.place.transport == "tcp":
                one.proxy = Proxy(self.place.port(one.dialect, one.kind))
                await one.proxy.start()

    async def close(self):
        for one in self.peers:
            if one.proxy:
                one.proxy.stop()
        await self.broker.process.end(signal.SIGTERM)

    def choose(self):
        """(whom, what), or None if too much is going on there."""
        kind, action = self.dice.choices(list(self.weights), list(self.weights.values()))[0]
        of_kind = [one for one in self.targets if one.kind == kind]
        target = self.dice.choice(of_kind)
        if target.busy or sum(one.busy for one in of_kind) >= self.MOST[kind]:
            return None
        return target, action

    async def disturb(self, target, action, dice):
        began, target.busy = time.monotonic_ns(), True
        self.tally["%s %s" % (action, target.kind)] += 1
        await (getattr(target, action, None) or getattr(target.proxy, action))(dice)
        target.disturbed.append((began, time.monotonic_ns(), action))
        target.busy = False
        if self.place.verbose:
            show(self.place.transport, "%.3f to %.3f %s %s"
                 % (began / 1e9, target.disturbed[-1][1] / 1e9, action, target.name))

    async def rage(self, seconds):
        until, acts = time.monotonic() + seconds, []
        while time.monotonic() < until:
            chosen, seed = self.choose(), self.dice.getrandbits(64)
            if chosen:
                acts.append(asyncio.ensure_future(self.disturb(*chosen, random.Random(seed))))
            await asyncio.sleep(min(until - time.monotonic(), self.dice.expovariate(EVENTS_PER_SECOND)))
        await asyncio.gather(*acts)

    async def round(self, seconds):
        for one in self.targets:
            one.busy = False
            one.disturbed, one.killed, one.drained = [], {}, set()
        control = self.place.control()
        for one in self.peers:
            if one.kind == "client" and one.slot == 0:  # who will not wait for a worker finds them all
                await self.place.until(control, SERVICE, "queued=0 running=0 workers=%d" % WORKERS)
            with open(self.place.path(one.name), "w"):
                pass
            await one.start()
        await self.rage(seconds)

        clients = [one for one in self.peers if one.kind == "client"]
        await asyncio.gather(*(one.process.end(signal.SIGTERM) for one in clients))
        await self.check_broker(control)
        workers = [one for one in self.peers if one.kind == "worker"]
        await asyncio.gather(*(one.process.end(signal.SIGTERM) for one in workers))
        await self.place.until(control, SERVICE, "none")  # it has nothing, and is forgotten
        await control.end(signal.SIGKILL)
        self.faults["ends"] += filter(None, (process.fault() for process in self.processes))
        self.processes = [process for process in self.processes if not process.ended.done()]
        Check(self, [one.who() for one in clients]).all()

    async def check_broker(self, control):
        try:
            await self.place.until(control, SERVICE, "queued=0 running=0 workers=%d" % WORKERS)
        except Fault as fault:
            self.faults["ends"].append(fault)
        stats = await self.place.stats(control)
        if stats["accepted"] != sum(stats[name] for name in ENDED):
            self.faults["accounts"].append(str({name: stats[name] for name in ("accepted", *ENDED)}))
        refused = [name for name in stats if name.startswith("refused_")]
        for name in ("bad_header", "bad_command", "bad_frames", "no_memory", *refused, "requeued", "joined", "stale",
                     "workers_lost", "workers_left", "dead"):
            self.tally["mmi " + name] += stats[name]
        pid = self.broker.process.pid
        self.memory.append(memory(pid))
        self.descriptors.append(len(os.listdir("/proc/%d/fd" % pid)))
        if self.memory[-1] > RSS_MOST:
            self.faults["memory"].append("%d KiB" % (self.memory[-1] >> 10))
        if self.descriptors[-1] > 64 + WORKERS + CLIENTS:
            self.faults["memory"].append("%d descriptors" % self.descriptors[-1])


# ---- what the peers wrote down ------------------------------------------------------------------------------------

class Request:
    __slots__ = ("asked", "begun", "outcomes", "executions", "finished")

    # ns; when it got its turn, if its client has but one under way; (kind, detail, ns); (who, ns), both times
    def __init__(self):
        self.asked, self.begun, self.outcomes, self.executions, self.finished = None, None, [], [], []


class Check:
    def __init__(self, chaos, survivors):
        self.chaos, self.faults, self.tally, self.survivors = chaos, chaos.faults, chaos.tally, set(survivors)
        self.targets = {one.name: one for one in chaos.targets}
        self.requests = collections.defaultdict(Request)
        self.leaders = {}  # unique request: the one that was executed for it
        for one in chaos.peers:
            self.read(one)

    def read(self, peer):
        with open(self.chaos.place.path(peer.name), "rb") as file:
            data = file.read()
        if len(data) % RECORD.size:
            self.faults["ends"].append("%s: a record is cut short" % peer.name)
        for number, at, kind, detail, who, _ in RECORD.iter_unpack(data[:len(data) // RECORD.size * RECORD.size]):
            if kind == STRANGER:
                self.faults["asked"].append("%s got a reply, or a second one, to %#x: %d" % (peer.name, number, detail))
            elif kind == DAMAGED:
                self.faults["right"].append("%s got a damaged request" % peer.name)
            elif kind == BEGIN:
                self.requests[number].executions.append((who, at))
            elif kind == FINISH:
                self.requests[number].finished.append((who, at))
            elif kind == LED:
                self.leaders[who << 32 | detail] = number
            elif kind == REFUSED:
                self.tally["given back"] += 1
            elif kind == SUBMIT:
                self.requests[number].asked = at
            else:
                self.requests[number].outcomes.append((kind, detail, at))

    def client_of(self, number):
        return self.targets["client%d" % ((number >> 48) - FIRST_CLIENT)]

    @staticmethod
    def count(target, start, end, but=None):
        """How many disturbances of a target fell into that time."""
        return sum(1 for begin, over, what in target.disturbed
                   if begin <= end and over + SLACK >= start and what != but)

    @staticmethod
    def lives(broker, start, end):
        """The times in which a broker, and no other, was there: from a little after its start, as what was given by the
        one before may still be begun then."""
        ends = [one for one in broker.disturbed if one[2] in ("kill", "terminate")]
        starts = [0] + [over + SLACK for _, over, _ in ends]
        return [(since, until) for since, until in zip(starts, [begin for begin, _, _ in ends] + [end])
                if since <= end and until >= start]

    def timed_out(self, client, start, end):
        """How often requests of a client timed out in that time."""
        return sum(1 for at in self.time_outs[client] if start - LATE <= at <= end)

    def find_time_outs(self):
        self.time_outs = collections.defaultdict(list)
        for number, request in self.requests.items():
            client = self.client_of(number)
            if request.asked is not None and client.dialect == "ZQB/1":
                span = client.pace[0] * 1_000_000
                self.time_outs[client] += range(request.asked + span, self.end_of(number, request) + 1, span)

    def find_turns(self):
        """In the dialects without numbers a client has one request under way at a time, in the order of asking."""
        free = collections.defaultdict(int)
        for number in sorted(self.requests):
            request = self.requests[number]
            if request.asked is not None:
                before = 0 if self.client_of(number).dialect == "ZQB/1" else free[number >> 32]
                request.begun = max(request.asked, before)
                free[number >> 32] = max(free[number >> 32], self.end_of(number, request))

    def all(self):
        self.find_time_outs()
        self.find_turns()
        for number, request in self.requests.items():
            if request.asked is None:
                self.faults["asked"].append("%#x was executed and never asked: %s" % (number, request.executions))
                continue
            self.count_as(number, "requests")
            for who, _ in request.executions:
                self.tally["workers %s: executed" % self.targets["worker%d" % (who >> 16)].dialect] += 1
            self.outcome(number, request)
            self.rule(number, request)
            self.promise(number, request)
        self.unique()
        self.drained()

    def end_of(self, number, request):
        """When its client had no more interest in it."""
        client = self.client_of(number)
        return request.outcomes[0][2] if request.outcomes else client.killed.get(number >> 32, time.monotonic_ns())

    def count_as(self, number, what):
        self.tally[what] += 1
        self.tally["clients %s: %s" % (self.client_of(number).dialect, what)] += 1

    def outcome(self, number, request):
        kinds = [kind for kind, _, _ in request.outcomes]
        survived = number >> 32 in self.survivors
        if len(kinds) > 1 or survived and len(kinds) != 1:
            self.faults["outcomes"].append("%s: %d outcomes %s" % (self.story(number, request), len(kinds), kinds))
        if not kinds:
            self.count_as(number, "client killed")
            return
        kind, detail, at = request.outcomes[0]
        if kind == WRONG:
            self.faults["right"].append("%s: fault %d" % (self.story(number, request), detail))
        elif kind == REPLY:
            self.count_as(number, "replied")
            executed = self.requests[self.leaders.get(number, number)]
            if number in self.leaders:
                self.count_as(number, "answered with another")
            if detail not in {who for who, _ in executed.executions}:
                self.faults["right"].append("%s: answered by %#x" % (self.story(number, request), detail))
        elif kind == CANCEL:
            self.count_as(number, "cancelled")
        elif kind == SENT:
            self.count_as(number, "one way")
        elif not self.explained(number, request, kind, detail, at):
            self.faults["errors"].append("%s: %s" % (self.story(number, request), NAMES.get(detail, detail)))
        else:
            self.count_as(number, "error " + NAMES[detail])
            if self.chaos.place.verbose:
                show(self.chaos.place.transport, "%s: %s" % (NAMES[detail], self.story(number, request)))

    def explained(self, number, request, kind, detail, at):
        """Whether a request could come to this error by what was done."""
        client, start = self.client_of(number), request.begun
        workers = sum(self.count(one, start, at) for one in self.chaos.peers if one.kind == "worker")
        broker = self.count(self.chaos.broker, start, at)
        if kind == NOT_TAKEN:
            return False
        if detail == EEXPIRED:
            return wish_of(number) == DEADLINE and at - request.asked >= (DEADLINE_MS - 1) * 1_000_000
        if detail in (ENOWORKER, EREFUSED):  # for a moment the broker has no worker, or but one
            return wish_of(number) == (FAIL_FAST if detail == ENOWORKER else PICKY) and broker
        if detail == errno.ETIMEDOUT and wish_of(number) == DEADLINE:
            return False  # until then it is asked again, however often
        if detail == errno.ETIMEDOUT:
            tries = client.pace[0] * (client.pace[1] + 1) * 1_000_000
            return at - start > tries * 0.9 and workers + broker + self.count(client, start, at)
        if client.dialect != "ZQB/1":
            return False  # it has no words for anything else
        if detail == ELOST:
            attempts = self.attempts(number)
            return workers + attempts * broker >= attempts
        return detail == ECANCELLED and broker

    @staticmethod
    def attempts(number):
        return 1 if wish_of(number) == ONCE else ATTEMPTS

    def sent(self, client, start, end, path):
        """How often a client may have sent a request, whose way was disturbed so often."""
        own = (end - start) // (client.pace[0] * 1_000_000)
        if client.dialect == "ZQB/1":
            return 1 + 2 * path + own + min(own + 1, self.timed_out(client, start, end))
        return 1 + path + min(own, client.pace[1])

    def rule(self, number, request):
        """See the top of this file."""
        executed = len(request.executions)
        if executed < 2:
            self.count_as(number, "executed once" if executed else "never executed")
            return
        client, start, end = self.client_of(number), request.begun, self.end_of(number, request)
        last = max(end, *(at for _, at in request.executions))
        sent = self.sent_with(number, last) if wish_of(number) == UNIQUE else self.sent_by(client, number, request)
        executors = {self.targets["worker%d" % (who >> 16)] for who, _ in request.executions}
        lost = sum(self.count(one, start, last, "drain") for one in executors)
        broker = self.count(self.chaos.broker, start, last)
        most = "clients %s: executed at most" % client.dialect
        self.count_as(number, "executed more often")
        self.tally[most] = max(self.tally[most], executed)
        if lost == 0:
            self.tally["executed more often, though no worker that did it was disturbed"] += 1
            if broker and self.count(client, start, end) == 0:
                self.tally["executed more often, where but the broker was disturbed"] += 1
        if executed > min(self.attempts(number) * sent, sent + lost + broker):
            self.faults["rule"].append("%s: sent at most %d times, %d disturbances of those workers, %d of the broker"
                                       % (self.story(number, request), sent, lost, broker))
        if client.dialect == "ZQB/1" and wish_of(number) != UNIQUE:
            self.in_one_life(number, request, last)
            self.at_once(number, request)

    def sent_by(self, client, number, request):
        """How often its client may have sent it. What is one way is sent once."""
        start, end = request.begun, self.end_of(number, request)
        path = self.count(client, start, end) + self.count(self.chaos.broker, start, end)
        return 1 if wish_of(number) == ONE_WAY else self.sent(client, start, end, path)

    def sent_with(self, number, last):
        """The same of a unique request: any other with its key keeps it going."""
        return sum(self.sent_by(self.client_of(other), other, request) for other, request in self.requests.items()
                   if wish_of(other) == UNIQUE and key_of(other) == key_of(number) and request.asked is not None
                   and request.asked <= last and self.end_of(other, request) >= self.requests[number].asked)

    def promise(self, number, request):
        """What is promised of those that ask for something."""
        wish, first = wish_of(number), min((at for _, at in request.executions), default=None)
        if wish != PLAIN and wish <= REPORTED:
            self.tally["wish %d" % wish] += 1
        if wish == DELAYED and first is not None and first - request.asked < (DELAY_MS - 1) * 1_000_000:
            self.faults["promise"].append("%s: before its time" % self.story(number, request))

    def unique(self):
        """Requests with the same key are not executed at the same time, as long as somebody waits for the first, and nothing
        happened to its client, to its worker and to the broker."""
        for key in range(KEYS):
            begun = sorted((at, who, number) for number, request in self.requests.items() if request.asked is not None
                           and wish_of(number) == UNIQUE and key_of(number) == key for who, at in request.executions)
            for (began, who, number), (again, _, other) in zip(begun, begun[1:]):
                request, client, worker = self.requests[number], self.client_of(number), self.targets["worker%d" % (who >> 16)]
                finished = min((at for one, at in request.finished if one == who and at >= began), default=0)
                if number != other and again < finished and again < self.end_of(number, request) \
                        and not any(self.count(one, request.asked, again) for one in (client, worker, self.chaos.broker)):
                    self.faults["promise"].append("%s: %#x with the same key meanwhile" % (self.story(number, request), other))

    def drained(self):
        """A worker that drains ends what it has begun."""
        drained = {who for one in self.chaos.peers for who in one.drained}
        left = collections.Counter()
        for number, request in self.requests.items():
            for who, step in [(who, 1) for who, _ in request.executions] + [(who, -1) for who, _ in request.finished]:
                left[who, number] += step if who in drained else 0
        self.tally["drained"] += len(drained)
        for (who, number), count in left.items():
            if count:
                self.faults["promise"].append("worker %#x drained, and did not end %#x" % (who, number))

    def in_one_life(self, number, request, last):
        """What one broker had done, whose predecessors and successors are no reason to do it again."""
        client, start, end = self.client_of(number), request.asked, self.end_of(number, request)
        stood = sum(1 for begin, over, what in self.chaos.broker.disturbed
                    if what == "freeze" and begin <= end and over + SLACK >= start)
        sent = self.sent(client, start, end, self.count(client, start, end) + stood)
        for since, until in self.lives(self.chaos.broker, start, last):
            executed = sum(1 for _, at in request.executions if since <= at <= until)
            self.tally["executed at most by one broker"] = max(self.tally["executed at most by one broker"], executed)
            if executed > ATTEMPTS * sent:
                self.faults["rule"].append("%s: %d times by one broker, sent to it at most %d times"
                                           % (self.story(number, request), executed, sent))

    def at_once(self, number, request):
        """Whether it was begun while a worker that nothing happened to was at it: then the broker had it, and a retry
        had to join it. Unless the broker was another, or the client away for so long that it was thought gone."""
        client, executions = self.client_of(number), sorted(request.executions, key=lambda one: one[1])
        for (first, began), (_, again) in zip(executions, executions[1:]):
            worker = self.targets["worker%d" % (first >> 16)]  # which may have done it twice, one after the other
            finished = min((at for who, at in request.finished if who == first and at >= began), default=0)
            away = any(over - begin > AWAY for begin, over, _ in client.disturbed)
            if began < again < finished and not away and not self.count(worker, request.asked, again) \
                    and not self.count(self.chaos.broker, request.asked, again):
                self.faults["once"].append(self.story(number, request))

    def story(self, number, request):
        def since(at):
            return "%+.3f" % ((at - request.asked) / 1e9)
        client, last = self.client_of(number), max(at for at in [request.asked] + [one[-1] for one in
                                                   request.executions + request.outcomes])
        names = {"worker%d" % (who >> 16) for who, _ in request.executions} | {client.name, "broker"}
        return "request %#x of %s (%s), asked at %.3f, executed %s, outcomes %s (%s)" % (
            number, client.name, client.dialect, request.asked / 1e9,
            " ".join("by worker%d (%s) %s" % (who >> 16, self.targets["worker%d" % (who >> 16)].dialect, since(at))
                     for who, at in request.executions) or "never",
            " ".join("%d %s" % (kind, since(at)) for kind, _, at in request.outcomes) or "none",
            ", ".join("%s %s %s to %s" % (what, name, since(begin), since(over)) for name in sorted(names)
                      for begin, over, what in self.targets[name].disturbed
                      if begin <= last and over + SLACK >= request.asked))


# ---- everything ---------------------------------------------------------------------------------------------------

CASES = {
    "outcomes": "every request of every client that survived ended in exactly one way",
    "right": "every reply was right",
    "asked": "nothing was answered, and nothing executed, that was not asked",
    "rule": "no request was executed more often than attempts, restarts and retries explain",
    "once": "no request was executed twice at the same time, where the broker knew that",
    "promise": "what was delayed, unique, or held by a worker that drained was executed as it should be",
    "errors": "every error is explained by what was done",
    "accounts": "accepted = replied + failed + expired + cancelled + dead + client_gone + queued + running",
    "memory": "the broker's memory and descriptors are bounded",
    "ends": "nobody ended who was not told to, and all workers came back",
}
AWAY_CASE = "workers and clients that were turned away for a while lose nothing, and do nothing twice"
FROZEN_CASE = "no request that was begun is given up because the broker stood still"
KILLED_CASE = "requests of workers that are killed are begun by others, and no heartbeat is waited for"
STOPPED_CASE = "requests of workers that are stopped are begun by others"
SETTLING = 1.5  # seconds of a round, beside the disturbances


class Report:
    def __init__(self, count):
        self.number, self.good = 0, True
        print("1..%d" % count, flush=True)

    def case(self, name, faults):
        self.number += 1
        self.good = self.good and not faults
        print("%sok %d - %s" % ("not " if faults else "", self.number, name))
        for fault in faults[:20]:
            print("# " + str(fault))
        if len(faults) > 20:
            print("# and %d more" % (len(faults) - 20))
        sys.stdout.flush()


async def tried(report, name, what):
    """One case: the faults that something finds, or that it ends with."""
    try:
        report.case(name, await what)
    except (Fault, asyncio.TimeoutError) as fault:
        report.case(name, [repr(fault)])


async def all_killed(place, kills):
    """The bound is far above what any machine needs, and far below the heartbeats that would tell of it otherwise."""
    faults = []
    for dialect in DIALECTS:
        taken = await killed(place, dialect, kills)
        show(place.transport, "%s: from kill -9 to the next worker: %s" % (dialect, spread(taken)))
        if statistics.median(taken) >= REDISPATCH_MS:
            faults.append("%s: %.1f ms" % (dialect, statistics.median(taken)))
    return faults


async def all_stopped(place):
    """LRU workers have no heartbeats of any kind: with them it is not noticed."""
    for dialect in DIALECTS:
        if dialect != "LRU":
            show(place.transport, "%s: from SIGSTOP to the next worker, where heartbeats expire after %d ms: %s"
                 % (dialect, 3 * HEARTBEAT_MS, spread(await stopped(place, dialect))))
    return []


async def beside(place):
    """What takes time more than work; two lists of faults. An error is its fault."""
    other = Place(place.transport, place.folder + "/stopped", place.verbose)
    both = await asyncio.gather(frozen(place), all_stopped(other), return_exceptions=True)
    return [one if isinstance(one, list) else [repr(one)] for one in both]


def show_tally(chaos):
    rest = dict(sorted(chaos.tally.items()))
    disturbances = ("kill", "term", "freeze", "cut", "refuse", "delay", "drop", "double", "garble", "broker")
    for group, words, skipped in (("done", disturbances, 0), ("mmi", ("mmi ",), 4),
                                  *(("clients " + one, ("clients %s: " % one,), 10 + len(one)) for one in DIALECTS),
                                  *(("workers " + one, ("workers %s: " % one,), 10 + len(one)) for one in DIALECTS),
                                  ("all", ("",), 0)):
        chosen = {key: rest.pop(key) for key in list(rest) if key.startswith(words)}
        text = ", ".join("%s %d" % (key[skipped:], chosen[key]) for key in chosen)
        show(chaos.place.transport, "%s: %s" % (group, text))
    show(chaos.place.transport, "broker: %s KiB, %s descriptors"
         % (max(chaos.memory, default=0) >> 10, max(chaos.descriptors, default=0)))


async def one_transport(report, place, until, seed, own):
    transport = place.transport
    kills = 24 if until - time.monotonic() > 15 else 7
    await tried(report, "%s: %s" % (transport, KILLED_CASE), all_killed(place, kills))
    if transport == "tcp":
        await tried(report, "%s: %s" % (transport, AWAY_CASE), turned_away(place))
    kill_all()

    at_rest = asyncio.ensure_future(beside(Place(transport, place.folder + "/aside", place.verbose)))
    chaos = Chaos(place, seed)
    rounds = max(1, round((until - time.monotonic()) / ROUND))
    try:
        await chaos.open()
        for i in range(rounds):
            await chaos.round(max(2.0, (until - time.monotonic()) / (rounds - i) - SETTLING))
            own.append(memory("self"))
            if rounds > 1:
                show(transport, "round %d of %d: %d requests, broker %d KiB, %d descriptors; this program %d KiB" % (
                    i + 1, rounds, chaos.tally["requests"], chaos.memory[-1] >> 10, chaos.descriptors[-1], own[-1] >> 10))
            if any(chaos.faults.values()):
                break
        await chaos.close()
    except Fault as fault:
        chaos.faults["ends"].append(fault)
    chaos.faults["ends"] += filter(None, (process.fault() for process in chaos.processes))
    for name, faults in zip((FROZEN_CASE, STOPPED_CASE), await at_rest):
        report.case("%s: %s" % (transport, name), faults)
    kill_all()
    show_tally(chaos)
    for key, name in CASES.items():
        report.case("%s: %s" % (transport, name), chaos.faults[key])


async def everything(options, folder):
    transports = [options.transport] if options.transport else ["tcp", "ipc"]
    report, own = Report(len(transports) * (3 + len(CASES)) + ("tcp" in transports) + 1), []
    print("# seed %d: chaos.py --seed %d --seconds %g%s" % (options.seed, options.seed, options.seconds, (
        " --transport " + options.transport) if options.transport else ""), flush=True)
    for i, transport in enumerate(transports):
        now = time.monotonic()
        until = now + (options.began + options.seconds - now) / (len(transports) - i)
        place, seed = Place(transport, folder, options.verbose), "%d %s" % (options.seed, transport)
        await one_transport(report, place, until, seed, own)
    grown = own[-1] - own[len(own) // 4] if own else 0
    report.case("this program itself does not grow", ["by %d KiB" % (grown >> 10)] if grown > 32 << 20 else [])
    return report.good


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--transport", choices=("tcp", "ipc"))
    parser.add_argument("--only", help="do only these, as in broker-freeze,worker-kill,client-")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    if options.only:
        Chaos.WEIGHTS = {key: weight for key, weight in Chaos.WEIGHTS.items()
                         if "-".join(key).startswith(tuple(options.only.split(",")))}
    if not hasattr(os, "pidfd_open") or not os.path.exists("/proc/self/status"):
        print("1..1\nok 1 - chaos # SKIP it needs Linux and Python 3.9")
        return
    options.began = time.monotonic()
    folder = tempfile.mkdtemp(prefix="zqb-chaos-")
    # libzmq asks for as much as garbled messages say; where that cannot be had it ends the connection.
    os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":allocator_may_return_null=1"
    for place in (folder, folder + "/aside", folder + "/aside/stopped"):
        os.makedirs(place, exist_ok=True)
        shutil.copy(BROKER, place + "/zqbrokerd")
        shutil.copy(PEER, place + "/peer")
    good = False
    try:
        good = asyncio.run(everything(options, folder))
    finally:
        kill_all()
        if good:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print("# what the processes wrote is in " + folder)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
