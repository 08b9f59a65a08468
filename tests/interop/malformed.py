"""Messages that no good peer sends: each is refused and counted, reaches nobody, and the broker goes on."""

import collections
import random
import struct

import zmq

import peers
from harness import (LARGE, MDP_WORKERS, SINGLE_WORKERS, SMALL, TALKING_WORKERS, InteropCase, each, expand, those,
                     worked, zqb)
from peers import (AFFINITY, ATTEMPTS, BACKOFF, CANCEL, CODE, CREDIT, DEADLINE, DELAY, DISCONNECT, DONE, DRAIN, ERROR,
                   HEARTBEAT, MDPC01, MDPC02, MDPW01, MDPW02, MORE, PARTIAL, PRIORITY, PROGRESS, READY, REPLY, REQUEST,
                   SERVICE, STATUS, TEXT, UNIQUE, Command, zqb_request)


# ---- replies that nobody asked for --------------------------------------------------------------------------------

@expand
class Tokens(InteropCase):
    """A reply reaches the client whose request that worker holds, and no other. Lessons 2 and 3."""

    @each("unasked_reply_of_worker_{0}_is_stale", MDP_WORKERS)
    def unasked(self, kind):
        worker = self.worker(kind)
        before = self.wait_workers(1)
        worker.reply(b"\0" * 7 + b"\1", [b"unasked"])
        before = self.wait_counted(before, ["stale"])
        client = self.client(peers.MDP01Client)
        client.submit(b"job", [SMALL])
        token, _ = worker.recv()
        self.assertEqual(len(token), 8)
        worker.reply(token, [b"asked"])
        self.assertEqual(client.collect(), [b"asked"])

    @each("unasked_reply_then_disconnect_of_worker_{0}", TALKING_WORKERS)
    def unasked_then_disconnect(self, kind):
        worker = self.worker(kind)
        before = self.wait_workers(1)
        worker.reply(b"\0" * 7 + b"\1", [b"unasked"])
        worker.flush()
        worker.disconnect()
        self.wait_counted(before, ["stale"])
        self.wait_workers(0)
        self.serving(kind)
        self.assert_good_client()

    @each("token_of_wrong_length_from_worker_{0}", MDP_WORKERS)
    def wrong_length(self, kind):
        worker, client, token = self.holding(kind)
        empty = [] if issubclass(kind, peers.PPPWorker) else [b""]      # a PPP reply would look like one of LRU
        for wrong in empty + [b"x", token[:7], token + b"\0", token * 40]:
            before = self.stats()
            worker.reply(wrong, [b"wrong"])
            self.wait_counted(before, ["stale", "bad_frames", "bad_command"])
        worker.reply(token, [b"right"])
        self.assertEqual(client.collect(), [b"right"])

    @each("forged_token_from_worker_{0}", SINGLE_WORKERS)
    def forged(self, kind):
        worker, client, token = self.holding(kind)
        before = self.stats()
        for bit in range(64):
            forged = struct.pack(">Q", struct.unpack(">Q", token)[0] ^ 1 << bit)
            worker.reply(forged, [b"forged"])
        self.wait_counted(before, ["stale"], 64)
        worker.reply(token, [b"right"])
        self.assertEqual(client.collect(), [b"right"])

    @each("repeated_reply_of_worker_{0}", SINGLE_WORKERS)
    def repeated(self, kind):
        worker, client, token = self.holding(kind)
        before = self.stats()
        worker.reply(token, [b"first"])
        worker.reply(token, [b"second"])
        self.wait_counted(before, ["stale"])
        self.assertEqual(client.collect(), [b"first"])
        client.submit(b"job", [b"next"])
        token, _ = worker.recv()
        worker.reply(token, [b"third"])
        self.assertEqual(client.collect(), [b"third"])

    @each("stale_token_from_worker_{0}", SINGLE_WORKERS)
    def stale(self, kind):
        worker, client, old = self.holding(kind)
        worker.reply(old, [b"first"])
        self.assertEqual(client.collect(), [b"first"])
        client.submit(b"job", [b"next"])
        token, _ = worker.recv()
        before = self.stats()
        worker.reply(old, [b"stale"])
        self.wait_counted(before, ["stale"])
        worker.reply(token, [b"second"])
        self.assertEqual(client.collect(), [b"second"])

    @each("worker_{0}_answers_what_another_holds", SINGLE_WORKERS)
    def not_the_holder(self, kind):
        holder, client, token = self.holding(kind)
        thief = self.worker(kind)
        before = self.wait_workers(2)
        thief.reply(token, [b"stolen"])
        self.wait_counted(before, ["stale"])
        holder.reply(token, [b"mine"])
        self.assertEqual(client.collect(), [b"mine"])

    @each("worker_{0}_answers_for_another_service", {k: v for k, v in SINGLE_WORKERS.items() if not v.plain})
    def other_service(self, kind):
        holder, client, token = self.holding(kind)
        thief = self.worker(kind, b"other")
        before = self.wait_workers(2)
        thief.reply(token, [b"stolen"])
        self.wait_counted(before, ["stale"])
        holder.reply(token, [b"mine"])
        self.assertEqual(client.collect(), [b"mine"])

    @each("partial_of_worker_{0}_that_does_not_hold_it", those(SINGLE_WORKERS, lambda kind: kind.partials))
    def partial(self, kind):
        holder, client, token = self.holding(kind)
        thief = self.worker(kind)
        before = self.wait_workers(2)
        thief.partial(token, [b"stolen"])
        self.wait_counted(before, ["stale"])
        holder.partial(token, [b"mine"])
        holder.reply(token, [b"too"])
        self.assertEqual(client.collect(), [b"mine", b"too"])
        self.assertEqual(client.parts, [[b"mine"], [b"too"]])

    @each("reply_after_disconnect_of_worker_{0}", TALKING_WORKERS)
    def after_disconnect(self, kind):
        worker, client, token = self.holding(kind)
        before = self.stats()
        worker.disconnect()
        worker.reply(token, [b"too late"])
        worker.flush()
        self.wait_counted(before, ["bad_state"])
        self.serving(kind)
        self.assertEqual(client.collect(), worked([b"held"]))

    @each("reply_of_unregistered_worker_{0}", TALKING_WORKERS)
    def unregistered(self, kind):
        holder, client, token = self.holding(kind)
        stranger = self.worker(kind, register=False)
        before = self.stats()
        stranger.reply(token, [b"stolen"])
        stranger.flush()
        self.wait_counted(before, ["bad_state"])
        holder.reply(token, [b"mine"])
        holder.flush()
        self.assertEqual(client.collect(), [b"mine"])


