"""What a request of ZQB/1 may ask for, and what else only ZQB/1 has a word for: section 8 of the manual.

Peers of the other dialects take part in it without knowing.
"""

import itertools
import signal
import struct
import threading
import time

import zmq

import peers
from harness import (CLIENTS, LARGE, SMALL, STREAM, TALKING_WORKERS, WORKERS, ZQCALL, ZQOBEDIENT, InteropCase, Program,
                     each, expand, those, worked)
from peers import (AFFINITY, ATTEMPTS, BACKOFF, CODE, CREDIT, DEADLINE, DELAY, DONE, EEXPIRED, EFAILED, ENOWORKER,
                   ERROR, MORE, PARTIAL, PRIORITY, PROGRESS, REPLY, REQUEST, SERVICE, STATUS, TEXT, UNIQUE, WINDOW,
                   CallFailed, Command, Parts, zqb_request)

OTHER_CLIENTS = those(CLIENTS, lambda kind: not issubclass(kind, peers.ZQBClient))
NATIVE_WORKERS = those(WORKERS, lambda kind: issubclass(kind, peers.ZQBWorker))
PLAIN_WORKERS = {name: WORKERS[name] for name in ("mdp01", "mdp02", "lru_req", "ppp")}


class AskCase(InteropCase):
    """What these tests share."""

    def fails(self, client, status, timeout_ms=10000):
        """Its request ends with this status."""
        with self.assertRaises(CallFailed) as caught:
            client.collect(timeout_ms)
        self.assertEqual(caught.exception.status, status)
        return caught.exception

    def receive_by_any(self, workers):
        """(worker, token, body) of the one that gets a request."""
        deadline = peers.now_ms() + 10000
        while peers.now_ms() < deadline:
            for worker in workers:
                request = worker.recv(1)
                if request:
                    return (worker, *request)
        self.fail("nobody got the request")

    def begun_in_time(self, worker, client, **asks):
        """(token, deadline) of a request that a worker got before its deadline, however slow the machine is."""
        for deadline in (100 * 4 ** i for i in range(6)):
            client.ask(b"job", [b"x"], deadline=deadline, **asks)
            while True:
                request = worker.recv(1)
                if request:
                    return request[0], deadline
                try:
                    client.collect(0)
                except CallFailed:
                    break
            if self.stats()["running"]:
                worker.reply(worker.recv()[0], [b"too late"])
                worker.flush()
                self.wait_stats(lambda stats: stats["running"] == 0)
        self.fail("it never got one in time")

    def hears_nothing_more(self, client):
        """What comes next to this client is the answer to what it asks now."""
        client.ask(b"mmi.service", [b"x"])
        commands = client.next_commands(1)
        self.assertEqual([(command.kind, command.id) for command in commands], [(REPLY, client.number)])

    def served_in_order(self, worker, token, count):
        """Ends what a worker holds, and all that it gets then: the first frames, in the order in which they came."""
        bodies = []
        for _ in range(count):
            worker.reply(token, [b"done"])
            token, body = worker.recv()
            bodies.append(body[0])
        worker.reply(token, [b"done"])
        worker.flush()
        return bodies

    def wait_queued(self, count):
        return self.wait_stats(lambda stats: stats["queued"] == count, "%d queued" % count)


# ---- when ---------------------------------------------------------------------------------------------------------

@expand
class Priorities(AskCase):
    """Higher first; first come, first served within one."""

    @each("worker_{0}_gets_the_higher_first", dict(PLAIN_WORKERS, zqb1=peers.ZQBWorker))
    def higher_first(self, kind):
        worker, _, token = self.holding(kind)
        client, wanted = self.client(peers.ZQBClient), []
        priorities = [0, 3, -4, 1, 4, -1, 0, 2, -3, 4, -2, -4, 0]
        client.send_commands(*[zqb_request(number, b"job", [b"%d" % number], priority=priority)
                               for number, priority in enumerate(priorities, 1)])
        self.wait_queued(len(priorities))
        for number, priority in enumerate(priorities, 1):
            wanted.append((-priority, number))
        self.assertEqual(self.served_in_order(worker, token, len(priorities)),
                         [b"%d" % number for _, number in sorted(wanted)])

    def test_beyond_the_highest_and_the_lowest_is_the_nearest(self):
        worker, _, token = self.holding(peers.ZQBWorker)
        client = self.client(peers.ZQBClient)
        asked = [(b"low", -4), (b"lower", -128), (b"as low", -4), (b"high", 4), (b"higher", 127), (b"as high", 4)]
        client.send_commands(*[zqb_request(number, b"job", [name], priority=priority)
                               for number, (name, priority) in enumerate(asked, 1)])
        self.wait_queued(6)
        self.assertEqual(self.served_in_order(worker, token, 6),
                         [b"high", b"higher", b"as high", b"low", b"lower", b"as low"])

    @each("client_{0}_asks_with_the_normal_one", OTHER_CLIENTS)
    def normal(self, kind):
        worker, _, token = self.holding(peers.ZQBWorker)
        native, other = self.client(peers.ZQBClient), self.client(kind)
        native.send_commands(zqb_request(1, b"job", [b"lower"], priority=-1))
        self.wait_queued(1)
        other.submit(b"job", [b"normal"])
        self.wait_queued(2)
        native.send_commands(zqb_request(2, b"job", [b"higher"], priority=1))
        self.wait_queued(3)
        self.assertEqual(self.served_in_order(worker, token, 3), [b"higher", b"normal", b"lower"])
        self.assertEqual(other.collect(), [b"done"])

    def test_clients_take_turns_within_one(self):
        worker, _, token = self.holding(peers.ZQBWorker)
        for count, name in enumerate((b"a", b"b"), 1):
            self.client(peers.ZQBClient).send_commands(
                *[zqb_request(number, b"job", [name], priority=2) for number in (1, 2, 3)])
            self.wait_queued(3 * count)
        self.assertEqual(self.served_in_order(worker, token, 6), [b"a", b"b"] * 3)


