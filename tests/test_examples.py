#!/usr/bin/env python3
"""The examples do what their head comments say: output, options, exit statuses. `make all` has to have built them.

    python3 tests/test_examples.py [WORD...]        all cases, or those with these words in their name

ZQB_PROGRAMS is the folder of other builds of them, if those are to be tested.
"""
import collections
import contextlib
import glob
import os
import queue
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "support"))
from tap import BUILD, CC, TOP, case, folder, main, must, read, run, same, write, zmq_flags

PATIENCE = 20  # seconds after which a program that should have done something counts as hanging


PROGRAMS = os.path.join(TOP, os.environ.get("ZQB_PROGRAMS", BUILD))


def program(name):
    return os.path.join(PROGRAMS, name)


def own_folder(name):
    """An empty folder of that name beside the programs: other builds of them may be tested at the same time."""
    return folder(os.path.relpath(PROGRAMS, BUILD), "examples", name)


class Started:
    """A program that runs beside the test, and is killed at the end of a `with`."""

    def __init__(self, name, *arguments):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([program(name), *arguments], cwd=TOP, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.errors, universal_newlines=True)
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def line(self, pattern=".*"):
        """The next line of its output, which has to match; its first group, if there is one."""
        try:
            line = self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError("it printed nothing for %d seconds" % PATIENCE) from None
        assert line is not None, "it ended; on stderr: " + self.stderr()
        found = re.fullmatch(pattern, line)
        assert found, "got the line %r, not %r" % (line, pattern)
        return found.group(1) if found.groups() else line

    def ended(self):
        """Its exit status."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError("it did not end within %d seconds" % PATIENCE) from None

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.ended()

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.reader.join(PATIENCE)
        self.process.stdout.close()
        self.errors.close()


class Terminal:
    """A program that runs in a terminal of its own."""

    def __init__(self, name, *arguments):
        self.master, slave = os.openpty()
        # Who leads a session gets the first terminal that it opens as its own, where Ctrl-C comes from.
        self.process = subprocess.Popen(["sh", "-c", 'exec "$@" <%s >%s 2>&1' % ((os.ttyname(slave),) * 2), "sh",
                                         program(name), *arguments], cwd=TOP, start_new_session=True)
        self.slave, self.output = slave, ""

    def until(self, pattern):
        """Waits until it has printed this."""
        end = time.monotonic() + PATIENCE
        while not re.search(pattern, self.output):
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, "it only printed %r" % self.output
            self.output += os.read(self.master, 65536).decode()

    def type(self, keys):
        os.write(self.master, keys)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.slave)
        os.close(self.master)


def zqbrokerd(*more):
    """(process, MDP and ZQB/1 endpoint, LRU frontend, LRU backend), ready; its LRU service is "echo"."""
    any_port = "tcp://127.0.0.1:*"
    broker = Started("zqbrokerd", "--bind", any_port, "--lru", any_port, any_port, "echo", *more)
    try:
        endpoints = [broker.line(r"bound (tcp://127\.0\.0\.1:\d+)") for _ in range(3)]
        broker.line("ready")
    except AssertionError:
        broker.__exit__()
        raise
    return (broker, *endpoints)


def until(what):
    """Asks again and again until `what` returns something, and returns that."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        got = what()
        if got:
            return got
    raise AssertionError("it was not so within %d seconds" % PATIENCE)


def numbers(line):
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)}


def mmi(endpoint, name, *body):
    """What the broker says of itself, a line for each frame."""
    status, output, errors = answer("zqcall", "-e", endpoint, "mmi." + name, *(body or [""]))
    same((status, errors), (0, ""))
    return output.splitlines()


def has(endpoint, service, **wanted):
    """Waits until these numbers of a service are as wanted."""
    until(lambda: any(wanted.items() <= numbers(line).items() for line in mmi(endpoint, "services", service)))


def caught(process):
    """The signals that a process has handlers for."""
    mask = int(re.search(r"^SigCgt:\s*(\w+)$", read("/proc/%d/status" % process), re.MULTILINE).group(1), 16)
    return [number for number in signal.Signals if mask >> (number - 1) & 1]


def stats(endpoint):
    return numbers(" ".join(mmi(endpoint, "stats")))


def answer(*arguments, **more):
    """(status, output, errors) of a program that ends by itself, which takes elastic seven seconds."""
    done = run([program(arguments[0]), *arguments[1:]], timeout=3 * PATIENCE, stderr=subprocess.PIPE, **more)
    return done.returncode, done.stdout, done.stderr


def refused(*arguments):
    """The command line is wrong: status 2, nothing on stdout, a reason and the way to the help on stderr."""
    status, output, errors = answer(*arguments)
    assert (status, output) == (2, ""), (status, output, errors)
    assert errors.strip() and "--help" in errors, errors
    return errors


# ---- every one of them

def head(name):
    return read(os.path.join(TOP, "examples", name + ".c")).split("*/", 1)[0]


def head_promises(name, output):
    """The lines of the output stand in the head comment, in this order."""
    lines = iter([re.sub(r"^\s*Prints ", "", line).strip() for line in head(name).split("\n")])
    for line in output.rstrip("\n").split("\n"):
        assert line.strip() in lines, "the head of %s.c does not say that it prints %r" % (name, line)


for name in sorted(os.path.basename(path)[:-2] for path in glob.glob(os.path.join(TOP, "examples", "*.c"))):
    @case("%s.c starts with what it shows, and compiles as it says, without a warning" % name)
    def _(name=name):
        assert re.match(r"/\* +%s\.c - \S" % name, head(name)), head(name).split("\n")[0]
        build = re.search(r"^    Build   cc -o %s examples/%s\.c (.*)$" % (name, name), head(name), re.MULTILINE)
        assert build, "no Build line"
        flags = [flag for flag in build.group(1).split() if flag != "-lzmq"]
        must([*CC, *flags, *zmq_flags("--cflags"), "-fsyntax-only", "-Wall", "-Wextra", "-Wshadow", "-Werror",
              "examples/%s.c" % name])


# ---- programs that need no other

for name, output in (
        ("host_loop", "one -> ONE\ntwo -> TWO\nthree -> THREE\n"),
        ("pull_worker", "asked: elephant cat hippopotamus dog ant snake bee rhinoceros\n"
                        "answered: ant bee cat dog snake elephant rhinoceros hippopotamus\n"),
        ("priority", "asked: report 1, report 2, letter 1, letter 2, alarm 1, alarm 2\n"
                     "done:  alarm 1, alarm 2, letter 1, letter 2, report 1, report 2\n"
                     "behind alarms without end, without ageing: the report was not done\n"
                     "behind alarms without end, with ageing: the report was done\n"),
        ("stream", "to\nbe\nor\nnot\nto\nbe\n6 words\n")):
    @case("%s prints what its head says" % name)
    def _(name=name, output=output):
        same(answer(name), (0, output, ""))
        head_promises(name, output)


@case("stream takes its text from the command line")
def _():
    same(answer("stream", "  one  two "), (0, "one\ntwo\n2 words\n", ""))


# ---- progress

PAGES = "%d %%  page %d of 1000000"
END = "cancelled: the worker stopped"


@case("progress prints a line at first and for each tenth, and that it is done")
def _():
    same(answer("progress", "4"), (0, "25 %  page 1 of 4\n50 %  page 2 of 4\n75 %  page 3 of 4\n100 %  page 4 of 4\n"
                                      "4 pages are printed\n", ""))
    lines = "50 %  page 25 of 50\n50 pages are printed\n"
    head_promises("progress", lines)


@case("progress is cancelled by SIGINT, and its worker stops: status 130")
def _():
    with Started("progress", "1000000") as job:
        job.line(r"0 %  page 1 of 1000000")
        same(job.end(signal.SIGINT), 130)
        same((job.line(), job.stderr()), (END, ""))
    head_promises("progress", END)


