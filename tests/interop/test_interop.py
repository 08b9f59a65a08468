#!/usr/bin/python3
"""Every kind of peer against zqbrokerd, and our zqcall and zqecho against another Majordomo broker.

    test_interop.py [-j JOBS] [PART OF A NAME]...       runs the tests whose name contains one of these, or all

Prints "ok N - name" or "not ok N - name" for each test case, with what went wrong as comments, and at last one line
"N passed, N failed". Programs are taken from the environment (ZQBROKERD, ZQCALL, ZQECHO) or from tests/build.
Every test waits for an event: a message, a counter of mmi.stats, the end of a process; never for a guessed time.
"""

import re
import signal
import subprocess
import sys
import time
import unittest

import zmq

import peers
from asking import (Affinity, Cancel, Deadlines, Delays, Drain, Failures, FailFast, OneWay, OurClient,  # noqa: as those
                    OurWorker, Patterns, Priorities, Progress, Refuse, Survey, Unique, Window)  # noqa
from harness import (BINARY, COUNTERS, FREE_WORKERS, HEARTBEAT_WORKERS, LARGE, MAJORDOMO_WORKERS, NAMING_CLIENTS,
                     ONE_FRAME, PATIENCE, SHAPES, SMALL, STREAM, STREAMING_WORKERS, TALKING_WORKERS, ZQCALL, ZQECHO,
                     InteropCase, Program, PythonBroker, each, expand, work, worked, zqb)
from malformed import MalformedMessages, Mutations, Tokens   # noqa: their tests are run here
from peers import (CANCEL, CLIENTS, HEARTBEAT, MDPC01, MDPC02, REPLY, REQUEST, SERVICE, STATUS, TEXT, USER,
                   WORKERS, Command)
from runner import run


# ---- every worker with every client -------------------------------------------------------------------------------

class MatrixCase(InteropCase):
    """One broker and one worker of each kind, each with a service of its own, for all tests of the class."""

    workers = WORKERS

    @classmethod
    def setUpClass(cls):
        cls.ctx = zmq.Context()
        cls.broker = cls.broker_type(cls.heartbeat_ms, list(cls.workers))
        cls.running = []
        for name, kind in cls.workers.items():
            endpoint = cls.broker.for_worker(kind, name.encode())
            worker = kind(cls.ctx, endpoint, name.encode(), heartbeat_ms=cls.heartbeat_ms)
            cls.running.append(worker.start(work))

    @classmethod
    def tearDownClass(cls):
        try:
            for running in cls.running:
                running.stop()
            cls.broker.stop()
        finally:
            cls.ctx.destroy(0)

    def setUp(self):
        self.control_client = None

    def name_of(self, kind):
        return next(name for name, each_kind in self.workers.items() if each_kind is kind).encode()

    def exchange(self, worker, client):
        """All shapes that the worker takes."""
        service = self.name_of(worker)
        client = self.client(client, service)
        for shape, body in (ONE_FRAME if worker.single_frame else SHAPES).items():
            if body[0] == b"" and not worker.takes_leading_empty:
                continue
            self.assert_frames(client.call(service, body), worked(body), shape)

    def stream(self, worker, client):
        service = self.name_of(worker)
        client = self.client(client, service)
        for _ in range(2):
            self.assert_frames(client.call(service, [b"stream"]), sum(STREAM, []))
            sizes = [[len(frame) for frame in part] for part in client.parts]
            whole = [[len(frame) for part in STREAM for frame in part]]
            self.assertEqual(sizes, [[len(frame) for frame in part] for part in STREAM] if client.partials else whole)
        self.assertEqual(client.call(service, [SMALL]), worked([SMALL]))


@expand
class Matrix(MatrixCase):
    """Any client is served by any worker."""

    @each("worker_{0}_serves_client_{1}", WORKERS, CLIENTS)
    def serves(self, worker, client):
        self.exchange(worker, client)


@expand
class Streaming(MatrixCase):
    """Parts of a reply reach a client that knows them one by one, and the others as one reply."""

    workers = STREAMING_WORKERS

    @each("worker_{0}_streams_to_client_{1}", STREAMING_WORKERS, CLIENTS)
    def streams(self, worker, client):
        self.stream(worker, client)


# ---- mmi ----------------------------------------------------------------------------------------------------------

def unescape(name):
    """Undoes the backslash-x-HH of mmi.services."""
    return re.sub(rb"\\x([0-9a-fA-F]{2})", lambda match: bytes([int(match[1], 16)]), name)


