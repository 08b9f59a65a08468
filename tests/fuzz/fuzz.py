#!/usr/bin/env python3
"""Lets fuzzers run for a while, one behind the other, and tells the result of each in TAP.

    fuzz.py [--seconds N] [--build FOLDER] fuzz_wire fuzz_broker ...

FOLDER has the programs and seeds/NAME. What the fuzzers find worth keeping goes to FOLDER/corpus/NAME, from where the
next run goes on; a script that breaks something to FOLDER/crashes/NAME-..., and `FOLDER/NAME that-file` shows it again.
What was broken once is put into tests/fuzz/kept/NAME by hand, and is run by `make fuzz-replay`.
"""
import argparse
import glob
import os
import re
import subprocess
import sys

# Each message of libzmq is a small piece of memory: a large quarantine only costs time.
ASAN = "quarantine_size_mb=8:detect_stack_use_after_return=0:allocator_may_return_null=1"


# How long scripts may be: messages are read by themselves, so short ones show as much.
LONGEST = {"fuzz_wire": 256}


def run(build, name, seconds):
    """(passed, what to say, output)"""
    corpus, crashes = os.path.join(build, "corpus", name), os.path.join(build, "crashes")
    for folder in (corpus, crashes):
        os.makedirs(folder, exist_ok=True)
    prefix = os.path.join(crashes, name + "-")
    command = [os.path.join(build, name), "-max_total_time=%d" % seconds, "-max_len=%d" % LONGEST.get(name, 768), "-timeout=20",
               "-rss_limit_mb=1500", "-print_final_stats=1", "-reload=0", "-verbosity=1",
               "-artifact_prefix=" + prefix, corpus, os.path.join(build, "seeds", name)]
    before = set(glob.glob(prefix + "*"))
    environment = dict(os.environ, ASAN_OPTIONS=ASAN, UBSAN_OPTIONS="print_stacktrace=1")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=environment, universal_newlines=True, errors="replace", timeout=seconds + 120)
    return done.returncode == 0, told(name, done.stdout, sorted(set(glob.glob(prefix + "*")) - before)), done.stdout


def told(name, output, crashes):
    number = lambda pattern: (re.findall(pattern, output) or ["0"])[-1]
    text = "%s: %s executions (%s a second), %s edges, %s features" % (
        name, number(r"stat::number_of_executed_units: *(\d+)"), number(r"stat::average_exec_per_sec: *(\d+)"),
        number(r"\bcov: (\d+)"), number(r"\bft: (\d+)"))
    return text + (", broken by " + " ".join(crashes) if crashes else "")


def why(output):
    """The lines of a crash that say why, and where in our code."""
    lines = [line for line in output.split("\n")
             if re.search(r"^fuzz: |ERROR: |runtime error|^ +#\d+ .*(zqbroker|fuzz_|world)\S*:\d+", line)]
    return "".join("# %s\n" % line.strip() for line in lines[:40])


def main():
    options = argparse.ArgumentParser(usage=__doc__)
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--build", default="tests/build/fuzz")
    options.add_argument("names", nargs="+")
    options = options.parse_args()
    print("1..%d" % len(options.names), flush=True)
    failed = 0
    for number, name in enumerate(options.names, 1):
        passed, text, output = run(options.build, name, options.seconds)
        failed += not passed
        print("%sok %d - %s" % ("" if passed else "not ", number, text), flush=True)
        if not passed:
            print(why(output), end="", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
