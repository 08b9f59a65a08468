#!/usr/bin/env python3
"""Counts the instructions that a request costs, with callgrind, and fails if they are more than they were.

    cost.py PROGRAM            the program is tests/bench/cost.c

Instructions do not depend on how fast or how busy the machine is. They do on compiler and libraries, so there is a tenth of
room above what gcc 12 and libzmq 4.3.4 have; a change that takes away work should take it away from the limit, too.
"""
import os
import re
import subprocess
import sys

ROUNDS, REQUESTS = 20, 100  # of a round

# What is counted: name, arguments of the program behind the rounds, the most that a request may cost, and what it did
# before requests could ask for anything.
LIMITS = [
    ("the engine's part of a request", "engine", [1, 0, 0, 0], 1540, 1408),
    ("a request from client to worker and back, with libzmq's part", "path", [], 4900, 4612),
]

# What a request may ask for, and how many times as much the engine may have to do for it.
OPTIONS = [("priority", 1.8), ("attempts", 2.2), ("deadline", 2.3), ("affinity", 2.4), ("unique", 3.3)]

# What must not matter: the ratio to the engine with one worker and nothing else.
SCALES = [
    ("10,000 workers", [10000, 0, 0, 0]),
    ("100,000 requests queued for another service", [1, 100000, 0, 0]),
    ("50,000 other services", [1, 0, 50000, 0]),
    ("50,000 other clients, each with a request queued", [1, 0, 0, 50000]),
]
RULES = [10, 1000]  # what they say is remembered, so that it does not matter how many there are
DENIED = [10, 1000, 65000]  # what they deny is not, of services that nobody knows, and yet costs no more with many
SAME = 1.02
SAME_DENIED = 1.1  # tables of hashes are more or less full


def instructions(program, mode, rounds, numbers):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=" + os.devnull, program, mode, str(rounds)]
    run = subprocess.run(command + [str(number) for number in numbers], stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, universal_newlines=True)
    counted = re.search(r"Collected : (\d+)", run.stdout)
    if run.returncode or not counted:
        sys.exit("not ok - %s\n%s" % (" ".join(command), run.stdout))
    return int(counted.group(1))


def per_request(program, mode, numbers):
    """What one more request costs: the difference between two runs leaves out how everything starts and ends."""
    short, long = (instructions(program, mode, rounds, numbers) for rounds in (ROUNDS, 2 * ROUNDS))
    return (long - short) / float(ROUNDS * REQUESTS)


def main():
    program, failed, count = sys.argv[1], 0, 0

    def tell(good, text):
        nonlocal failed, count
        count += 1
        failed += not good
        print("%sok %d - %s" % ("" if good else "not ", count, text), flush=True)

    for name, mode, numbers, most, before in LIMITS:
        cost = per_request(program, mode, numbers)
        tell(cost <= most, "%s: %.0f instructions, at most %d; %+.1f %% for the options that it does not use"
             % (name, cost, most, 100 * cost / before - 100))
    alone = per_request(program, "engine", [1, 0, 0, 0])
    for name, numbers in SCALES:
        ratio = per_request(program, "engine", numbers) / alone
        tell(ratio <= SAME, "beside %s a request costs %.3f times as many, at most %.2f" % (name, ratio, SAME))
    for rules in RULES:
        ratio = per_request(program, "engine", [1, 0, 0, 0, "-", rules]) / alone
        tell(ratio <= SAME, "with %d rules a request costs %.3f times as many, at most %.2f" % (rules, ratio, SAME))
    few = per_request(program, "denied", [DENIED[0]])
    for rules in DENIED[1:]:
        ratio = per_request(program, "denied", [rules]) / few
        tell(ratio <= SAME_DENIED, "with %d rules what is denied costs %.3f times as many as with %d, at most %.2f"
             % (rules, ratio, DENIED[0], SAME_DENIED))
    for name, most in OPTIONS:
        ratio = per_request(program, "engine", [1, 0, 0, 0, name]) / alone
        tell(ratio <= most, "one with %s costs the engine %.2f times as much, at most %.1f" % (name, ratio, most))
    print("1..%d" % count)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