@case("progress draws a bar on a terminal, and Ctrl-C cancels it")
def _():
    with Terminal("progress", "1000000") as terminal:
        terminal.until(r"\r\[\.{40}\]   0 %  page 2 of 1000000")
        terminal.type(b"\x03")
        terminal.until(r"\n" + END + r"\r\n")
        same(terminal.process.wait(PATIENCE), 130)


@case("progress draws a bar that gets full")
def _():
    with Terminal("progress", "2") as terminal:
        terminal.until(r"\r\[#{20}\.{20}\]  50 %  page 1 of 2\r\[#{40}\] 100 %  page 2 of 2\r\n2 pages are printed\r\n")
        same(terminal.process.wait(PATIENCE), 0)


@case("progress: status 2 for what is no number of pages")
def _():
    for wrong in ("none", "0", "-1", "1000001"):
        status, output, errors = answer("progress", wrong)
        assert (status, output) == (2, "") and errors.startswith("usage"), (status, output, errors)


# ---- quickstart

def quickstart(*files, **more):
    """(the rows of its table, all of its output)"""
    status, output, errors = answer("quickstart", *files, **more)
    assert status == 0, (status, output, errors)
    assert "checked against a plain count: the same" in output, output
    assert "chunks" in errors, "no progress on stderr: %r" % errors
    rows = re.findall(r"^(fast|slow) \d +(\d+) +(\d+)$", output, re.MULTILINE)
    assert len(rows) == 6, output
    chunks = int(re.search(r"in (\d+) chunks", output).group(1))
    for column in (1, 2):
        same(sum(int(row[column]) for row in rows), chunks)
    return rows, output


@case("quickstart counts the project's own files, and is right, and fast workers do more")
def _():
    rows, output = quickstart()
    fast = [int(row[1]) for row in rows if row[0] == "fast"]
    slow = [int(row[1]) for row in rows if row[0] == "slow"]
    assert min(fast) > max(slow), output
    dealt = [int(row[2]) for row in rows]
    assert max(dealt) - min(dealt) <= 1, "round robin deals evenly: " + output
    # How long the worker waits that has the most to do. The clock would count it, too, if the machine stood still.
    lru, robin = (max(int(row[column]) * {"fast": 5, "slow": 25}[row[0]] for row in rows) for column in (1, 2))
    assert robin > 1.3 * lru, output
    told = re.search(r"^LRU ([\d.]+) s, round robin ([\d.]+) s: ([\d.]+) times as fast$", output, re.MULTILINE)
    lru, robin, ratio = map(float, told.groups())
    assert abs(robin / lru - ratio) < 0.06 + 0.02 * ratio, output


@case("quickstart counts the files of the command line")
def _():
    where = own_folder("quickstart")
    text = "To be, or not to be: that is the question.\n" * 50
    files = [write(os.path.join(where, name), text) for name in ("a.txt", "b.txt")]
    _, output = quickstart(*files)
    words = collections.Counter(re.findall("[a-z]+", text.lower() * 2))
    listed = re.findall(r"^ *(\d+)  (\w+)$", output, re.MULTILINE)
    same({word: int(count) for count, word in listed}, dict(words))
    assert "2 files, %d bytes" % (2 * len(text)) in output, output
    assert "%d words, %d of them different, 100 lines" % (sum(words.values()), len(words)) in output, output


@case("quickstart copes with an empty file")
def _():
    done = run([program("quickstart"), write(os.path.join(own_folder("empty"), "empty.txt"), "")],
               timeout=PATIENCE)
    assert done.returncode == 0, done.stdout
    assert "the same" in done.stdout, done.stdout


@case("quickstart: status 1 for a file that is not there, 2 for no file at all")
def _():
    status, output, errors = answer("quickstart", "/there/is/none")
    assert (status, output) == (1, "") and "/there/is/none" in errors, (status, output, errors)
    status, output, errors = answer("quickstart", cwd=own_folder("nothing"))
    assert (status, output) == (2, "") and "usage" in errors, (status, output, errors)


# ---- the smallest three, in Majordomo and in LRU form

@case("broker, worker and client")
def _():
    with Started("broker", "tcp://127.0.0.1:*") as broker:
        endpoint = broker.line(r"ready at (tcp://127\.0\.0\.1:\d+)")
        with Started("worker", endpoint):
            same(answer("client", endpoint), (0, "HELLO, WORLD\n", ""))
            same(answer("client", endpoint, "good night"), (0, "GOOD NIGHT\n", ""))
    head_promises("client", "HELLO, WORLD\n")


@case("the worker may be there before the broker")
def _():
    endpoint = "ipc://" + os.path.join(os.path.relpath(own_folder("ipc"), TOP), "b")
    with Started("worker", endpoint), Started("broker", endpoint) as broker:
        broker.line(r"ready at .*")
        same(answer("client", endpoint), (0, "HELLO, WORLD\n", ""))


@case("lru_broker, lru_worker and lru_client")
def _():
    with Started("lru_broker", "tcp://127.0.0.1:*", "tcp://127.0.0.1:*") as broker:
        frontend = broker.line(r"clients at (tcp://127\.0\.0\.1:\d+)")
        backend = broker.line(r"workers at (tcp://127\.0\.0\.1:\d+)")
        with Started("lru_worker", backend), Started("lru_worker", backend):
            for text in ("hello, world", "again", "and again"):
                same(answer("lru_client", frontend, text), (0, text.upper() + "\n", ""))


for name in ("broker", "lru_broker"):
    @case("%s: status 1 and the reason when it cannot bind" % name)
    def _(name=name):
        status, output, errors = answer(name, *["nonsense://here"] * (2 if name == "lru_broker" else 1))
        assert (status, output) == (1, "") and "nonsense://here" in errors, (status, output, errors)


# ---- zqbrokerd

for number in (signal.SIGINT, signal.SIGTERM):
    @case("zqbrokerd says what it bound and `ready`, and ends with status 0 on " + number.name)
    def _(number=number):
        broker, *_ = zqbrokerd()
        with broker:
            same(broker.end(number), 0)
            same(broker.stderr(), "")


@case("zqbrokerd ends with status 0 while workers and clients are connected")
def _():
    broker, endpoint, *_ = zqbrokerd()
    with broker, Started("zqecho", "-e", endpoint, "echo"):
        same(answer("zqcall", "-e", endpoint, "echo", "x"), (0, "x\n", ""))
        same(broker.end(), 0)


@case("zqbrokerd --help and -h: all options on stdout, status 0")
def _():
    for option in ("--help", "-h"):
        status, output, errors = answer("zqbrokerd", option)
        same((status, errors), (0, ""))
        for word in "--bind --clients --lru --heartbeat --liveness --time-limit --max-requests --wait -v --help".split():
            assert word in output, word


for arguments in ("", "--nonsense", "stray", "--bind", "--lru tcp://127.0.0.1:* tcp://127.0.0.1:*",
                  "--bind tcp://127.0.0.1:* --heartbeat", "--bind tcp://127.0.0.1:* --heartbeat soon",
                  "--bind tcp://127.0.0.1:* --heartbeat 0", "--bind tcp://127.0.0.1:* --liveness -1",
                  "--bind tcp://127.0.0.1:* --liveness 99999999999", "--clients tcp://127.0.0.1:*",
                  "--bind tcp://127.0.0.1:* --max-requests 0", "--bind tcp://127.0.0.1:* --time-limit echo",
                  "--bind tcp://127.0.0.1:* --time-limit echo never"):
    @case("zqbrokerd %s: status 2 and why" % (arguments or "without arguments"))
    def _(arguments=arguments):
        errors = refused("zqbrokerd", *arguments.split())
        if arguments and " tcp" not in arguments:
            assert arguments.split()[0] in errors, errors