@expand
class Mmi(InteropCase):
    """Section 6 of the manual; RFC 8."""

    @each("service_tells_client_{0}_200_or_404", NAMING_CLIENTS)
    def service(self, kind):
        self.serving(peers.MDP01Worker, b"there")
        self.wait_workers(1)
        client = self.client(kind)
        self.assertEqual(client.call(b"mmi.service", [b"there"]), [b"200"])
        self.assertEqual(client.call(b"mmi.service", [b"elsewhere"]), [b"404"])
        self.assertEqual(client.call(b"mmi.service", [b"job"]), [b"404"])

    @each("unknown_tells_client_{0}_501", NAMING_CLIENTS)
    def unknown(self, kind):
        client = self.client(kind)
        for name in (b"mmi.unknown", b"mmi.", b"mmi.servic", b"mmi.service\0", b"mmi.stats.more"):
            self.assertEqual(client.call(name, [b"x"]), [b"501"], name)

    def test_service_200_for_what_a_pattern_serves(self):
        self.serving(peers.MDP02Worker, b"img.*")
        self.wait_workers(1)
        answers = [self.mmi(b"service", name) for name in (b"img.x", b"img.", b"img.*", b"img", b"job")]
        self.assertEqual(answers, [[b"200"]] * 3 + [[b"404"]] * 2)

    def test_service_404_when_the_worker_left(self):
        running = self.serving(peers.MDP02Worker, b"there")
        self.wait_workers(1)
        running.stop()
        self.wait_workers(0)
        self.assertEqual(self.mmi(b"service", b"there"), [b"404"])

    def test_stats_are_the_counters_of_the_header_in_their_order(self):
        frames = self.mmi(b"stats")
        self.assertEqual([frame.split(b"=")[0].decode() for frame in frames], COUNTERS)
        for frame in frames:
            self.assertRegex(frame, rb"^[a-z_]+=[0-9]+$")

    def test_stats_count_the_ways_in_which_requests_end(self):
        self.serving(peers.ZQBWorker)
        client = self.client(peers.ZQBClient)
        before = self.stats()
        client.call(b"job", [b"x"])
        with self.assertRaises(peers.CallFailed):
            client.call(b"job", [b"fail"])
        stats = self.stats()
        self.assertEqual(stats["failed"] - before["failed"], 1)
        self.assertGreaterEqual(stats["replied"] - before["replied"], 1)
        self.assert_accounts()

    def test_services_lists_them_as_documented(self):
        odd = b"a b\\\x00\xff\n~"
        self.serving(peers.MDP01Worker, odd)
        worker, _, _ = self.holding(peers.MDP02Worker)
        client = self.client(peers.ZQBClient)
        client.submit(b"job", [b"waits"])
        self.wait_stats(lambda stats: stats["workers"] == 2 and stats["queued"] == 1)
        services = {}
        for frame in self.mmi(b"services"):
            match = re.fullmatch(rb"([!-~]+) queued=(\d+) running=(\d+) workers=(\d+) handler=([01])"
                                 rb" oldest_ms=\d+ delayed=\d+ pinned=\d+", frame)
            self.assertTrue(match, frame)
            services[unescape(match[1])] = tuple(map(int, match.groups()[1:]))
            self.assertEqual(len(self.mmi(b"services", unescape(match[1]))), 1)
        self.assertEqual(services[odd], (0, 0, 1, 0))
        self.assertEqual(services[b"job"], (1, 1, 1, 0))
        self.assertEqual(self.mmi(b"services", b"nobody"), [])

    def test_workers_lists_them_as_documented(self):
        kinds = {b"MDP/0.1": peers.MDP01Worker, b"MDP/0.2": peers.MDP02EmptyWorker, b"LRU": peers.LRUWorker,
                 b"PPP": peers.PPPWorker, b"ZQB/1": peers.ZQBBatchWorker}
        for kind in kinds.values():
            self.serving(kind)
        self.wait_workers(5)
        client = self.client(peers.MDP01Client)
        for _ in range(5):
            client.call(b"job", [b"x"])
        pattern = (rb"([!-~]+) dialect=([!-~]+) load=(\d+) credit=(\d+) served=(\d+) silent_ms=\d+ id=(\d+)"
                   rb" failed=0 slow=0 resting=0 draining=0")
        matches = [re.fullmatch(pattern, frame) for frame in self.mmi(b"workers")]
        self.assertTrue(all(matches))
        self.assertEqual({match[1] for match in matches}, {b"job"})
        self.assertEqual(sorted(match[2] for match in matches), sorted(kinds))
        self.assertEqual({match[2]: int(match[4]) for match in matches},
                         {kind: 10 if kind == b"ZQB/1" else 1 for kind in kinds})
        self.assertEqual({int(match[5]) for match in matches}, {1}, "each of five has served one of five: LRU")
        self.assertEqual(len({match[6] for match in matches}), 5, "numbers are their own")

    def test_services_lists_at_most_1000(self):
        client = self.client(peers.ZQBClient)
        client.send_commands(*[Command(REQUEST, i + 1, {SERVICE: b"s%d" % i}, [b"x"]) for i in range(1100)])
        self.wait_stats(lambda stats: stats["queued"] == 1100)
        services = self.mmi(b"services")
        self.assertEqual((len(services), services[-1]), (1001, b"..."))

    @each("names_are_refused_to_worker_{0}", TALKING_WORKERS)
    def refused(self, kind):
        before = self.stats()
        worker = self.worker(kind, b"mmi.service")
        stats = self.wait_counted(before, ["refused_name"])
        self.assertEqual(stats["workers"], 0)
        self.assertEqual(self.mmi(b"service", b"mmi.service"), [b"200"], "it has a handler")
        self.assertEqual(self.mmi(b"nothing"), [b"501"])
        if isinstance(worker, peers.ZQBWorker):
            self.assertTrue(worker.listen(lambda: worker.disconnects), "no DISCONNECT")
            self.assertEqual(worker.status, peers.EREFUSED)

    @each("prefix_in_an_address_means_nothing_to_{0}_and_{1}",
          {name: CLIENTS[name] for name in ("mdp01_req", "mdp02", "lru_req", "zqb1")},
          {name: WORKERS[name] for name in ("mdp01", "mdp02", "lru_req", "ppp", "zqb1")})
    def prefix(self, client, worker):
        self.serving(worker, identity=b"mmi.worker")
        client = self.client(client, identity=b"mmi.service")
        self.assertEqual(client.call(b"job", [SMALL]), worked([SMALL]))


# ---- lost workers -------------------------------------------------------------------------------------------------

