#!/usr/bin/env python3
"""A siege: hostile peers of many kinds at a broker that good ones use, all of them processes.

    hostile.py [--seconds N] [--kinds KIND,...] [WORD...]      WORDs choose among the promises

The broker (siege.c) speaks CURVE over tcp, lets in whose key is in a file, has rules and limits of users. Two good
clients ask two good workers, in a closed loop with OUTSTANDING requests each; a client and a worker that chose their
own routing ids do the same beside them. hostile.c has the kinds of attack. But for strangers and raw connections all
are let in, as users who may call a little and serve a little.

THE RATIO. Windows with and without the attack follow each other in the same run, ROUNDS times. Throughput of the good
clients with it, divided by throughput without, in the windows before and after, is the ratio of a round, and the median
of all rounds must be at least RATIO. What a flood costs is a matter of how large it is, so its size is fixed in what
good clients get done: for each 100000 of their requests so many units of each kind, as it stands in hostile.c. So it is
the same share of the work on a slow machine as on a fast one, and the ratio does not depend on how fast it is. Hostile
processes run at nice 19, but what they cost the machine themselves is in the ratio: it is that much worse than what the
broker is to blame for. The second ratio has nothing of that, nor of other programs on the machine: processor time of
the broker for each good request without the attack, divided by that with it. It must be at least RATIO, too. It would
not show a broker that stands still, which the first one does.

THE STORM behind it has no pace: each kind does what it can at once, some thousands of it, while good clients go on. How
fast they are then is printed. It is there for memory, for what must not happen, and to make sure that each kind of
attack has reached the broker, which its counters tell.

MEMORY. The most that the broker's process had in memory may be more than before the siege by what follows from its
limits (siege.c): max_bytes of requests, as many that wait to be sent, CONNECTION for each connection, and SLACK for
tables and what malloc keeps. When all hostile peers are gone, what malloc has given out may be more than before by
LEFT: the broker keeps 64 buffers of up to 128 KiB, in which it packs.

DESCRIPTORS. Another broker has few, and they are used up by connections that say nothing. It serves whom it has; and
others, again, when libzmq has ended those: 30 seconds after they came (ZMQ_HANDSHAKE_IVL). Beside the storm.

Nothing is tried a second time. Environment: ZQB_CHAOS_SIEGE, ZQB_CHAOS_HOSTILE, ZQKEYGEN (programs; below tests/build).
"""
import argparse
import asyncio
import mmap
import os
import resource
import shutil
import socket
import statistics
import struct
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "support")]
import tap  # noqa: E402
from chaos import ENDED, TOP, Fault, Process, kill_all, memory, show  # noqa: E402
from tap import case  # noqa: E402

SIEGE = os.path.join(TOP, os.environ.get("ZQB_CHAOS_SIEGE", "tests/build/chaos/siege"))
HOSTILE = os.path.join(TOP, os.environ.get("ZQB_CHAOS_HOSTILE", "tests/build/chaos/hostile"))
KEYGEN = os.path.join(TOP, os.environ.get("ZQKEYGEN", "tests/build/zqkeygen"))

RATIO, ROUNDS, OUTSTANDING, WARM = 0.8, 15, 16, 5000
PATIENCE = 120
MAX_BYTES, CONNECTION, SLACK, LEFT = 16 << 20, 16 << 10, 16 << 20, 8 << 20
WORKER_MOST = 32 << 20  # of the good workers' process
FEW = 100  # descriptors of the other broker, and connections to it that say nothing
GOOD_WORKERS = 4  # that say goodbye

# The page: siege.h has the same.
QUIET, ATTACK, STORM, OVER, GONE = range(5)
PHASE, GOOD, NAMED, EXECUTED, DIGEST, FOR_OTHERS, DONE, RESTS = 0, 1, 7, 8, 9, 10, 12, 28
HELD, RELEASED, HALF_OPEN = 109, 110, 111

RULES = """allow good* call echo
allow worker serve echo big hold
allow named call,serve named
allow m.* call ping big hold idle evil.*
allow m.* serve evil.*
"""
GOOD_USERS = ["good0", "good1", "good2"]
MASK = 2**64 - 1
options = None


# ---- what all of them see -----------------------------------------------------------------------------------------

class Page:
    def __init__(self, path):
        self.path = path
        with open(path, "wb") as file:
            file.write(bytes(4096))
        with open(path, "r+b") as file:
            self.bytes = mmap.mmap(file.fileno(), 4096)

    def get(self, at):
        return struct.unpack_from("=Q", self.bytes, 8 * at)[0]

    def set(self, at, value):
        struct.pack_into("=Q", self.bytes, 8 * at, value)

    def good(self):
        return self.get(GOOD) + self.get(GOOD + 1)


