"""export.py: files that plain torch runs in another project, and that agree with the model."""

import importlib.util
import os
import subprocess
import sys
import unittest
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from unittest import mock

import numpy as np
import torch
from tiny import InFolder, save_model

import export
from exporting import files
from exporting.programs import Sample, chosen, example, programs, split_noise
from train_pl import VAE

ELSEWHERE = """
import sys, numpy, torch
assert not any(name in sys.modules for name in ("train_pl", "pytorch_lightning"))
import utils  # of the other project
encode, decode, sample = (
    torch.export.load(f"model_{name}.pt2").module() for name in ("encode", "decode", "sample")
)
given = numpy.load("given.npz")
images, z = sample(torch.from_numpy(given["labels"]), torch.from_numpy(given["noise"]))
mean, log_std = encode(images)
found = {"images": images, "z": z, "mean": mean, "log_std": log_std, "p": decode(z)}
numpy.savez("found.npz", **{name: value.detach().numpy() for name, value in found.items()})
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

    def run_main(self, *arguments: object) -> tuple[int, str, str]:
        with redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as error:
            try:
                export.main([*map(str, arguments)])
                code = 0
            except SystemExit as stop:
                code = stop.code
        return code, output.getvalue(), error.getvalue()

    def test_another_project_runs_them_with_torch_alone(self):
        project = self.folder / "project"
        code, said, error = self.run_main(self.checkpoint, project / "model.pt2")
        self.assertEqual((code, error, len(said.splitlines())), (0, "", 3))
        (project / "utils.py").write_text("OURS = True")
        script = project / "script.py"
        script.write_text(ELSEWHERE)
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        found = []
        for size in (1, 7, 7):
            noise = torch.randn(7, 2 * 3 + 784, generator=torch.Generator().manual_seed(1))[:size]
            labels = torch.arange(7)[:size]
            np.savez(project / "given.npz", labels=labels.numpy(), noise=noise.numpy())
            subprocess.run([sys.executable, script.name], cwd=project, env=env, check=True)
            found.append({**np.load(project / "found.npz")})
        for name, values in found[1].items():
            np.testing.assert_array_equal(values, found[2][name])  # the same seed, the same images
            np.testing.assert_allclose(found[0][name], values[:1], rtol=0, atol=1e-5)
        images, z = torch.from_numpy(found[1]["images"]), torch.from_numpy(found[1]["z"])
        self.assertEqual((images.shape, images.dtype), ((7, 1, 28, 28), torch.int64))
        self.assertTrue(0 <= images.min() <= images.max() <= 15)
        with torch.no_grad():
            mean, log_std = self.model.encoder(images)
            own = {"mean": mean, "log_std": log_std, "p": self.model.decoder(z).softmax(dim=1)}
        for name, values in own.items():
            np.testing.assert_allclose(found[1][name], values.numpy(), rtol=0, atol=1e-5)

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
            code, output, error = self.run_main(*arguments)
            self.assertEqual((code, output, len(error.splitlines())), (2, "", 1), error)
            self.assertRegex(error, said)
        with mock.patch.dict(sys.modules, {"onnxscript": None}):
            code, _, error = self.run_main(self.checkpoint, self.folder / "model.onnx")
        self.assertEqual((code, len(error.splitlines())), (2, 1), error)
        self.assertIn("pip install onnxscript onnxruntime", error)
        self.assertEqual(sorted(self.folder.iterdir()), before)

    def test_programs_that_are_not_the_model_are_not_written(self):
        others = programs(small_model())
        with torch.no_grad():
            others["decode"].decoder.net[-1].bias[0] += 1e-3
        with mock.patch.object(export, "programs", return_value=others):
            code, _, error = self.run_main(self.checkpoint, self.folder / "model.pt2")
        self.assertEqual((code, len(error.splitlines())), (1, 1), error)
        self.assertIn("decode differs from the model", error)
        self.assertFalse([*self.folder.glob("*.pt2")])

    @unittest.skipUnless(
        importlib.util.find_spec("onnxscript") and importlib.util.find_spec("onnxruntime"),
        "pip install onnxscript onnxruntime",
    )
    def test_onnx_agrees_with_the_model(self):
        code, said, _ = self.run_main(self.checkpoint, self.folder / "model.onnx")
        self.assertEqual((code, len(said.splitlines())), (0, 3))
        for name in ("encode", "decode", "sample"):
            content = (self.folder / f"model_{name}.onnx").read_bytes()
            program = files.from_file(content, ".onnx")
            self.assertLess(files.largest_difference(self.model, name, program), 1e-5)


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
        labels = torch.full((4000,), 7)
        noise = torch.randn(4000, 2 * 3 + 784, generator=torch.Generator().manual_seed(0))
        images, z = Sample(model)(labels, noise)
        torch.manual_seed(1)
        own = model.sample_latents(4000, labels)
        for found, expected in zip(z.T.contiguous(), own.T.contiguous(), strict=True):
            shares = [
                torch.searchsorted(some.sort()[0], found) / 4000 for some in (found, expected)
            ]
            self.assertLess((shares[0] - shares[1]).abs().max(), 0.04)  # Kolmogorov-Smirnov
        pixels = model.draw_pixels(own).float()
        torch.testing.assert_close(images.float().mean(0), pixels.mean(0), atol=0.6, rtol=0)

    @torch.no_grad()
    def test_every_number_of_classes_has_labels(self):
        for num_classes in (1, 3):
            model = small_model(num_classes)
            inputs = example(model, 2)["sample"]
            self.assertLess(inputs["labels"].max(), num_classes)
            found = Sample(model)(*inputs.values())
            for output, own in zip(
                found, files.expected(model, "sample", [*inputs.values()], found), strict=True
            ):
                torch.testing.assert_close(output, own, rtol=0, atol=1e-5)

    def test_all_noise_is_used_once(self):
        noise = torch.arange(2.0 * (2 * 3 + 784)).view(2, -1)
        parts = [part.flatten(1) for part in split_noise(noise)]
        self.assertTrue(torch.equal(torch.cat(parts, dim=1), noise))


if __name__ == "__main__":
    unittest.main()