@expand
class Deadlines(AskCase):
    """When its deadline is over, nobody wants a request any more, wherever it is."""

    def test_a_queued_request_ends_with_expired(self):
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [b"x"], deadline=20)
        self.fails(client, EEXPIRED)
        stats = self.stats()
        self.assertEqual((stats["expired"], stats["queued"]), (1, 0))
        worker = self.worker(peers.ZQBWorker)
        client.ask(b"job", [b"next"])
        self.assertEqual(worker.recv()[1], [b"next"])

    def test_a_request_behind_a_busy_worker_is_never_begun_then(self):
        worker, _, token = self.holding(peers.MDP01Worker)
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [b"x"], deadline=20, priority=4)
        self.fails(client, EEXPIRED)
        client.ask(b"job", [b"next"])
        self.wait_queued(1)
        self.assertEqual(self.served_in_order(worker, token, 1), [b"next"])
        self.assertEqual(self.stats()["expired"], 1)

    def test_a_delayed_request_ends_with_it_too(self):
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [b"x"], deadline=20, delay=60000)
        self.fails(client, EEXPIRED)
        stats = self.stats()
        self.assertEqual((stats["expired"], stats["delayed"]), (1, 0))

    @each("worker_{0}_is_told_that_nobody_wants_it_any_more", NATIVE_WORKERS)
    def running(self, kind):
        worker, client = self.worker(kind), self.client(peers.ZQBClient)
        token, _ = self.begun_in_time(worker, client)
        self.fails(client, EEXPIRED, 60000)
        self.assertTrue(worker.listen(lambda: token in worker.cancelled), "no CANCEL")
        before = self.stats()
        worker.reply(token, [b"too late"])
        worker.flush()
        self.wait_counted(before, ["expired"])
        self.assertEqual(self.stats()["running"], 0)
        self.hears_nothing_more(client)
        self.assert_accounts()

    @each("worker_{0}_ends_it_for_nobody", PLAIN_WORKERS)
    def running_elsewhere(self, kind):
        worker, client = self.worker(kind), self.client(peers.ZQBClient)
        token, _ = self.begun_in_time(worker, client)
        self.fails(client, EEXPIRED, 60000)
        self.assertEqual(self.stats()["running"], 1)
        worker.reply(token, [b"too late"])
        self.wait_stats(lambda stats: stats["running"] == 0)
        client.ask(b"job", [b"next"])
        token, body = worker.recv()
        worker.reply(token, body)
        self.assertEqual(client.collect(), [b"next"])
        self.assert_accounts()

    def test_a_worker_is_told_how_much_is_left(self):
        worker, client = self.worker(peers.ZQBWorker), self.client(peers.ZQBClient)
        client.ask(b"job", [b"x"], deadline=600000, delay=50)
        token, _ = worker.recv()
        self.assertGreater(worker.left(token), 0)
        self.assertLessEqual(worker.left(token), 600000 - 50)
        worker.reply(token, [b"x"])
        for deadline in (None, 0):
            client.ask(b"job", [b"x"], deadline=deadline)
            token, _ = worker.recv()
            self.assertIsNone(worker.left(token))
            worker.reply(token, [b"x"])

    def test_a_deadline_that_is_far_away_disturbs_nobody(self):
        self.serving(peers.MDP02Worker)
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [SMALL], deadline=0xffffffff)
        self.assertEqual(client.collect(), worked([SMALL]))
        self.assertEqual(self.stats()["queued"], 0)


class Delays(AskCase):
    """A request is not begun before its time."""

    def test_it_is_not_begun_before_its_time(self):
        worker, client = self.worker(peers.MDP01Worker), self.client(peers.ZQBClient)
        self.wait_workers(1)
        began = time.monotonic()
        client.ask(b"job", [b"x"], delay=150)
        self.assertIsNotNone(worker.recv())
        self.assertGreaterEqual(time.monotonic() - began, 0.149)

    def test_others_are_begun_meanwhile(self):
        """Once more, with longer delays, if the machine stood still until the last was due: then that is the first."""
        worker, client = self.worker(peers.ZQBWorker, credit=9), self.client(peers.ZQBClient)
        self.wait_workers(1)
        for unit in (20 * 3 ** i for i in range(4)):
            began = time.monotonic()
            client.send_commands(zqb_request(1, b"job", [b"last"], delay=3 * unit, priority=4),
                                 zqb_request(2, b"job", [b"second"], delay=unit), zqb_request(3, b"job", [b"first"]))
            begun = [worker.recv() for _ in range(2)]
            took = time.monotonic() - began
            begun.append(worker.recv())
            if took < 3 * unit / 1000:
                break
            for token, body in begun:
                worker.reply(token, body)
            worker.flush()
            client.next_commands(3)
        self.assertEqual([body for _, body in begun], [[b"first"], [b"second"], [b"last"]])

    def test_it_is_counted_and_can_be_cancelled(self):
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [b"x"], delay=3600000)
        stats = self.wait_queued(1)
        self.assertEqual((stats["delayed"], stats["running"]), (1, 0))
        client.cancel()
        stats = self.wait_queued(0)
        self.assertEqual((stats["delayed"], stats["cancelled"]), (0, 1))

    def test_behind_a_lost_worker_comes_a_pause(self):
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [b"x"], backoff=(100, 150), attempts=4)
        times = []
        for _ in range(4):
            worker = self.worker(peers.MDP02Worker)
            self.assertIsNotNone(worker.recv())
            times.append(time.monotonic())
            worker.close()
        self.fails(client, peers.ELOST)
        pauses = [later - sooner for sooner, later in zip(times, times[1:])]
        for pause, least in zip(pauses, (0.1, 0.15, 0.15)):
            self.assertGreaterEqual(pause, least - 0.001)
        stats = self.stats()
        self.assertEqual((stats["dead"], stats["delayed"]), (1, 0))

    def test_a_request_has_its_own_number_of_attempts(self):
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [b"x"], attempts=1)
        worker = self.worker(peers.ZQBWorker)
        self.assertIsNotNone(worker.recv())
        worker.close()
        self.fails(client, peers.ELOST)
        client.ask(b"job", [b"x"], attempts=65535)
        for _ in range(6):      # twice as many as zqbrokerd allows
            worker = self.worker(peers.ZQBWorker)
            self.assertIsNotNone(worker.recv())
            worker.close()
        self.serving(peers.MDP01Worker, handler=lambda body: body)
        self.assertEqual(client.collect(), [b"x"])


# ---- for whom -----------------------------------------------------------------------------------------------------

