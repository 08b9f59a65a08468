"""What the interop tests share: programs that are started, brokers, a test case with peers, and many tests from one.

Every wait is for an event: a message, a counter of mmi.stats, a line or the end of a process; never a guessed time.
"""

import itertools
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import time
import unittest

import zmq

import peers
from peers import CLIENTS, WORKERS, Failure, Parts

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent / "build"
ZQBROKERD = os.environ.get("ZQBROKERD", str(BUILD / "zqbrokerd"))
ZQCALL = os.environ.get("ZQCALL", str(BUILD / "zqcall"))
ZQECHO = os.environ.get("ZQECHO", str(BUILD / "zqecho"))
ZQOBEDIENT = os.environ.get("ZQOBEDIENT", str(BUILD / "obedient"))
ZQGUARDED = os.environ.get("ZQGUARDED", str(BUILD / "guarded"))
ANY_PORT = "tcp://127.0.0.1:*"
PATIENCE = 20

HEADER = (HERE.parents[1] / "zqbroker.h").read_text()
COUNTERS = re.findall(r"X \((\w+), \"", HEADER[HEADER.index("#define ZQB_STATS(X)"):HEADER.index("ZQB_STATS (ZQB_X)")])

SMALL, BINARY, LARGE = b"hello", bytes(range(256)) + b"\0\0end\0", b"0123456789" * 10240
ONE_FRAME = {"small": [SMALL], "binary": [BINARY], "large": [LARGE]}
SHAPES = dict(ONE_FRAME, several=[b"a", BINARY, b"d" * 1025, b"e"], many=[b"%d" % i for i in range(100)],
              mixed=[b"x", LARGE, b"y", LARGE + b"z"], empty_frames=[b"", b"x", b""])
STREAM = [[b"one"], [b"two", LARGE], [b"three"]]


# ---- programs -----------------------------------------------------------------------------------------------------

class Program:
    """A process, whose lines are read with patience."""

    def __init__(self, *command, stderr=None):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
        self.pending = b""

    def line(self):
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self.pending:
            readable, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 65536) if readable else b""
            if not data:
                raise AssertionError("%s ended, or says nothing; so far %r" % (self.process.args[0], self.pending))
            self.pending += data
        line, self.pending = self.pending.split(b"\n", 1)
        return line.decode()

    def stop(self, number=signal.SIGTERM):
        """Sends a signal, and gives the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("%s does not end" % self.process.args[0])
        finally:
            self.process.stdout.close()


class Broker:
    """A broker program, on ports of its own that it keeps when it is started again."""

    def __init__(self, heartbeat_ms=2500, services=()):
        self.heartbeat_ms, self.services = heartbeat_ms, list(services)
        self.endpoint = ANY_PORT
        self.plain = {service: (ANY_PORT, ANY_PORT) for service in self.services}   # frontend, backend
        self.start()

    def command(self):
        command = [ZQBROKERD, "--bind", self.endpoint, "--heartbeat", str(self.heartbeat_ms)]
        for service in self.services:
            command += ["--lru", *self.plain[service], service]
        return command

    def start(self):
        self.program = Program(*self.command())
        self.lines = list(iter(self.program.line, "ready"))
        bound = [line.split()[1] for line in self.lines if line.startswith("bound ")]
        self.endpoint = bound[0]
        for service, front, back in zip(self.services, bound[1::2], bound[2::2]):
            self.plain[service] = (front, back)

    def kill_and_restart(self):
        self.program.stop(signal.SIGKILL)
        self.start()

    def stop(self):
        status = self.program.stop()
        if status != 0:
            raise AssertionError("the broker ended with status %d" % status)

    def for_client(self, kind, service):
        return self.plain[service.decode()][0] if kind.plain else self.endpoint

    def for_worker(self, kind, service):
        return self.plain[service.decode()][1] if kind.plain else self.endpoint


class PythonBroker(Broker):
    """broker.py, which knows only Majordomo."""

    def command(self):
        return [sys.executable, str(HERE / "broker.py"), "--bind", self.endpoint, "--heartbeat", str(self.heartbeat_ms)]

    def stop(self):
        self.program.stop()


# ---- what the tests share -----------------------------------------------------------------------------------------

def work(body):
    """The service of nearly all tests: each frame backwards; or a stream, or a failure, if so asked."""
    if body[0] == b"stream":
        return Parts(STREAM)
    if body[0] == b"fail":
        return Failure("told to fail")
    return [frame[::-1] for frame in body]


def worked(body):
    return [frame[::-1] for frame in body]


class InteropCase(unittest.TestCase):
    """A context, a broker, and peers that are closed when the test ends."""

    broker_type = Broker
    heartbeat_ms = 2500
    services = ["job"]

    def setUp(self):
        self.ctx = zmq.Context()
        self.addCleanup(self.ctx.destroy, 0)
        self.broker = self.broker_type(self.heartbeat_ms, self.services)
        self.addCleanup(self.broker.stop)
        self.control_client = None

    def client(self, kind, service=b"job", **options):
        client = kind(self.ctx, self.broker.for_client(kind, service), **options)
        self.addCleanup(client.close)
        return client

    def worker(self, kind, service=b"job", **options):
        options.setdefault("heartbeat_ms", self.heartbeat_ms)
        worker = kind(self.ctx, self.broker.for_worker(kind, service), service, **options)
        self.addCleanup(worker.close)
        return worker

    def serving(self, kind, service=b"job", handler=work, **options):
        options.setdefault("heartbeat_ms", self.heartbeat_ms)
        worker = kind(self.ctx, self.broker.for_worker(kind, service), service, **options)
        running = worker.start(handler)
        self.addCleanup(running.stop)
        return running

    def peer(self, endpoint=None, **options):
        peer = peers.Peer(self.ctx, endpoint or self.broker.endpoint, **options)
        self.addCleanup(peer.close)
        return peer

    def mmi(self, name, *body):
        if self.control_client is None:
            self.control_client = self.client(peers.ZQBClient)
        return self.control_client.call(b"mmi." + name, list(body))

    def stats(self):
        return {name.decode(): int(value) for name, value in (frame.split(b"=") for frame in self.mmi(b"stats"))}

    def wait_stats(self, condition, what="a counter"):
        """Asks for the counters until they are as wanted."""
        deadline = time.monotonic() + PATIENCE
        while not condition(stats := self.stats()):
            if time.monotonic() > deadline:
                self.fail("waited in vain for %s; nonzero: %s" % (what, {k: v for k, v in stats.items() if v}))
            time.sleep(0.002)
        return stats

    def wait_workers(self, count):
        return self.wait_stats(lambda stats: stats["workers"] == count, "%d workers" % count)

    def wait_counted(self, before, names, count=1):
        """Until these counters, together, have grown so much since before."""
        def grown(stats):
            return sum(stats[name] - before[name] for name in names)
        stats = self.wait_stats(lambda stats: grown(stats) >= count, "%s to grow by %d" % (" or ".join(names), count))
        self.assertEqual(grown(stats), count, "counted more than once")
        return stats

    def holding(self, kind, body=(b"held",), **options):
        """A worker that holds a request, its client, and the token."""
        worker = self.worker(kind, **options)
        client = self.client(peers.ZQBClient)
        client.submit(b"job", list(body))
        request = worker.recv()
        self.assertIsNotNone(request, "the worker got no request")
        self.assertEqual(request[1], list(body))
        return worker, client, request[0]

    def assert_frames(self, got, wanted, what=""):
        """Equal, and if not, a message that can be read."""
        if got != wanted:
            short = [frames and [(len(frame), frame[:20]) for frame in frames] for frames in (got, wanted)]
            self.fail("%s: got %r instead of %r" % (what, *short))

    def assert_good_client(self, service=b"job", body=(SMALL,)):
        """A new client's call is answered."""
        client = self.client(peers.MDP01Client)
        self.assert_frames(client.call(service, list(body)), worked(body), "a good client")

    def assert_accounts(self):
        """accepted = replied + failed + ... ; the question itself is accepted, and perhaps not yet replied."""
        stats = self.stats()
        ends = sum(stats[name] for name in ("replied", "failed", "expired", "cancelled", "dead", "client_gone",
                                            "queued", "running"))
        self.assertIn(stats["accepted"] - ends, (0, 1), stats)