@expand
class Lost(InteropCase):
    """What a lost worker held runs elsewhere."""

    heartbeat_ms = 1000

    def rescued(self, kind, lose):
        worker, client, _ = self.holding(kind, [b"rescue me"])
        before = self.stats()
        self.serving(kind)
        self.wait_workers(2)
        lose(worker)
        self.assertEqual(client.collect(), worked([b"rescue me"]))
        stats = self.wait_counted(before, ["requeued"])
        self.assertEqual(stats["running"], 0)
        self.assert_accounts()
        return before, stats

    @each("worker_{0}_says_disconnect", TALKING_WORKERS)
    def says_disconnect(self, kind):
        before, stats = self.rescued(kind, lambda worker: worker.disconnect())
        self.assertEqual((stats["workers"], stats["workers_left"] - before["workers_left"]), (1, 1))

    @each("worker_{0}_is_closed_without_a_word", WORKERS)
    def is_closed(self, kind):
        before, stats = self.rescued(kind, lambda worker: worker.close())
        self.assertEqual((stats["workers"], stats["workers_lost"] - before["workers_lost"]), (1, 1))

    @each("worker_{0}_registers_again", FREE_WORKERS)
    def registers_again(self, kind):
        _, stats = self.rescued(kind, lambda worker: worker.ready())
        self.assertEqual(stats["workers"], 2)

    @each("worker_{0}_gone_while_idle_is_not_waited_for", WORKERS)
    def gone_while_idle(self, kind):
        worker = self.worker(kind)
        self.wait_workers(1)
        worker.close()
        client = self.client(peers.MDP01Client)
        client.submit(b"job", [SMALL])
        self.serving(kind)
        self.assertEqual(client.collect(), worked([SMALL]))

    def test_five_lru_workers_gone_while_idle_do_not_make_a_request_dead(self):
        gone = [self.worker(peers.LRUWorker) for _ in range(5)]
        self.wait_workers(5)
        for worker in gone:
            worker.close()
        self.wait_workers(0)                    # they have no heartbeats: their connections tell
        client = self.client(peers.ZQBClient)
        client.submit(b"job", [SMALL])
        self.serving(peers.LRUWorker)
        self.assertEqual(client.collect(), worked([SMALL]))

    def test_a_request_that_loses_three_workers_is_dead(self):
        client = self.client(peers.ZQBClient)
        client.submit(b"job", [b"poison"])
        for _ in range(3):
            worker = self.worker(peers.MDP02Worker)
            self.assertIsNotNone(worker.recv())
            worker.close()
        with self.assertRaises(peers.CallFailed) as caught:
            client.collect()
        self.assertEqual(caught.exception.status, peers.ELOST)
        stats = self.stats()
        self.assertEqual((stats["dead"], stats["requeued"], stats["running"]), (1, 2, 0))

    def test_a_worker_that_registers_for_another_service_serves_that_one_only(self):
        worker = self.worker(peers.MDP01Worker)
        self.wait_workers(1)
        worker.service = b"other"
        worker.ready()
        client = self.client(peers.ZQBClient)
        client.submit(b"other", [b"x"])
        self.assertEqual(worker.recv()[1], [b"x"])
        self.assertEqual(self.mmi(b"service", b"job"), [b"404"])


@expand
class LostAtOnce(InteropCase):
    """A busy worker's connection tells that it is gone (design, section 5): heartbeats are too rare here."""

    heartbeat_ms = 60000

    @each("busy_worker_{0}_is_closed_without_a_word",
          {name: WORKERS[name] for name in ("mdp01", "mdp02", "lru_req", "ppp", "zqb1")})
    def is_closed(self, kind):
        worker, client, _ = self.holding(kind)
        self.serving(kind)
        self.wait_workers(2)
        worker.close()
        self.assertEqual(client.collect(1000 * PATIENCE), worked([b"held"]))


# ---- heartbeats and restarts --------------------------------------------------------------------------------------

@expand
class Heartbeats(InteropCase):
    """Both ways, as the protocols say; 100 ms here."""

    heartbeat_ms = 100

    @each("reach_idle_worker_{0}", HEARTBEAT_WORKERS)
    def reach_idle(self, kind):
        worker = self.worker(kind)
        while worker.heartbeats < 4:
            self.assertIsNone(worker.recv(50))
            self.assertLess(worker.registered, 5)

    @each("reach_busy_worker_{0}_which_may_be_silent", HEARTBEAT_WORKERS)
    def reach_busy(self, kind):
        worker, client, token = self.holding(kind)
        heard, registered = worker.heartbeats, worker.registered  # on a slow machine it may have been lost before
        self.assertTrue(worker.listen(lambda: worker.heartbeats >= heard + 6), "no heartbeats")
        worker.reply(token, [b"late"])
        worker.flush()
        self.assertEqual(client.collect(), [b"late"])
        self.assertEqual(worker.registered, registered)

    @each("silent_idle_worker_{0}_is_lost", HEARTBEAT_WORKERS)
    def silent_idle(self, kind):
        before = self.stats()
        self.worker(kind)
        self.wait_counted(before, ["workers_lost"])
        self.assertEqual(self.mmi(b"service", b"job"), [b"404"])

    @each("of_stranger_{0}_is_answered_by_disconnect", TALKING_WORKERS)
    def of_stranger(self, kind):
        worker = self.worker(kind, register=False)
        before = self.stats()
        worker.heartbeat()
        self.assertTrue(worker.listen(lambda: worker.disconnects), "no DISCONNECT")
        self.wait_counted(before, ["bad_state"])
        worker.ready()
        client = self.client(peers.ZQBClient)
        client.submit(b"job", [SMALL])
        self.assertIsNotNone(worker.recv())

    def test_of_a_ppp_stranger_is_counted(self):
        worker = self.worker(peers.PPPWorker, register=False)
        before = self.stats()
        worker.heartbeat()
        self.wait_counted(before, ["bad_state"])

    def test_live_worker_does_not_hide_a_dead_one(self):
        self.serving(peers.MDP01Worker)
        before = self.wait_workers(1)
        self.worker(peers.MDP01Worker)
        self.serving(peers.MDP01Worker)
        self.wait_stats(lambda stats: stats["workers_lost"] > before["workers_lost"])