@expand
class Unique(AskCase):
    """Requests with the same key are executed once, and all are answered."""

    def joined(self, worker):
        """Two clients, of which the second joined the running request of the first, and its token."""
        first, second = self.client(peers.ZQBClient), self.client(peers.ZQBClient)
        first.ask(b"job", [b"of the first"], unique=b"key")
        token, body = worker.recv()
        self.assertEqual(body, [b"of the first"])
        second.ask(b"job", [b"of the second"], unique=b"key")
        self.assertEqual(self.wait_stats(lambda stats: stats["following"] == 1)["queued"], 1)
        return first, second, token

    @each("once_by_worker_{0}_for_two_clients", dict(PLAIN_WORKERS, zqb1=peers.ZQBWorker))
    def once(self, kind):
        worker = self.worker(kind)
        first, second, token = self.joined(worker)
        before = self.stats()
        worker.reply(token, [b"for both", LARGE])
        for client in (first, second):
            self.assert_frames(client.collect(), [b"for both", LARGE])
        stats = self.stats()
        self.assertEqual((stats["running"], stats["queued"], stats["following"]), (0, 0, 0))
        self.assertEqual(stats["replied"] - before["replied"], 3, "both, and the question")
        self.assert_accounts()

    def test_whoever_joins_hears_from_then_on(self):
        worker = self.worker(peers.ZQBWorker)
        first = self.client(peers.ZQBClient)
        first.ask(b"job", [b"x"], unique=b"key")
        token, _ = worker.recv()
        worker.partial(token, [b"early"])
        worker.report(token, 1, 3, "early")
        self.wait_stats(lambda stats: (stats["partials"], stats["progress"]) == (1, 1))
        second = self.client(peers.ZQBClient)
        second.ask(b"job", [b"x"], unique=b"key")
        self.wait_stats(lambda stats: stats["following"] == 1)
        worker.report(token, 2, 3, "late")
        worker.partial(token, [b"late"])
        worker.reply(token, [b"end"])
        self.assertEqual(first.collect(), [b"early", b"late", b"end"])
        self.assertEqual(second.collect(), [b"late", b"end"])
        self.assertEqual(first.progress, [(1, 3, "early"), (2, 3, "late")])
        self.assertEqual(second.progress, [(2, 3, "late")])

    def test_a_failure_is_one_for_all(self):
        worker = self.worker(peers.ZQBWorker)
        first, second, token = self.joined(worker)
        worker.fail(token, "no", 42)
        for client in (first, second):
            failure = self.fails(client, EFAILED)
            self.assertEqual((failure.text, failure.code), ("no", 42))
        self.assertEqual(self.stats()["failed"], 2)

    def test_when_it_is_over_it_is_executed_again(self):
        worker, client = self.worker(peers.ZQBWorker), self.client(peers.ZQBClient)
        for i in range(3):
            client.ask(b"job", [b"%d" % i], unique=b"key")
            token, body = worker.recv()
            worker.reply(token, body)
            self.assertEqual(client.collect(), [b"%d" % i])

    def test_another_key_or_service_is_another(self):
        client = self.client(peers.ZQBClient)
        client.send_commands(zqb_request(1, b"job", [b"x"], unique=b"a"), zqb_request(2, b"job", [b"x"], unique=b"a\0"),
                             zqb_request(3, b"other", [b"x"], unique=b"a"), zqb_request(4, b"job", [b"x"]))
        self.assertEqual(self.wait_queued(4)["following"], 0)

    def test_another_takes_the_place_of_one_that_has_gone(self):
        worker = self.worker(peers.ZQBWorker)
        first, second, token = self.joined(worker)
        first.cancel()
        self.wait_stats(lambda stats: stats["cancelled"] == 1)
        worker.reply(token, [b"for the second"])
        self.assertEqual(second.collect(), [b"for the second"])
        self.assertEqual(worker.cancelled, [])
        self.hears_nothing_more(first)

    def test_the_worker_is_told_when_nobody_is_left(self):
        worker = self.worker(peers.ZQBWorker)
        first, second, token = self.joined(worker)
        second.cancel()
        self.wait_stats(lambda stats: stats["following"] == 0)
        first.cancel()
        self.assertTrue(worker.listen(lambda: worker.cancelled), "no CANCEL")
        worker.reply(token, [b"for nobody"])
        stats = self.wait_stats(lambda stats: stats["running"] == 0)
        self.assertEqual(stats["cancelled"], 2)
        self.assertEqual(worker.cancelled, [token])

    def test_each_has_a_deadline_of_its_own(self):
        worker = self.worker(peers.ZQBWorker)
        first, second = self.client(peers.ZQBClient), self.client(peers.ZQBClient)
        first.ask(b"job", [b"x"], unique=b"key")
        token, _ = worker.recv()
        second.ask(b"job", [b"x"], unique=b"key", deadline=20)
        self.fails(second, EEXPIRED)
        worker.reply(token, [b"done"])
        self.assertEqual(first.collect(), [b"done"])
        self.assertEqual(worker.cancelled, [])

    def test_a_follower_lifts_the_first(self):
        worker, _, token = self.holding(peers.ZQBWorker)
        first, other, second = (self.client(peers.ZQBClient) for _ in range(3))
        first.ask(b"job", [b"unique"], unique=b"key", priority=-1)
        self.wait_queued(1)
        other.ask(b"job", [b"normal"])
        self.wait_queued(2)
        second.ask(b"job", [b"not looked at"], unique=b"key", priority=1)
        self.wait_queued(3)
        self.assertEqual(self.served_in_order(worker, token, 2), [b"unique", b"normal"])
        self.assertEqual([client.collect() for client in (first, second)], [[b"done"]] * 2)

    def test_a_worker_that_is_lost_is_lost_for_all(self):
        worker = self.worker(peers.ZQBWorker)
        first, second, _ = self.joined(worker)
        worker.close()
        other = self.worker(peers.ZQBWorker)
        token, body = other.recv()
        self.assertEqual(body, [b"of the first"])
        other.reply(token, [b"done"])
        self.assertEqual([client.collect() for client in (first, second)], [[b"done"]] * 2)


class OneWay(AskCase):
    """No answer is wanted, nor an error."""

    def test_no_answer_comes(self):
        self.serving(peers.ZQBWorker)
        self.serving(peers.MDP01Worker, b"other")
        self.wait_workers(2)
        client = self.client(peers.ZQBClient)
        for body in ([b"x"], [b"stream"], [b"fail"]):
            client.send_commands(zqb_request(0, b"job", body, one_way=True))
        client.send_commands(zqb_request(0, b"other", [b"x"], one_way=True))
        client.send_commands(zqb_request(0, b"mmi.service", [b"x"], one_way=True))
        self.hears_nothing_more(client)         # by now the broker has heard of all of them
        stats = self.wait_stats(lambda stats: stats["running"] + stats["queued"] == 0)
        self.assertEqual(stats["failed"], 1)
        self.hears_nothing_more(client)
        self.assert_accounts()

    def test_it_is_executed_though_the_client_has_gone(self):
        client = self.client(peers.ZQBClient)
        client.send_commands(zqb_request(0, b"job", [b"one way"], one_way=True))
        asking = self.client(peers.MDP01DealerClient)
        asking.submit(b"job", [b"the client has gone"])
        self.wait_queued(2)
        client.close()
        asking.close()
        worker = self.worker(peers.MDP01Worker)
        executed = []
        while self.stats()["queued"] + self.stats()["running"]:     # the other may come or not
            request = worker.recv(20)
            if request:
                executed.append(request[1])
                worker.reply(*request)
        self.assertIn([b"one way"], executed)
        self.assert_accounts()

    def test_errors_are_counted_and_not_told(self):
        client = self.client(peers.ZQBClient)
        before = self.stats()
        client.send_commands(zqb_request(0, b"nobody", [b"x"], one_way=True, fail_fast=True))
        self.wait_counted(before, ["refused_no_worker"])
        client.send_commands(zqb_request(0, b"nobody", [b"x"], one_way=True, deadline=1))
        self.wait_counted(before, ["expired"])
        self.hears_nothing_more(client)

    def test_it_is_given_to_others_when_its_worker_is_lost(self):
        client = self.client(peers.ZQBClient)
        client.send_commands(zqb_request(0, b"job", [b"x"], one_way=True))
        for _ in range(3):
            worker = self.worker(peers.MDP02Worker)
            self.assertEqual(worker.recv()[1], [b"x"])
            worker.close()
        self.wait_stats(lambda stats: stats["dead"] == 1)
        self.hears_nothing_more(client)

    def test_it_can_be_unique_with_one_who_wants_an_answer(self):
        worker = self.worker(peers.ZQBWorker)
        client = self.client(peers.ZQBClient)
        client.send_commands(zqb_request(0, b"job", [b"x"], one_way=True, unique=b"key"))
        token, _ = worker.recv()
        other = self.client(peers.ZQBClient)
        other.ask(b"job", [b"x"], unique=b"key")
        self.wait_stats(lambda stats: stats["following"] == 1)
        worker.reply(token, [b"done"])
        self.assertEqual(other.collect(), [b"done"])
        self.hears_nothing_more(client)


