#!/usr/bin/env python3
"""Soak: a broker under full load for long, with quiet moments in between, in which it must be as it was.

    soak.py [--seconds N] [--only broker|whole]

Half the time it is zqbrokerd, over tcp, and half the time a program that has broker, pool and clients in one process,
over inproc. What they are made to do is told at the top of soak.c. Load and quiet follow each other: all peers go,
until the broker says that it has neither requests, services, workers nor clients, and has as many descriptors as before
the first load. Then its memory is taken. The first quarter of these moments is for warming up: tables grow, and the
broker remembers some peers that are gone. Of the others, the median of the last third is compared with that of the
first.

The memory is what malloc has given out, of which the program tells itself and zqbrokerd by heap.so, which is loaded
into it (both with glibc 2.33 and newer; elsewhere nothing but the pages is known). It may grow by HEAP_MOST in all:
buffers that are used again and again become as large as they ever had to be. At the millions of requests that are made
in half a minute that is a part of a byte per request; the figures are printed. The private pages, which also hold what
was freed and lies between what was not, go up and down by several MiB, as they keep the peaks of a load; they may grow
by PAGES_MOST. On a machine that is so slow that it does few requests a leak shows later, and nothing fails that should
not.

Environment: ZQBROKERD, ZQB_CHAOS_SOAK, ZQB_CHAOS_HEAP (programs; below tests/build).
"""
import argparse
import asyncio
import ctypes
import os
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from chaos import BROKER, ENDED, PATIENCE, TOP, Fault, Process, Report, kill_all, show  # noqa: E402

SOAK = os.path.join(TOP, os.environ.get("ZQB_CHAOS_SOAK", "tests/build/chaos/soak"))
HEAP = os.path.join(TOP, os.environ.get("ZQB_CHAOS_HEAP", "tests/build/chaos/heap.so"))
HEARTBEAT_MS = 200
HEAP_MOST = 2 << 20
PAGES_MOST = 32 << 20
MOMENTS, LOAD_MOST = 12, 20  # at least so many; seconds of load before each
QUIET_MOST = 60  # seconds
GONE = ("queued", "running", "services", "workers", "clients", "bytes")
PR_SET_THP_DISABLE = 41


def private(pid):
    """Bytes that only this process has."""
    with open("/proc/%d/smaps_rollup" % pid) as file:
        text = file.read()
    return sum(int(re.search(field + r":\s+(\d+) kB", text).group(1)) for field in ("Private_Dirty", "Swap")) << 10


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


