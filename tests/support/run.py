#!/usr/bin/env python3
"""Runs test programs and adds up their test cases.

    run.py [--title TEXT] [--timeout SECONDS] [--jobs N] [LABEL:: ]COMMAND...

Each command is a line for the shell. It tells its test cases in TAP (`ok 1 - name`, `not ok 2 - name`, `# SKIP`) or,
at its end, as `N passed, N failed`. A program that fails, hangs or crashes without a failed case counts as one, and
so does one that tells nothing, and each case that it promised (`1..N`) and never ran. The output of what failed is
printed whole. Each program gets a process group of its own, which is killed when its time is over.

The last line is `N passed, N failed`. For a run that is a part of a larger one, two variables of the environment:
ZQB_RESULTS is a file to which "passed failed" is appended, and the last line then starts with the title;
ZQB_DEADLINE is the second since 1970 at which everything ends.
"""
import argparse
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

CASE = re.compile(r"^(not )?ok\b(.*)$", re.MULTILINE)
PLAN = re.compile(r"^1\.\.(\d+)", re.MULTILINE)
TOTAL = re.compile(r"^(\d+) passed, (\d+) failed\b", re.MULTILINE)
SKIP = re.compile(r"#\s*skip\b\s*(.*)", re.IGNORECASE)

running = set()


class Result:
    def __init__(self, label, output, status, seconds):
        self.label, self.output, self.status, self.seconds = label, output, status, seconds
        self.passed, self.failed, self.skipped = count(output)
        if status != 0 and not self.failed:
            self.failed = 1
        if not self.passed + self.failed + len(self.skipped):
            self.failed = 1
            self.output += "\nrun.py: it reported no test case\n"


def count(output):
    """(passed, failed, [what was skipped]) in the output of a program."""
    cases = CASE.findall(output)
    if not cases:
        totals = TOTAL.findall(output)
        return (int(totals[-1][0]), int(totals[-1][1]), []) if totals else (0, 0, [])
    skipped = [skip.group(1) for _, text in cases for skip in [SKIP.search(text)] if skip]
    failed = sum(1 for no, text in cases if no and not SKIP.search(text))
    never_ran = sum(map(int, PLAN.findall(output))) - len(cases)
    return len(cases) - len(skipped) - failed, failed + max(0, never_ran), skipped


def kill_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def give_up(number, _):
    for process in list(running):
        kill_group(process)
    os._exit(128 + number)


def run(task, timeout):
    label, _, command = task.rpartition(":: ")
    deadline = float(os.environ.get("ZQB_DEADLINE", "inf"))
    timeout = max(0.1, min(timeout, deadline - time.time()))
    started = time.monotonic()
    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=file,
                                   stderr=subprocess.STDOUT, start_new_session=True)
        running.add(process)
        ending = ""
        try:
            process.wait(timeout)
            if process.returncode < 0 or process.returncode > 128:
                number = -process.returncode if process.returncode < 0 else process.returncode - 128
                ending = "\nrun.py: ended by signal %d\n" % number
        except subprocess.TimeoutExpired:
            ending = "\nrun.py: killed after %.0f seconds\n" % timeout
        finally:
            kill_group(process)  # it, if its time is over, and in any case what it left behind
            process.wait()
            running.discard(process)
        file.seek(0)
        output = file.read().decode("utf-8", "replace") + ending
    return Result(label or command, output, process.returncode, time.monotonic() - started)


def show(result):
    text = "%-5s %-32s %4d cases %7.1f s" % (
        "FAIL" if result.failed else "ok", result.label, result.passed + result.failed, result.seconds)
    if result.failed:
        text += "   %d failed\n" % result.failed
        text += "\n".join("    | " + line for line in result.output.strip().split("\n"))
    for reason in result.skipped:
        text += "\n      skipped: " + (reason or "no reason given")
    print(text, flush=True)


def main():
    options = argparse.ArgumentParser(usage=__doc__)
    options.add_argument("--title", default="tests")
    options.add_argument("--timeout", type=float, default=60)
    options.add_argument("--jobs", type=int, default=1)
    options.add_argument("tasks", nargs="*")
    options = options.parse_args()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, give_up)
    results = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for done in concurrent.futures.as_completed([pool.submit(run, t, options.timeout) for t in options.tasks]):
            results.append(done.result())
            show(results[-1])

    passed, failed = sum(r.passed for r in results), sum(r.failed for r in results)
    total = "%d passed, %d failed" % (passed, failed)
    if "ZQB_RESULTS" in os.environ:
        with open(os.environ["ZQB_RESULTS"], "a") as file:
            file.write("%d %d\n" % (passed, failed))
        total = options.title + ": " + total
    print(total)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
