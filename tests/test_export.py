"""export.py: files that plain torch runs in another project, and that agree with the model."""

import os
import subprocess
import sys
import unittest
from importlib.util import find_spec
from unittest import mock

import torch
from tiny import InFolder, run_command, save_model

import export
from exporting.programs import Sample, chosen, example
from train_pl import VAE

ELSEWHERE = """
import sys, torch
import utils  # of the other project

torch.set_grad_enabled(False)
encode, decode, sample = (
    torch.export.load(f"model_{name}.pt2").module() for name in ("encode", "decode", "sample")
)
labels, noise = torch.load("given.pt")
images, z = sample(labels, noise)
for count in (7, 1):  # the same noise, the same images
    assert torch.equal(sample(labels[:count], noise[:count])[0], images[:count])
torch.save([images, z, *encode(images), decode(z)], "found.pt")
assert not any(name in sys.modules for name in ("train_pl", "pytorch_lightning"))
"""


@torch.no_grad()
def small_model(num_classes: int = 10) -> VAE:
    """Random weights, with classes and Gaussians that differ."""
    torch.manual_seed(0)
    model = VAE(num_filters=2, z_dim=3, num_classes=num_classes).eval()
    for weights in model.prior.parameters():
        weights.copy_(0.1 * torch.randn_like(weights))
    return model.to(memory_format=torch.contiguous_format)


class TestCommand(InFolder):
    def setUp(self):
        super().setUp()
        self.model = small_model()
        self.checkpoint = save_model(self.model, self.folder / "small.ckpt")

    @torch.no_grad()
    def test_another_project_runs_them_with_torch_alone(self):
        project = self.folder / "project"
        code, said, error = run_command(export.main, self.checkpoint, project / "model.pt2")
        self.assertEqual((code, error, len(said.splitlines())), (0, "", 3))
        (project / "utils.py").touch()
        (project / "script.py").write_text(ELSEWHERE)
        labels, noise = example(self.model, 7)["sample"].values()
        torch.save([labels, noise], project / "given.pt")
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run([sys.executable, "script.py"], cwd=project, env=env, check=True)
        images, z, *found = torch.load(project / "found.pt")
        self.assertEqual((images.shape, images.dtype), ((7, 1, 28, 28), torch.int64))
        own = [*self.model.encoder(images), self.model.decoder(z).softmax(dim=1)]
        torch.testing.assert_close(found, own, rtol=0, atol=1e-5)
        torch.testing.assert_close([images, z], [*Sample(self.model)(labels, noise)])

    def test_bad_input_is_refused_in_one_line_with_nothing_written(self):
        damaged = self.folder / "damaged.ckpt"
        damaged.write_bytes(b"damaged")
        before = sorted(self.folder.iterdir())
        for arguments, said in (
            ((self.checkpoint,), "small.ckpt: give a name that ends with .pt2 or .onnx"),
            ((damaged, self.folder / "model.pt2"), "damaged.ckpt"),
            ((self.folder / "nothing.ckpt", self.folder / "model.pt2"), "nothing.ckpt"),
            ((self.checkpoint, damaged / "model.pt2"), "OUTPUT.*cannot be written"),
        ):
            code, output, error = run_command(export.main, *arguments)
            self.assertEqual((code, output, len(error.splitlines())), (2, "", 1), error)
            self.assertRegex(error, said)
        with mock.patch.dict(sys.modules, {"onnxscript": None}):
            code, _, error = run_command(export.main, self.checkpoint, self.folder / "model.onnx")
        self.assertEqual((code, len(error.splitlines())), (2, 1), error)
        self.assertIn("pip install onnxscript onnxruntime", error)
        self.assertEqual(sorted(self.folder.iterdir()), before)

    def test_programs_that_are_not_the_model_are_not_written(self):
        def other(inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
            return [output + 1e-3 for output in self.model.encoder(*inputs.values())]

        output = self.folder / "model.pt2"
        with mock.patch.object(export, "from_file", return_value=other):
            code, _, error = run_command(export.main, self.checkpoint, output)
        self.assertEqual((code, len(error.splitlines())), (1, 1), error)
        self.assertIn("encode differs from the model by 0.001", error)
        self.assertFalse([*self.folder.glob("*.pt2")])

    @unittest.skipUnless(all(map(find_spec, export.ONNX)), "pip install onnxscript onnxruntime")
    def test_onnx_files_are_written_where_they_agree_with_the_model(self):
        code, said, _ = run_command(export.main, self.checkpoint, self.folder / "model.onnx")
        self.assertEqual((code, len(said.splitlines())), (0, 3))
        self.assertEqual(len([*self.folder.glob("model_*.onnx")]), 3)


class TestPrograms(unittest.TestCase):
    def test_choices_have_the_probabilities(self):
        probabilities = torch.tensor([0.1, 0.0, 0.6, 0.3]).view(1, 4, 1)
        noise = torch.randn(1, 1, 100_000, generator=torch.Generator().manual_seed(0))
        shares = chosen(probabilities, noise).flatten().bincount(minlength=4) / 100_000
        torch.testing.assert_close(shares, probabilities.flatten(), atol=0.005, rtol=0)
        self.assertEqual(shares[1], 0)

    @torch.no_grad()
    def test_samples_are_distributed_as_the_models(self):
        model = small_model()
        labels = torch.full((2000,), 7)
        noise = torch.randn(2000, 2 * 3 + 784, generator=torch.Generator().manual_seed(0))
        images, z = Sample(model)(labels, noise)
        torch.manual_seed(1)
        own = model.sample_latents(2000, labels)
        for found, expected in zip(z.T.contiguous(), own.T.contiguous(), strict=True):
            shares = [
                torch.searchsorted(some.sort()[0], found) / 2000 for some in (found, expected)
            ]
            self.assertLess((shares[0] - shares[1]).abs().max(), 0.06)  # Kolmogorov-Smirnov
        pixels = model.draw_pixels(own).float()
        torch.testing.assert_close(images.float().mean(0), pixels.mean(0), atol=0.6, rtol=0)

    @torch.no_grad()
    def test_the_noise_chooses_from_the_models_own_mixtures_and_pixels(self):
        for num_classes in (1, 3):
            model = small_model(num_classes)
            labels, noise = example(model, 50)["sample"].values()
            images, z = Sample(model)(labels, noise)
            choices, steps, pixels = noise.unsqueeze(1).split([3, 3, 784], dim=2)
            log_weights, means, log_stds = model.prior.conditionals(z, labels)
            temperature = model.hparams.temperature
            weights = (log_weights / temperature**2).softmax(dim=2)
            k = chosen(weights.mT, choices).mT
            mean, std = means.gather(2, k), log_stds.gather(2, k).exp()
            expected = (mean + temperature * std * steps.mT).squeeze(2)
            torch.testing.assert_close(z, expected, rtol=0, atol=1e-5)
            levels = chosen(model.decoder(z).softmax(dim=1).flatten(2), pixels)
            self.assertTrue(torch.equal(images.flatten(2), levels))


if __name__ == "__main__":
    unittest.main()
