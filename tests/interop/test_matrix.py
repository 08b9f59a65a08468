#!/usr/bin/python3
"""Who gets in and may do what: every mechanism with right, wrong and missing credentials, for each action and service.

    test_matrix.py [-j JOBS] [PART OF A NAME]...       runs the tests whose name contains one of these, or all

EXPECTED below has a line for each mechanism and credentials, and on it a cell for each action and kind of service. The
same cells are tried by our own client and worker (zqcall and zqecho, as processes) and by peers of ZQB/1, MDP/0.1 and
MDP/0.2 in Python, over tcp, with a broker whose peers zqb_auth lets in, and with one whose context has CZMQ's zauth.

Credentials, which are those of alice but where it says otherwise:

    right       an address that is allowed, for NULL, which has no other; the password, or the key, that is listed
    another     those of bob, who is let in, and may do what alice may not, and nothing else
    wrong       an address that is denied; bob's password; a key that is not listed
    stranger    a user who is not listed, with a password
    elsewhere   the right key, but for another broker's public key
    outside     the right password or key, from an address that is not allowed
    missing     an address that no list names; for PLAIN and CURVE no mechanism at all

Actions: call; serve, which is to register as a worker, and to get a request then; mmi and survey, which are to manage.
Surveys are asked for by peers of ZQB/1 alone. Services, of which each action has its own names (SERVICES):

    allowed     a rule allows it to alice, and it is there: a call, or a survey, is answered by who serves it
    denied      a rule denies it to alice; it is there, and bob may call it, and manage it
    unknown     no rule is about it, and nobody serves it: denied, and not told apart from what is there
    free        a rule allows it to alice, and nobody serves it

What a cell expects is what the peer itself sees, and after that the broker's counters must have grown by what COUNTED
says, and no other: so a refused peer has not been heard, and a denied one has not been served. No cell waits for a
guessed time: where only silence is possible, as older dialects have no word for a denial, the next answer over that
connection has to be that to the next question. A wrong key of the broker is silence, too: our client then ends with its
own time-out, which is short because nothing else is expected.
"""

import collections
import errno
import itertools
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

import zmq
from zmq.utils.monitor import recv_monitor_message

import peers
from harness import COUNTERS, PATIENCE, ZQCALL, ZQECHO, ZQGUARDED, Broker, InteropCase, Program
from peers import EDENIED, ENOWORKER, CallFailed
from runner import run

# ---- what is expected ---------------------------------------------------------------------------------------------

SYMBOLS = {
    "A": "answered",
    "R": "registered",
    "W": "no worker",       # a client whose dialect has no word for it waits
    "?": "501",             # there is no such mmi service
    "d": "denied",          # by the rules: a status; a client of MDP hears nothing
    "x": "refused",         # by who lets peers in: 400
    "m": "mismatch",        # of mechanisms: libzmq says so
    "-": "silence",         # the connection ends without a word, again and again
}

EXPECTED = """
                    call        serve       mmi         survey
                    a d u f     a d u f     a d u f     a d u f

NULL   right        A d d W     R d d R     A d d ?     A d d W
NULL   wrong        x x x x     x x x x     x x x x     x x x x
NULL   missing      x x x x     x x x x     x x x x     x x x x

PLAIN  right        A d d W     R d d R     A d d ?     A d d W
PLAIN  another      d A d d     d d d d     d A d d     d A d d
PLAIN  wrong        x x x x     x x x x     x x x x     x x x x
PLAIN  stranger     x x x x     x x x x     x x x x     x x x x
PLAIN  outside      x x x x     x x x x     x x x x     x x x x
PLAIN  missing      m m m m     m m m m     m m m m     m m m m

CURVE  right        A d d W     R d d R     A d d ?     A d d W
CURVE  another      d A d d     d d d d     d A d d     d A d d
CURVE  wrong        x x x x     x x x x     x x x x     x x x x
CURVE  elsewhere    - - - -     - - - -     - - - -     - - - -
CURVE  outside      x x x x     x x x x     x x x x     x x x x
CURVE  missing      m m m m     m m m m     m m m m     m m m m
"""

KINDS = ("allowed", "denied", "unknown", "free")

SERVICES = {
    "call": ("open", "closed", "nowhere", "free.call"),
    "serve": ("job", "closed", "nowhere", "free.*"),
    "mmi": ("mmi.service", "mmi.services", "mmi.nowhere", "mmi.free"),
    "survey": ("open", "closed", "nowhere", "free.survey"),
}

