"""What fails in the second process fails the suite."""

import sys
import unittest
from unittest import mock

import second_process
from tiny import InFolder

TESTS = """
import os, unittest

class Test(unittest.TestCase):
    def test_good(self):
        pass

    def test_bad(self):
        self.assertEqual(1, 2)

    def test_one_of_its_parts_is_bad(self):
        for value in range(2):
            with self.subTest(value=value):
                self.assertEqual(value, 0)

    def test_mistake(self):
        raise KeyError("a mistake")

    @unittest.skip("not here")
    def test_left_out(self):
        pass

    def test_end(self):
        if ENDS:
            os._exit(3)

class TestWithoutStart(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise OSError("no start")

    def test_never_begun(self):
        pass
"""


class TestSecondProcess(InFolder):
    def ran(self, name: str, source: str) -> unittest.TestResult:
        (self.folder / f"{name}.py").write_text(source)
        path = mock.patch.object(sys, "path", [*sys.path, str(self.folder)])
        with path, mock.patch.object(second_process, "SECOND", (name,)):
            none = unittest.TestSuite()
            suite = second_process.InTwoProcesses(none, unittest.TestLoader())
            return suite.run(unittest.TestResult())

    def test_every_test_is_reported_with_how_it_ended(self):
        result = self.ran("in_second", TESTS.replace("ENDS", "False"))
        self.assertEqual(result.testsRun, 7)
        failures = {test.id().split(".")[-1]: text for test, text in result.failures}
        self.assertEqual(set(failures), {"test_bad", "test_one_of_its_parts_is_bad"})
        self.assertIn("1 != 2", failures["test_bad"])
        self.assertIn("value=1", failures["test_one_of_its_parts_is_bad"])
        self.assertEqual(len(result.errors), 2)
        for words, (_, text) in zip(("a mistake", "no start"), result.errors, strict=True):
            self.assertIn(words, text)
        self.assertEqual([reason for _, reason in result.skipped], ["not here"])

    def test_a_process_that_ends_early_is_an_error(self):
        result = self.ran("ends_early", TESTS.replace("ENDS", "True"))
        self.assertEqual((result.testsRun, len(result.errors)), (7, 7))
        for _, text in result.errors:
            self.assertIn("ended with code 3", text)


if __name__ == "__main__":
    unittest.main()
