"""Runs classes of test cases, each in a process of its own, and tells the results in TAP.

    PROGRAM [-j JOBS] [PART OF A NAME]...       runs the tests whose name contains one of these, or all

Prints "ok N - name", "not ok N - name" with what went wrong as comments, or "ok N - name # SKIP why", and at last one
line "N passed, N failed".
"""

import argparse
import multiprocessing
import re
import time
import unittest

OK, NOT_OK, SKIPPED = range(3)


class Results(unittest.TestResult):
    """Keeps (name, OK or NOT_OK or SKIPPED, what went wrong or why it was skipped) of each test case."""

    def __init__(self):
        super().__init__()
        self.cases, self.broken, self.skipping = [], None, None

    def startTest(self, test):
        super().startTest(test)
        self.broken = self.skipping = None

    def stopTest(self, test):
        """An error in a cleanup comes on top of one in the test, which stays one test case."""
        self.note(test, self.broken, self.skipping)
        super().stopTest(test)

    def addError(self, test, error):
        if isinstance(test, unittest.TestCase):
            self.broken = self.broken or error
        else:       # setUpClass or tearDownClass
            self.note(test, error)

    def addFailure(self, test, error):
        self.broken = self.broken or error

    def addSkip(self, test, reason):
        if isinstance(test, unittest.TestCase):
            self.skipping = reason
        else:       # the whole class, by setUpClass
            self.note(test, None, reason)

    def note(self, test, error, skipping=None):
        if error:
            lines = self._exc_info_to_string(error, test).splitlines()
            self.cases.append((self.name(test), NOT_OK, "".join("#   %s\n" % line for line in lines)))
        else:
            self.cases.append((self.name(test), SKIPPED if skipping else OK, skipping))

    @staticmethod
    def name(test):
        """Without the module."""
        return re.sub(r"\b[a-z_]+\.(?=[A-Z])", "", test.id())


def names_of(case, parts):
    """The tests of a class whose name contains one of the parts."""
    names = unittest.defaultTestLoader.getTestCaseNames(case)
    return [name for name in names if not parts or any(part in "%s.%s" % (case.__name__, name) for part in parts)]


def run_class(job):
    """In a process of its own, which began without any context of libzmq."""
    case, tests = job
    results = Results()
    unittest.TestSuite(map(case, tests)).run(results)
    return results.cases


def tell(number, name, result, text):
    print("%s %d - %s%s" % ("not ok" if result == NOT_OK else "ok", number, name,
                            " # SKIP " + text if result == SKIPPED else ""))
    if result == NOT_OK:
        print(text, end="", flush=True)


def run(names, description):
    """Runs the test cases among these names of a module, and gives the exit status."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("-j", "--jobs", type=int, default=4, help="classes at a time (4), as they mostly wait")
    parser.add_argument("part", nargs="*", help="run only tests whose name contains one of these")
    options = parser.parse_args()

    began, told = time.monotonic(), []
    cases = [case for case in names.values() if isinstance(case, type) and issubclass(case, unittest.TestCase)]
    jobs = [(case, tests) for case in cases if (tests := names_of(case, options.part))]
    with multiprocessing.Pool(options.jobs) as pool:
        for results in pool.imap(run_class, jobs, chunksize=1):
            for name, result, text in results:
                told.append(result)
                tell(len(told), name, result, text)
    print("# %.0f seconds" % (time.monotonic() - began))
    print("%d passed, %d failed" % (told.count(OK), told.count(NOT_OK)))
    return 1 if told.count(NOT_OK) or not told else 0