# alice and bob are who the broker hears of from whoever lets them in. The workers of "open" and "closed" are in its own
# process, and have no user id, as alice has none with NULL: so they come first. Both may look at the counters.
RULES = """
allow @inproc  serve              open closed
deny  {alice}  call,serve,manage  closed mmi.services
allow {alice}  call               open job free.* mmi.stats
allow {alice}  serve              job free.*
allow {alice}  manage             open free.* mmi.service mmi.free
allow {bob}    call               closed mmi.stats
allow {bob}    manage             closed mmi.services
"""

# By what counters must have grown. A survey counts itself and what it asks its one worker; a worker that is registered
# is called once.
COUNTED = {
    "answered": {"accepted": 1},
    "501": {"accepted": 1},
    "registered": {"accepted": 1},
    "no worker": {"refused_no_worker": 1},
    "denied": {"denied_call": 1},
}
COUNTED_OF_ACTION = {"serve": {"denied": {"denied_serve": 1}}, "survey": {"answered": {"accepted": 2}}}
COUNTED_OF_WHO_WAITS = {"no worker": {"accepted": 1}}

NOTED = ["accepted"] + [name for name in COUNTERS if name.startswith(("refused_", "denied_", "bad_"))]

# What zqcall and zqecho say.
SAID = {
    "not allowed": "denied",
    "no worker for this service came in time": "no worker",
    os.strerror(errno.EACCES): "refused",
    "the broker refuses our key or password": "refused",
    os.strerror(errno.EPROTO): "mismatch",
    "the broker wants another security mechanism, or is none": "mismatch",
    os.strerror(errno.ETIMEDOUT): "silence",
    "handshakes fail: is the broker's key another, or its ZAP handler missing?": "silence",
}

STATUSES = {EDENIED: "denied", ENOWORKER: "no worker"}


def cells():
    """(mechanism, credentials, action, kind of service, what is expected) of each cell of the table."""
    columns = [(action, kind) for action in SERVICES for kind in KINDS]
    for line in EXPECTED.splitlines():
        mechanism, credentials, *symbols = line.split() or [None, None]
        if mechanism in ("NULL", "PLAIN", "CURVE"):
            assert len(symbols) == len(columns), line
            for (action, kind), symbol in zip(columns, symbols):
                yield mechanism, credentials, action, kind, SYMBOLS[symbol]


# ---- credentials --------------------------------------------------------------------------------------------------

ALLOWED, DENIED, UNLISTED = "127.0.0.1", "127.0.0.2", "127.0.0.3"
PASSWORDS = {"alice": "wonderland", "bob": "builder", "eve": "garden"}
LISTED = ("alice", "bob")


class Credentials:
    """What a peer has: options of libzmq, the same as arguments of our programs, and the address that it comes from."""

    def __init__(self, options=(), arguments=(), address=ALLOWED):
        self.arguments, self.address = list(arguments), address
        self.ctx = zmq.Context()
        self.ctx.setsockopt(zmq.RECONNECT_IVL, 1)
        for option, value in options:       # of all its sockets
            self.ctx.setsockopt(option, value)

    def endpoint(self, broker):
        """Where it connects to, and from where."""
        return broker.replace("tcp://", "tcp://%s:0;" % self.address)