class FailFast(AskCase):
    """An error rather than to wait for a service without workers."""

    def test_without_a_worker_it_ends_at_once_and_leaves_no_service(self):
        client = self.client(peers.ZQBClient)
        before = self.stats()
        client.ask(b"nobody", [b"x"], fail_fast=True)
        self.fails(client, ENOWORKER)
        stats = self.wait_counted(before, ["refused_no_worker"])
        self.assertEqual(stats["services"], before["services"])

    def test_a_busy_worker_is_waited_for(self):
        worker, _, token = self.holding(peers.PPPWorker)
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [b"x"], fail_fast=True)
        self.wait_queued(1)
        self.assertEqual(self.served_in_order(worker, token, 1), [b"x"])
        self.assertEqual(client.collect(), [b"done"])

    def test_it_ends_when_the_last_worker_goes(self):
        worker, _, _ = self.holding(peers.MDP01Worker)
        client, patient = self.client(peers.ZQBClient), self.client(peers.ZQBClient)
        client.ask(b"job", [b"x"], fail_fast=True)
        patient.ask(b"job", [b"x"])
        self.wait_queued(2)
        worker.disconnect()
        self.fails(client, ENOWORKER)
        self.serving(peers.ZQBWorker)
        self.assertEqual(patient.collect(), [b"x"])
        self.assertEqual(self.stats()["expired"], 1)


class Affinity(AskCase):
    """Requests with the same key go to the same worker."""

    def test_each_key_has_its_worker_and_its_order(self):
        done, lock = [], threading.Lock()

        def handler(name):
            def work(body):
                with lock:
                    done.append((body[0], body[1], name))
                return body
            return work

        kinds = (peers.ZQBDetachedWorker, peers.ZQBBatchWorker, peers.MDP01Worker, peers.PPPWorker)
        running = [self.serving(kind, handler=handler(name)) for name, kind in enumerate(kinds)]
        self.wait_workers(4)
        client = self.client(peers.ZQBClient)
        keys = [b"key%d" % i for i in range(12)]

        def ask_all(first):
            asked = [(key, b"%04d" % (first + i)) for i in range(5) for key in keys]
            client.send_commands(*[zqb_request(first * 100 + i + 1, b"job", list(body), affinity=body[0])
                                   for i, body in enumerate(asked)])
            self.assertEqual(len(client.next_commands(len(asked))), len(asked))
            by_key = {}
            for key, number, name in done:
                by_key.setdefault(key, []).append((number, name))
            done.clear()
            for key, executed in by_key.items():
                self.assertEqual([number for number, _ in executed], [b"%04d" % (first + i) for i in range(5)], key)
                self.assertEqual(len({name for _, name in executed}), 1, key)
            return {key: executed[0][1] for key, executed in by_key.items()}

        owners = ask_all(1)
        self.assertEqual(set(owners.values()), {0, 1, 2, 3}, "somebody has none of twelve keys")
        self.assertEqual(ask_all(10), owners)
        running[1].stop()
        self.wait_workers(3)
        later = ask_all(20)
        self.assertEqual({key: name for key, name in owners.items() if name != 1},
                         {key: later[key] for key, name in owners.items() if name != 1})
        self.assertNotIn(1, later.values())

    def test_it_waits_for_its_worker_though_another_is_idle(self):
        workers = [self.worker(peers.ZQBWorker), self.worker(peers.ZQBWorker)]
        self.wait_workers(2)
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [b"first"], affinity=b"key")
        owner, token, _ = self.receive_by_any(workers)
        other = workers[1 - workers.index(owner)]
        client.ask(b"job", [b"second"], affinity=b"key")
        stats = self.wait_queued(1)
        self.assertEqual(stats["running"], 1)
        client.ask(b"job", [b"without"])
        other_token, body = other.recv()
        self.assertEqual(body, [b"without"])
        self.assertEqual(self.served_in_order(owner, token, 1), [b"second"])
        other.reply(other_token, [b"done"])

    def test_when_its_worker_is_gone_it_goes_to_another(self):
        workers = [self.worker(peers.ZQBWorker), self.worker(peers.MDP01Worker)]
        self.wait_workers(2)
        client = self.client(peers.ZQBClient)
        client.send_commands(*[zqb_request(number, b"job", [b"%d" % number], affinity=b"key") for number in (1, 2, 3)])
        owner, _, body = self.receive_by_any(workers)
        self.assertEqual(body, [b"1"])
        self.wait_queued(2)
        other = workers[1 - workers.index(owner)]
        owner.close()
        token, body = other.recv()
        self.assertEqual(body, [b"1"])
        self.assertEqual(self.served_in_order(other, token, 2), [b"2", b"3"])
        self.assertEqual(self.stats()["requeued"], 1, "only the first had been given to it")


# ---- what comes back ----------------------------------------------------------------------------------------------

@expand
class Cancel(AskCase):
    """Who works for nobody is told."""

    @each("worker_{0}_is_told", NATIVE_WORKERS)
    def told(self, kind):
        worker, client, token = self.holding(kind)
        client.cancel()
        self.assertTrue(worker.listen(lambda: worker.cancelled), "no CANCEL")
        self.assertEqual(worker.cancelled, [token])
        worker.fail(token, "as you like")
        stats = self.wait_stats(lambda stats: stats["running"] == 0)
        self.assertEqual((stats["cancelled"], stats["failed"]), (1, 0))
        self.hears_nothing_more(client)

    @each("worker_{0}_hears_nothing_and_goes_on", PLAIN_WORKERS)
    def not_told(self, kind):
        worker, client, token = self.holding(kind)
        client.cancel()
        client.ask(b"job", [b"next"])
        self.wait_queued(1)
        self.assertEqual(self.served_in_order(worker, token, 1), [b"next"])
        self.assertEqual(client.collect(), [b"done"])
        self.assertEqual(self.stats()["cancelled"], 1)

    @each("worker_is_told_that_client_{0}_has_gone",
          {name: CLIENTS[name] for name in ("mdp01_dealer", "mdp02", "lru_req")})
    def gone(self, kind):
        worker, client = self.worker(peers.ZQBWorker), self.client(kind)
        client.submit(b"job", [b"x"])
        token, _ = worker.recv()
        client.close()
        self.assertTrue(worker.listen(lambda: worker.cancelled), "no CANCEL")
        worker.reply(token, [b"to nobody"])
        self.assertEqual(self.wait_stats(lambda stats: stats["running"] == 0)["client_gone"], 1)


@expand
class Refuse(AskCase):
    """A worker gives a request back, and another gets it."""

    @each("worker_{0}_gets_what_another_refused", WORKERS)
    def another(self, kind):
        refusing, client = self.worker(peers.ZQBWorker), self.client(peers.ZQBClient)
        client.ask(b"job", [SMALL])
        token, _ = refusing.recv()
        self.serving(kind)
        self.wait_workers(2)
        before = self.stats()
        refusing.refuse(token)
        self.assertEqual(client.collect(), worked([SMALL]))
        stats = self.wait_counted(before, ["given_back"])
        self.assertEqual((stats["requeued"], stats["failed"]), (0, 0))
        self.assertEqual(stats["workers"], 2)

    def test_when_all_have_refused_it_the_client_is_told(self):
        client = self.client(peers.ZQBClient)
        workers = [self.worker(peers.ZQBWorker) for _ in range(3)]
        self.wait_workers(3)
        client.ask(b"job", [b"x"])
        refused = set()
        for _ in range(3):
            worker, token, _ = self.receive_by_any(workers)
            refused.add(worker)
            worker.refuse(token)
        self.fails(client, peers.EREFUSED)
        self.assertEqual(len(refused), 3, "somebody had it twice")
        stats = self.stats()
        self.assertEqual((stats["given_back"], stats["failed"], stats["running"]), (3, 1, 0))

    def test_refusing_is_no_attempt(self):
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [b"x"], attempts=1)
        refusing = self.worker(peers.ZQBWorker)
        token, _ = refusing.recv()
        other = self.worker(peers.MDP01Worker)
        self.wait_workers(2)
        refusing.refuse(token)
        token, _ = other.recv()
        other.reply(token, [b"done"])
        self.assertEqual(client.collect(), [b"done"])

    def test_a_busy_worker_is_waited_for(self):
        busy, _, token = self.holding(peers.MDP02Worker)
        refusing, client = self.worker(peers.ZQBWorker), self.client(peers.ZQBClient)
        self.wait_workers(2)
        client.ask(b"job", [b"x"])
        refused, _ = refusing.recv()
        refusing.refuse(refused)
        stats = self.wait_stats(lambda stats: stats["given_back"] == 1)
        self.assertEqual((stats["queued"], stats["running"]), (1, 1))
        self.assertEqual(self.served_in_order(busy, token, 1), [b"x"])
        self.assertEqual(client.collect(), [b"done"])


