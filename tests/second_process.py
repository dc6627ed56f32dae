"""Some of the tests in a process of their own, as two cores are almost twice as fast as one."""

import json
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import torch
from forked import Forked

# About as long as all others together, on a core each.
SECOND = ("test_runs", "test_hostile", "test_training", "test_precision", "test_logs")


def run_tests(names: tuple[str, ...], patterns: list[str] | None, report: Path) -> None:
    """For a process of its own: writes how the tests of these modules ended, as JSON.

    Args:
        patterns: of the names of tests, as after -k; None for all.
    """
    result, loader = unittest.TestResult(), unittest.TestLoader()
    loader.testNamePatterns = patterns
    loader.loadTestsFromNames(names).run(result)
    kinds = {"Failure": result.failures, "Error": result.errors, "Skip": result.skipped}
    ends = [(test.id(), kind, text) for kind, some in kinds.items() for test, text in some]
    ends += [(test.id(), "Failure", "unexpected success") for test in result.unexpectedSuccesses]
    report.write_text(json.dumps(ends))


class InTwoProcesses(unittest.TestSuite):
    """A suite whose tests of `SECOND` run beside its others, and are reported behind them."""

    def __init__(self, tests: unittest.TestSuite, loader: unittest.TestLoader):
        super().__init__(tests)
        self.patterns = loader.testNamePatterns
        self.second = loader.loadTestsFromNames(SECOND)

    def countTestCases(self) -> int:
        return super().countTestCases() + self.second.countTestCases()

    def run(self, result: unittest.TestResult, debug: bool = False) -> unittest.TestResult:
        if not self.second.countTestCases():
            return super().run(result, debug)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # more threads than cores wait for each other most of the time
        one = mock.patch.dict(os.environ, OMP_NUM_THREADS="1")
        with tempfile.TemporaryDirectory() as folder, one:
            report = Path(folder, "report")
            with Forked(run_tests, SECOND, self.patterns, report) as process:
                super().run(result, debug)
                code, _, complaints = process.ending(1000)
            if report.exists():
                ends = json.loads(report.read_text())
            else:
                lost = f"the process ended with code {code}\n{complaints}"
                ends = [(test.id(), "Error", lost) for test in flat(self.second)]
        torch.set_num_threads(threads)
        self.tell(ends, result)
        return result

    def tell(self, ends: list[tuple[str, str, str]], result: unittest.TestResult) -> None:
        """Reports the tests of `SECOND`.

        Args:
            ends: name, kind and text of what did not succeed.
        """
        tests = flat(self.second)
        for n, test in enumerate(tests):
            # A subtest's name begins with its test's; what no test is called, the last one tells.
            here = [end for end in ends if end[0].split(" ")[0] == test.id()]
            here = ends if n == len(tests) - 1 else here
            ends = [end for end in ends if end not in here]
            result.startTest(test)
            for name, kind, text in here:
                if kind == "Skip":
                    result.addSkip(test, text)
                else:
                    error = AssertionError(f"{name}, in the second process:\n{text}")
                    getattr(result, f"add{kind}")(test, (type(error), error, None))
            if not here:
                result.addSuccess(test)
            result.stopTest(test)


def flat(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    """Its tests, and those of the suites in it."""
    return [
        test
        for part in suite
        for test in (flat(part) if isinstance(part, unittest.TestSuite) else [part])
    ]