class Place:
    """A folder with what the broker, who lets peers in, and our programs read."""

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="zqb-matrix-"))
        self.keys = {name: zmq.curve_keypair() for name in ("broker", "elsewhere", "alice", "bob", "eve")}
        for name, (public, secret) in self.keys.items():
            self.write(name + ".public", self.certificate(public))
            self.write(name + ".secret", self.certificate(public, secret))
        for name, password in PASSWORDS.items():
            self.write(name + ".password", password)
        self.write("passwords", "".join("%s=%s\n" % (name, PASSWORDS[name]) for name in LISTED))
        self.write("list", self.list())
        (self.path / "certificates").mkdir()
        for name in LISTED:
            shutil.copy(self.file(name + ".public"), self.path / "certificates")

    def file(self, name):
        return str(self.path / name)

    def write(self, name, text):
        file = self.path / name
        file.write_text(text)
        file.chmod(0o600)

    def remove(self):
        shutil.rmtree(self.path)

    @staticmethod
    def certificate(public, secret=None):
        """As CZMQ and our programs have it."""
        text = 'metadata\ncurve\n    public-key = "%s"\n' % public.decode()
        return text + ('    secret-key = "%s"\n' % secret.decode() if secret else "")

    def list(self):
        """What zqb_auth reads."""
        lines = ["allow " + ALLOWED, "deny " + DENIED]
        for name in LISTED:
            lines += ["plain %s %s" % (name, PASSWORDS[name]), "curve %s %s" % (self.keys[name][0].decode(), name)]
        return "\n".join(lines) + "\n"

    def told_to_zauth(self):
        return ["ALLOW", ALLOWED, "DENY", DENIED, "PLAIN", self.file("passwords"), "CURVE", self.file("certificates")]

    def plain(self, user, password_of=None, **options):
        whose = password_of or user
        return Credentials([(zmq.PLAIN_USERNAME, user.encode()), (zmq.PLAIN_PASSWORD, PASSWORDS[whose].encode())],
                           ["--user", user, "--password-file", self.file(whose + ".password")], **options)

    def curve(self, user, broker="broker", **options):
        public, secret = self.keys[user]
        return Credentials([(zmq.CURVE_SERVERKEY, self.keys[broker][0]), (zmq.CURVE_PUBLICKEY, public),
                            (zmq.CURVE_SECRETKEY, secret)],
                           ["--curve-server", self.file(broker + ".public"), "--curve", self.file(user)], **options)

    def credentials(self, mechanism):
        """Those of the table."""
        if mechanism == "NULL":
            return {"right": Credentials(), "wrong": Credentials(address=DENIED),
                    "missing": Credentials(address=UNLISTED)}
        if mechanism == "PLAIN":
            return {"right": self.plain("alice"), "another": self.plain("bob"), "wrong": self.plain("alice", "bob"),
                    "stranger": self.plain("eve"), "outside": self.plain("alice", address=UNLISTED),
                    "missing": Credentials()}
        return {"right": self.curve("alice"), "another": self.curve("bob"), "wrong": self.curve("eve"),
                "elsewhere": self.curve("alice", "elsewhere"), "outside": self.curve("alice", address=UNLISTED),
                "missing": Credentials()}

    def user_id(self, handler, mechanism, name):
        """Who somebody is to the broker. zauth tells the name that PLAIN proves, and of CURVE the public key."""
        if mechanism == "NULL":
            return ""
        return self.keys[name][0].decode() if (handler, mechanism) == ("zauth", "CURVE") else name


def in_rules(user):
    """A user id as it stands in a rule. What may mean something there, as keys have it, is escaped."""
    return "".join(c if c.isalnum() else "\\x%02x" % ord(c) for c in user) or "-"


class GuardedBroker(Broker):
    """guarded.c."""

    def __init__(self, handler, mechanism, place):
        place.write("rules", RULES.format(**{name: in_rules(place.user_id(handler, mechanism, name))
                                             for name in LISTED}))
        wanted = {"NULL": "null", "PLAIN": "plain", "CURVE": place.file("broker.secret")}
        told = {"zqb_auth": [place.file("list")], "zauth": place.told_to_zauth()}
        self.arguments = [place.file("rules"), wanted[mechanism], handler, *told[handler]]
        super().__init__()

    def command(self):
        return [ZQGUARDED, *self.arguments]


# ---- peers in Python ----------------------------------------------------------------------------------------------

MECHANISM_MISMATCH = 0x11000002     # in zmq.h; older versions of pyzmq have no name for it