def cpu(pid):
    """Seconds of processor time that a process has used so far: clock_getcpuclockid."""
    return time.clock_gettime(~pid << 3 | 2)


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


async def until(condition, what, patience=PATIENCE):
    """Of all this there is no event."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise Fault("waited in vain for " + what)
        await asyncio.sleep(0.005)


def mix(number):
    """siege.h has the same."""
    z = number + 0x9e3779b97f4a7c15
    z = (z ^ (z & MASK) >> 30) * 0xbf58476d1ce4e5b9
    z = (z ^ (z & MASK) >> 27) * 0x94d049bb133111eb
    return (z ^ (z & MASK) >> 31) & MASK


def numbers(line):
    """name=N name=N"""
    return {name: int(value) for name, value in (pair.split("=") for pair in line.split() if "=" in pair)}


# ---- the siege ----------------------------------------------------------------------------------------------------

class Siege:
    def __init__(self, folder):
        self.folder, self.log = folder, open(os.path.join(folder, "log"), "ab")
        self.page = Page(os.path.join(folder, "page"))
        self.kinds = tap.must([HOSTILE, "kinds"]).split()
        self.chosen = options.kinds.split(",") if options.kinds else self.kinds
        self.told, self.rounds, self.processes = {}, [], []
        self.write_keys()

    def write_keys(self):
        users = ["broker", "worker", "named", *GOOD_USERS, *("m.%d" % i for i in range(len(self.kinds)))]
        lines = []
        for user in users:
            tap.must([KEYGEN, os.path.join(self.folder, user)])
            certificate = tap.read(os.path.join(self.folder, user + ".public"))
            lines.append("curve %s %s" % (certificate.split('public-key = "')[1].split('"')[0], user))
        tap.write(os.path.join(self.folder, "auth"), "\n".join(lines) + "\n")
        tap.write(os.path.join(self.folder, "rules"), RULES)

    def start(self, *command, before=()):
        process = Process(" ".join(command[:2]), [*before, *command], self.log, talks=True)
        process.expected = {0}
        self.processes.append(process)
        return process

    async def start_broker(self, before=()):
        broker = self.start(SIEGE, "broker", self.folder, before=before)
        endpoint = (await broker.line()).split()[1]
        await broker.line()
        return broker, endpoint

    def start_good(self, role, *more):
        return self.start(SIEGE, role, self.folder, self.page.path, self.endpoint, *map(str, more))

    async def start_all(self):
        self.broker, self.endpoint = await self.start_broker()
        self.workers, self.named = self.start_good("worker"), self.start_good("named")
        await self.workers.line()
        await self.named.line()
        self.clients = [self.start_good("client", slot, OUTSTANDING) for slot in range(2)]
        for client in self.clients:
            await client.line()
        await until(lambda: self.page.good() >= WARM, "good requests")
        self.before = await self.stats()
        self.rss_before = memory(self.broker.pid)
        self.hostile = {kind: self.start(HOSTILE, kind, self.folder, self.page.path, self.endpoint,
                                         before=["nice", "-n", "19"]) for kind in self.chosen}
        for kind, process in self.hostile.items():
            line = await process.line()
            if line.startswith("record"):
                await self.be_recorded(line.split()[1])
                line = await process.line()
        await self.resting(QUIET)
        self.connections = descriptors(self.broker.pid)

    async def be_recorded(self, endpoint):
        recorded = self.start(SIEGE, "ask", self.folder, endpoint, "good2", "100")
        self.told["recorded"] = await recorded.line()
        recorded.process.stdin.close()
        await asyncio.shield(recorded.ended)

    async def stats(self):
        self.broker.tell("\n")
        return numbers(await self.broker.line())

    async def resting(self, phase):
        places = [self.kinds.index(kind) for kind in self.chosen]
        await until(lambda: all(self.page.get(RESTS + i) == phase + 1 for i in places), "hostile peers to rest")

    def snapshot(self):
        return time.monotonic(), self.page.good(), cpu(self.broker.pid)

    async def window(self, seconds):
        """Good requests a second, and the broker's time for each."""
        began, good, used = self.snapshot()
        await asyncio.sleep(seconds)
        now, good_now, used_now = self.snapshot()
        done = good_now - good
        if not done:
            raise Fault("good clients get nothing done")
        return done / (now - began), (used_now - used) / done

    async def quiet(self, seconds):
        self.page.set(PHASE, QUIET)
        await self.resting(QUIET)
        await until(lambda: descriptors(self.broker.pid) <= self.connections + 16, "connections to end")
        return await self.window(seconds)

    async def rounds_of(self, seconds):
        """Each window with the attack is compared with the two without it around it."""
        before = await self.quiet(seconds)
        for _ in range(ROUNDS):
            done = self.all_done()
            self.page.set(PHASE, ATTACK)
            speed, cost = await self.window(seconds)
            used, done = memory(self.broker.pid), self.all_done() - done
            after = await self.quiet(seconds)
            quiet_speed, quiet_cost = ((before[i] + after[i]) / 2 for i in range(2))
            self.rounds.append((speed / quiet_speed, quiet_cost / cost))
            show("round", "%6.0f good requests a second, %5.2f us each; under attack %6.0f, %5.2f us, %5.0f units a "
                 "second; ratios %.2f %.2f; %d KiB" % (quiet_speed, quiet_cost * 1e6, speed, cost * 1e6, done / seconds,
                                                       *self.rounds[-1], used >> 10))
            before = after

    def all_done(self):
        return sum(self.page.get(DONE + i) for i in range(len(self.kinds)))

    async def storm(self):
        began, good, used = self.snapshot()
        self.page.set(PHASE, STORM)
        await self.resting(STORM)
        self.half_open = self.page.get(HALF_OPEN)
        await until(lambda: descriptors(self.broker.pid) > self.half_open, "connections to be accepted")
        now, good_now, used_now = self.snapshot()
        self.stormed = good_now - good
        self.most_connections = descriptors(self.broker.pid)
        show("storm", "%.1f s, %.0f good requests a second, %.2f us of the broker for each; %d descriptors, %d KiB" % (
            now - began, self.stormed / (now - began), (used_now - used) * 1e6 / max(1, self.stormed),
            self.most_connections, memory(self.broker.pid) >> 10))

    async def end(self):
        self.told["storm"] = await self.stats()
        self.held_memory = memory(self.workers.pid, "VmHWM")
        self.page.set(RELEASED, 1)
        self.page.set(PHASE, OVER)
        for name, process in [("client0", self.clients[0]), ("client1", self.clients[1]), ("named", self.named),
                              *self.hostile.items()]:
            line = await process.line(PATIENCE)
            self.told[name] = numbers(line)
            show(name, line)
            await asyncio.wait_for(asyncio.shield(process.ended), PATIENCE)
        self.page.set(PHASE, GONE)
        await asyncio.wait_for(asyncio.shield(self.workers.ended), PATIENCE)
        await self.until_alone()
        self.after, self.rss_most = await self.stats(), memory(self.broker.pid, "VmHWM")
        show("broker", " ".join("%s=%d" % (name, value) for name, value in self.after.items() if value))
        show("memory", "%d KiB before, %d at most; the workers %d; heap %d before, %d after" % (
            self.rss_before >> 10, self.rss_most >> 10, self.held_memory >> 10, self.before["heap"], self.after["heap"]))
        self.broker.process.stdin.close()
        await asyncio.wait_for(asyncio.shield(self.broker.ended), PATIENCE)
        self.page_held = self.page.get(HELD)
        self.executed = [self.page.get(EXECUTED), self.page.get(DIGEST), self.page.get(FOR_OTHERS)]

    async def unsent(self):
        """Until the broker has given up who does not read."""
        end = time.monotonic() + PATIENCE
        while "slow" in self.chosen and not (await self.stats())["unsendable"]:
            if time.monotonic() > end:
                raise Fault("who does not read is not given up: %s" % await self.stats())

    async def until_alone(self):
        """Until the broker has nobody left."""
        end = time.monotonic() + PATIENCE
        left = True
        while left:
            stats = await self.stats()
            left = {name: stats[name] for name in ("queued", "running", "workers", "clients") if stats[name]}
            if left and time.monotonic() > end:
                raise Fault("left: %s" % left)

    async def run(self):
        await self.start_all()
        await self.rounds_of(options.seconds / 2 / (2 * ROUNDS + 1))
        self.few = Few(self)
        few = asyncio.ensure_future(self.few.tried())
        await self.storm()
        await self.unsent()
        await self.end()
        await few
        self.faults = list(filter(None, (process.fault() for process in self.processes)))