# ---- malformed messages -------------------------------------------------------------------------------------------

class Malformed(collections.namedtuple("Malformed", "frames counters where registered", defaults=("main", None))):
    """A message, and which counters may count it. registered: the kind of worker that the peer is."""


NAME, FRAMES, COMMAND, STATE = ["refused_name"], ["bad_frames"], ["bad_command"], ["bad_state"]
LONG = b"n" * 256

MALFORMED = {
    "single_frame": Malformed([b"x"], ["bad_header"]),
    "single_empty_frame": Malformed([b""], ["bad_header"]),
    "two_empty_frames": Malformed([b"", b""], ["bad_header"]),
    "no_header": Malformed([b"", b"GET / HTTP/1.1", b"service", b"x"], ["bad_header"]),
    "header_of_another_version": Malformed([b"", b"MDPC03", b"service", b"x"], ["bad_header"]),
    "header_with_a_nul_behind": Malformed([b"", b"MDPC01\0", b"service", b"x"], ["bad_header"]),
    "header_cut_short": Malformed([b"", b"MDPC0", b"service", b"x"], ["bad_header"]),
    "envelope_of_nine": Malformed([b"%d" % i for i in range(9)] + [MDPC01, b"job", b"x"], ["bad_header"]),

    "mdp01_client_header_only": Malformed([b"", MDPC01], FRAMES),
    "mdp01_client_single_frame": Malformed([MDPC01], FRAMES),
    "mdp01_request_without_body": Malformed([b"", MDPC01, b"job"], FRAMES),
    "mdp01_request_with_empty_service": Malformed([b"", MDPC01, b"", b"x"], NAME),
    "mdp01_request_with_256_bytes_of_service": Malformed([b"", MDPC01, LONG, b"x"], NAME),
    "mdp01_request_with_1001_frames": Malformed([b"", MDPC01, b"job"] + [b"x"] * 1001, ["refused_frames"]),
    "mdp01_worker_header_only": Malformed([b"", MDPW01], FRAMES),
    "mdp01_worker_empty_command": Malformed([b"", MDPW01, b""], COMMAND),
    "mdp01_ready_without_service": Malformed([b"", MDPW01, b"\1"], FRAMES),
    "mdp01_ready_with_empty_service": Malformed([b"", MDPW01, b"\1", b""], NAME),
    "mdp01_ready_with_256_bytes_of_service": Malformed([b"", MDPW01, b"\1", LONG], NAME),
    "mdp01_words_ready_without_service": Malformed([b"", MDPW01, b"READY"], FRAMES),
    "mdp01_words_ready_with_empty_service": Malformed([b"", MDPW01, b"READY", b""], NAME),
    "mdp01_words_unknown": Malformed([b"", MDPW01, b"HELLO", b"job"], COMMAND),
    "mdp01_words_in_lower_case": Malformed([b"", MDPW01, b"ready", b"job"], COMMAND),
    "mdp01_unknown_command": Malformed([b"", MDPW01, b"\x09", b"job"], COMMAND),
    "mdp01_unknown_command_of_worker": Malformed([b"", MDPW01, b"\x09"], COMMAND, "main", peers.MDP01Worker),
    "mdp01_command_of_two_bytes": Malformed([b"", MDPW01, b"\1\0", b"job"], COMMAND),
    "mdp01_request_from_worker": Malformed([b"", MDPW01, b"\2", b"token", b"", b"x"], COMMAND, "main",
                                           peers.MDP01Worker),
    "mdp01_reply_without_anything": Malformed([b"", MDPW01, b"\3"], FRAMES, "main", peers.MDP01Worker),
    "mdp01_reply_without_body": Malformed([b"", MDPW01, b"\3", b"12345678"], FRAMES + ["stale"], "main",
                                          peers.MDP01Worker),
    "mdp01_reply_of_stranger": Malformed([b"", MDPW01, b"\3", b"12345678", b"", b"x"], STATE),
    "mdp01_disconnect_of_stranger": Malformed([b"", MDPW01, b"\5"], STATE),

    "mdp02_client_header_only": Malformed([MDPC02], FRAMES),
    "mdp02_request_without_service": Malformed([MDPC02, b"\1"], FRAMES),
    "mdp02_request_without_body": Malformed([MDPC02, b"\1", b"job"], FRAMES),
    "mdp02_request_with_empty_service": Malformed([MDPC02, b"\1", b"", b"x"], NAME),
    "mdp02_request_with_256_bytes_of_service": Malformed([MDPC02, b"\1", LONG, b"x"], NAME),
    "mdp02_client_unknown_command": Malformed([MDPC02, b"\x07", b"job", b"x"], COMMAND),
    "mdp02_client_says_partial": Malformed([MDPC02, b"\2", b"job", b"x"], COMMAND),
    "mdp02_client_says_final": Malformed([b"", MDPC02, b"\3", b"job", b"x"], COMMAND),
    "mdp02_client_without_command": Malformed([MDPC02, b"job", b"x"], COMMAND),
    "mdp02_worker_header_only": Malformed([MDPW02], FRAMES),
    "mdp02_ready_without_service": Malformed([MDPW02, b"\1"], FRAMES),
    "mdp02_ready_with_empty_service": Malformed([MDPW02, b"\1", b""], NAME),
    "mdp02_ready_with_256_bytes_of_service": Malformed([b"", MDPW02, b"\1", LONG], NAME),
    "mdp02_unknown_command": Malformed([MDPW02, b"\x07", b"job"], COMMAND),
    "mdp02_request_from_worker": Malformed([MDPW02, b"\2", b"token", b"", b"x"], COMMAND, "main", peers.MDP02Worker),
    "mdp02_final_without_anything": Malformed([MDPW02, b"\4"], FRAMES, "main", peers.MDP02Worker),
    "mdp02_partial_without_anything": Malformed([MDPW02, b"\3"], FRAMES, "main", peers.MDP02Worker),
    "mdp02_partial_of_stranger": Malformed([MDPW02, b"\3", b"12345678", b"", b"x"], STATE),
    "mdp02_final_of_stranger": Malformed([MDPW02, b"\4", b"12345678", b"", b"x"], STATE),

    "lru_client_single_frame": Malformed([b"x"], ["bad_header", "bad_frames"], "front"),
    "lru_client_no_empty_frame": Malformed([b"x", b"y"], ["bad_header", "bad_frames"], "front"),
    "lru_client_empty_frame_only": Malformed([b""], FRAMES, "front"),
    "lru_client_address_without_body": Malformed([b"address", b""], FRAMES, "front"),
    "lru_worker_empty_frame_only": Malformed([b""], ["bad_header", "bad_frames", "bad_command"], "back"),
    "lru_worker_unknown_word": Malformed([b"", b"HELLO"], ["bad_command", "bad_frames", "bad_header"], "back"),
    "lru_worker_reply_without_body": Malformed([b"", b"12345678", b""], ["bad_frames", "stale"], "back",
                                               peers.LRUDealerWorker),
    "lru_reply_of_stranger": Malformed([b"", b"12345678", b"", b"x"], STATE, "back"),
    "ppp_unknown_word": Malformed([b"\3"], ["bad_command", "bad_frames", "bad_header"], "back"),
    "ppp_reply_without_body": Malformed([b"12345678", b""], ["bad_frames", "stale"], "back", peers.PPPWorker),
    "ppp_reply_of_stranger": Malformed([b"12345678", b"", b"x"], STATE, "back"),
    "mdp_worker_at_the_lru_backend": Malformed(
        [b"", MDPW01, b"\1", b"job"], ["bad_state", "bad_command", "bad_frames", "bad_header", "stale"], "back"),
}