class Soak:
    """What is measured, and what loads it; the same process, or two."""

    def __init__(self, name, folder):
        self.name, self.folder, self.log = name, folder, open(os.path.join(folder, name + ".log"), "ab")
        self.processes, self.faults, self.moments = [], {"memory": [], "descriptors": [], "accounts": []}, []

    def start(self, *command, preload=""):
        program = os.path.join(self.folder, os.path.basename(command[0]))
        shutil.copy(command[0], program)  # a copy, as somebody may be building another
        before = ["env", "LD_PRELOAD=" + preload] if preload else []  # env becomes the program
        self.processes.append(Process(self.name, [*before, program, *command[1:]], self.log, talks=True))
        return self.processes[-1]

    async def open(self):
        """The measured one is the first of the processes, the loading one the last."""
        endpoints = []
        if self.name == "broker":
            any_port = "tcp://127.0.0.1:*"
            ports = ("--bind", any_port, "--lru", any_port, any_port, "lru")
            broker = self.start(BROKER, *ports, "--heartbeat", str(HEARTBEAT_MS),
                                preload=HEAP if os.path.exists(HEAP) else "")
            while (line := await broker.line()) != "ready":
                endpoints.append(line.split()[1])
        loading = self.start(SOAK, *(["load", *endpoints] if endpoints else ["whole"]))
        await loading.line()
        self.pid = self.processes[0].pid
        self.at_first = descriptors(self.pid)

    async def quiet(self):
        """The counters, when all that was done is over."""
        line = (await self.processes[-1].line(QUIET_MOST)).split()
        told = {name: int(value) for name, value in (pair.split("=") for pair in line[1:])}
        left = {name: told[name] for name in GONE if told[name]}
        if left or told["accepted"] != sum(told[name] for name in ENDED):
            self.faults["accounts"].append("left: %s; %s" % (left, {name: told[name] for name in ("accepted", *ENDED)}))
        return told

    async def descriptors_back(self):
        """Connections that were closed take a moment until libzmq has done so."""
        until = time.monotonic() + PATIENCE
        while (count := descriptors(self.pid)) != self.at_first and time.monotonic() < until:
            await asyncio.sleep(0.005)  # of this there is no event
        if count != self.at_first:
            self.faults["descriptors"].append("%d at first, and %d in quiet moment %d"
                                              % (self.at_first, count, len(self.moments) + 1))

    @staticmethod
    async def ask_heap(broker):
        if not os.path.exists(HEAP):
            return 0
        broker.send(signal.SIGUSR2)
        return int((await broker.line()).split("=")[1])

    async def moment(self, seconds):
        """Load, quiet, and what there is then: (requests so far, memory, private pages)."""
        self.processes[-1].tell("%g\n" % seconds)
        told = await self.quiet()
        await self.descriptors_back()
        if self.name == "whole":
            self.processes[-1].tell("0\n")  # what was being freed then is free by now
            told = await self.quiet()
        else:
            told["heap"] = await self.ask_heap(self.processes[0])
        pages = private(self.pid)
        self.moments.append((told["requests"], told["heap"], pages))
        self.told = told
        show(self.name, "%d requests, %d lives, %d bytes, pages of %d KiB, %d descriptors" % (
            told["requests"], told["lives"], told["heap"], pages >> 10, descriptors(self.pid)))

    def compare(self):
        kept = self.moments[len(self.moments) // 4:]
        third = max(1, len(kept) // 3)
        first, last = kept[:third], kept[-third:]
        requests, grown, pages = (statistics.median(one[i] for one in last) - statistics.median(one[i] for one in first)
                                  for i in range(3))
        text = "%d requests later %+d bytes: %.4f a request; pages %+d KiB" % (
            requests, grown, grown / max(1, requests), pages / 1024)
        show(self.name, text)
        if grown > HEAP_MOST or pages > PAGES_MOST:
            self.faults["memory"].append("it has grown: " + text)

    async def end(self):
        for process in reversed(self.processes):
            if process is self.processes[-1]:
                process.process.stdin.close()
                process.expected = {0}
                await asyncio.wait_for(asyncio.shield(process.ended), PATIENCE)
            else:
                await process.end(signal.SIGTERM)
            if process.fault():
                self.faults["accounts"].append(process.fault())

    async def run(self, seconds):
        until = time.monotonic() + seconds
        await self.open()
        load = min(LOAD_MOST, seconds / MOMENTS * 0.75)
        while len(self.moments) < MOMENTS // 2 or time.monotonic() < until:
            await self.moment(load)
        self.compare()
        show(self.name, ", ".join("%s %d" % (name, self.told[name]) for name in (
            *ENDED[:-2], "joined", "requeued", "partials", "workers_lost", "workers_left", "bad_header", "bad_command",
            "bad_frames", "stale")))
        await self.end()


CASES = (("memory", "memory at the end is as at the start, within %d KiB" % (HEAP_MOST >> 10)),
         ("descriptors", "in each quiet moment it has exactly the descriptors that it had at first"),
         ("accounts", "in each quiet moment all that was accepted has ended in one way, and nothing is left"))
NAMES = {"broker": "zqbrokerd", "whole": "all in one process"}


async def everything(options, folder):
    chosen = [options.only] if options.only else list(NAMES)
    report = Report(len(chosen) * len(CASES))
    for name in chosen:
        soak = Soak(name, folder)
        try:
            await soak.run(options.seconds / len(chosen))
        except (Fault, asyncio.TimeoutError) as fault:
            soak.faults["accounts"].append(repr(fault))
        for key, promise in CASES:
            report.case("%s: %s" % (NAMES[name], promise), soak.faults[key])
    return report.good


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--only", choices=tuple(NAMES))
    options = parser.parse_args()
    if not hasattr(os, "pidfd_open") or not os.path.exists("/proc/self/smaps_rollup"):
        print("1..1\nok 1 - soak # SKIP it needs Linux and Python 3.9")
        return
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)  # huge pages would count whole; the programs inherit this
    folder = tempfile.mkdtemp(prefix="zqb-soak-")
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