@case("zqbrokerd: status 1 and why for an endpoint in use, a bad one, a bad service")
def _():
    broker, endpoint, *_ = zqbrokerd()
    with broker:
        for arguments, reason in (
                (["--bind", endpoint], "in use"),
                (["--bind", "nonsense://here"], "nonsense://here"),
                (["--bind", "nonsense"], "nonsense"),
                (["--lru", "tcp://127.0.0.1:*", endpoint, "echo"], "in use"),
                (["--bind", "tcp://127.0.0.1:*", "--clients", endpoint], "in use"),
                (["--bind", "tcp://127.0.0.1:*", "--time-limit", "mmi.x", "100"], "mmi.x"),
                (["--lru", "tcp://127.0.0.1:*", "tcp://127.0.0.1:*", "mmi.x"], "mmi.x"),
                (["--lru", "tcp://127.0.0.1:*", "tcp://127.0.0.1:*", ""], "service"),
                (["--lru", "tcp://127.0.0.1:*", "tcp://127.0.0.1:*", "x" * 256], "xxx")):
            status, output, errors = answer("zqbrokerd", *arguments)
            assert (status, output) == (1, ""), (arguments, status, output, errors)
            assert reason in errors.lower(), (arguments, errors)


@case("zqbrokerd -v logs to stderr, with the level; without it is silent")
def _():
    for option, expected in (("-v", True), ("--verbose", True), (None, False)):
        broker, endpoint, *_ = zqbrokerd(*[option] if option else [])
        with broker, Started("zqecho", "-e", endpoint, "echo"):
            same(answer("zqcall", "-e", endpoint, "echo", "x"), (0, "x\n", ""))
            same(broker.end(), 0)
            log = broker.stderr()
            same(bool(re.search(r"^\S+Z info: .", log, re.MULTILINE)), expected)


@case("zqbrokerd takes several endpoints, and serves a service on all of them")
def _():
    any_port = "tcp://127.0.0.1:*"
    with Started("zqbrokerd", "--bind", any_port, "--bind", any_port) as broker:
        one, other = (broker.line(r"bound (tcp://127\.0\.0\.1:\d+)") for _ in range(2))
        broker.line("ready")
        with Started("zqecho", "-e", one, "echo"):
            same(answer("zqcall", "-e", other, "echo", "across"), (0, "across\n", ""))


@case("zqbrokerd --clients serves clients, and refuses workers")
def _():
    with Started("zqbrokerd", "--bind", "tcp://127.0.0.1:*", "--clients", "tcp://127.0.0.1:*") as broker:
        both, clients = (broker.line(r"bound (tcp://127\.0\.0\.1:\d+)") for _ in range(2))
        broker.line("ready")
        with Started("zqecho", "-e", both, "echo"):
            same(answer("zqcall", "-e", clients, "echo", "x"), (0, "x\n", ""))
            refused_worker = Started("zqecho", "-e", clients, "other")
            with refused_worker:
                same(refused_worker.ended(), 1)


@case("zqbrokerd --max-requests 1 --wait: what there is no room for waits, and is served")
def _():
    front = "tcp://127.0.0.1:*"
    with Started("zqbrokerd", "--bind", front, "--clients", front, "--max-requests", "1", "--wait") as broker:
        both, clients = (broker.line(r"bound (tcp://127\.0\.0\.1:\d+)") for _ in range(2))
        broker.line("ready")
        calls = [Started("zqcall", "-e", clients, "--mdp", "0.1", "--timeout", "20000", "echo", text) for text in "abc"]
        with calls[0], calls[1], calls[2], Started("zqecho", "-e", both, "echo"):
            for call, text in zip(calls, "abc"):
                same(call.line("([abc])"), text)
                same(call.ended(), 0)
            status, output, _ = answer("zqcall", "-e", both, "mmi.stats", "")
            assert status == 0 and re.search(r"^refused_requests=0$", output, re.MULTILINE), output


# ---- zqcall and zqecho

CALLS = {"ZQB/1": [], "MDP/0.1": ["--mdp", "0.1"], "MDP/0.2": ["--mdp", "0.2"]}
ECHOES = {**CALLS, "ZQB/1 with credit": ["--credit", "10"], "LRU": ["--lru"], "PPP": ["--ppp"]}

for worker, options in ECHOES.items():
    @case("zqcall in each dialect, served by zqecho in %s, which ends with status 0" % worker)
    def _(options=options):
        broker, endpoint, _, backend = zqbrokerd()
        arguments = ["-e", backend, *options] if options in (["--lru"], ["--ppp"]) else ["-e", endpoint, *options, "echo"]
        with broker, Started("zqecho", *arguments) as echo:
            for dialect in CALLS.values():
                same(answer("zqcall", "-e", endpoint, *dialect, "echo", "one", "", "--two"), (0, "one\n\n--two\n", ""))
            same(echo.end(signal.SIGINT), 0)
            same(echo.stderr(), "")
            same(broker.end(), 0)


@case("lru_client is served by zqecho in ZQB/1, through zqbrokerd --lru")
def _():
    broker, endpoint, frontend, _ = zqbrokerd()
    with broker, Started("zqecho", "-e", endpoint, "echo"):
        same(answer("lru_client", frontend, "as it was"), (0, "as it was\n", ""))


@case("zqcall sends its standard input as one frame when there is none on the command line")
def _():
    broker, endpoint, *_ = zqbrokerd()
    with broker, Started("zqecho", "-e", endpoint, "echo"):
        for text in ("", "a line\n", "no newline", "many lines\n" * 100000):
            path = write(os.path.join(own_folder("stdin"), "in"), text)
            with open(path) as file:
                same(answer("zqcall", "-e", endpoint, "echo", stdin=file), (0, text + "\n", ""))


@case("zqcall asks the mmi services")
def _():
    broker, endpoint, *_ = zqbrokerd()
    with broker, Started("zqecho", "-e", endpoint, "echo"):
        same(answer("zqcall", "-e", endpoint, "echo", "x"), (0, "x\n", ""))  # now it is known to be there
        same(answer("zqcall", "-e", endpoint, "mmi.service", "echo"), (0, "200\n", ""))
        same(answer("zqcall", "-e", endpoint, "mmi.service", "nobody"), (0, "404\n", ""))
        same(answer("zqcall", "-e", endpoint, "mmi.nonsense", "x"), (0, "501\n", ""))
        status, output, _ = answer("zqcall", "-e", endpoint, "mmi.services", "")
        line = "echo queued=0 running=0 workers=1 handler=0 oldest_ms=0 delayed=0 pinned=0"
        assert status == 0 and line in output.split("\n"), output
        same(answer("zqcall", "-e", endpoint, "mmi.services", "echo"),
             (0, "echo queued=0 running=0 workers=1 handler=0 oldest_ms=0 delayed=0 pinned=0\n", ""))
        same(answer("zqcall", "-e", endpoint, "mmi.services", "nobody"), (0, "", ""))
        status, output, _ = answer("zqcall", "-e", endpoint, "mmi.workers", "")
        assert status == 0 and re.search(r"^echo dialect=ZQB/1 load=0 credit=1 served=1 silent_ms=\d+ id=\d+ failed=0 "
                                         r"slow=0 resting=0 draining=0$", output, re.MULTILINE), output
        status, output, _ = answer("zqcall", "-e", endpoint, "mmi.stats", "")
        assert status == 0 and re.search(r"^workers=1$", output, re.MULTILINE), output


