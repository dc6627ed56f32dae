"""Programs as a user starts them: from another folder, without a network, without a compiler."""

import json
import os
import shutil
import subprocess
import sys
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


class TestPrograms(InFolder):
    """In an empty folder, with no way to any other machine."""

    def test_without_a_compiler_compile_is_refused(self):
        cache = self.folder.with_name(f"{self.folder.name}-cache")
        self.addCleanup(shutil.rmtree, cache, ignore_errors=True)
        broken = {"PATH": str(self.folder), "TORCHINDUCTOR_CACHE_DIR": str(cache)}
        options = ["--compile", "--accelerator", "cpu"]
        code, _, said = forked.run(tiny.main, options, cwd=self.folder, env=broken)
        self.assert_ends((code, said), 2, "--compile", "C++ compiler")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_compiled_run_ends_near_the_plain_one(self):
        options = ["--num_filters", "2", "--z_dim", "2", "--batch_size", "60", "--epochs", "1"]
        options += ["--accelerator", "cpu", "--log_dir", self.folder]
        # Traced only; what the compiler makes of it is in the test below, and takes minutes here.
        traced = partialmethod(nn.Module.compile, backend="eager")
        with mock.patch.object(nn.Module, "compile", traced), tiny.without_pictures():
            for more in ([], ["--compile"]):
                code, _, said = tiny.run_command(tiny.main, *options, *more)
                self.assertEqual(code, 0, said)
        runs = sorted(self.folder.glob("version_*"))
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

    def test_a_default_run_from_another_folder_shows_no_warning_and_loads_no_entropy_coder(self):
        program = self.folder / "program.py"
        program.write_text(
            f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'tests')]}; import utils\n"
            "maths = {name.split('.')[0] for name in sys.modules}\n"
            "import evaluate, tiny; tiny.main(sys.argv[1:])\n"
            "print(maths); print({name.split('.')[0] for name in sys.modules})"
        )
        options = ["--epochs", "1", "--num_filters", "4", "--progress_bar"]
        result = subprocess.run(
            [sys.executable, program, *options],
            cwd=self.folder,
            env={
                **os.environ,
                **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"),
            },
            capture_output=True,
            text=True,
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("Test of the best checkpoint", result.stdout)
        self.assertEqual(result.stderr, "")  # no bar, as it is no terminal, and no warning
        self.assertTrue((self.folder / "VAE_logs" / "version_0" / "epoch_01_samples.png").exists())
        *_, maths, all_of_it = result.stdout.splitlines()
        self.assertIn("'torch'", maths)
        for name in ("matplotlib", "lightning"):
            self.assertNotIn(name, maths)
            self.assertIn(name, all_of_it)
        self.assertNotIn("constriction", all_of_it)
