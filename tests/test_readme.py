"""The README and docs/ hold: their code runs, their commands parse, their figures are right."""

import argparse
import json
import re
import shlex
import sys
import unittest
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from tiny import InFolder, finished_run, rows, run_command, tiny_data, without_pictures

import compare
import compress
import evaluate
import explore
import export
import sample
import train_pl
from runs.from_checkpoint import add_model
from train_pl import PRETRAINED, VAE, train_vae

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS, ROOT / "benchmarks" / "README.md"]
PROGRAMS = (train_pl, sample, evaluate, explore, compress, compare, export)
PARSERS = {f"{program.__name__}.py": program for program in PROGRAMS}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def snippets() -> dict[str, str]:
    """The code under "Make it yours" by the first words of the bold line above each block."""
    pattern = r"^\*\*([^*]+)\*\*[^\n]*\n```python\n(.*?)^```$"
    return dict(re.findall(pattern, README.read_text(), re.DOTALL | re.MULTILINE))


def commands(text: str) -> list[list[str]]:
    """The words of every command that is shown in a block or between backquotes."""
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    lines += [" ".join(shown.split()) for shown in re.findall(r"`(python [^`]+)`", text)]
    parts = [part for line in lines for part in line.split("&&")]
    return [words for part in parts if (words := shlex.split(part, comments=True))]


class TestSnippets(InFolder):
    """Each block under "Make it yours" as it stands there, on some hundred images."""

    def run_snippet(self, title: str) -> tuple[dict[str, object], str]:
        """The names that the code of the README leaves behind, and its output."""
        names: dict[str, object] = {"__name__": "readme"}
        torch.manual_seed(0)
        with (
            tiny_data(),
            without_pictures(),
            chdir(self.folder),
            redirect_stderr(StringIO()),
            redirect_stdout(StringIO()) as output,
        ):
            exec(compile(snippets()[title], f"README: {title}", "exec"), names)
        return names, output.getvalue()

    def test_each_has_a_test(self):
        files = Path(__file__), ROOT / "tests" / "slow" / "test_export.py"
        texts = "".join(file.read_text() for file in files)
        self.assertEqual(sorted(snippets()), sorted(re.findall(r'\("(.+)"\)  # README', texts)))

    def test_own_networks_are_trained_tested_and_loaded(self):
        names, output = self.run_snippet("Your own networks")  # README
        bpd, shape = re.findall(r"^([\d.]+) bpd torch.Size\((.+)\)$", output, re.MULTILINE)[0]
        self.assertAlmostEqual(float(bpd), names["test"]["test_bpd"], places=3)
        self.assertEqual(shape, "[4, 1, 28, 28]")

    def test_own_loggers_get_the_figures_and_the_runs_are_compared(self):
        self.run_snippet("Your own loggers and callbacks")  # README
        code, said, _ = run_command(compare.main, *self.folder.glob("sweep/version_*"))
        self.assertEqual((code, said.splitlines()[1].split()[0]), (0, "3"))
        self.assertIn("±", said)
        table = rows(next(self.folder.glob("csv_logs/**/metrics.csv")))
        self.assertTrue(any(row["val_bpd"] for row in table))

    def test_optimiser_loss_and_logs_are_changed_where_the_table_says(self):
        class Changed(VAE):
            def make_optimizer(self):
                return torch.optim.AdamW(super().make_optimizer().param_groups, lr=1e-3)

            def objective(self, imgs, L_rec, L_reg, *latents):
                return super().objective(imgs, L_rec, L_reg.clamp(min=30), *latents)

            def _eval_step(self, stage, imgs):
                super()._eval_step(stage, imgs)
                self.log(f"{stage}_mean_std", self.encoder(imgs)[1].exp().mean())

        args = argparse.Namespace(epochs=1, log_dir=str(self.folder))
        with tiny_data(), without_pictures(), redirect_stdout(StringIO()):
            (test,) = train_vae(args, model=Changed(num_filters=2, z_dim=2))
        (epoch,) = rows(self.folder / "version_0" / "metrics.csv")
        for found in (float(epoch["val_mean_std"]), test["test_mean_std"]):
            self.assertTrue(0 < found < 2)
        told = re.findall(r"^\| .* \| `(\w+)` of `VAE`", README.read_text(), re.MULTILINE)
        self.assertEqual(set(told), {name for name in vars(Changed) if name[:2] != "__"})

    def test_the_code_of_the_other_pages_runs(self):
        for page in DOCS:
            names: dict[str, object] = {"__name__": page.stem}
            for code in blocks(page.read_text(), "python"):
                with self.subTest(page.name), tiny_data(), chdir(self.folder):
                    exec(compile(code, page.name, "exec"), names)
                if "archive" in names:
                    self.assertLess(len(names["archive"]), names["images"].size)
        tour = (ROOT / "docs" / "tour.ipynb").read_text()  # which runs among the slow tests
        exec("\n".join(re.findall(r'"((?:from|import) [^"\\]+)\\n', tour)), {})