class Few:
    """A broker with few descriptors."""

    def __init__(self, siege):
        self.siege, self.page, self.let_in, self.fault = siege, Page(os.path.join(siege.folder, "few")), None, "not run"

    async def ask(self, asking):
        """1000 calls, one after the other, by a client that was there before: how long they take."""
        began = time.monotonic()
        asking.tell("\n")
        if (line := await asking.line(PATIENCE)) != "asked":
            raise Fault("without descriptors: " + line)
        return time.monotonic() - began

    def start(self, role, *more):
        return self.siege.start(SIEGE, role, self.siege.folder, *more)

    async def run(self):
        broker, endpoint = await self.siege.start_broker(["sh", "-c", "ulimit -n %d; exec \"$0\" \"$@\"" % FEW])
        workers = self.start("worker", self.page.path, endpoint)
        await workers.line()
        asking = self.start("ask", endpoint, "good0", "1000")
        await asking.line()
        before, began = await self.ask(asking), time.monotonic()
        silent = [self.connect(endpoint) for _ in range(FEW)]
        await until(lambda: descriptors(broker.pid) == FEW, "the last descriptor")
        newcomer = self.start("ask", endpoint, "good1", "1")
        used = cpu(broker.pid)
        taken = await self.ask(asking)
        show("few", "1000 calls in %.3f s, without descriptors in %.3f s, and %.3f s of the broker" % (
            before, taken, cpu(broker.pid) - used))
        self.let_in = await newcomer.line(PATIENCE)
        show("few", "let in after %.1f s" % (time.monotonic() - began))
        for one in silent:
            one.close()
        await self.end(broker, workers, asking, newcomer)

    async def end(self, broker, workers, *clients):
        self.page.set(PHASE, GONE)
        for process in (*clients, workers, broker):
            process.process.stdin.close()
            await asyncio.wait_for(asyncio.shield(process.ended), PATIENCE)

    async def tried(self):
        try:
            await self.run()
            self.fault = None
        except (Fault, asyncio.TimeoutError) as fault:
            self.fault = repr(fault)

    @staticmethod
    def connect(endpoint):
        """It says nothing, and need not be accepted."""
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", int(endpoint.rsplit(":", 1)[1])))
        return one


