"""Models of docs/research.md in processes of their own, and Lightning's command line."""

import json
import subprocess
import sys
import unittest
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import torch
from pytorch_lightning.cli import LightningCLI
from test_readme import ROOT, blocks
from tiny import InFolder, tiny_data

from fmnist import MNISTDataModule
from train_pl import load_model
from vae import VAE

TINY = ("--num_filters=2", "--z_dim=2", "--batch_size=60", "--accelerator=cpu")


class TestResearch(InFolder):
    def run_command(self, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *words], cwd=self.folder, capture_output=True, text=True
        )

    def test_the_commands_of_the_page_train_continue_judge_sample_and_export(self):
        code = "\n".join(blocks((ROOT / "docs" / "research.md").read_text(), "python"))
        (self.folder / "research.py").write_text(code)
        run, model = "VAE_logs/version_0", ("--model", "research.py:Logistic")
        train = str(ROOT / "tests" / "tiny.py")
        few = ("--limit=20", "--iwae_samples=2", "--accelerator=cpu")
        for words in (
            (train, *model, *TINY, "--epochs=1"),
            (train, *model, "--resume", run, "--epochs=2"),
            (str(ROOT / "evaluate.py"), run, *model, *few),
            (str(ROOT / "sample.py"), run, *model, "--label=7", "--output=sevens.npy"),
            (str(ROOT / "export.py"), run, "model.pt2", *model),
        ):
            done = self.run_command(*words)
            self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads((self.folder / run / "result.json").read_text())
        metrics = json.loads((self.folder / "evaluation" / "metrics.json").read_text())
        self.assertEqual((result["options"]["epochs"], result["seeded"]), (2, True))
        self.assertLess(result["test_bpd"], 4)
        self.assertAlmostEqual(
            metrics["negative_elbo_bpd"]["mean"], result["test_bpd"], delta=0.1 * result["test_bpd"]
        )
        program = torch.export.load(self.folder / "model_sample.pt2").module()
        images, _ = program(torch.tensor([7]), torch.randn(1, 2 * 2 + 784))
        self.assertEqual(images.shape, (1, 1, 28, 28))


class TestLightningCLI(InFolder):
    def test_it_trains_the_model_on_the_images_with_the_arguments_of_both_as_options(self):
        given = {"model.z_dim": 2, "model.num_filters": 2, "data.batch_size": 60}
        given |= {"trainer.max_epochs": 1, "trainer.accelerator": "cpu", "trainer.logger": "false"}
        given |= {"trainer.default_root_dir": self.folder, "trainer.enable_progress_bar": "false"}
        words = ["fit", *(f"--{name}={value}" for name, value in given.items())]
        with tiny_data(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            cli = LightningCLI(VAE, MNISTDataModule, args=words)
        self.assertEqual((cli.datamodule.batch_size, cli.model.prior.z_dim), (60, 2))
        loaded = load_model(cli.trainer.checkpoint_callback.best_model_path)
        for name, weights in loaded.state_dict().items():
            self.assertTrue(torch.equal(weights, cli.model.state_dict()[name]), name)


if __name__ == "__main__":
    unittest.main()
