"""`run_main` in a process, as what matters is also what Python does at its end."""

import os
import subprocess
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import evaluate


class TestImports(unittest.TestCase):
    def test_neither_training_nor_a_report_needs_an_entropy_coder(self):
        script = "import sys, evaluate, train_pl; sys.exit('constriction' in sys.modules)"
        root = Path(evaluate.__file__).parent
        self.assertEqual(subprocess.run([sys.executable, "-c", script], cwd=root).returncode, 0)


class TestMain(unittest.TestCase):
    """`run_main` in a process, as what matters is also what Python does at its end."""

    def ending(self, work: str, closed: bool = False, **how: object) -> tuple[int, str, str]:
        script = (
            "import argparse, sys\n"
            "from boundary.command_line import InputError, OneLineParser, WorkError, run_main\n"
            f"def work():\n    {work}\n"
            "parser = OneLineParser(prog='prog')\nrun_main(parser, work)\n"
        )
        shell = 'exec "$0" "$@"' + (" >&-" if closed else "")
        result = subprocess.run(
            ["sh", "-c", shell, sys.executable, "-c", script],
            cwd=Path(evaluate.__file__).parent,
            stderr=subprocess.PIPE,
            text=True,
            **({"stdout": subprocess.PIPE} | how),
        )
        return result.returncode, result.stdout, result.stderr

    def test_every_end_has_its_exit_code_and_one_line(self):
        cases = (
            ("print(1)", (0, "1\n", "")),
            ("print(1); raise InputError('bad')", (2, "1\n", "prog: error: bad\n")),
            ("raise WorkError('lost')", (1, "", "prog: lost\n")),
            ("raise OSError('no room')", (1, "", "prog: no room\n")),
            ("open('/no/file')", (1, "", "prog: /no/file: No such file or directory\n")),
            ("parser.parse_args(['x'])", (2, "", "prog: error: unrecognized arguments: x\n")),
        )
        mistake = "raise KeyError('a mistake of ours')"
        with ThreadPoolExecutor() as threads:
            *endings, (code, _, error) = threads.map(
                self.ending, [*(work for work, _ in cases), mistake]
            )
        for (work, expected), ending in zip(cases, endings, strict=True):
            with self.subTest(work):
                self.assertEqual(ending, expected)
        self.assertEqual(code, 1)
        self.assertIn("Traceback", error)

    def test_an_output_that_cannot_be_written_is_one_line(self):
        def endings(work: str) -> list[tuple[int, str, str]]:
            with open("/dev/full", "w") as full:
                to_full = self.ending(work, stdout=full)
            reading, writing = os.pipe()
            os.close(reading)
            with open(writing, "w") as unread:
                return [to_full, self.ending(work, stdout=unread)]

        works = ("print(1)", "print(1, flush=True)", "parser.print_help()")
        with ThreadPoolExecutor() as threads:
            found = dict(zip(works, threads.map(endings, works), strict=True))
        for work, ending in found.items():
            with self.subTest(work):
                nobody = (1, None, "prog: nobody reads the output any more\n")
                quiet = (0, None, "")  # argparse itself gives up on the help that nobody reads
                full = (1, None, "prog: output: No space left on device\n")
                self.assertEqual(ending, [full, quiet if "help" in work else nobody])
        self.assertEqual(self.ending("print(1)", closed=True), (0, "", ""))

    def test_signs_that_the_output_does_not_have_become_question_marks(self):
        ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
        self.assertEqual(self.ending("print('1 ± 2')", env=ascii_only), (0, "1 ? 2\n", ""))


if __name__ == "__main__":
    unittest.main()