@expand
class Restart(MatrixCase):
    """The broker is killed and comes back on the same ports: workers register again, and calls work again."""

    workers = HEARTBEAT_WORKERS
    heartbeat_ms = 100

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        try:
            cls.clients = {}
            for name, kind in CLIENTS.items():
                client = cls.clients[name] = kind(cls.ctx, cls.broker.for_client(kind, b"ppp"))
                assert client.call(b"ppp", [SMALL]) == worked([SMALL])
            for name in cls.workers:
                assert cls.clients["zqb1"].call(name.encode(), [SMALL]) == worked([SMALL])
            cls.broker.kill_and_restart()
        except BaseException:
            super().tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        for client in cls.clients.values():
            client.close()
        super().tearDownClass()

    @each("worker_{0}_registers_again", HEARTBEAT_WORKERS)
    def registers_again(self, kind):
        client = self.client(peers.MDP01Client)
        self.assertEqual(client.call(self.name_of(kind), [SMALL], 1000, tries=15), worked([SMALL]))

    @each("client_{0}_calls_again", CLIENTS)
    def calls_again(self, kind):
        client = next(client for client in self.clients.values() if type(client) is kind)
        self.assertEqual(client.call(b"ppp", [SMALL], 1000, tries=15), worked([SMALL]))


class RestartByHand(InteropCase):
    """What the broker says about its life."""

    heartbeat_ms = 100

    def test_a_broker_has_another_life_after_a_restart(self):
        worker = self.worker(peers.ZQBWorker)
        while not worker.heartbeats:
            worker.recv(50)
        self.broker.kill_and_restart()
        while worker.registered < 2 or len(worker.broker_lives) < 2:
            worker.recv(50)
        self.assertNotEqual(*worker.broker_lives[:2])

    def test_a_token_from_before_a_restart_answers_nobody(self):
        worker, old_client, token = self.holding(peers.MDP01Worker, [b"before"])
        old_client.close()
        self.broker.kill_and_restart()
        before = self.stats()
        client = self.client(peers.MDP01Client)
        client.submit(b"job", [b"after"])
        while (request := worker.recv()) is None or request[1] != [b"after"]:
            pass
        worker.reply(token, [b"wrong"])
        worker.reply(request[0], [b"right"])    # at once: who waits in between, without heartbeats, is given up
        answer = client.collect(1000)
        for _ in range(PATIENCE):
            if answer is None and (request := worker.recv()) is not None:   # so it was, and is asked again
                worker.reply(request[0], [b"right"])
            answer = answer or client.collect(1000)
        self.assertEqual(answer, [b"right"])
        self.wait_stats(lambda stats: stats["stale"] > before["stale"], "a stale reply")    # or more: see above


@expand
class End(InteropCase):
    """A broker that is asked to end tells workers, and the ZQB/1 clients whose requests it has."""

    @each("disconnects_worker_{0}", TALKING_WORKERS)
    def disconnects(self, kind):
        worker = self.worker(kind)
        self.wait_workers(1)
        self.broker.stop()
        self.assertTrue(worker.listen(lambda: worker.disconnects), "no DISCONNECT")

    def test_tells_zqb1_clients_that_their_requests_are_cancelled(self):
        client = self.client(peers.ZQBClient)
        client.submit(b"job", [b"queued"])
        self.wait_stats(lambda stats: stats["queued"] == 1)
        self.broker.stop()
        with self.assertRaises(peers.CallFailed) as caught:
            client.collect()
        self.assertEqual(caught.exception.status, peers.ECANCELLED)


# ---- names and envelopes ------------------------------------------------------------------------------------------

@expand
class Names(InteropCase):
    """A name is bytes. Lesson 9."""

    @each("nul_in_a_name_makes_two_services_for_{0}_and_{1}",
          {name: CLIENTS[name] for name in ("mdp01_req", "mdp02", "zqb1")},
          {name: WORKERS[name] for name in ("mdp01", "mdp02", "zqb1")})
    def nul(self, client, worker):
        names = [b"a", b"a\0", b"a\0b", b"a\0c", b"\0"]
        for name in names:
            self.serving(worker, name, lambda body, name=name: [b"I am " + name])
        client = self.client(client)
        for name in names:
            self.assertEqual(client.call(name, [b"who"]), [b"I am " + name])
        self.assertEqual(self.mmi(b"service", b"a\0d"), [b"404"])

    @each("longest_name_with_{0}", TALKING_WORKERS)
    def longest(self, kind):
        name = bytes(range(1, 256))
        self.serving(kind, name)
        self.assert_good_client(name)


ENVELOPES = {"nothing": [], "an_empty_frame": [b""], "one_address": [b"address"],
             "address_and_empty_frame": [b"a", b""],
             "two_empty_frames": [b"", b""], "binary": [b"\0", BINARY[:255], b"\0\0"],
             "eight": [b"%d" % i for i in range(8)], "eight_long_ones": [b"%d" % i * 255 for i in range(8)]}
HEADED = {"mdp01": ([MDPC01, b"job", b"<x"], [MDPC01, b"job", b"x<"]),
          "mdp02": ([MDPC02, b"\1", b"job", b"<x"], [MDPC02, b"\3", b"job", b"x<"])}