class Watched:
    """Mixed into a peer: libzmq tells what becomes of its connection."""

    def connect(self):
        self.events = self.socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
        super().connect()

    def close(self, linger=0):
        self.socket.disable_monitor()
        super().close(linger)

    def send(self, frames):
        """Before the connection is made it waits in the socket; but one that was refused by then takes nothing."""
        try:
            self.socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            pass

    def entry(self, expected):
        """"in", or why not. When mechanisms differ, the broker's end of the connection may be closed before libzmq can
        tell that from one that ends without a word, and it connects again: so silence counts if it is expected."""
        while self.events.poll(PATIENCE * 1000):
            told = recv_monitor_message(self.events)
            event, value = told["event"], told["value"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return "in"
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                return "refused" if value == 400 else "refused with %d" % value
            if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                return "mismatch" if value == MECHANISM_MISMATCH else "protocol error %x" % value
            if expected == "silence":
                return "silence"
        return "nothing"


class PythonPeers:
    """How peers in Python do what a cell says; each method returns what they see."""

    def entering(self, kind, credentials, *arguments, **options):
        """A peer that has said something, whether it is let in or not."""
        watched = type("Watched" + kind.__name__, (Watched, kind), {})
        peer = watched(credentials.ctx, credentials.endpoint(self.broker.endpoint), *arguments, **options)
        self.addCleanup(peer.close)
        return peer

    def ask(self, credentials, service, expected, survey):
        client = self.entering(self.client_kind, credentials)
        self.submit(client, service, survey)
        entry = client.entry(expected)
        return self.ending(client, service) if entry == "in" else entry

    def serve(self, credentials, service, expected):
        worker = self.entering(self.worker_kind, credentials, service.encode())
        entry = worker.entry(expected)
        if entry != "in":
            return entry
        self.wait_stats(lambda stats: worker.listen(lambda: worker.disconnects, 0)
                        or stats["workers"] > self.before["workers"], "a worker, or that it is denied")
        return self.denial(worker) if worker.disconnects else self.registered(worker, service)

    def registered(self, worker, service):
        client = self.client(peers.ZQBClient)
        client.submit(self.name_of(service), [b"for you"])
        token, body = worker.recv()
        worker.reply(token, [b"done"] + body)
        self.assertEqual(client.collect(), [b"done", b"for you"])
        worker.disconnect()
        return "registered"


class NativePeers(PythonPeers):
    """ZQB/1."""

    client_kind, worker_kind = peers.ZQBClient, peers.ZQBWorker
    surveys, counted = True, {}

    @staticmethod
    def submit(client, service, survey):
        client.ask(service.encode(), [b"open"], survey=survey, fail_fast=True)

    def ending(self, client, service):
        try:
            return self.answer(service, client.collect())
        except CallFailed as failed:
            return self.meaning(failed.status)

    def denial(self, worker):
        return self.meaning(worker.status)

    @staticmethod
    def meaning(status):
        return STATUSES.get(status, "status %s" % status)


class MajordomoPeers(PythonPeers):
    """Clients wait for a worker, and do not hear that they are denied."""

    surveys, counted = False, COUNTED_OF_WHO_WAITS

    @staticmethod
    def submit(client, service, _):
        client.submit(service.encode(), [b"open"])

    def ending(self, client, service):
        stats = self.wait_stats(lambda stats: any(self.grown(stats).values()), "a request")
        if self.grown(stats)["denied_call"]:
            self.hears_nothing(client)
            return "denied"
        if self.mmi(b"service", service.encode()) == [b"404"] and not service.startswith("mmi."):
            self.hears_nothing(client)
            return "no worker"
        return self.answer(service, client.collect())

    def denial(self, _):
        """A DISCONNECT has no status."""
        return "denied"

    def hears_nothing(self, client):
        """What comes next to it is the answer to what it asks now: else this raises."""
        self.questions += 1
        client.call(b"mmi.stats", [b""])


class OldPeers(MajordomoPeers):
    client_kind, worker_kind = peers.MDP01DealerClient, peers.MDP01Worker


class NewerPeers(MajordomoPeers):
    client_kind, worker_kind = peers.MDP02Client, peers.MDP02Worker


# ---- our own peers ------------------------------------------------------------------------------------------------

def word(line):
    """What a line of zqcall or zqecho means, if anything."""
    return next((meaning for text, meaning in SAID.items() if line.endswith(": " + text)), None)


class OurPeers:
    """zqcall and zqecho, one process for each cell."""

    surveys, counted = True, {}

    def command(self, program, credentials):
        return [program, "-e", credentials.endpoint(self.broker.endpoint), *credentials.arguments]

    def ask(self, credentials, service, expected, survey):
        timeout_ms = 100 if expected == "silence" else 1000 * PATIENCE
        done = subprocess.run(self.command(ZQCALL, credentials) + ["--timeout", str(timeout_ms), "--retries", "0"]
                              + ["--survey" if survey else "--fail-fast", service, "open"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=3 * PATIENCE, check=False)
        if done.returncode != 0:
            return word(done.stderr.decode().strip()) or done.stderr
        return self.answer(service, done.stdout.replace(b"\t", b"\n").splitlines())

    def serve(self, credentials, service, expected):
        heartbeat = ["--heartbeat", "50"] if expected == "silence" else []
        program = Program(*self.command(ZQECHO, credentials), *heartbeat, "-v", service, stderr=subprocess.STDOUT)
        self.addCleanup(program.stop, signal.SIGKILL)
        self.wait_stats(lambda stats: select.select([program.process.stdout], [], [], 0)[0]
                        or stats["workers"] > self.before["workers"], "a worker, or what it says")
        if self.stats()["workers"] > self.before["workers"]:
            return self.registered(program, service)
        return self.said(program, expected)

    @staticmethod
    def said(program, expected):
        """The first line that means something. As in Watched.entry silence counts if it is expected."""
        said = None
        while said is None or (said == "silence" and expected != "silence"):
            said = word(program.line())
        return said

    def registered(self, program, service):
        client = self.client(peers.ZQBClient)
        self.assertEqual(client.call(self.name_of(service), [b"for you"]), [b"for you"])
        self.assertEqual(program.stop(), 0)
        return "registered"


# ---- the cells ----------------------------------------------------------------------------------------------------

class Cells(InteropCase):
    """One broker for all cells of one mechanism, which are tried one after the other, so that counters tell."""

    @classmethod
    def setUpClass(cls):
        if zmq.zmq_version_info() < (4, 3):
            raise unittest.SkipTest("this libzmq does not tell what becomes of handshakes")
        if cls.handler == "zauth" and subprocess.run([ZQGUARDED, "has-zauth"], check=False).returncode != 0:
            raise unittest.SkipTest("there is no CZMQ here")
        cls.place = Place()
        cls.addClassCleanup(cls.place.remove)
        cls.credentials = cls.place.credentials(cls.mechanism)
        for credentials in cls.credentials.values():
            cls.addClassCleanup(credentials.ctx.destroy, 0)
        cls.ctx = cls.credentials["right"].ctx
        cls.broker = GuardedBroker(cls.handler, cls.mechanism, cls.place)
        cls.addClassCleanup(cls.broker.stop)

    def setUp(self):
        """Until only the two workers inside are there, and what the cell before has left is over."""
        self.questions, self.control_client = 0, None
        self.before = self.wait_stats(lambda stats: (stats["workers"], stats["queued"], stats["running"]) == (2, 0, 0))
        self.questions = 0

    def stats(self):
        self.questions += 1
        return super().stats()

    def mmi(self, name, *body):
        self.questions += name != b"stats"
        return super().mmi(name, *body)

    def grown(self, stats):
        """By how much counters have grown, but for questions about them, of which the last does not count itself."""
        grown = {name: stats[name] - self.before[name] for name in NOTED}
        grown["accepted"] -= self.questions
        return grown

    @staticmethod
    def name_of(service):
        """A name that a pattern stands for."""
        return service.replace("*", "name").encode()

    def answer(self, service, frames):
        """What an answer means: it has to be that of the service, which may say who called."""
        if frames == [b"501"]:
            return "501"
        if service == "mmi.services":
            self.assertTrue(frames[0].startswith(b"open "), frames)
        else:
            self.assertEqual(frames, [b"200"] if service == "mmi.service" else [self.caller.encode(), b"open"])
        return "answered"

    def check(self, credentials, action, service, expected):
        """One cell."""
        self.caller = self.place.user_id(self.handler, self.mechanism, "bob" if credentials == "another" else "alice")
        has = self.credentials[credentials]
        if action == "serve":
            seen = self.serve(has, service, expected)
        else:
            seen = self.ask(has, service, expected, action == "survey")
        self.assertEqual(seen, expected)
        counted = {**COUNTED, **self.counted, **COUNTED_OF_ACTION.get(action, {})}
        grown = self.grown(self.stats())
        self.assertEqual({name: by for name, by in grown.items() if by}, counted.get(expected, {}))


class UnderZauth:
    def test_zqb_auth_leaves_its_place_to_zauth(self):
        self.assertIn("zqb_auth_start: " + os.strerror(errno.EADDRINUSE), self.broker.lines)


HANDLERS = {"zqb_auth": (), "zauth": (UnderZauth,)}
PEERS = {"zqcall_and_zqecho": OurPeers, "zqb1": NativePeers, "mdp01": OldPeers, "mdp02": NewerPeers}


def cell_test(credentials, action, service, expected):
    def test(self):
        self.check(credentials, action, service, expected)
    return test


def cases():
    """A class for each kind of peers, mechanism, and who lets peers in, with a test for each cell. Our own peers come
    first, as they take the longest."""
    rows = collections.defaultdict(list)
    for mechanism, *cell in cells():
        rows[mechanism].append(cell)
    for (name, kind), mechanism, (handler, more) in itertools.product(PEERS.items(), rows, HANDLERS.items()):
        tests = {"test_%s_%s_with_%s_credentials" % (action, which, credentials):
                 cell_test(credentials, action, SERVICES[action][KINDS.index(which)], expected)
                 for credentials, action, which, expected in rows[mechanism] if kind.surveys or action != "survey"}
        yield type("%s_of_%s_under_%s" % (mechanism, name, handler), (kind, *more, Cells),
                   {"__module__": __name__, "mechanism": mechanism, "handler": handler, **tests})


globals().update({case.__name__: case for case in cases()})

if __name__ == "__main__":
    sys.exit(run(globals(), __doc__))