class TestCommands(InFolder):
    def test_every_command_that_is_shown_is_one_and_its_options_exist(self):
        seen = set()
        (self.folder / "research.py").write_text("class Logistic: ...")  # of docs/research.md
        self.addCleanup(sys.modules.pop, "research", None)
        for page in PAGES:
            for words in commands(page.read_text()):
                script = next((word for word in words if word.endswith(".py")), "README.md")
                with self.subTest(page=page.name, command=" ".join(words)):
                    self.assertTrue((ROOT / script).is_file(), "no such file")
                    if script in PARSERS:
                        given = words[words.index(script) + 1 :]
                        parser = PARSERS[script].make_parser()
                        if script == "train_pl.py":
                            add_model(parser)
                        with chdir(self.folder):
                            parser.parse_args(given)  # or it exits
                        seen.add(script)
        self.assertEqual(seen, PARSERS.keys())

    def test_those_of_the_tests_are_what_ci_runs_and_the_one_of_a_class_names_one(self):
        shown = [words for words in commands(README.read_text()) if "unittest" in words]
        *both, (*_, once, name) = shown
        script = (ROOT / ".ci" / "run").read_text()
        run = re.findall(r"^ +counted (python .+)$", script, re.MULTILINE)
        self.assertEqual([shlex.join(words) for words in both], run)
        self.assertEqual(once, "-f")
        self.assertGreater(unittest.defaultTestLoader.loadTestsFromName(name).countTestCases(), 1)

    def test_the_files_of_a_run_are_where_the_readme_says(self):
        named = re.findall(r"^\|.*\| `(VAE_logs/\S+)` \|$", README.read_text(), re.MULTILINE)
        self.assertGreaterEqual(len(named), 5)
        for pattern in named:
            self.assertTrue(list(finished_run().folder.parent.parent.glob(pattern)), pattern)


class TestPages(unittest.TestCase):
    def test_the_readme_has_at_most_150_lines_of_at_most_100_characters(self):
        lines = README.read_text().splitlines()
        self.assertLessEqual(len(lines), 150)
        self.assertEqual([line for line in lines if len(line) > 100], [])

    def test_links_and_pictures_lead_to_files(self):
        for page in PAGES:
            for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
                if "://" not in target:
                    path = page.parent / target.split("#")[0]
                    self.assertTrue(path.is_file(), f"{page.name}: {target}")
            for named in re.findall(r"`((?:tests|benchmarks)/\w+\.py)`", page.read_text()):
                self.assertTrue((ROOT / named).is_file(), f"{page.name}: {named}")

    def test_the_readme_links_every_page_of_docs_once(self):
        text = README.read_text()
        self.assertGreaterEqual(len(DOCS), 4)
        for page in DOCS:
            self.assertEqual(text.count(f"](docs/{page.name})"), 1, page.name)

    def test_the_map_names_every_file_of_the_top_level_and_no_other(self):
        table = README.read_text().split("| file |")[1].split("\n\n")[0]
        named = re.findall(r"`(\w+\.py)`", table)
        self.assertEqual(sorted(named), sorted(path.name for path in ROOT.glob("*.py")))
        for folder in re.findall(r"`(\w+/)`", table):
            self.assertTrue((ROOT / folder).is_dir(), folder)

    def test_the_figures_of_the_shipped_model_are_those_of_its_metrics(self):
        metrics = json.loads((PRETRAINED.parent / "metrics.json").read_text())
        bounds = ("negative_elbo", "importance_weighted")
        names = [f"{bound}{prior}" for prior in ("", "_prior") for bound in bounds]
        bounds = [f"{metrics[f'{name}_bpd']['mean']:.4f}" for name in names]
        (row,) = re.findall(r"^\|.*the model in `pretrained/`.*$", README.read_text(), re.MULTILINE)
        self.assertEqual(re.findall(r"0\.\d{4}", row), bounds)
        report = (ROOT / "docs" / "results.md").read_text()
        shown = evaluate.table({"trained_on": None, "beta": 1, **metrics}).splitlines()
        for line in shown:
            self.assertIn(line, report)