@case("zqcall: status 1 and the reason on stderr when there is no answer")
def _():
    broker, endpoint, *_ = zqbrokerd()
    with broker:
        for dialect in CALLS.values():
            status, output, errors = answer("zqcall", "-e", endpoint, *dialect, "--timeout", "100", "--retries", "0",
                                            "nobody", "x")
            assert (status, output) == (1, "") and "nobody" in errors, (dialect, status, output, errors)
    status, output, errors = answer("zqcall", "-e", endpoint, "--timeout", "50", "--retries", "1", "echo", "x")
    assert (status, output) == (1, "") and errors.strip(), "no broker: %r" % ((status, output, errors),)


@case("zqcall: status 1 for a bad endpoint and a bad service")
def _():
    for arguments in (["-e", "nonsense", "echo", "x"], ["-e", "tcp://127.0.0.1:1", "", "x"],
                      ["-e", "tcp://127.0.0.1:1", "s" * 256, "x"]):
        status, output, errors = answer("zqcall", *arguments)
        assert (status, output) == (1, "") and errors.strip(), (arguments, status, output, errors)


@case("zqcall goes to the next endpoint when one does not answer")
def _():
    broker, endpoint, *_ = zqbrokerd()
    nobody = "ipc://" + os.path.join(os.path.relpath(own_folder("nobody"), TOP), "n")
    with broker, Started("zqecho", "-e", endpoint, "echo"):
        same(answer("zqcall", "-e", nobody + "," + endpoint, "--timeout", "300", "--retries", "50", "echo", "x"),
             (0, "x\n", ""))


# ---- what a request may ask for

@case("zqcall --priority: what is more urgent is served first, whoever came first")
def _():
    broker, endpoint, *_ = zqbrokerd()
    call = ["zqcall", "-e", endpoint, "--timeout", "-1", "--priority"]
    waiting = []
    with broker, contextlib.ExitStack() as calls:
        for priority, text in (("-4", "low"), ("0", "normal"), ("1", "higher"), ("4", "highest")):
            waiting.append(calls.enter_context(Started(*call, priority, "echo", text)))
            has(endpoint, "echo", queued=len(waiting))
        with Started("zqecho", "-e", endpoint, "--credit", "1", "--print", "echo") as echo:
            for text in ("highest", "higher", "normal", "low"):
                echo.line("echo: " + text)
            same([call.ended() for call in waiting], [0] * 4)


@case("zqcall --deadline: status 4 when it is over")
def _():
    broker, endpoint, *_ = zqbrokerd()
    with broker:
        status, output, errors = answer("zqcall", "-e", endpoint, "--deadline", "50", "nobody", "x")
        assert (status, output) == (4, "") and "expired" in errors, (status, output, errors)
        same(stats(endpoint)["queued"], 0)
        with Started("zqecho", "-e", endpoint, "echo"):
            same(answer("zqcall", "-e", endpoint, "--deadline", "20000", "echo", "in time"), (0, "in time\n", ""))


@case("zqcall --delay: it is not begun before")
def _():
    broker, endpoint, *_ = zqbrokerd()
    with broker, Started("zqecho", "-e", endpoint, "echo"):
        start = time.monotonic()
        same(answer("zqcall", "-e", endpoint, "--delay", "400", "echo", "late"), (0, "late\n", ""))
        assert time.monotonic() - start >= 0.4
        with Started("zqcall", "-e", endpoint, "--delay", "600000", "echo", "never") as call:
            until(lambda: stats(endpoint)["delayed"] == 1)
            same(call.end(signal.SIGINT), 130)
            until(lambda: stats(endpoint)["delayed"] == 0)


@case("zqcall --unique: two that wait are executed once, with the body of the first, and both are answered")
def _():
    broker, endpoint, *_ = zqbrokerd()
    arguments = ["zqcall", "-e", endpoint, "--timeout", "-1", "--unique", "k", "echo"]
    with broker, Started(*arguments, "first") as first:
        has(endpoint, "echo", queued=1)
        with Started(*arguments, "second") as second:
            until(lambda: stats(endpoint)["following"] == 1)
            with Started("zqecho", "-e", endpoint, "--print", "echo") as echo:
                for call in (first, second):
                    call.line("first")
                    same(call.ended(), 0)
                same(answer(*arguments, "third"), (0, "third\n", ""))
                echo.line("echo: first")
                echo.line("echo: third")


@case("zqcall --affinity: the same worker, though others are idle")
def _():
    broker, endpoint, *_ = zqbrokerd()
    with broker, Started("zqecho", "-e", endpoint, "echo"), Started("zqecho", "-e", endpoint, "echo"):
        has(endpoint, "echo", workers=2)
        for _ in range(6):
            same(answer("zqcall", "-e", endpoint, "--affinity", "k", "echo", "x"), (0, "x\n", ""))
        same(sorted(numbers(line)["served"] for line in mmi(endpoint, "workers")), [0, 6])


@case("zqcall --one-way: status 0 as soon as the broker has it, 1 without a broker; and it is executed")
def _():
    broker, endpoint, *_ = zqbrokerd()
    with broker:
        same(answer("zqcall", "-e", endpoint, "--one-way", "echo", "and gone"), (0, "", ""))
        with Started("zqecho", "-e", endpoint, "--print", "echo") as echo:
            echo.line("echo: and gone")
    nobody = "ipc://" + os.path.join(os.path.relpath(own_folder("one-way"), TOP), "n")
    status, output, errors = answer("zqcall", "-e", nobody, "--one-way", "--timeout", "50", "echo", "x")
    assert (status, output) == (1, "") and errors.strip(), (status, output, errors)


@case("zqcall --fail-fast: status 5 when there is no worker, and as ever when there is one")
def _():
    broker, endpoint, *_ = zqbrokerd()
    with broker:
        status, output, errors = answer("zqcall", "-e", endpoint, "--fail-fast", "echo", "x")
        assert (status, output) == (5, "") and "no worker" in errors, (status, output, errors)
        with Started("zqecho", "-e", endpoint, "echo"):
            has(endpoint, "echo", workers=1)
            same(answer("zqcall", "-e", endpoint, "--fail-fast", "echo", "x"), (0, "x\n", ""))


@case("zqcall --attempts 1: status 1 when its worker is lost; --attempts 2 --backoff: another does it")
def _():
    broker, endpoint, *_ = zqbrokerd()
    killed = ["zqecho", "-e", endpoint, "--work", "600000", "--print", "echo"]
    call = ["zqcall", "-e", endpoint, "--timeout", "-1", "echo", "x"]
    with broker:
        with Started(*killed) as echo, Started(*call[:-2], "--attempts", "1", *call[-2:]) as once:
            echo.line("echo: x")
            echo.process.kill()
            same((once.ended(), "lost" in once.stderr()), (1, True))
        with Started(*killed) as echo, Started(*call[:-2], "--attempts", "2", "--backoff", "10", *call[-2:]) as twice:
            echo.line("echo: x")
            echo.process.kill()
            with Started("zqecho", "-e", endpoint, "echo"):
                twice.line("x")
                same(twice.ended(), 0)


@case("zqcall --survey: a line for each worker that answers, and how many did; status 5 without any")
def _():
    broker, endpoint, *_ = zqbrokerd()
    survey = ["zqcall", "-e", endpoint, "--survey", "echo", "x", "y"]
    with broker:
        status, output, errors = answer(*survey)
        assert (status, output) == (5, "") and "no worker" in errors, (status, output, errors)
        with Started("zqecho", "-e", endpoint, "--fail", "7", "echo"):
            has(endpoint, "echo", workers=1)
            same(answer(*survey), (1, "", "zqcall: echo: 0 of 1 answered\n"))
            with Started("zqecho", "-e", endpoint, "echo"), Started("zqecho", "-e", endpoint, "echo"):
                has(endpoint, "echo", workers=3)
                same(answer(*survey), (0, "x\ty\n" * 2, "zqcall: echo: 2 of 3 answered\n"))