def raw_zqb(size, kind, fields_size, number, rest):
    """A message of one command whose sizes say what we like."""
    return [b"ZQB\1lifelife" + struct.pack(">IBBHQ", size, kind, 0, fields_size, number) + rest]


JOB = b"\1\3job"      # the field service
ZQB_MALFORMED = {
    "magic_only": Malformed([b"ZQB\1"], ["bad_frames", "bad_header"]),
    "another_version": Malformed([b"ZQB\2lifelife" + zqb(Command(HEARTBEAT))[0][12:]], ["bad_header"]),
    "no_command": Malformed([b"ZQB\1lifelife"], FRAMES),
    "size_zero": Malformed(raw_zqb(0, 2, 5, 1, JOB), FRAMES),
    "size_15": Malformed(raw_zqb(15, 6, 0, 0, b""), FRAMES),
    "size_beyond_the_end": Malformed(raw_zqb(22, 2, 5, 1, JOB), FRAMES),
    "size_of_4_gib": Malformed(raw_zqb(0xffffffff, 2, 5, 1, JOB), FRAMES),
    "size_too_small_for_its_fields": Malformed(raw_zqb(18, 2, 5, 1, JOB), FRAMES),
    "size_leaves_bytes_behind": Malformed(raw_zqb(21, 2, 5, 1, JOB + b"\0\0\0"), FRAMES),
    "fields_beyond_the_size": Malformed(raw_zqb(21, 2, 6, 1, JOB), FRAMES),
    "fields_of_64_kib": Malformed(raw_zqb(21, 2, 0xffff, 1, JOB), FRAMES),
    "field_beyond_the_fields": Malformed(raw_zqb(21, 2, 5, 1, b"\1\4job"), FRAMES),
    "field_without_a_length": Malformed(raw_zqb(22, 2, 6, 1, JOB + b"\2"), FRAMES),
    "body_frame_beyond_the_size": Malformed(raw_zqb(26, 2, 5, 1, JOB + b"\0\0\0\2x"), FRAMES),
    "body_frame_of_2_gib": Malformed(raw_zqb(26, 2, 5, 1, JOB + b"\x7f\xff\xff\xffx"), FRAMES),
    "body_length_of_three_bytes": Malformed(raw_zqb(24, 2, 5, 1, JOB + b"\0\0\0"), FRAMES),
    "large_frame_missing": Malformed(raw_zqb(25, 2, 5, 1, JOB + b"\x80\0\0\5"), FRAMES),
    "second_large_frame_missing": Malformed(raw_zqb(29, 2, 5, 1, JOB + b"\x80\0\0\5\x80\0\0\5") + [b"12345"], FRAMES),
    "large_frame_smaller": Malformed(raw_zqb(25, 2, 5, 1, JOB + b"\x80\0\0\5") + [b"1234"], FRAMES),
    "large_frame_larger": Malformed(raw_zqb(25, 2, 5, 1, JOB + b"\x80\0\0\5") + [b"123456"], FRAMES),
    "large_frame_nobody_mentions": Malformed(zqb(Command(REQUEST, 1, {SERVICE: b"job"}, [b"x"])) + [b"more"], FRAMES),
    "request_without_service": Malformed(zqb(Command(REQUEST, 1, {}, [b"x"])), FRAMES + NAME),
    "request_with_empty_service": Malformed(zqb(Command(REQUEST, 1, {SERVICE: b""}, [b"x"])), FRAMES + NAME),
    "request_with_1001_frames": Malformed(zqb(Command(REQUEST, 1001, {SERVICE: b"job"}, [b"x"] * 1001)),
                                          ["refused_frames"]),
    "ready_without_service": Malformed(zqb(Command(READY)), FRAMES + NAME),
    "ready_with_empty_service": Malformed(zqb(Command(READY, 0, {SERVICE: b""})), FRAMES + NAME),
    "ready_with_credit_of_one_byte": Malformed(zqb(Command(READY, 0, {SERVICE: b"job", CREDIT: b"\1"})), FRAMES),
    "ready_with_credit_of_three_bytes": Malformed(zqb(Command(READY, 0, {SERVICE: b"job", CREDIT: b"\0\0\1"})), FRAMES),
    "progress_of_stranger": Malformed(zqb(Command(PROGRESS, 1, {DONE: b"\0" * 16})), STATE),
    "drain_of_stranger": Malformed(zqb(Command(DRAIN)), STATE),
    "progress_nobody_asked_for": Malformed(zqb(Command(PROGRESS, 1, {DONE: b"\0" * 16})), ["stale"], "main",
                                           peers.ZQBWorker),
    "progress_of_nothing": Malformed(zqb(Command(PROGRESS, 1)), ["stale"], "main", peers.ZQBWorker),
    "more_with_credit_of_four_bytes": Malformed(zqb(Command(MORE, 1, {CREDIT: b"\0\0\0\1"})), FRAMES),
    "reply_of_stranger": Malformed(zqb(Command(REPLY, 1, {}, [b"x"])), STATE),
    "partial_of_stranger": Malformed(zqb(Command(PARTIAL, 1, {}, [b"x"])), STATE),
    "error_of_stranger": Malformed(zqb(Command(ERROR, 1, {TEXT: b"x"})), STATE),
    "disconnect_of_stranger": Malformed(zqb(Command(DISCONNECT)), STATE),
    "heartbeat_of_stranger": Malformed(zqb(Command(HEARTBEAT)), STATE),
    "reply_nobody_asked_for": Malformed(zqb(Command(REPLY, 1, {}, [b"x"])), ["stale"], "main", peers.ZQBWorker),
    "error_nobody_asked_for": Malformed(zqb(Command(ERROR, 1, {TEXT: b"x"})), ["stale"], "main", peers.ZQBWorker),
    "good_request_then_a_lie": Malformed([zqb(Command(REQUEST, 99, {SERVICE: b"nobody"}, [b"x"]))[0] + b"\0\0\0\1"],
                                         FRAMES),
}