@expand
class Failures(AskCase):
    """Why it failed, as the worker numbers it."""

    @each("code_{0}", {"none": None, "1": 1, "largest": 0xffffffff})
    def code(self, code):
        worker, client, token = self.holding(peers.ZQBWorker)
        worker.fail(token, "t" * 255, code)
        failure = self.fails(client, EFAILED)
        self.assertEqual((failure.text, failure.code), ("t" * 255, code))

    @each("client_{0}_hears_nothing", {name: CLIENTS[name] for name in ("mdp01_dealer", "mdp02", "lru_dealer")})
    def unheard(self, kind):
        worker, client = self.worker(peers.ZQBWorker), self.client(kind)
        client.submit(b"job", [b"x"])
        worker.fail(worker.recv()[0], "no", 7)
        self.wait_stats(lambda stats: stats["failed"] == 1)
        client.submit(b"job", [b"next"])
        worker.reply(worker.recv()[0], [b"done"])
        self.assertEqual(client.collect(), [b"done"])


@expand
class Progress(AskCase):
    """How far the work is."""

    def test_it_comes_in_order_between_the_parts(self):
        worker, client, token = self.holding(peers.ZQBWorker)
        for i in range(3):
            worker.report(token, i, 3, "step %d" % i)
            worker.partial(token, [b"%d" % i])
        worker.report(token, 0xffffffffffffffff, 0)
        worker.report(token, 3, 3, "t" * 255)
        worker.reply(token, [b"end"])
        commands = client.next_commands(9)
        self.assertEqual([command.kind for command in commands], [PROGRESS, PARTIAL] * 3 + [PROGRESS] * 2 + [REPLY])
        self.assertEqual({command.id for command in commands}, {client.number})
        told = [(*peers.progress_of(command), command.fields.get(TEXT, b"")) for command in commands
                if command.kind == PROGRESS]
        self.assertEqual(told, [(0, 3, b"step 0"), (1, 3, b"step 1"), (2, 3, b"step 2"), (0xffffffffffffffff, 0, b""),
                                (3, 3, b"t" * 255)])
        self.assertEqual(self.stats()["progress"], 5)

    @each("client_{0}_hears_nothing_of_it", OTHER_CLIENTS)
    def unheard(self, kind):
        worker, client = self.worker(peers.ZQBWorker), self.client(kind)
        client.submit(b"job", [b"x"])
        token, _ = worker.recv()
        worker.report(token, 1, 2, "half")
        worker.reply(token, [b"done"])
        self.assertEqual(client.collect(), [b"done"])

    def test_of_what_that_worker_does_not_hold_it_is_stale(self):
        worker, client, token = self.holding(peers.ZQBWorker)
        thief = self.worker(peers.ZQBWorker)
        before = self.wait_workers(2)
        thief.report(token, 1, 2, "stolen")
        self.wait_counted(before, ["stale"])
        worker.report(token, 1, 2, "mine")
        worker.reply(token, [b"done"])
        self.assertEqual(client.collect(), [b"done"])
        self.assertEqual(client.progress, [(1, 2, "mine")])


class Window(AskCase):
    """A client that reads slowly slows the worker down."""

    def test_more_is_passed_on_to_the_worker(self):
        worker, client, token = self.holding(peers.ZQBWorker)
        self.assertTrue(worker.asked[token].flags & WINDOW, "it was not asked with WINDOW")
        client.send_commands(Command(MORE, client.number, {CREDIT: b"\0\x10"}))
        self.assertTrue(worker.listen(lambda: worker.granted[token]), "no MORE")
        client.send_commands(Command(MORE, client.number, {CREDIT: b"\0\x03"}))
        self.assertTrue(worker.listen(lambda: worker.granted[token] >= 19), "no MORE")
        self.assertEqual(worker.granted[token], 19)

    def test_many_parts_go_through_it(self):
        parts = [[b"%d" % i] for i in range(500)]
        self.serving(peers.ZQBWorker, handler=lambda body: Parts(parts))
        client = self.client(peers.ZQBClient)
        self.assertEqual(client.call(b"job", [b"x"]), [frame for part in parts for frame in part])

    def test_who_has_no_word_for_it_is_not_asked_with_it(self):
        worker = self.worker(peers.ZQBWorker)
        for kind in (peers.MDP01DealerClient, peers.MDP02Client, peers.LRUDealerClient):
            self.client(kind).submit(b"job", [b"x"])
            token, _ = worker.recv()
            self.assertFalse(worker.asked[token].flags & WINDOW, kind)
            worker.reply(token, [b"x"])
        client = self.client(peers.ZQBClient)
        client.send_commands(zqb_request(0, b"job", [b"x"], one_way=True))
        token, _ = worker.recv()
        self.assertFalse(worker.asked[token].flags & WINDOW, "nobody reads the parts")

    def test_parts_that_were_lost_with_a_connection_stop_nobody(self):
        worker, client, token = self.holding(peers.ZQBWorker)
        for i in range(peers.WINDOW_PARTS):
            worker.partial(token, [b"%d" % i])
        client.ask_again()
        self.wait_stats(lambda stats: stats["joined"] == 1)
        self.assertTrue(worker.listen(lambda: worker.granted[token] == peers.WINDOW_PARTS), "no MORE")
        worker.partial(token, [b"new"])
        worker.reply(token, [b"end"])
        self.assertEqual(client.collect()[-2:], [b"new", b"end"])

    def test_more_for_what_is_not_there_does_nothing(self):
        worker, client, token = self.holding(peers.ZQBWorker)
        stranger = self.client(peers.ZQBClient)
        for number in (0, client.number, 77):
            stranger.send_commands(Command(MORE, number, {CREDIT: b"\0\1"}))
        self.hears_nothing_more(stranger)
        client.send_commands(Command(MORE, client.number, {CREDIT: b"\0\2"}))
        self.assertTrue(worker.listen(lambda: worker.granted[token]), "no MORE")
        self.assertEqual(worker.granted[token], 2)


# ---- all workers, and fewer ---------------------------------------------------------------------------------------

SURVEYED = {"mdp01": peers.MDP01Worker, "words": peers.MDP01WordsWorker, "mdp02": peers.MDP02Worker,
            "lru": peers.LRUWorker, "ppp": peers.PPPWorker, "zqb1": peers.ZQBWorker, "batch": peers.ZQBBatchWorker}


