"""Programs as a user starts them: from another folder, without a network, without a compiler."""

import json
import os
import shutil
import subprocess
import sys
import unittest
from functools import partialmethod
from pathlib import Path
from unittest import mock

import forked
import tiny
import torch
from tiny import InFolder
from torch import nn

from train_pl import compile_networks, load_model

ROOT = Path(__file__).resolve().parent.parent.parent


def train_traced(arguments: list[str]) -> None:
    """For a process of its own: --compile, but for the C++ compiler, which takes minutes."""
    traced = partialmethod(nn.Module.compile, backend="aot_eager")
    with mock.patch.object(nn.Module, "compile", traced), tiny.without_pictures():
        tiny.main(["--accelerator", "cpu", "--epochs", "1", *arguments])


class TestPrograms(InFolder):
    """In an empty folder, with no way to any other machine."""

    NOWHERE = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")

    def python(self, *command: object, **env: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=self.folder,
            env={**os.environ, **self.NOWHERE, **env},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def test_without_a_compiler_compile_is_refused(self):
        cache = self.folder.with_name(f"{self.folder.name}-cache")
        self.addCleanup(shutil.rmtree, cache, ignore_errors=True)
        broken = {"PATH": str(self.folder), "TORCHINDUCTOR_CACHE_DIR": str(cache)}
        options = ["--compile", "--accelerator", "cpu"]
        code, _, said = forked.run(tiny.main, options, cwd=self.folder, env=broken)
        self.assert_ends((code, said), 2, "--compile", "C++ compiler")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_compiled_run_ends_near_the_plain_one(self):
        options = ["--num_filters", "2", "--z_dim", "2", "--log_dir", "logs"]
        for more in ([], ["--compile"]):
            code, _, said = forked.run(train_traced, [*options, *more], cwd=self.folder)
            self.assertEqual(code, 0, said)
        runs = sorted(self.folder.glob("logs/version_*"))
        plain, compiled = (
            json.loads((run / "result.json").read_text())["test_bpd"] for run in runs
        )
        load_model(runs[1])  # a compiled model's weights have the names of a plain one's
        self.assertAlmostEqual(plain, compiled, delta=1e-3)

    def test_a_compiled_decoder_has_the_loss_and_gradients_of_the_plain_one(self):
        model, found = tiny.random_model(), []
        imgs = torch.randint(16, (2, 1, 28, 28), generator=torch.Generator().manual_seed(0))
        for networks in ((), (model.decoder,)):  # the encoder's compilation takes as long again
            compile_networks(torch.device("cpu"), *networks)
            model.zero_grad()
            torch.manual_seed(0)
            L_rec, L_reg, *_ = model.elbo_terms(imgs)
            loss = (L_rec + L_reg).mean()
            loss.backward()
            parts = (model.encoder, model.decoder)
            found.append([loss, *(p.grad.clone() for part in parts for p in part.parameters())])
        torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)

    def test_a_default_run_from_another_folder_shows_no_warning(self):
        program = (ROOT / "tests" / "tiny.py", "--epochs", 1, "--num_filters", 4, "--progress_bar")
        result = self.python(*program)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("Test of the best checkpoint", result.stdout)
        self.assertEqual(result.stderr, "")  # no bar, as it is no terminal, and no warning
        self.assertTrue((self.folder / "VAE_logs" / "version_0" / "epoch_01_samples.png").exists())


class TestImports(unittest.TestCase):
    def test_the_maths_loads_torch_only_and_no_training_or_report_an_entropy_coder(self):
        names = "print({name.split('.')[0] for name in sys.modules})"
        loaded = f"import sys, utils; {names}; import evaluate, train_pl; {names}"
        maths, all_of_it = subprocess.run(
            [sys.executable, "-c", loaded], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.splitlines()
        self.assertIn("'torch'", maths)
        for name in ("matplotlib", "lightning"):
            self.assertNotIn(name, maths)
            self.assertIn(name, all_of_it)
        self.assertNotIn("constriction", all_of_it)