# Fields that few commands have, of another size than they should.
FIELD_SIZES = {"priority": (PRIORITY, 1), "deadline": (DEADLINE, 4), "delay": (DELAY, 4), "attempts": (ATTEMPTS, 2),
               "backoff": (BACKOFF, 8), "progress": (DONE, 16), "code": (CODE, 4)}
FIELD_MALFORMED = {
    "%s_of_%d_bytes" % (name, wrong): Malformed(zqb(Command(REQUEST, 1, {SERVICE: b"job", tag: b"\1" * wrong}, [b"x"])),
                                                FRAMES)
    for name, (tag, size) in FIELD_SIZES.items() for wrong in (0, size - 1, size + 1, 255) if wrong != size}
FIELD_MALFORMED.update({
    "empty_unique": Malformed(zqb(Command(REQUEST, 1, {SERVICE: b"job", UNIQUE: b""}, [b"x"])), FRAMES),
    "empty_affinity": Malformed(zqb(Command(REQUEST, 1, {SERVICE: b"job", AFFINITY: b""}, [b"x"])), FRAMES),
    "progress_of_15_bytes_from_a_worker": Malformed(zqb(Command(PROGRESS, 1, {DONE: b"\0" * 15})), FRAMES, "main",
                                                    peers.ZQBWorker),
    "code_of_2_bytes_from_a_worker": Malformed(zqb(Command(ERROR, 1, {CODE: b"\0\1"})), FRAMES, "main",
                                               peers.ZQBWorker)})