_siege = None


def siege():
    """The siege, which all cases look at; it is made once. What it ended with is a failure of each."""
    global _siege
    if _siege is None:
        folder = tempfile.mkdtemp(prefix="zqb-siege-")
        try:
            one = Siege(folder)
            asyncio.run(one.run())
            _siege = one
            shutil.rmtree(folder)
        except (Fault, asyncio.TimeoutError) as fault:
            _siege = repr(fault)
            show("failed", "what the processes wrote is in " + folder)
        finally:
            kill_all()
    assert isinstance(_siege, Siege), _siege
    return _siege


def told(kind, name):
    """What a kind of attack says of itself; skips the case if that was not made."""
    if kind not in siege().chosen:
        raise tap.Skip("not this time")
    return siege().told[kind][name]


def units(kind):
    """How many there were of a kind."""
    return told(kind, "units")


def counted(name):
    """What a counter of the broker is more than before the attack, in the end."""
    return siege().after[name] - siege().before[name]


# ---- what must hold -----------------------------------------------------------------------------------------------

def ratio(which, what):
    ratios = [one[which] for one in siege().rounds]
    median = statistics.median(ratios)
    show("ratio", "%.3f of %s, in rounds from %.3f to %.3f" % (median, what, min(ratios), max(ratios)))
    assert median >= RATIO, ratios


@case("good clients have at least %.2f of their throughput while others attack: median of %d rounds" % (RATIO, ROUNDS))
def _():
    ratio(0, "the throughput")


@case("of the broker's time at least %.2f is left for good clients: median of %d rounds" % (RATIO, ROUNDS))
def _():
    ratio(1, "the broker's time")


@case("in a storm without pace good clients go on")
def _():
    assert siege().stormed > 0


@case("each good request is answered once, and right")
def _():
    for name in ("client0", "client1"):
        one = siege().told[name]
        assert one["asked"] == one["replied"] and one["digest"] == one["asked_digest"], one
        assert one["errors"] == one["wrong"] == 0, one
    tap.same(siege().told["recorded"], "asked")


@case("each good request is executed once, and for the one who asked")
def _():
    clients = [siege().told["client0"], siege().told["client1"]]
    recorded = 100 if "tape" in siege().chosen else 0
    asked, digest = (sum(one[name] for one in clients) for name in ("asked", "asked_digest"))
    executed, executed_digest, for_others = siege().executed
    tap.same(executed, asked + recorded)
    tap.same(executed_digest, (digest + sum(mix(i + 1) for i in range(recorded))) % 2**64)
    tap.same(for_others, 0)


@case("nobody hostile receives what is not his")
def _():
    tap.same({kind: siege().told[kind]["foreign"] for kind in siege().chosen}, {kind: 0 for kind in siege().chosen})