@expand
class Envelopes(InteropCase):
    """Section 7: any frames in front of the header, up to 8, come back as they were."""

    @each("{1}_before_a_request_of_{0}", HEADED, ENVELOPES)
    def majordomo(self, message, envelope):
        self.serving(peers.PPPWorker)
        peer = self.peer()
        peer.send(envelope + message[0])
        self.assert_frames(peer.receive(10000), envelope + message[1])

    @each("{0}_before_a_request_of_zqb1", ENVELOPES)
    def zqb1(self, envelope):
        self.serving(peers.LRUWorker)
        peer = self.peer()
        peer.send(envelope + zqb(Command(REQUEST, 1, {SERVICE: b"job"}, [b"<x", LARGE])))
        frames = peer.receive(10000)
        self.assertIsNotNone(frames, "no answer")
        self.assert_frames(frames[:len(envelope)], envelope)
        commands = peers.zqb_unpack(frames[len(envelope):])[1]
        self.assertTrue(commands == [Command(REPLY, 1, {}, worked([b"<x", LARGE]))])

    @each("{0}_before_a_request_at_the_lru_frontend",
          {name: ENVELOPES[name] for name in ("nothing", "one_address", "binary")})
    def lru(self, envelope):
        self.serving(peers.MDP02Worker)
        peer = self.peer(self.broker.plain["job"][0])
        peer.send(envelope + [b"", b"<x", b"", b"y"])
        self.assert_frames(peer.receive(10000), envelope + [b"", b"x<", b"", b"y"])


# ---- ZQB/1 --------------------------------------------------------------------------------------------------------