@case("zqcall --progress: how far it is, on stderr; without it, nothing")
def _():
    broker, endpoint, *_ = zqbrokerd()
    with broker, Started("zqecho", "-e", endpoint, "--progress", "echo"):
        same(answer("zqcall", "-e", endpoint, "--progress", "echo", "x"),
             (0, "x\n", "".join("zqcall: echo: %d of 10\n" % step for step in range(1, 11))))
        same(answer("zqcall", "-e", endpoint, "echo", "x"), (0, "x\n", ""))


@case("zqcall: status 3, the code and the reason when the worker fails the request")
def _():
    broker, endpoint, *_ = zqbrokerd()
    with broker, Started("zqecho", "-e", endpoint, "--fail", "42", "echo"):
        status, output, errors = answer("zqcall", "-e", endpoint, "echo", "x")
        assert (status, output) == (3, "") and "(42): it was told to fail\n" in errors, (status, output, errors)


@case("what a worker refuses is done by another; status 1 when there is none")
def _():
    broker, endpoint, *_ = zqbrokerd()
    with broker, Started("zqecho", "-e", endpoint, "--refuse", "--print", "echo") as picky:
        status, output, errors = answer("zqcall", "-e", endpoint, "echo", "x")
        assert (status, output) == (1, "") and "refused" in errors, (status, output, errors)
        picky.line("echo: x")
        with Started("zqecho", "-e", endpoint, "echo"):
            has(endpoint, "echo", workers=2)
            for _ in range(3):
                same(answer("zqcall", "-e", endpoint, "echo", "y"), (0, "y\n", ""))
            picky.line("echo: y")


@case("a worker of a pattern hears which service was called")
def _():
    broker, endpoint, *_ = zqbrokerd()
    with broker, Started("zqecho", "-e", endpoint, "--print", "img.*") as echo:
        same(answer("zqcall", "-e", endpoint, "img.cat", "x"), (0, "x\n", ""))
        echo.line(r"img\.cat: x")


for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
    @case("zqcall is cancelled by %s: status %d, and the worker is told" % (number.name, status))
    def _(number=number, status=status):
        broker, endpoint, *_ = zqbrokerd()
        with broker, Started("zqecho", "-e", endpoint, "--work", "600000", "--print", "echo") as echo, \
                Started("zqcall", "-e", endpoint, "--timeout", "-1", "echo", "x") as call:
            echo.line("echo: x")
            same(call.end(number), status)
            same(call.stderr(), "zqcall: echo: cancelled\n")
            echo.line("echo cancelled: x")
            until(lambda: stats(endpoint)["cancelled"] == 1)
            same(echo.end(), 0)


@case("zqcall is cancelled by SIGINT while there is no broker")
def _():
    nobody = "ipc://" + os.path.join(os.path.relpath(own_folder("none"), TOP), "n")
    with Started("zqcall", "-e", nobody, "--timeout", "-1", "echo", "x") as call:
        until(lambda: signal.SIGINT in caught(call.process.pid))
        same(call.end(signal.SIGINT), 130)


# ---- drain

def drained(worker):
    """Sends it SIGTERM, when it is ready for that; its exit status and what it said on stderr."""
    until(lambda: signal.SIGTERM in caught(worker.process.pid))
    return worker.end(), worker.stderr()


def calls_without_end(call, stop, failures):
    while not stop.is_set():
        try:
            got = answer(*call)
        except subprocess.TimeoutExpired as hangs:
            got = (hangs,)
        if got[0] != 0:
            failures.append(got)


