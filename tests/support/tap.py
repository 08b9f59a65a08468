"""Test cases in Python that tell their results in TAP, and what they have in common.

    @case("the promise that is tested")
    def _():
        assert ...

    main()          runs them all, or those whose promise contains a word given as an argument
"""
import concurrent.futures
import os
import shlex
import shutil
import subprocess
import sys
import threading
import traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, "tests", "build")
HEADER = os.path.join(TOP, "zqbroker.h")
CC = shlex.split(os.environ.get("CC", "cc"))

MOST_LINES = 60  # that are shown of a failure

_cases = []


class Skip(Exception):
    """Raised by a case that cannot be tried here, with the reason."""


def case(promise):
    def add(function):
        _cases.append((promise, function))
        return function
    return add


def run(command, timeout=60, **more):
    """Runs a command in the folder of the project; its status is .returncode, its output and errors .stdout."""
    more = {"cwd": TOP, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, **more}
    return subprocess.run(command, timeout=timeout, universal_newlines=True, **more)


def must(command, **more):
    """Runs a command that has to succeed, and returns its output."""
    done = run(command, **more)
    assert done.returncode == 0, "status %d from: %s\n%s" % (
        done.returncode, command if isinstance(command, str) else " ".join(command), done.stdout)
    return done.stdout


def zmq_flags(what):
    """The flags (--cflags or --libs) of libzmq."""
    try:
        found = run(["pkg-config", what, "libzmq"], stderr=subprocess.DEVNULL)
        if found.returncode == 0:
            return found.stdout.split()
    except FileNotFoundError:
        pass
    return ["-lzmq"] if what == "--libs" else []


def tool(name):
    """The name of a program; skips the case where there is none."""
    if not shutil.which(name):
        raise Skip("there is no %s here" % name)
    return name


def folder(*name):
    """An empty folder of that name below tests/build."""
    path = os.path.join(BUILD, *name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def write(path, text):
    with open(path, "w") as file:
        file.write(text)
    return path


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def first_program():
    """The program at the top of the header."""
    lines = read(HEADER).split("\n")
    start = lines.index("        #define ZQBROKER_IMPLEMENTATION")
    end = lines.index("        }", lines.index("        int main (void)")) + 1
    return "\n".join(line[8:] for line in lines[start:end]) + "\n"


def same(got, expected):
    assert got == expected, "got:\n%s\nexpected:\n%s" % (got, expected)


def _outcome(number, promise, function):
    try:
        function()
        return True, "ok %d - %s" % (number, promise)
    except Skip as reason:
        return True, "ok %d - %s # SKIP %s" % (number, promise, reason)
    except Exception as failure:  # noqa: BLE001 - whatever it is, the case failed
        text = str(failure) if isinstance(failure, AssertionError) and str(failure) else traceback.format_exc()
        lines = text.strip().split("\n")
        if len(lines) > MOST_LINES:
            lines[MOST_LINES:] = ["... and %d lines more" % (len(lines) - MOST_LINES)]
        return False, "not ok %d - %s\n%s" % (number, promise, "\n".join("# " + x for x in lines))


def main(jobs=2):
    cases = [(p, f) for p, f in _cases if all(word in p for word in sys.argv[1:])]
    print("1..%d" % len(cases), flush=True)
    good, lock = [], threading.Lock()

    def one(numbered):
        number, (promise, function) = numbered
        passed, text = _outcome(number, promise, function)
        with lock:
            good.append(passed)
            print(text, flush=True)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, enumerate(cases, 1)))
    sys.exit(0 if all(good) else 1)