class Zqb(InteropCase):
    """Section 8 of the manual."""

    def request(self, number, *body, service=b"job"):
        return Command(REQUEST, number, {SERVICE: service}, list(body))

    def replies(self, client, count):
        commands = client.next_commands(count)
        self.assertEqual(len(commands), count)
        return {command.id: command.body for command in commands if command.kind == REPLY}

    def test_many_requests_in_one_message_are_answered_by_their_ids(self):
        self.serving(peers.ZQBBatchWorker)
        self.serving(peers.MDP01Worker)
        client = self.client(peers.ZQBClient)
        numbers = [0xffffffffffffffff, 1 << 63, *range(1, 500)]
        client.send_commands(*[self.request(number, b"<%d" % number) for number in numbers])
        self.assertEqual(self.replies(client, len(numbers)), {number: worked([b"<%d" % number]) for number in numbers})

    def test_large_frames_of_several_commands_in_one_message(self):
        self.serving(peers.ZQBBatchWorker)
        client = self.client(peers.ZQBClient)
        bodies = {number: [b"s%d" % number, (b"L%d" % number) * 1000, b"", (b"M%d" % number) * 40000]
                  for number in range(1, 20)}
        client.send_commands(*[self.request(number, *body) for number, body in bodies.items()])
        self.assertTrue(self.replies(client, 19) == {number: worked(body) for number, body in bodies.items()})

    def test_a_body_of_a_thousand_frames(self):
        self.serving(peers.ZQBWorker)
        body = [b"%d" % number * (number % 7) for number in range(1000)]
        self.assertTrue(self.client(peers.ZQBClient).call(b"job", body) == worked(body))

    def test_a_body_of_no_frame(self):
        self.serving(peers.ZQBWorker, handler=lambda body: body)
        self.assertEqual(self.client(peers.ZQBClient).call(b"job", []), [])

    def test_unknown_types_are_skipped(self):
        self.serving(peers.ZQBWorker)
        client = self.client(peers.ZQBClient)
        odd = [Command(kind, 1, {16: b"field"}, [b"inline", LARGE]) for kind in (0, 12, 31, 32, 255)]
        client.send_commands(*odd, self.request(1, b"<x", LARGE), *odd)
        self.assertTrue(self.replies(client, 1) == {1: worked([b"<x", LARGE])})

    def test_unknown_tags_and_flags_are_skipped(self):
        self.serving(peers.ZQBWorker)
        client = self.client(peers.ZQBClient)
        fields = {16: b"", 31: b"x" * 255, SERVICE: b"job", 255: b"?", 0: b"zero"}
        client.send_commands(Command(REQUEST, 1, fields, [b"<x"], 0xc0))
        self.assertEqual(self.replies(client, 1), {1: [b"x<"]})

    def test_a_worker_is_told_no_user_of_a_client_that_has_none_whatever_it_says(self):
        worker = self.worker(peers.ZQBWorker, credit=2)
        self.wait_workers(1)
        client = self.client(peers.ZQBClient)
        client.send_commands(self.request(1, b"a"), Command(REQUEST, 2, {SERVICE: b"job", USER: b"root"}, [b"b"]))
        held = [worker.recv() for _ in range(2)]
        self.assertEqual([body for _, body in held], [[b"a"], [b"b"]])
        self.assertEqual([worker.caller(token) for token, _ in held], [None, None])

    def test_a_worker_never_holds_more_than_its_credit(self):
        worker = self.worker(peers.ZQBWorker, credit=5)
        client = self.client(peers.ZQBClient)
        client.send_commands(*[self.request(number, b"%d" % number) for number in range(1, 9)])
        held = [worker.recv() for _ in range(5)]
        self.assertEqual([body for _, body in held], [[b"%d" % number] for number in range(1, 6)])
        stats = self.stats()
        self.assertEqual((stats["queued"], stats["running"]), (3, 5))
        self.assertIsNone(worker.recv(0))
        worker.reply(held[3][0], [b"fourth"])
        self.assertEqual(worker.recv()[1], [b"6"])
        self.assertEqual(self.replies(client, 1), {4: [b"fourth"]})
        self.assertEqual(self.stats()["running"], 5)

    def test_credit_is_one_if_missing(self):
        worker = self.worker(peers.ZQBWorker)
        client = self.client(peers.ZQBClient)
        client.send_commands(self.request(1, b"a"), self.request(2, b"b"))
        self.assertEqual(worker.recv()[1], [b"a"])
        stats = self.stats()
        self.assertEqual((stats["queued"], stats["running"]), (1, 1))

    def test_the_least_loaded_worker_is_served_first(self):
        first = self.worker(peers.ZQBWorker, credit=10)
        self.wait_workers(1)
        second = self.worker(peers.ZQBWorker, credit=10)
        self.wait_workers(2)
        client = self.client(peers.ZQBClient)
        client.send_commands(*[self.request(number, b"%d" % number) for number in range(6)])
        self.wait_stats(lambda stats: stats["running"] == 6)
        self.assertEqual([len([worker.recv() for _ in range(3)]) for worker in (first, second)], [3, 3])

    def test_all_that_a_lost_worker_held_runs_elsewhere_in_order(self):
        worker = self.worker(peers.ZQBWorker, credit=10)
        client = self.client(peers.ZQBClient)
        client.send_commands(*[self.request(number, b"%d" % number) for number in range(1, 16)])
        for _ in range(10):
            self.assertIsNotNone(worker.recv())
        worker.close()
        self.wait_stats(lambda stats: stats["workers"] == 0 and stats["requeued"] == 10)
        other = self.worker(peers.ZQBWorker, credit=15)
        self.assertEqual([other.recv()[1] for _ in range(15)], [[b"%d" % number] for number in range(1, 16)])

    def test_ready_again_changes_service_and_credit(self):
        worker = self.worker(peers.ZQBWorker, credit=3)
        client = self.client(peers.ZQBClient)
        client.send_commands(*[self.request(number, b"x") for number in (1, 2, 3)])
        for _ in range(3):
            worker.recv()
        worker.service, worker.credit = b"other", 1
        worker.ready()
        stats = self.wait_stats(lambda stats: stats["queued"] == 3)
        self.assertEqual((stats["running"], stats["workers"]), (0, 1))
        client.send_commands(self.request(4, b"new", service=b"other"))
        self.assertEqual(worker.recv()[1], [b"new"])

    def test_an_error_of_a_worker_reaches_the_client(self):
        self.serving(peers.ZQBWorker)
        with self.assertRaises(peers.CallFailed) as caught:
            self.client(peers.ZQBClient).call(b"job", [b"fail"])
        self.assertEqual((caught.exception.status, caught.exception.text), (peers.EFAILED, "told to fail"))

    def test_an_error_after_a_part_ends_the_request(self):
        worker, client, token = self.holding(peers.ZQBWorker)
        worker.partial(token, [b"part"])
        worker.fail(token, "broken")
        with self.assertRaises(peers.CallFailed):
            client.collect()
        self.assertEqual(client.parts, [[b"part"]])
        self.assertEqual(self.stats()["running"], 0)

    def test_older_clients_hear_nothing_of_an_error(self):
        self.serving(peers.ZQBWorker)
        for kind in (peers.MDP01DealerClient, peers.MDP02Client, peers.LRUDealerClient):
            client, failed = self.client(kind), self.stats()["failed"]
            client.submit(b"job", [b"fail"])
            self.wait_stats(lambda stats: stats["failed"] == failed + 1)
            self.assertEqual(client.call(b"job", [SMALL]), worked([SMALL]))

    def test_a_queued_request_is_cancelled(self):
        client = self.client(peers.ZQBClient)
        client.send_commands(self.request(1, b"one"), self.request(2, b"two"), Command(CANCEL, 1))
        stats = self.wait_stats(lambda stats: stats["cancelled"] == 1)
        self.assertEqual(stats["queued"], 1)
        self.assertEqual(self.worker(peers.ZQBWorker).recv()[1], [b"two"])

    def test_no_answer_comes_for_a_running_request_that_was_cancelled(self):
        worker = self.worker(peers.ZQBWorker)
        client = self.client(peers.ZQBClient)
        client.send_commands(self.request(1, b"one"))
        token, _ = worker.recv()
        client.send_commands(Command(CANCEL, 1), self.request(2, b"two"))
        self.wait_stats(lambda stats: stats["cancelled"] == 1 or stats["queued"] == 1)
        worker.reply(token, [b"unwanted"])
        token, body = worker.recv()
        self.assertEqual(body, [b"two"])
        worker.reply(token, [b"wanted"])
        self.assertEqual(self.replies(client, 1), {2: [b"wanted"]})
        self.assert_accounts()

    def test_cancelling_what_is_not_there_does_nothing(self):
        self.serving(peers.ZQBWorker)
        client = self.client(peers.ZQBClient)
        client.send_commands(Command(CANCEL, 77), Command(CANCEL, 0), self.request(77, b"<x"), Command(CANCEL, 78))
        self.assertEqual(self.replies(client, 1), {77: [b"x<"]})

    def test_a_retry_over_a_new_connection_joins_its_request(self):
        worker = self.worker(peers.ZQBWorker)
        client = self.client(peers.ZQBClient)
        client.submit(b"job", [b"once"])
        token, _ = worker.recv()
        client.reopen()
        client.send(peers.zqb_again(client.request))
        self.wait_stats(lambda stats: stats["joined"] == 1)
        worker.reply(token, [b"done"])
        self.assertEqual(client.collect(), [b"done"])
        self.assertIsNone(worker.recv(0))
        stats = self.stats()
        self.assertEqual((stats["queued"], stats["running"]), (0, 0))

    def test_a_retry_of_a_queued_request_joins_it(self):
        client = self.client(peers.ZQBClient)
        client.submit(b"job", [b"<x"])
        self.wait_stats(lambda stats: stats["queued"] == 1)
        client.send(peers.zqb_again(client.request))
        client.reopen()
        client.send(peers.zqb_again(client.request))
        self.assertEqual(self.wait_stats(lambda stats: stats["joined"] == 2)["queued"], 1)
        self.serving(peers.MDP01Worker)
        self.assertEqual(client.collect(), [b"x<"])

    def test_the_same_number_without_the_flag_is_another_request(self):
        client = self.client(peers.ZQBClient)
        client.submit(b"job", [b"<x"])
        client.send(client.request)
        self.assertEqual(self.wait_stats(lambda stats: stats["queued"] == 2)["joined"], 0)

    def test_the_same_number_in_another_life_is_another_request(self):
        for _ in range(2):
            self.client(peers.ZQBClient).submit(b"job", [b"mine"])
        self.assertEqual(self.wait_stats(lambda stats: stats["queued"] == 2)["joined"], 0)

    def test_a_client_that_went_away_is_not_worked_for(self):
        client = self.client(peers.MDP01DealerClient)
        client.submit(b"job", [b"gone"])
        self.wait_stats(lambda stats: stats["queued"] == 1)
        client.close()
        worker = self.worker(peers.ZQBWorker)
        request = worker.recv(0) or worker.recv(200)
        if request:     # allowed: nobody promises to know that before the reply fails
            worker.reply(request[0], [b"to nobody"])
        self.wait_stats(lambda stats: stats["queued"] == stats["running"] == 0)
        self.assert_accounts()