@contextlib.contextmanager
def load(*call):
    """Three clients that ask again and again meanwhile. Each has to be answered."""
    stop, failures = threading.Event(), []
    threads = [threading.Thread(target=calls_without_end, args=(call, stop, failures)) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    same(failures, [])


def gone(endpoint):
    """How many workers have left; one of MDP that was given a request just then counts as lost."""
    now = stats(endpoint)
    return now["workers_left"] + now["workers_lost"]


def relay(worker, service, *options):
    """Five times another worker takes over under load, and the one before is drained; the counters then."""
    broker, endpoint, *_ = zqbrokerd()
    worker = [word.replace("ENDPOINT", endpoint) for word in worker]
    with broker, contextlib.ExitStack() as workers:
        before = workers.enter_context(Started(*worker))
        with load("zqcall", "-e", endpoint, "--timeout", "-1", *options, service, "x"):
            has(endpoint, service, workers=1)
            for left in range(1, 6):
                after = workers.enter_context(Started(*worker))
                has(endpoint, service, workers=2)
                same(drained(before), (0, ""))
                until(lambda left=left: gone(endpoint) == left)
                before = after
            return stats(endpoint)


for worker, service in ((["worker", "ENDPOINT"], "upper"), (["zqecho", "-e", "ENDPOINT", "echo"], "echo")):
    @case("SIGTERM drains %s: under load it ends with status 0, and no request is lost or done twice" % worker[0])
    def _(worker=worker, service=service):
        now = relay(worker, service, "--attempts", "1")
        same((now["requeued"], now["workers_lost"], now["dead"]), (0, 0, 0))


@case("SIGTERM drains zqecho in MDP, too: no request is lost")
def _():
    same(relay(["zqecho", "-e", "ENDPOINT", "--mdp", "0.2", "echo"], "echo")["dead"], 0)


@case("zqecho finishes what it has when it is drained")
def _():
    broker, endpoint, *_ = zqbrokerd()
    call = ["zqcall", "-e", endpoint, "--timeout", "-1", "--attempts", "1", "echo"]
    with broker, Started(*call, "x") as first, Started(*call, "x") as second:
        has(endpoint, "echo", queued=2)
        with Started("zqecho", "-e", endpoint, "--credit", "2", "--work", "300", "--print", "echo") as echo:
            echo.line("echo: x")
            same(drained(echo), (0, ""))
            echo.line("echo: x")
        same((first.line(), second.line(), first.ended(), second.ended()), ("x", "x", 0, 0))


@case("zqecho finishes what it is at when it is stopped by SIGINT, and gives back the rest; a second one kills it")
def _():
    broker, endpoint, *_ = zqbrokerd()
    call = ["zqcall", "-e", endpoint, "--timeout", "-1", "--attempts", "1", "echo"]
    worker = ["zqecho", "-e", endpoint, "--credit", "2", "--print", "--work"]
    with broker, Started(*call, "x") as first, Started(*call, "x") as second:
        has(endpoint, "echo", queued=2)
        with Started(*worker, "300", "echo") as echo:
            echo.line("echo: x")
            same((echo.end(signal.SIGINT), echo.stderr()), (0, ""))
        with Started(*worker, "1", "echo"):
            same((first.line(), second.line(), first.ended(), second.ended()), ("x", "x", 0, 0))
    broker, endpoint, *_ = zqbrokerd()
    with broker, Started("zqecho", "-e", endpoint, "--print", "--work", "600000", "echo") as echo, \
            Started("zqcall", "-e", endpoint, "--timeout", "-1", "echo", "x"):
        echo.line("echo: x")
        echo.process.send_signal(signal.SIGINT)
        until(lambda: signal.SIGINT not in caught(echo.process.pid))
        same(echo.end(signal.SIGINT), -signal.SIGINT)


for name, wrong in (
        ("zqcall", ["", "-e", "-e tcp://127.0.0.1:1", "echo x", "-e tcp://127.0.0.1:1 --nonsense echo",
                    "-e tcp://127.0.0.1:1 --mdp 0.3 echo", "-e tcp://127.0.0.1:1 --timeout soon echo",
                    "-e tcp://127.0.0.1:1 --timeout 0 echo", "-e tcp://127.0.0.1:1 --retries -1 echo",
                    "-e tcp://127.0.0.1:1 --priority 5 echo", "-e tcp://127.0.0.1:1 --priority -5 echo",
                    "-e tcp://127.0.0.1:1 --deadline 0 echo", "-e tcp://127.0.0.1:1 --delay -1 echo",
                    "-e tcp://127.0.0.1:1 --attempts 0 echo", "-e tcp://127.0.0.1:1 --attempts 65535 echo",
                    "-e tcp://127.0.0.1:1 --backoff soon echo", "-e tcp://127.0.0.1:1 --unique  echo",
                    "-e tcp://127.0.0.1:1 --affinity " + 256 * "k" + " echo",
                    "-e tcp://127.0.0.1:1 --survey --one-way echo",
                    "-e tcp://127.0.0.1:1 --mdp 0.2 --priority 1 echo"]),
        ("zqecho", ["", "-e", "-e tcp://127.0.0.1:1", "echo", "-e tcp://127.0.0.1:1 --nonsense echo",
                    "-e tcp://127.0.0.1:1 --mdp 0.3 echo", "-e tcp://127.0.0.1:1 --credit 0 echo",
                    "-e tcp://127.0.0.1:1 --credit 65536 echo", "-e tcp://127.0.0.1:1 --heartbeat x echo",
                    "-e tcp://127.0.0.1:1 --work -1 echo", "-e tcp://127.0.0.1:1 --fail 0 echo"])):
    @case("%s: status 2 and why for a wrong command line" % name)
    def _(name=name, wrong=wrong):
        for arguments in wrong:
            refused(name, *(arguments.split(" ") if arguments else []))

    @case("%s --help and -h: status 0, on stdout" % name)
    def _(name=name):
        for option in ("--help", "-h"):
            status, output, errors = answer(name, option)
            same((status, errors), (0, ""))
            assert output.startswith("usage: " + name) and "--endpoint" in output, output
            options = re.findall(r'^ +{ "([\w-]+)", \w+_argument', read(os.path.join(TOP, "examples", name + ".c")),
                                 re.MULTILINE)
            assert len(options) > 5 and all("--" + option in output for option in options), (options, output)


# ---- workers that come and go with the load: elastic, and zqbrokerd --scale

@case("elastic grows and shrinks with the load, loses nothing, and draws what happened if asked")
def _():
    picture = os.path.join(own_folder("elastic"), "elastic.svg")
    status, output, errors = answer("elastic", picture)
    same((status, errors), (0, ""))
    first, *lines, last = output.rstrip("\n").split("\n")
    same(first, "seconds  queued  threads")
    rows = [re.fullmatch(r" *(\d+\.\d)  +(\d+)  +(\d+) (#*)", line) for line in lines]
    assert all(rows), output
    threads = [int(row[3]) for row in rows]
    same([len(row[4]) for row in rows], threads)
    same((threads[0], threads[-1]), (1, 1))
    total = re.fullmatch(r"(\d+) requests, all answered; 1 to (\d+) threads, (\d+) started, (\d+) left", last)
    assert total, last
    same((int(total[2]), int(total[3])), (max(threads), int(total[4]) + 1))
    assert 1 < max(threads) <= 8 and max(int(row[2]) for row in rows) > 0, output
    drawn = xml.etree.ElementTree.parse(picture).getroot()
    texts = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    for label in ("requests in the queue", "threads", "seconds"):
        assert label in texts, texts
    curves = [path for path in drawn.iter("{http://www.w3.org/2000/svg}path") if path.get("fill") == "none"]
    same(len(curves), 2)


@case("elastic: status 1 and why if it cannot draw")
def _():
    status, _, errors = answer("elastic", "/there/is/none.svg")
    assert status == 1 and errors.startswith("elastic: "), (status, errors)


def crew(minimum, maximum, command, service="echo"):
    """zqbrokerd, ready, and its endpoint. It starts the workers of a service by this command."""
    broker = Started("zqbrokerd", "--bind", "tcp://127.0.0.1:*", "--scale", service, str(minimum), str(maximum), command)
    try:
        endpoint = broker.line(r"bound (tcp://127\.0\.0\.1:\d+)")
        broker.line("ready")
    except AssertionError:
        broker.__exit__()
        raise
    return broker, endpoint


def eventually(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "never: " + what
        time.sleep(0.02)


def workers(endpoint):
    """How many workers the broker has."""
    status, output, errors = answer("zqcall", "-e", endpoint, "mmi.stats", "")
    same((status, errors), (0, ""))
    return int(re.search(r"^workers=(\d+)$", output, re.MULTILINE).group(1))


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def logged(name):
    """(a file that is not there yet, a function that reads the numbers in it)"""
    path = os.path.join(own_folder(name), "log")
    if os.path.exists(path):
        os.remove(path)
    return path, lambda: [int(word) for word in read(path).split()] if os.path.exists(path) else []


ECHO = 'exec "%s" -e "$ZQB_ENDPOINT" "$ZQB_SERVICE"' % program("zqecho")


@case("zqbrokerd --scale starts workers, starts those again that end, and takes all of them with it")
def _():
    path, pids = logged("crew")
    broker, endpoint = crew(2, 3, "sh -c 'echo $$ >> \"%s\"; %s'" % (path, ECHO), "my echo")
    with broker:
        same(answer("zqcall", "-e", endpoint, "my echo", "x"), (0, "x\n", ""))
        eventually(lambda: workers(endpoint) == 2, "two workers")
        same(len(pids()), 2)
        os.kill(pids()[0], signal.SIGKILL)
        eventually(lambda: len(pids()) == 3 and workers(endpoint) == 2, "another in its place")
        same(answer("zqcall", "-e", endpoint, "my echo", "y"), (0, "y\n", ""))
        same(broker.end(), 0)
        assert not any(map(is_alive, pids())), "some are left"


@case("zqbrokerd --scale starts another worker when a request waits too long, and lets it go when it is not needed")
def _():
    path, pids = logged("wait")
    broker, endpoint = crew(1, 2, "sh -c 'echo $$ >> \"%s\"; %s --credit 1'" % (path, ECHO))
    with broker:
        eventually(lambda: pids() and workers(endpoint) == 1, "one worker")
        os.kill(pids()[0], signal.SIGSTOP)
        held, waits = (Started("zqcall", "-e", endpoint, "--timeout", "20000", "echo", text) for text in "ab")
        with held, waits:
            eventually(lambda: len(pids()) == 2, "another worker")
            os.kill(pids()[0], signal.SIGCONT)
            same((held.line(), held.ended()), ("a", 0))
            same((waits.line(), waits.ended()), ("b", 0))
        eventually(lambda: sum(map(is_alive, pids())) == 1 and workers(endpoint) == 1, "only one is left")
        same(len(pids()), 2)
        same(answer("zqcall", "-e", endpoint, "echo", "c"), (0, "c\n", ""))
        same((broker.end(), broker.stderr()), (0, ""))


@case("zqbrokerd --scale starts a worker that ends at once after longer and longer pauses, and says why")
def _():
    path, times = logged("pauses")
    broker, _ = crew(1, 1, "sh -c 'date +%%s%%N >> \"%s\"; exit 3'" % path)
    with broker:
        eventually(lambda: len(times()) == 4, "the fourth start")
        same(broker.end(), 0)
        log = broker.stderr()
    said = [int(pause) for pause in re.findall(r"the next worker of 'echo' in (\d+) ms", log)]
    same(said[:3], [250, 500, 1000])
    starts = times()
    for start, following, pause in zip(starts, starts[1:], said):
        assert following - start >= pause * 1000000, (starts, said)
    assert "ended at once, with status 3" in log, log


@case("zqbrokerd --scale: workers that do not end are killed at the second signal")
def _():
    path, notes = logged("stubborn")
    broker, _ = crew(1, 1, "sh -c 'trap \"echo 15 >> \\\"%s\\\"\" TERM; echo $$ >> \"%s\"; while :; do sleep 0.05; done'"
                     % (path, path))
    with broker:
        eventually(lambda: len(notes()) == 1, "it began")
        broker.process.send_signal(signal.SIGTERM)
        eventually(lambda: len(notes()) == 2, "it was told to end")
        same(broker.end(signal.SIGINT), 0)
        assert not is_alive(notes()[0])


for arguments in ("echo 1 2", "echo 0 2 true", "echo 1 x true", "echo 3 2 true"):
    @case("zqbrokerd --scale %s: status 2 and why" % arguments)
    def _(arguments=arguments):
        refused("zqbrokerd", "--bind", "tcp://127.0.0.1:*", "--scale", *arguments.split())


@case("zqbrokerd --scale: in the help; status 1 and why for a bad service")
def _():
    assert "--scale SERVICE MIN MAX COMMAND" in answer("zqbrokerd", "--help")[1]
    status, output, errors = answer("zqbrokerd", "--bind", "tcp://127.0.0.1:*", "--scale", "mmi.x", "1", "2", "true")
    assert (status, output) == (1, "") and "service mmi.x" in errors, (status, output, errors)


# ---- keys and passwords


def keys(name, *names):
    """A folder with fresh pairs of keys, as a function that gives the path of what is in it."""
    where = own_folder("keys-" + name)
    for pair in names:
        for path in glob.glob(os.path.join(where, pair + ".*")):
            os.remove(path)
        same(answer("zqkeygen", os.path.join(where, pair))[0], 0)
    return lambda file: os.path.join(where, file)


@contextlib.contextmanager
def secure_broker(*options):
    with Started("zqbrokerd", "--bind", "tcp://127.0.0.1:*", *options) as broker:
        endpoint = broker.line(r"bound (tcp://127\.0\.0\.1:\d+)")
        broker.line("ready")
        yield endpoint, broker


@case("zqkeygen: two files, the secret for its owner alone; nothing is overwritten")
def _():
    path = keys("files", "a")
    public, secret = read(path("a.public")), read(path("a.secret"))
    same([os.stat(path("a." + kind)).st_mode & 0o777 for kind in ("secret", "public")], [0o600, 0o644 & ~umask()])
    key = re.search(r'public-key = "(.{40})"', public).group(1)
    assert key in secret and "secret-key" in secret and "secret-key" not in public, (public, secret)
    for kind in ("secret", "public"):
        status, output, errors = answer("zqkeygen", path("a"))
        assert (status, output) == (1, "") and "File exists" in errors, (status, output, errors)
        same((read(path("a.public")), read(path("a.secret"))), (public, secret))
        os.remove(path("a." + kind))
        status, output, errors = answer("zqkeygen", path("a"))
        assert (status, output) == (1, "") and "File exists" in errors, (status, output, errors)
        same(os.path.exists(path("a." + kind)), False)
        write(path("a." + kind), {"secret": secret, "public": public}[kind])
    refused("zqkeygen")
    refused("zqkeygen", "a", "b")
    status, output, errors = answer("zqkeygen", path("nowhere/a"))
    assert (status, output) == (1, "") and "No such file" in errors, (status, output, errors)


def umask():
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@case("--curve-secret: who has keys is served; who has none, or those of another broker, is not")
def _():
    path = keys("curve", "broker", "alice", "eve")
    mine = ["--curve-server", path("broker.public"), "--curve", path("alice")]
    with secure_broker("--curve-secret", path("broker.secret")) as (endpoint, broker), \
            Started("zqecho", "-e", endpoint, *mine, "--print", "echo") as worker:
        same(answer("zqcall", "-e", endpoint, *mine, "echo", "hello"), (0, "hello\n", ""))
        same(answer("zqcall", "-e", endpoint, *mine[:2], "echo", "a new pair"), (0, "a new pair\n", ""))
        same(worker.line(), "echo: hello")
        same(answer("zqcall", "-e", endpoint, "echo", "x"), (1, "", "zqcall: echo: Protocol error\n"))
        same(answer("zqcall", "-e", endpoint, "--timeout", "100", "--retries", "0", "--curve-server",
                    path("eve.public"), "echo", "x"), (1, "", "zqcall: echo: Connection timed out\n"))
        with Started("zqecho", "-v", "-e", endpoint, "echo") as other:
            eventually(lambda: "another security mechanism" in other.stderr(), "the worker says why")
        same(broker.stderr(), "")


@case("a secret that others may read is not used")
def _():
    path = keys("open", "a", "b")
    os.chmod(path("a.secret"), 0o640)
    status, output, errors = answer("zqbrokerd", "--bind", "tcp://127.0.0.1:*", "--curve-secret", path("a.secret"))
    assert (status, output) == (1, "") and "not permitted" in errors, (status, output, errors)
    for name, service in (("zqcall", ["echo", "x"]), ("zqecho", ["echo"])):
        status, output, errors = answer(name, "-e", "tcp://127.0.0.1:1", "--curve-server", path("b.public"), "--curve",
                                        path("a"), *service)
        assert (status, output) == (1, "") and "not permitted" in errors, (status, output, errors)


@case("--plain: without a handler nobody gets in; passwords come from files of their owner alone")
def _():
    path = keys("plain")
    write(path("password"), "wonder land\n")
    mine = ["--user", "alice", "--password-file", path("password")]
    os.chmod(path("password"), 0o640)
    for name, service in (("zqcall", ["echo", "x"]), ("zqecho", ["echo"])):
        status, output, errors = answer(name, "-e", "tcp://127.0.0.1:1", *mine, *service)
        assert (status, output) == (1, "") and "password file: Operation not permitted" in errors, (status, errors)
    os.chmod(path("password"), 0o600)
    with secure_broker("--plain") as (endpoint, _):
        same(answer("zqcall", "-e", endpoint, "--timeout", "100", "--retries", "0", *mine, "echo", "x"),
             (1, "", "zqcall: echo: Connection timed out\n"))
        same(answer("zqcall", "-e", endpoint, "echo", "x"), (1, "", "zqcall: echo: Protocol error\n"))


@case("options of security that do not fit together: status 2 and why")
def _():
    refused("zqbrokerd", "--bind", "tcp://127.0.0.1:*", "--plain", "--curve-secret", "x")
    for name, service in (("zqcall", ["echo", "x"]), ("zqecho", ["echo"])):
        for options in (["--curve", "x"], ["--user", "x"], ["--password-file", "/nowhere"],
                        ["--curve-server", "x", "--user", "x"]):
            refused(name, "-e", "tcp://127.0.0.1:1", *options, *service)
    refused("zqecho", "-e", "tcp://127.0.0.1:1", "--lru", "--curve-server", "x")


@case("zqbrokerd warns of endpoints that others reach, if it asks for nothing")
def _():
    path = keys("warn", "broker")
    for endpoint, options, warned in (("tcp://*:*", [], 1), ("tcp://127.0.0.1:*", [], 0),
                                      ("tcp://*:*", ["--curve-secret", path("broker.secret")], 0)):
        with Started("zqbrokerd", "--bind", endpoint, *options) as broker:
            broker.line("bound .*")
            broker.line("ready")
            same("warning" in broker.stderr(), bool(warned))


@case("zqbrokerd warns of keys and users in --auth that nobody is asked for")
def _():
    path = keys("unasked", "broker")
    write(path("auth"), "allow 127.0.0.1\n")
    for options, warned in (([], 1), (["--plain"], 0), (["--curve-secret", path("broker.secret")], 0)):
        with secure_broker("--auth", path("auth"), *options) as (_, broker):
            same("only the addresses count" in broker.stderr(), bool(warned))


# ---- who gets in, and may do what


def public_key(path):
    return re.search(r'public-key = "(.{40})"', read(path)).group(1)


def mine(path, name):
    """The options of who has this pair of keys."""
    return ["--curve-server", path("broker.public"), "--curve", path(name)]


def with_lists(name, auth, rules=None):
    """(where the keys of broker, alice and bob are, options of zqbrokerd). {alice} in a text is her public key."""
    path = keys(name, "broker", "alice", "bob")
    options = ["--curve-secret", path("broker.secret"), "--auth", list_of(path, auth)]
    if rules is not None:
        write(path("rules"), rules)
        options += ["--rules", path("rules")]
    return path, options


def list_of(path, text):
    """Writes the file for --auth, as it should be done: half a file is never there."""
    write(path("new"), text.replace("{alice}", public_key(path("alice.public")))
          .replace("{bob}", public_key(path("bob.public"))))
    os.replace(path("new"), path("auth"))
    return path("auth")


NOT_ALLOWED = (1, "", "zqcall: echo: not allowed\n")
NO_ENTRY = (1, "", "zqcall: echo: Permission denied\n")


@case("--auth: who is in the file is served, who is not is refused; SIGHUP lets in who is in it then, and others go")
def _():
    path, options = with_lists("auth", "curve {alice} alice\n")
    with secure_broker(*options) as (endpoint, broker), Started("zqecho", "-e", endpoint, *mine(path, "alice"), "echo"):
        def call(who):
            return answer("zqcall", "-e", endpoint, *mine(path, who), "echo", "x")
        same(call("alice"), (0, "x\n", ""))
        same(call("bob"), NO_ENTRY)
        same(answer("zqcall", "-e", endpoint, *mine(path, "alice")[:2], "echo", "x"), NO_ENTRY)
        list_of(path, "curve {alice} alice\ncurve {bob} bob\n")
        same(call("bob"), NO_ENTRY)
        broker.process.send_signal(signal.SIGHUP)
        broker.line("reloaded")
        same((call("bob"), call("alice")), ((0, "x\n", ""),) * 2)
        list_of(path, "curve {bob} bob\n")
        broker.process.send_signal(signal.SIGHUP)
        broker.line("reloaded")
        same(call("alice"), NO_ENTRY)
        same(answer("zqcall", "-e", endpoint, *mine(path, "bob"), "mmi.service", "echo"), (0, "404\n", ""))
        same((broker.end(), broker.stderr()), (0, ""))


@case("--auth: a file that is wrong when it is read again changes nothing, and the line is told")
def _():
    path, options = with_lists("wrong", "curve {alice} alice\n", "allow * call,serve *\n")
    with secure_broker(*options) as (endpoint, broker), Started("zqecho", "-e", endpoint, *mine(path, "alice"), "echo"):
        def call(who):
            return answer("zqcall", "-e", endpoint, *mine(path, who), "echo", "x")
        for file, text in (("auth", "curve {alice} alice\nnonsense\n"), ("rules", "allow * call,serve *\nnonsense\n")):
            right = read(path(file))
            write(path(file), text.replace("{alice}", public_key(path("alice.public"))))
            before = len(broker.stderr())
            broker.process.send_signal(signal.SIGHUP)
            eventually(lambda: "not reloaded" in broker.stderr()[before:], "it says so")
            said = broker.stderr()[before:]
            assert path(file) + ", line 2: " in said and path(file) + ": Invalid argument" in said, said
            same((call("alice"), call("bob")), ((0, "x\n", ""), NO_ENTRY))
            write(path(file), right)
            broker.process.send_signal(signal.SIGHUP)
            broker.line("reloaded")
        same(broker.end(), 0)


@case("--auth with --plain: passwords of the file")
def _():
    path = keys("passwords")
    for name, text in (("auth", "plain alice wonderland\n"), ("right", "wonderland\n"), ("wrong", "wonder\n")):
        write(path(name), text)
        os.chmod(path(name), 0o600)
    with secure_broker("--plain", "--auth", path("auth")) as (endpoint, broker), \
            Started("zqecho", "-e", endpoint, "--user", "alice", "--password-file", path("right"), "echo"):
        for user, password, result in (("alice", "right", (0, "x\n", "")), ("alice", "wrong", NO_ENTRY),
                                       ("bob", "right", NO_ENTRY)):
            same(answer("zqcall", "-e", endpoint, "--user", user, "--password-file", path(password), "echo", "x"),
                 result)
        same((broker.end(), broker.stderr()), (0, ""))
    os.chmod(path("auth"), 0o644)
    status, output, errors = answer("zqbrokerd", "--bind", "tcp://127.0.0.1:*", "--plain", "--auth", path("auth"))
    assert (status, output) == (1, "") and "not permitted" in errors, (status, output, errors)


@case("--rules: who may not call hears so, who may not serve is no worker; SIGHUP changes them for who is there")
def _():
    path, options = with_lists("rules", "curve {alice} alice\ncurve {bob} bob\n",
                               "allow alice call,serve,manage *\nallow bob call other\n")
    with secure_broker(*options) as (endpoint, broker):
        def call(who, *more):
            return answer("zqcall", "-e", endpoint, *mine(path, who), *(more or ("echo", "x")))
        with Started("zqecho", "-v", "-e", endpoint, *mine(path, "bob"), "echo") as other:
            eventually(lambda: "not allowed" in other.stderr(), "the worker says why")
            same(call("alice", "mmi.service", "echo"), (0, "404\n", ""))
        with Started("zqecho", "-e", endpoint, *mine(path, "alice"), "echo"):
            same((call("alice"), call("bob")), ((0, "x\n", ""), NOT_ALLOWED))
            same(call("bob", "mmi.service", "echo"), (1, "", "zqcall: mmi.service: not allowed\n"))
            write(path("rules"), "allow alice serve,call,manage *\nallow bob call echo\n")
            broker.process.send_signal(signal.SIGHUP)
            broker.line("reloaded")
            same(call("bob"), (0, "x\n", ""))
        counted = numbers(" ".join(call("alice", "mmi.stats")[1].splitlines()))
        assert counted["denied_call"] == 2 and counted["denied_serve"] >= 1, counted
        same((broker.end(), broker.stderr()), (0, ""))


@case("--allow: only these addresses, with and without keys")
def _():
    path = keys("allow", "broker")
    for options, more in (([], []),
                          (["--curve-secret", path("broker.secret")], ["--curve-server", path("broker.public")])):
        with secure_broker("--allow", "192.0.2.0/24", "--allow", "2001:db8::/32", *options) as (endpoint, _):
            same(answer("zqcall", "-e", endpoint, *more, "echo", "x"), NO_ENTRY)
    with secure_broker("--allow", "192.0.2.0/24", "--allow", "127.0.0.0/8") as (endpoint, broker), \
            Started("zqecho", "-e", endpoint, "echo"):
        same(answer("zqcall", "-e", endpoint, "echo", "x"), (0, "x\n", ""))
        same((broker.end(), broker.stderr()), (0, ""))
    assert "192.0.2.0/33" in refused("zqbrokerd", "--bind", "tcp://127.0.0.1:*", "--allow", "192.0.2.0/33")


@case("--auth and --rules: status 1 and why if the file is not there or wrong, and nothing is bound; in the help")
def _():
    text = answer("zqbrokerd", "--help")[1]
    assert all(option in text for option in ("--auth FILE", "--rules FILE", "--allow CIDR", "SIGHUP")), text
    path = keys("missing")
    write(path("wrong"), "nonsense\n")
    for option in ("--auth", "--rules"):
        for file, reason in (("nowhere", "No such file"), ("wrong", "line 1")):
            status, output, errors = answer("zqbrokerd", "--bind", "tcp://127.0.0.1:*", option, path(file))
            assert (status, output) == (1, "") and path(file) in errors and reason in errors, (status, output, errors)


if __name__ == "__main__":
    main()