class Survey(AskCase):
    """Each worker of a service is asked."""

    def test_workers_of_all_dialects_answer(self):
        for name, kind in SURVEYED.items():
            self.serving(kind, handler=lambda body, name=name: [name.encode(), *body])
        self.wait_workers(len(SURVEYED))
        client = self.client(peers.ZQBClient)
        for _ in range(2):
            client.ask(b"job", [SMALL, LARGE], survey=True)
            self.assertIsNotNone(client.collect())
            self.assertEqual(client.parts.pop(), [])
            self.assertEqual({part[0].decode() for part in client.parts}, set(SURVEYED))
            self.assertEqual(len(client.parts), len(SURVEYED))
            for part in client.parts:
                self.assert_frames(part[1:], [SMALL, LARGE], part[0])
            self.assertEqual(client.progress, [(len(SURVEYED), len(SURVEYED), "")])
        self.wait_stats(lambda stats: stats["running"] + stats["queued"] == 0)
        self.assert_accounts()

    def test_an_answer_in_parts_is_one_part(self):
        self.serving(peers.ZQBWorker, handler=lambda body: Parts(STREAM))
        self.serving(peers.MDP02Worker, handler=lambda body: Parts(STREAM))
        self.wait_workers(2)
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [b"x"], survey=True)
        client.collect()
        self.assertTrue(client.parts == [sum(STREAM, [])] * 2 + [[]])

    def test_who_fails_or_refuses_or_is_lost_has_not_answered(self):
        workers = [self.worker(peers.ZQBWorker) for _ in range(4)]
        self.wait_workers(4)
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [b"x"], survey=True)
        failing, refusing, lost, good = workers
        tokens = [worker.recv()[0] for worker in workers]
        failing.fail(tokens[0], "no")
        refusing.refuse(tokens[1])
        lost.close()
        self.wait_workers(3)
        good.reply(tokens[3], [b"yes"])
        self.assertEqual(client.collect(), [b"yes"])
        self.assertEqual(client.progress, [(1, 4, "")])
        stats = self.stats()
        self.assertEqual((stats["running"], stats["queued"], stats["requeued"]), (0, 0, 0))
        self.assert_accounts()

    def test_a_busy_worker_answers_when_it_can(self):
        busy, _, token = self.holding(peers.MDP01Worker)
        other, client = self.worker(peers.ZQBWorker), self.client(peers.ZQBClient)
        self.wait_workers(2)
        client.ask(b"job", [b"survey"], survey=True)
        asked, _ = other.recv()
        other.reply(asked, [b"other"])
        self.assertEqual(self.served_in_order(busy, token, 1), [b"survey"])
        client.collect()
        self.assertEqual(client.parts, [[b"other"], [b"done"], []])
        self.assertEqual(client.progress, [(2, 2, "")])

    def test_at_its_deadline_who_has_answered_counts(self):
        workers, client = [self.worker(peers.ZQBWorker), self.worker(peers.MDP01Worker)], self.client(peers.ZQBClient)
        self.wait_workers(2)
        client.ask(b"job", [b"x"], survey=True, deadline=100)
        self.assertEqual(client.collect(60000), [])
        self.assertEqual(client.progress, [(0, 2, "")])
        self.wait_stats(lambda stats: stats["queued"] == 0)
        for worker in workers:          # what they say now reaches nobody
            request = worker.recv(0)
            if request:
                worker.reply(request[0], [b"too late"])
        self.hears_nothing_more(client)
        self.wait_stats(lambda stats: stats["running"] == 0)
        self.assert_accounts()

    def test_without_a_worker_it_is_an_error(self):
        client = self.client(peers.ZQBClient)
        before = self.stats()
        client.ask(b"job", [b"x"], survey=True)
        self.fails(client, ENOWORKER)
        self.wait_counted(before, ["refused_no_worker"])

    def test_it_can_be_cancelled(self):
        worker, client = self.worker(peers.ZQBWorker), self.client(peers.ZQBClient)
        self.wait_workers(1)
        client.ask(b"job", [b"x"], survey=True)
        token, _ = worker.recv()
        client.cancel()
        self.assertTrue(worker.listen(lambda: worker.cancelled), "no CANCEL")
        worker.reply(token, [b"for nobody"])
        self.wait_stats(lambda stats: stats["queued"] + stats["running"] == 0)
        self.hears_nothing_more(client)
        self.assert_accounts()


@expand
class Drain(AskCase):
    """A worker takes no more, and loses nothing."""

    def test_it_ends_what_it_has_and_gets_no_more(self):
        worker, client = self.worker(peers.ZQBWorker, credit=3), self.client(peers.ZQBClient)
        client.send_commands(*[zqb_request(number, b"job", [b"%d" % number]) for number in range(1, 6)])
        held = [worker.recv() for _ in range(3)]
        worker.drain()
        self.assertTrue(worker.listen(lambda: worker.drains), "it is not answered")
        for token, body in held:
            worker.reply(token, body)
        replies = {command.id: command.body for command in client.next_commands(3)}
        self.assertEqual(replies, {number: [b"%d" % number] for number in (1, 2, 3)})
        stats = self.stats()
        self.assertEqual((stats["queued"], stats["running"]), (2, 0))
        worker.disconnect()
        stats = self.wait_workers(0)
        self.assertEqual((stats["workers_left"], stats["workers_lost"], stats["requeued"]), (1, 0, 0))
        self.serving(peers.MDP01Worker, handler=lambda body: body)
        self.assertEqual({command.id for command in client.next_commands(2)}, {4, 5})

    def test_what_waits_for_it_goes_to_others(self):
        worker, client = self.worker(peers.ZQBWorker), self.client(peers.ZQBClient)
        client.send_commands(*[zqb_request(number, b"job", [b"%d" % number], affinity=b"key") for number in (1, 2, 3)])
        token, _ = worker.recv()
        other = self.worker(peers.ZQBWorker)
        self.wait_workers(2)
        worker.drain()
        other_token, body = other.recv()
        self.assertEqual(body, [b"2"])
        self.assertEqual(self.served_in_order(other, other_token, 1), [b"3"])
        worker.reply(token, [b"done"])
        self.assertEqual(len(client.next_commands(3)), 3)

    def test_an_idle_one_is_answered_too_and_may_register_again(self):
        worker = self.worker(peers.ZQBWorker)
        self.wait_workers(1)
        worker.drain()
        self.assertTrue(worker.listen(lambda: worker.drains), "it is not answered")
        worker.ready()
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [b"x"])
        self.assertIsNotNone(worker.recv())

    def test_it_may_be_lost_like_any_other(self):
        worker, client, _ = self.holding(peers.ZQBWorker)
        worker.drain()
        self.assertTrue(worker.listen(lambda: worker.drains), "it is not answered")
        worker.close()
        self.serving(peers.MDP02Worker)
        self.assertEqual(client.collect(), worked([b"held"]))


# ---- patterns -----------------------------------------------------------------------------------------------------