class ZqbLayout(unittest.TestCase):
    """The codec of these tests against bytes written down by hand from section 8: a test of the tests."""

    def test_a_request_byte_by_byte(self):
        frames = zqb(Command(REQUEST, 0x0102030405060708, {SERVICE: b"up"}, [b"x", b"", LARGE]), Command(HEARTBEAT))
        self.assertEqual(frames[0].hex(" "),
                         "5a 51 42 01 6c 69 66 65 6c 69 66 65 "
                         "00 00 00 21 02 00 00 04 01 02 03 04 05 06 07 08 01 02 75 70 "
                         "00 00 00 01 78 00 00 00 00 80 01 90 00 "
                         "00 00 00 10 06 00 00 00 00 00 00 00 00 00 00 00")
        self.assertEqual(frames[1:], [LARGE])

    def test_what_a_request_asks_for_byte_by_byte(self):
        asks = dict(priority=-1, deadline=0x01020304, delay=5, attempts=0x0607, backoff=(8, 9), unique=b"u",
                    affinity=b"af", fail_fast=True, one_way=True, survey=True)
        frames = zqb(peers.zqb_request(0, b"up", [], **asks))
        self.assertEqual(frames[0][12:].hex(" "),
                         "00 00 00 38 02 1c 00 28 00 00 00 00 00 00 00 00 01 02 75 70 "
                         "06 01 7f 07 04 01 02 03 04 08 04 00 00 00 05 09 02 06 07 0a 08 00 00 00 08 00 00 00 09 "
                         "0b 01 75 0c 02 61 66")

    def test_what_is_packed_is_unpacked(self):
        for detach_over in (-1, 1024, 1 << 30):
            commands = [Command(REPLY, 5, {STATUS: b"\0\1", TEXT: b""}, [b"", BINARY, LARGE], 0xff), Command(CANCEL, 6),
                        Command(99, 7, {77: b"?"}, [LARGE])]
            self.assertTrue(peers.zqb_unpack(zqb(*commands, detach_over=detach_over)) == (b"lifelife", commands))


# ---- another broker -----------------------------------------------------------------------------------------------

@expand
class PeersWithPythonBroker(MatrixCase):
    """The peers of these tests and broker.py agree about Majordomo: a test of the tests."""

    broker_type = PythonBroker
    workers = {name: MAJORDOMO_WORKERS[name] for name in ("mdp01", "mdp01_ruby", "mdp02")}

    @each("worker_{0}_serves_client_{1}", workers,
          {name: CLIENTS[name] for name in ("mdp01_req", "mdp01_dealer", "mdp02")})
    def serves(self, worker, client):
        self.exchange(worker, client)
        if worker.partials:
            self.stream(worker, client)


DIALECTS = {"mdp01": "0.1", "mdp02": "0.2"}


class ProgramCase(InteropCase):
    """zqcall and zqecho."""

    def zqcall(self, service, *frames, mdp=None, timeout_ms=5000, retries=2):
        """The lines it prints, or None if it failed."""
        command = [ZQCALL, "-e", self.broker.endpoint, "--timeout", str(timeout_ms), "--retries", str(retries)]
        command += ["--mdp", mdp] if mdp else []
        done = subprocess.run(command + [service, *frames], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=3 * PATIENCE, check=False)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        return done.stdout.decode().splitlines() if done.returncode == 0 else None

    def zqecho(self, mdp=None, *options):
        """Serves "job", at the broker's endpoint or, if it is not told a name, at its backend."""
        options = ["--heartbeat", str(self.heartbeat_ms), *(["--mdp", mdp] if mdp else []), *options]
        plain = "--lru" in options or "--ppp" in options
        endpoint = self.broker.plain["job"][1] if plain else self.broker.endpoint
        program = Program(ZQECHO, "-e", endpoint, *options, *([] if plain else ["job"]))
        self.addCleanup(program.stop)
        return program

    def wait_service(self, service, answer=b"200"):
        client = self.client(peers.MDP01Client)
        deadline = time.monotonic() + PATIENCE
        while client.call(b"mmi.service", [service]) != [answer]:
            self.assertLess(time.monotonic(), deadline, "waited in vain for %s" % answer)
            time.sleep(0.005)