def each(pattern, *kinds):
    """Makes one test of each combination of kinds: the method gets their values, the test's name their names."""
    def decorate(method):
        method.pattern, method.kinds = pattern, kinds
        return method
    return decorate


def expand(cls):
    """Replaces the methods that @each decorates by their tests."""
    for name, method in list(vars(cls).items()):
        if not hasattr(method, "kinds"):
            continue
        delattr(cls, name)
        for combination in itertools.product(*method.kinds):
            values = [kinds[key] for kinds, key in zip(method.kinds, combination)]

            def test(self, method=method, values=values):
                method(self, *values)
            setattr(cls, "test_" + method.pattern.format(*combination), test)
    return cls


def those(kinds, condition):
    return {name: kind for name, kind in kinds.items() if condition(kind)}


MAJORDOMO_CLIENTS = those(CLIENTS, lambda kind: issubclass(kind, (peers.MDP01Client, peers.MDP02Client)))
MAJORDOMO_WORKERS = those(WORKERS, lambda kind: issubclass(kind, peers.MDP01Worker))
NAMING_CLIENTS = those(CLIENTS, lambda kind: not kind.plain)
STREAMING_WORKERS = those(WORKERS, lambda kind: kind.partials)
HEARTBEAT_WORKERS = those(WORKERS, lambda kind: kind.heartbeats_at_all)
TALKING_WORKERS = those(WORKERS, lambda kind: not kind.plain)       # they know DISCONNECT
FREE_WORKERS = those(WORKERS, lambda kind: kind.socket_type != zmq.REQ)     # they may speak at any time
SINGLE_WORKERS = those(FREE_WORKERS, lambda kind: kind.credit == 1)
MDP_WORKERS = those(SINGLE_WORKERS, lambda kind: not issubclass(kind, peers.ZQBWorker))


def zqb(*commands, detach_over=1024):
    """A message of ZQB/1."""
    return peers.zqb_pack(b"lifelife", commands, detach_over)