@case("no worker is lost to an attack, and no good request is cancelled or given up")
def _():
    names = ("workers_lost", "requeued", "cancelled", "dead", "failed")
    tap.same([siege().told["storm"][name] for name in names], [0] * len(names))


@case("all processes end well, and the broker's accounts are right")
def _():
    tap.same(siege().faults, [])
    after = siege().after
    tap.same(after["accepted"], sum(after[name] for name in ENDED))
    tap.same(after["no_memory"], 0)


@case("memory: the broker never has more than its limits allow")
def _():
    one = siege()
    bound = one.rss_before + 2 * MAX_BYTES + one.most_connections * CONNECTION + SLACK
    show("memory", "%d KiB at most, %d allowed" % (one.rss_most >> 10, bound >> 10))
    assert one.rss_most <= bound


@case("memory: when all have gone the broker has what it had, within %d KiB" % (LEFT >> 10))
def _():
    if not siege().before["heap"]:
        raise tap.Skip("malloc does not tell")
    assert siege().after["heap"] <= siege().before["heap"] + LEFT, (siege().before["heap"], siege().after["heap"])


# ---- each kind of attack, and how the broker tells of it

@case("flood: who asks for more bytes a second than he may is refused")
def _():
    assert told("flood", "refused") > 0
    tap.same(counted("refused_rate"), told("flood", "refused"))


@case("crowd: who asks for more at a time than he may is refused")
def _():
    assert told("crowd", "refused") >= 10 * units("crowd") - 1000
    tap.same(counted("refused_user"), told("crowd", "refused"))


@case("forge, again, ids: replies under the tokens of others, guessed tokens and old ones are stale")
def _():
    tap.same(counted("stale"), 4 * units("forge") + 2 * units("again") + units("ids"))


@case("stranger, ids: who is no worker cannot answer, nor say goodbye for one")
def _():
    tap.same(counted("bad_state"), 4 * units("stranger") + units("ids"))


@case("again: a request that is repeated while it is here is joined, and answered once")
def _():
    tap.same(counted("joined"), 2 * units("again"))


@case("ids: with a good client's life and numbers one cancels, joins and reads nothing of his")
def _():
    tap.same(told("ids", "replies"), units("ids"))  # its own, each with its own name


@case("names: with a good peer's routing id one is let in, and hears nothing, and he goes on")
def _():
    tap.same((told("names", "let_in"), told("names", "received")), (units("names"), 0))
    named = siege().told["named"]
    assert named["answered"] and not named["wrong"] and not named["silent"], named


@case("ready: workers that come and go all the time, and may not serve what others do")
def _():
    tap.same(counted("denied_serve"), units("ready"))
    tap.same(counted("workers_left"), 4 * units("ready") + units("ids") + GOOD_WORKERS)


@case("denied: what one may not ask for")
def _():
    tap.same(counted("denied_call"), 4 * units("denied"))


@case("bad: malformed messages, each counted as what it is")
def _():
    tap.same([counted(name) for name in ("bad_header", "bad_command", "bad_frames", "refused_name")],
             [units("bad") * n for n in (1, 1, 2, 1)])


@case("connect: strangers are turned away")
def _():
    tap.same(told("connect", "turned_away"), units("connect"))
    tap.same(counted("auth_refused_key"), units("connect"))


@case("half-open: thousands of handshakes that go no further")
def _():
    units("half-open")
    show("half-open", "%d" % siege().half_open)
    assert siege().most_connections > siege().half_open > 0


@case("huge: what is larger than may be is refused, and what is much larger ends its connection")
def _():
    tap.same([counted("refused_large"), counted("refused_frames")], [units("huge")] * 2)
    tap.same(told("huge", "closed"), 3 * units("huge"))


@case("slow: who asks for much and does not read is given up")
def _():
    units("slow")
    assert counted("unsendable") > 0


@case("tape: a good client's connection, played again byte for byte, comes to nothing but its end")
def _():
    tap.same(told("tape", "closed"), units("tape"))


@case("more: who has always read more than there is costs the worker that has his request nothing")
def _():
    units("more")
    tap.same(siege().page_held, 1)
    assert siege().held_memory <= WORKER_MOST, siege().held_memory


# ---- descriptors

@case("without descriptors the broker goes on with whom it has, and lets others in when silent ones were ended")
def _():
    tap.same((siege().few.fault, siege().few.let_in), (None, "asked"))


def main():
    global options
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--kinds")
    options, words = parser.parse_known_args()
    sys.argv[1:] = words
    if not hasattr(os, "pidfd_open"):
        print("1..1\nok 1 - siege # SKIP it needs Linux and Python 3.9")
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    tap.main(jobs=1)


if __name__ == "__main__":
    main()