@expand
class ProgramsWithPythonBroker(ProgramCase):
    """Our worker and client in their Majordomo modes, with a broker that is not ours."""

    broker_type = PythonBroker
    heartbeat_ms = 60000        # nobody expires
    services = []

    @each("zqcall_{0}_is_served_by_worker_{1}", DIALECTS, {"mdp01": peers.MDP01Worker, "mdp02": peers.MDP02Worker})
    def zqcall_is_served(self, mdp, worker):
        self.serving(worker)
        self.assertEqual(self.zqcall("job", "abc", "", "x" * 5000, mdp=mdp), ["cba", "", "x" * 5000])
        self.assertEqual(self.zqcall("job", "stream", mdp=mdp), [frame.decode() for part in STREAM for frame in part])

    @each("zqcall_{0}_asks_mmi_service", DIALECTS)
    def zqcall_mmi(self, mdp):
        self.assertEqual(self.zqcall("mmi.service", "job", mdp=mdp), ["404"])

    @each("zqcall_{0}_fails_when_nobody_answers", DIALECTS)
    def zqcall_fails(self, mdp):
        self.assertIsNone(self.zqcall("job", "x", mdp=mdp, timeout_ms=50, retries=2))

    @each("zqcall_{0}_tries_again_until_the_broker_is_there", DIALECTS)
    def zqcall_waits(self, mdp):
        self.broker.program.stop(signal.SIGKILL)
        call = Program(ZQCALL, "-e", self.broker.endpoint, "--mdp", mdp, "--timeout", "200", "--retries", "100",
                       "job", "abc")
        self.addCleanup(call.stop)
        self.broker.start()
        self.serving(peers.MDP01Worker)
        self.assertEqual(call.line(), "cba")
        self.assertEqual(call.process.wait(PATIENCE), 0)

    @each("zqecho_{0}_serves_client_{1}", DIALECTS, {name: CLIENTS[name] for name in ("mdp01_req", "mdp02")})
    def zqecho_serves(self, mdp, client):
        self.zqecho(mdp)
        client = self.client(client)
        for shape, body in SHAPES.items():
            self.assert_frames(client.call(b"job", body), body, shape)

    @each("zqecho_{0}_says_disconnect_when_it_ends", DIALECTS)
    def zqecho_disconnects(self, mdp):
        program = self.zqecho(mdp)
        self.wait_service(b"job")
        self.assertEqual(program.stop(), 0)
        self.wait_service(b"job", b"404")

    @each("zqcall_{0}_and_zqecho_{1}_speak_to_each_other", DIALECTS, DIALECTS)
    def both(self, call, echo):
        self.zqecho(echo)
        self.assertEqual(self.zqcall("job", "one", "two", mdp=call), ["one", "two"])


@expand
class ProgramsWithQuickPythonBroker(ProgramCase):
    """Heartbeats and restarts of a broker that is not ours."""

    broker_type = PythonBroker
    heartbeat_ms = 100
    services = []

    @each("zqecho_{0}_registers_again_after_a_restart", DIALECTS)
    def restart(self, mdp):
        self.zqecho(mdp)
        client = self.client(peers.MDP01Client)
        self.assertEqual(client.call(b"job", [b"before"]), [b"before"])
        self.broker.kill_and_restart()
        self.assertEqual(client.call(b"job", [b"after"], 500, tries=60), [b"after"])

    @each("zqecho_{0}_stays_registered_by_its_heartbeats", DIALECTS)
    def heartbeats(self, mdp):
        self.zqecho(mdp)
        self.wait_service(b"job")
        worker = self.worker(peers.MDP01Worker, b"clock")      # counts the broker's heartbeats
        while worker.heartbeats < 10:
            worker.recv(100)
        client = self.client(peers.MDP01Client)
        self.assertEqual(client.call(b"mmi.service", [b"job"]), [b"200"])
        self.assertEqual(client.call(b"job", [b"x"], 500, tries=60), [b"x"])     # who stood still has come again


OUR_DIALECTS = dict(DIALECTS, zqb1=None)
ECHOES = {"mdp01": ["0.1"], "mdp02": ["0.2"], "zqb1": [None], "zqb1_credit_10": [None, "--credit", "10"],
          "lru": [None, "--lru"], "ppp": [None, "--ppp"]}


@expand
class Programs(ProgramCase):
    """zqcall and zqecho in all their dialects, with our broker and the peers of these tests."""

    @each("zqcall_{0}_is_served_by_worker_{1}", OUR_DIALECTS, WORKERS)
    def zqcall_is_served(self, mdp, worker):
        self.serving(worker)
        frames = ["abc"] if worker.single_frame else ["abc", "", "x" * 5000]
        self.assertEqual(self.zqcall("job", *frames, mdp=mdp), [frame[::-1] for frame in frames])

    @each("zqecho_{0}_serves_client_{1}", ECHOES, CLIENTS)
    def zqecho_serves(self, options, client):
        self.zqecho(*options)
        client = self.client(client)
        for shape, body in SHAPES.items():
            self.assert_frames(client.call(b"job", body), body, shape)

    @each("zqecho_{0}_says_goodbye_when_it_ends", OUR_DIALECTS)
    def zqecho_leaves(self, mdp):
        program = self.zqecho(mdp)
        self.wait_workers(1)
        self.assertEqual(program.stop(), 0)
        stats = self.wait_workers(0)
        self.assertEqual((stats["workers_left"], stats["workers_lost"]), (1, 0))

    @each("what_killed_zqecho_{0}_held_is_served_by_another", ECHOES)
    def zqecho_is_killed(self, options):
        program = self.zqecho(*options)
        self.wait_workers(1)
        program.process.send_signal(signal.SIGSTOP)
        client = self.client(peers.MDP01Client)
        client.submit(b"job", [SMALL])
        self.wait_stats(lambda stats: stats["running"] == 1)
        self.serving(peers.MDP01Worker)
        self.wait_workers(2)
        program.process.kill()
        self.assertEqual(client.collect(), worked([SMALL]))


@expand
class ProgramsRestart(ProgramCase):
    """Our broker is killed and comes back, while zqecho runs."""

    heartbeat_ms = 100

    @each("zqecho_{0}_registers_again", {name: options for name, options in ECHOES.items() if name != "lru"})
    def restart(self, options):
        self.zqecho(*options)
        client = self.client(peers.MDP01Client)
        self.assertEqual(client.call(b"job", [b"before"], 500, tries=60), [b"before"])
        self.broker.kill_and_restart()
        self.assertEqual(client.call(b"job", [b"after"], 500, tries=60), [b"after"])


if __name__ == "__main__":
    sys.exit(run(globals(), __doc__))