@expand
class Patterns(AskCase):
    """A worker serves all names that start with what stands before the *."""

    @each("worker_{0}_serves_them_to_client_{1}", TALKING_WORKERS,
          {name: CLIENTS[name] for name in ("mdp01_req", "mdp02", "zqb1", "zqb1_behind_proxies")})
    def serves(self, worker, client):
        self.serving(worker, b"img.*")
        self.wait_workers(1)
        client = self.client(client)
        for name in (b"img.", b"img.scale", b"img.scale.more", b"img.\0"):
            self.assertEqual(client.call(name, [SMALL]), worked([SMALL]), name)

    @each("worker_{0}_is_told_the_name", NATIVE_WORKERS)
    def told(self, kind):
        worker, client = self.worker(kind, b"img.*"), self.client(peers.ZQBClient)
        client.ask(b"img.scale", [b"x"])
        token, _ = worker.recv()
        self.assertEqual(worker.asked[token].fields.get(SERVICE), b"img.scale")

    def test_without_a_pattern_no_name_is_told(self):
        worker, _, token = self.holding(peers.ZQBWorker)
        self.assertNotIn(SERVICE, worker.asked[token].fields)

    def test_the_exact_name_wins_and_then_the_longest_prefix(self):
        names = [b"*", b"img.*", b"img.big.*", b"img.big.scale"]
        kinds = itertools.cycle((peers.ZQBWorker, peers.MDP01Worker, peers.MDP02Worker))
        for name, kind in zip(names, kinds):
            self.serving(kind, name, handler=lambda body, name=name: [name])
        self.wait_workers(4)
        for client in (self.client(peers.ZQBClient), self.client(peers.MDP02Client)):
            for name, wanted in ((b"other", b"*"), (b"img", b"*"), (b"img.x", b"img.*"), (b"img.big", b"img.*"),
                                 (b"img.big.x", b"img.big.*"), (b"img.big.scale", b"img.big.scale"),
                                 (b"img.big.scaled", b"img.big.*")):
                self.assertEqual(client.call(name, [b"who"]), [wanted], name)

    def test_when_the_exact_one_goes_the_pattern_serves(self):
        exact = self.worker(peers.MDP01Worker, b"img.scale")
        client = self.client(peers.ZQBClient)
        client.ask(b"img.scale", [b"held"])
        self.assertIsNotNone(exact.recv())
        pattern = self.worker(peers.ZQBWorker, b"img.*", credit=9)
        self.wait_workers(2)
        client.ask(b"img.scale", [b"waits for the exact one"])
        self.wait_queued(1)
        exact.close()
        self.assertEqual([pattern.recv()[1][0] for _ in range(2)], [b"held", b"waits for the exact one"])

    def test_what_waits_for_a_worker_is_served_by_a_pattern_that_comes(self):
        client = self.client(peers.ZQBClient)
        client.send_commands(zqb_request(1, b"img.a", [b"1"]), zqb_request(2, b"img.b", [b"2"]),
                             zqb_request(3, b"other", [b"3"]))
        self.wait_queued(3)
        worker = self.worker(peers.ZQBWorker, b"img.*", credit=9)
        got = [worker.recv() for _ in range(2)]
        self.assertEqual({worker.asked[token].fields[SERVICE]: body for token, body in got},
                         {b"img.a": [b"1"], b"img.b": [b"2"]})
        self.assertEqual(self.stats()["queued"], 1)


# ---- our own worker and client ------------------------------------------------------------------------------------

class OursCase(AskCase):
    """obedient, which is made with zqb_worker_t."""

    def obedient(self, service=b"job", credit=1):
        program = Program(ZQOBEDIENT, self.broker.endpoint, service.decode(), str(credit))
        self.addCleanup(program.stop)
        return program

    def begun(self, program, word):
        self.assertEqual(program.line(), "began " + word)


class OurWorker(OursCase):
    """zqb_worker_t, and clients that are not ours."""

    def test_parts_go_on_as_the_client_reads(self):
        self.obedient()
        client = self.client(peers.ZQBClient)
        self.assertEqual(client.call(b"job", [b"parts", b"500"]), [b"%d" % i for i in range(500)] + [b"end"])

    def test_a_client_that_does_not_say_more_gets_32_parts(self):
        program = self.obedient()
        client = self.client(peers.ZQBClient)
        client.grants = False
        client.ask(b"job", [b"parts", b"500"])
        self.begun(program, "parts")
        parts = client.next_commands(32)
        self.assertEqual([command.body for command in parts], [[b"%d" % i] for i in range(32)])
        client.send_commands(Command(MORE, client.number, {CREDIT: b"\0\5"}))
        self.assertEqual([command.body for command in client.next_commands(5)], [[b"%d" % i] for i in range(32, 37)])
        client.cancel()
        self.assertEqual(program.line(), "unwanted 37")
        self.hears_nothing_more(client)

    def test_other_clients_get_all_parts_at_once(self):
        self.obedient()
        for kind in (peers.MDP01Client, peers.MDP02Client, peers.LRUClient):
            self.assertEqual(self.client(kind).call(b"job", [b"parts", b"100"]),
                             [b"%d" % i for i in range(100)] + [b"end"])

    def test_progress(self):
        self.obedient()
        client = self.client(peers.ZQBClient)
        self.assertEqual(client.call(b"job", [b"progress", b"3"]), [b"end"])
        self.assertEqual(client.progress, [(0, 3, "so far so good"), (1, 3, ""), (2, 3, "so far so good")])
        self.assertEqual(self.client(peers.MDP01Client).call(b"job", [b"progress", b"3"]), [b"end"])

    def test_a_failure_has_its_code_and_its_text(self):
        self.obedient()
        client = self.client(peers.ZQBClient)
        for code in (1, 77, 0x7fffffff):
            client.ask(b"job", [b"fail", b"%d" % code, b"as told"])
            failure = self.fails(client, EFAILED)
            self.assertEqual((failure.code, failure.text), (code, "as told"))

    def test_it_refuses(self):
        self.obedient()
        self.wait_workers(1)
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [b"refuse"])
        self.fails(client, peers.EREFUSED)
        client.ask(b"job", [b"refuse"])
        self.fails(client, peers.EREFUSED)
        self.assertEqual(self.stats()["given_back"], 2)

    def test_it_knows_what_is_left(self):
        self.obedient()
        client = self.client(peers.ZQBClient)
        self.assertEqual(client.call(b"job", [b"left"]), [b"-1"])
        client.ask(b"job", [b"left"], deadline=600000)
        self.assertIn(int(client.collect()[0]), range(1, 600001))

    def test_it_knows_the_name_by_which_it_was_called(self):
        self.obedient(b"img.*")
        self.wait_workers(1)
        client = self.client(peers.ZQBClient)
        for name in (b"img.", b"img.scale"):
            self.assertEqual(client.call(name, [b"name"]), [name])

    def test_it_hears_that_nobody_wants_it_any_more(self):
        program = self.obedient()
        client, other = self.client(peers.ZQBClient), self.client(peers.MDP02Client)
        client.ask(b"job", [b"work"])
        self.begun(program, "work")
        client.cancel()
        self.assertEqual(program.line(), "unwanted 0")
        other.submit(b"job", [b"work"])
        self.begun(program, "work")
        other.close()
        self.assertEqual(program.line(), "unwanted 0")
        self.wait_stats(lambda stats: stats["running"] == 0)
        self.assert_accounts()

    def test_it_hears_that_the_deadline_is_over(self):
        program, client = self.obedient(), self.client(peers.ZQBClient)
        client.ask(b"job", [b"work"], deadline=1500)
        try:
            self.assertEqual(client.collect(), [b"too late"], "the worker noticed it first, by its own clock")
        except CallFailed as failure:
            self.assertEqual(failure.status, EEXPIRED)
        client.ask(b"job", [b"name"])
        lines = []
        while not lines or lines[-1] != "began name":
            lines.append(program.line())
        self.assertIn(lines, (["began work", "unwanted 0", "began name"], ["began name"]))

    def test_when_it_drains_it_ends_what_it_has(self):
        program, client = self.obedient(credit=2), self.client(peers.ZQBClient)
        client.send_commands(zqb_request(1, b"job", [b"work"]), zqb_request(2, b"job", [b"name"]),
                             zqb_request(3, b"job", [b"name"]))
        self.begun(program, "work")
        program.process.send_signal(signal.SIGUSR1)
        client.cancel(1)
        self.assertEqual([program.line() for _ in range(2)], ["unwanted 0", "began name"])
        self.assertEqual([(command.id, command.body) for command in client.next_commands(1)], [(2, [b"job"])])
        self.assertEqual(program.line(), "gone")
        self.assertEqual(program.process.wait(10), 0)
        stats = self.stats()
        self.assertEqual((stats["queued"], stats["running"], stats["requeued"], stats["workers_left"]), (1, 0, 0, 1))

    def test_it_takes_part_in_a_survey(self):
        self.obedient()
        self.serving(peers.MDP01Worker, handler=lambda body: [b"python"])
        self.wait_workers(2)
        client = self.client(peers.ZQBClient)
        client.ask(b"job", [b"name"], survey=True)
        client.collect()
        self.assertEqual(sorted(client.parts), [[], [b"job"], [b"python"]])