@expand
class MalformedMessages(InteropCase):
    """Each is refused and counted once, and the broker goes on. Lessons 1, 2, 8, 9 and 10."""

    @classmethod
    def setUpClass(cls):
        cls.shared = cls.broker_type(cls.heartbeat_ms, cls.services)

    @classmethod
    def tearDownClass(cls):
        cls.shared.stop()

    def setUp(self):
        self.ctx = zmq.Context()
        self.addCleanup(self.ctx.destroy, 0)
        self.broker, self.control_client = self.shared, None
        self.serving(peers.MDP01Worker, b"beside")
        self.serving(peers.MDP01Worker, b"job")

    def refused(self, message):
        endpoint = {"main": self.broker.endpoint, "front": self.broker.plain["job"][0],
                    "back": self.broker.plain["job"][1]}[message.where]
        if message.registered:
            peer = self.worker(message.registered, b"job" if message.registered.plain else b"refused")
            self.wait_stats(lambda stats: stats["workers"] >= 3)
        else:
            peer = self.peer(endpoint)
        before, frames = self.stats(), message.frames
        if hasattr(peer, "life"):               # who changes its life is another
            frames = [frames[0][:4] + peer.life + frames[0][12:]] + frames[1:]
        peer.send(frames)
        self.wait_counted(before, message.counters)
        self.assert_good_client(b"beside")
        if message.registered is None:
            client = self.client(peers.LRUClient)
            self.assertEqual(client.call(b"", [SMALL]), worked([SMALL]))
        self.assert_accounts()

    @each("{0}", MALFORMED)
    def malformed(self, message):
        self.refused(message)

    @each("zqb1_{0}", ZQB_MALFORMED)
    def zqb_malformed(self, message):
        self.refused(message)

    @each("zqb1_field_{0}", FIELD_MALFORMED)
    def field_malformed(self, message):
        self.refused(message)

    @each("zqb1_{0}_truncated_at_every_byte", {
        "request": zqb(Command(REQUEST, 7, {SERVICE: b"nobody", 31: b"?"}, [b"body", b"", b"last"])),
        "request_with_large_frames": zqb(Command(REQUEST, 7, {SERVICE: b"nobody"}, [b"x", LARGE, b"y"])),
        "request_that_asks_for_all": zqb(zqb_request(0, b"nobody", [b"body"], priority=4, deadline=0xffffffff, delay=0,
                                                     attempts=65535, backoff=(1, 2), unique=b"u" * 255,
                                                     affinity=b"a" * 255, survey=True, fail_fast=True)),
        "ready": zqb(Command(READY, 0, {SERVICE: b"nobody", CREDIT: b"\0\2"}))})
    def truncated(self, frames):
        before = self.stats()
        peer = self.peer()
        for size in range(len(frames[0])):
            peer.send([frames[0][:size]] + frames[1:])
        stats = self.wait_counted(before, ["bad_header", "bad_frames", "bad_command"], len(frames[0]))
        for size in range(1, len(frames)):
            peer.send(frames[:size])
        self.wait_counted(stats, ["bad_frames"], len(frames) - 1)
        self.assertEqual(stats["queued"], before["queued"], "one of them was accepted")
        self.assert_good_client(b"beside")

    def test_single_frames_of_every_size_up_to_300(self):
        before = self.stats()
        peer = self.peer()
        for size in range(300):
            peer.send([b"\1" * size])
        self.wait_counted(before, ["bad_header"], 300)
        self.assert_good_client(b"beside")


@expand
class Mutations(InteropCase):
    """Valid messages with bytes changed, frames dropped and doubled: whatever becomes of them, the broker goes on."""

    VALID = {
        "mdp01": [[b"", MDPC01, b"job", b"body"], [b"", MDPW01, b"\1", b"other"],
                  [b"", MDPW01, b"\3", b"12345678", b"", b"x"], [b"", MDPW01, b"\4"], [b"", MDPW01, b"\5"]],
        "mdp02": [[MDPC02, b"\1", b"job", b"body"], [MDPW02, b"\1", b"other"],
                  [MDPW02, b"\3", b"12345678", b"", b"x"], [MDPW02, b"\4", b"12345678", b"", b"x"], [MDPW02, b"\5"],
                  [b"", MDPW02, b"\6"]],
        "zqb1": [zqb(Command(REQUEST, 3, {SERVICE: b"job"}, [b"body", LARGE])),
                 zqb(Command(READY, 0, {SERVICE: b"other"})), zqb(Command(REPLY, 9, {}, [b"x"]), Command(HEARTBEAT)),
                 zqb(Command(CANCEL, 3)), zqb(Command(DISCONNECT)), zqb(Command(MORE, 3, {CREDIT: b"\0\1"})),
                 zqb(zqb_request(5, b"job", [b"body"], priority=2, deadline=50, delay=5, attempts=2, backoff=(1, 20),
                                 unique=b"key", affinity=b"key")),
                 zqb(zqb_request(6, b"job", [b"body"], survey=True, fail_fast=True)),
                 zqb(zqb_request(0, b"oth*", [b"body"], one_way=True)), zqb(Command(READY, 0, {SERVICE: b"oth*"})),
                 zqb(Command(PROGRESS, 9, {DONE: b"\0" * 16, TEXT: b"x"}), Command(DRAIN)),
                 zqb(Command(ERROR, 9, {STATUS: b"\0\4"}), Command(ERROR, 9, {CODE: b"\0\0\0\1"}))],
        "lru": [[b"", b"READY"], [b"", b"12345678", b"", b"x"], [b"", b"body"]],
        "ppp": [[b"\1"], [b"\2"], [b"12345678", b"", b"x"]]}

    def mutated(self, rng, frames):
        frames = list(frames)
        for _ in range(rng.randrange(1, 4)):
            at, choice = rng.randrange(len(frames)), rng.randrange(4)
            if choice == 0 and len(frames) > 1:
                del frames[at]
            elif choice == 1:
                frames.insert(at, rng.choice(frames))
            elif frames[at]:
                frame, byte = bytearray(frames[at]), rng.randrange(min(len(frames[at]), 80))
                frame[byte] = rng.choice((0, 1, 2, 127, 128, 255, rng.randrange(256)))
                frames[at] = bytes(frame)
        return frames

    @each("of_{0}", {name: (name, messages) for name, messages in VALID.items()})
    def mutations(self, named):
        name, messages = named
        rng = random.Random(name)
        endpoints = self.broker.plain["job"] if name in ("lru", "ppp") else (self.broker.endpoint,)
        strangers = [self.peer(endpoint) for endpoint in endpoints for _ in range(4)]
        for _ in range(2000):
            rng.choice(strangers).send(self.mutated(rng, rng.choice(messages)))
        self.wait_stats(lambda stats: stats["messages_in"] >= 2000, "all of them")
        self.serving(peers.MDP01Worker, b"beside")
        self.assert_good_client(b"beside")
        self.assert_accounts()