@expand
class OurClient(AskCase):
    """zqcall, which is made with zqb_client_t, and workers that are not ours."""

    def zqcall(self, *arguments, endpoint=None):
        call = Program(ZQCALL, "-e", endpoint or self.broker.endpoint, "--timeout", "60000", *arguments)
        self.addCleanup(call.stop, signal.SIGKILL)
        return call

    def ended(self, call, status, *lines):
        self.assertEqual([call.line() for _ in lines], list(lines))
        self.assertEqual(call.process.wait(20), status)

    def test_it_says_more_as_it_reads(self):
        parts = Parts([[b"%d" % i] for i in range(500)])
        self.serving(peers.ZQBWorker, handler=lambda body: parts)
        self.ended(self.zqcall("job", "x"), 0, *[str(i) for i in range(500)])

    @each("says_{0}_as_the_manual_has_it", {
        "nothing": ([], {}, 0), "priority": (["--priority", "-4"], {PRIORITY: b"\x7c"}, 0),
        "delay": (["--delay", "70000"], {DELAY: b"\0\1\x11\x70"}, 0),
        "attempts": (["--attempts", "7"], {ATTEMPTS: b"\0\7"}, 0),
        "all_attempts": (["--attempts", "-1"], {ATTEMPTS: b"\xff\xff"}, 0),
        "unique": (["--unique", "a key"], {UNIQUE: b"a key"}, 0),
        "affinity": (["--affinity", "k"], {AFFINITY: b"k"}, 0),
        "fail_fast": (["--fail-fast"], {}, peers.FAIL_FAST), "survey": (["--survey"], {}, peers.SURVEY),
        "one_way": (["--one-way"], {}, peers.ONE_WAY)})
    def wire(self, said):
        options, fields, flags = said
        call, hear, say = self.played(*options)
        command = hear()
        self.assertEqual(command, Command(REQUEST, command.id, {SERVICE: b"job", **fields}, [b"x"], flags))
        if flags == peers.ONE_WAY:      # it asks for something else, to know that the broker is there
            self.assertEqual(command.id, 0)
            say(Command(REPLY, hear().id, {}, [b"404"]))
            self.ended(call, 0)
            return
        end = {DONE: struct.pack(">QQ", 1, 1)} if flags == peers.SURVEY else {}
        say(Command(PARTIAL, command.id, {}, [b"y"]), Command(REPLY, command.id, end, []))
        self.ended(call, 0, "y")

    def played(self, *options):
        """zqcall, and the broker that it talks to: a ROUTER of ours. What gives the next command that it says, and what
        answers."""
        router, heard, address = self.ctx.socket(zmq.ROUTER), [], []
        self.addCleanup(router.close, 0)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        call = self.zqcall(*options, "job", "x", endpoint="tcp://127.0.0.1:%d" % port)

        def hear():
            while not heard:
                self.assertTrue(router.poll(20000), "it says nothing")
                frames = router.recv_multipart()
                address[:] = frames[:1]
                heard.extend(peers.zqb_unpack(frames[1:])[1])
            return heard.pop(0)

        def say(*commands):
            router.send_multipart(address + peers.zqb_pack(b"lifelife", commands))
        return call, hear, say

    def test_its_deadline_and_backoff_are_as_the_manual_has_them(self):
        call, hear, say = self.played("--deadline", "70000", "--backoff", "300")
        command = hear()
        self.assertIn(peers.number_of(command, DEADLINE), range(1, 70001))
        self.assertEqual(command.fields[BACKOFF][:4], b"\0\0\1\x2c")
        say(Command(PROGRESS, command.id, {DONE: b"\0" * 15 + b"\2", TEXT: b"t"}),
            Command(ERROR, command.id, {STATUS: b"\0\7", CODE: b"\0\0\0\x63", TEXT: b"no"}))
        self.ended(call, 3)

    def test_of_two_with_the_same_key_one_is_executed(self):
        worker = self.worker(peers.ZQBWorker)
        first = self.zqcall("--unique", "key", "job", "first")
        token, body = worker.recv(20000)
        second = self.zqcall("--unique", "key", "job", "second")
        self.wait_stats(lambda stats: stats["following"] == 1)
        worker.reply(token, [b"answer to " + body[0]])
        for call in (first, second):
            self.ended(call, 0, "answer to first")

    def test_when_it_is_interrupted_the_worker_is_told(self):
        worker = self.worker(peers.ZQBWorker)
        call = self.zqcall("job", "x")
        token, _ = worker.recv(20000)
        call.process.send_signal(signal.SIGINT)
        self.assertTrue(worker.listen(lambda: worker.cancelled), "no CANCEL")
        self.assertEqual(worker.cancelled, [token])
        self.ended(call, 130)

    def test_when_its_deadline_is_over_the_worker_is_told(self):
        worker = self.worker(peers.ZQBWorker)
        self.wait_workers(1)
        for deadline in (500 * 4 ** i for i in range(5)):      # until it is begun before, however slow the machine is
            call = self.zqcall("--deadline", str(deadline), "job", "x")
            request = None
            while request is None and call.process.poll() is None:
                request = worker.recv(20)
            if request:
                self.assertTrue(worker.listen(lambda: worker.cancelled, 100000), "no CANCEL")
            self.ended(call, 4)
            if request:
                break
        self.assertEqual(worker.cancelled, [request[0]])

    def test_it_surveys_workers_of_several_dialects(self):
        for kind in (peers.MDP01Worker, peers.MDP02Worker, peers.LRUWorker, peers.ZQBWorker):
            self.serving(kind, handler=lambda body, kind=kind: [kind.__name__.encode()])
        self.wait_workers(4)
        call = self.zqcall("--survey", "job", "x")
        self.assertEqual({call.line() for _ in range(4)}, {"MDP01Worker", "MDP02Worker", "LRUWorker", "ZQBWorker"})
        self.ended(call, 0)

    def test_without_a_worker_it_fails_fast(self):
        self.ended(self.zqcall("--fail-fast", "job", "x"), 5)
