"""What comes from outside, tensors, files, checkpoints and options, is refused in one line."""

import math
import os
import pickle
import random
import shutil
import unittest
import zipfile
from functools import partial
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import torch
from crash_test import same
from tiny import InFolder, run_command, save_model, tiny_data

import evaluate
import explore
import fmnist
import muon
import sample
import train_pl
import utils
from cnn_encoder_decoder import CNNDecoder
from fmnist import DiscreteImages, discretize
from inputs.checkpoints import load_shipped, read_checkpoint
from inputs.checks import check_size
from inputs.command_line import InputError, OneLineParser, WorkError, run_main, to_argv
from inputs.files import read_idx, write_whole
from train_pl import VAE

ROOT = Path(__file__).resolve().parent.parent
NOWHERE = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 16, shape or (2, 1, 28, 28))


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Some bits flipped, bytes missing to the end or in the middle, or others put in."""
    altered, start = bytearray(content), chance.randrange(len(content))
    length, kind = chance.randrange(1, 100), chance.randrange(4)
    if kind == 0:
        for _ in range(chance.choice((1, 2, 50))):
            altered[chance.randrange(len(altered))] ^= 1 << chance.randrange(8)
    else:
        end = start + (0, len(altered), length, 0)[kind]
        altered[start:end] = chance.randbytes(length if kind == 3 else 0)
    return bytes(altered)


class TestTensors(unittest.TestCase):
    def setUp(self):
        self.model = VAE(num_filters=2, z_dim=3, lr=1e-3)

    def assert_refused(self, call, *given_and_said: object) -> None:
        """`call` refuses what it is given, all but the words at the end, with these words."""
        given = [each for each in given_and_said if not isinstance(each, str)]
        with self.assertRaises((TypeError, ValueError)) as refused:
            call(*given)
        for words in given_and_said[len(given) :]:
            self.assertIn(words, str(refused.exception))

    def test_images_of_another_range_type_shape_or_device_are_refused_everywhere(self):
        for call in (self.model, self.model.reconstruct, self.model.encoder):
            for wrong in (
                (images() * 17, "0..15", "255"),
                (images() - 1000, "0..15", "-1000"),
                (images() / 15, "long", "float32"),
                (images().to(torch.uint8), "long", "uint8"),
                (images(2, 28, 28), "[B, 1, 28, 28]", "[2, 28, 28]"),
                (images(2, 3, 28, 28), "[B, 1, 28, 28]", "[2, 3, 28, 28]"),
                (images().to("meta"), "cpu", "meta"),
                ([1, 2], "long", "list"),
            ):
                self.assert_refused(call, *wrong)

    def test_latents_that_are_not_finite_give_a_loss_that_is_not_finite(self):
        for value in (math.nan, math.inf):
            logits = self.model.decoder(torch.full((2, 3), value))
            self.assertFalse(utils.reconstruction_loss(logits, images()).isfinite().any())

    def test_a_batch_without_images_has_no_mean_but_empty_parts(self):
        none = images(0, 1, 28, 28)
        self.assert_refused(self.model, none, "at least one image")
        mean, log_std = self.model.encoder(none)
        logits = self.model.decoder(utils.sample_reparameterize(mean, log_std.exp()))
        noise = [torch.randn(4, 0, 3)]
        for losses in (
            utils.KLD(mean, log_std),
            utils.reconstruction_loss(logits, none),
            utils.elbo_to_bpd(utils.KLD(mean, log_std), none.shape),
            utils.importance_weighted_bpd(self.model.log_px, none, mean, log_std, noise)[0],
        ):
            self.assertEqual(losses.shape, (0,))
        self.assertEqual(self.model.reconstruct(none).shape, (0, 1, 28, 28))

    def test_a_grey_level_without_a_logit_has_no_loss(self):
        logits = torch.zeros(2, 8, 28, 28)
        # -100 is the label that torch's cross_entropy passes over if it is not told otherwise.
        for level in (-100, -1, 8, 15):
            with self.assertRaisesRegex(IndexError, str(level)):
                utils.reconstruction_loss(logits, torch.full((2, 1, 28, 28), level))

    def test_sizes_are_whole_numbers_of_any_kind_but_no_bools(self):
        for value in (3, np.int64(3), np.uint8(3), torch.tensor(3)):
            size = check_size("size", value)
            self.assertEqual((size, type(size)), (3, int))
        check = partial(check_size, "size")
        for wrong in (True, np.True_, 0, np.int64(-1), 3.0, np.float64(3), None):
            self.assert_refused(check, wrong, "size", repr(wrong))
        decoder = CNNDecoder(num_filters=np.int64(2), z_dim=np.int32(2))
        self.assertIs(type(decoder.z_dim), int)
        self.assertEqual(utils.visualize_manifold(decoder, np.int64(2)).shape, (3, 56, 56))

    def test_other_types_shapes_and_devices_are_refused(self):
        a, long = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.long)
        logits, there = torch.zeros(2, 16, 28, 28), torch.zeros(2, dtype=torch.long, device="meta")
        model = self.model
        loss = utils.reconstruction_loss
        for refusal in (
            (model.decoder, torch.zeros(2, 4), "[B, 3]", "[2, 4]"),
            (model.decoder, torch.zeros(3), "[B, 3]", "[3]"),
            (model.decoder, long, "float", "int64"),
            (model.decoder, a.to("meta"), "cpu", "meta"),
            (model.prior.log_prob, a.to("meta"), "cpu", "meta"),
            (model.prior.log_prob, a, there, "labels", "cpu", "meta"),
            (model.sample, 2, there, "labels", "cpu", "meta"),
            (model.sample, 0, "at least 1", "0"),
            (utils.sample_reparameterize, a, torch.zeros(3, 2), "[2, 3]", "[3, 2]"),
            (utils.sample_reparameterize, long, a, "float", "int64"),
            (utils.sample_reparameterize, a, a.to("meta"), "cpu", "meta"),
            (utils.KLD, a, torch.zeros(2, 4), "[2, 3]", "[2, 4]"),
            (utils.KLD, a, long, "float", "int64"),
            (loss, logits, images(3, 1, 28, 28), "[2, 16, 28, 28]"),
            (loss, logits, images() / 1, "long", "float32"),
            (loss, logits.long(), images(), "float", "int64"),
            (loss, a, images(), "[2, L, 28, 28]", "[2, 3]"),
            (utils.elbo_to_bpd, long, [2, 1, 28, 28], "float", "int64"),
            (utils.mean_image, a, "[B, L, H, W]", "[2, 3]"),
            (utils.mean_image, images(), "float", "int64"),
            (muon.inverse_root, a, "[N, n, n]", "[2, 3]"),
            (utils.visualize_manifold, CNNDecoder(z_dim=2), 1.5, "whole number", "1.5"),
            (discretize, a, 0, "num_values", "0"),
            (DiscreteImages, images(), torch.zeros(2).long(), "uint8", "int64"),
            (DiscreteImages, a.to(torch.uint8), long[:, 0], "[N, 1, H, W]", "[2, 3]"),
            (DiscreteImages, images().to(torch.uint8) * 17, long[:, 0], "0..15"),
        ):
            self.assert_refused(*refusal)

    def test_a_training_step_on_an_accelerator_looks_at_no_value(self):
        # A meta tensor has no values: to look at one is an error.
        model = self.model.to("meta")
        with mock.patch.object(torch.Tensor, "item", side_effect=AssertionError):
            model(images().to("meta"))[2].backward()

    def test_what_has_no_values_is_not_looked_at_without_gradients_either(self):
        # A tensor on the meta device; and in a compiled function a look would split the graph.
        mean, std = torch.zeros(2, 3), torch.ones(2, 3)
        with torch.no_grad():
            self.model.to("meta")(images().to("meta"))
            utils.sample_reparameterize(mean.to("meta"), std.to("meta"))
            compiled = torch.compile(utils.sample_reparameterize, backend="eager", fullgraph=True)
            self.assertEqual(compiled(mean, std).shape, (2, 3))


class TestFiles(InFolder):
    def test_a_file_is_old_or_new_and_whole_whatever_happens(self):
        path = self.folder / "file"
        write_whole(path, b"old")
        for name in ("fsync", "replace"):
            full = mock.patch.object(os, name, side_effect=OSError(28, "full"))
            with full, self.assertRaises(OSError) as failed:
                write_whole(path, b"new")
            self.assertEqual((failed.exception.filename, path.read_bytes()), (str(path), b"old"))
        write_whole(path, b"new")
        self.assertEqual(path.read_bytes(), b"new")
        self.assertEqual(list(self.folder.iterdir()), [path])

    def test_a_link_is_replaced_not_followed_by_a_file_with_the_rights_of_any_new_one(self):
        path, outside = self.folder / "file", self.folder / "outside"
        outside.write_bytes(b"important")
        path.symlink_to(outside)
        write_whole(path, b"new")
        self.assertEqual((path.read_bytes(), path.is_symlink()), (b"new", False))
        self.assertEqual(outside.read_bytes(), b"important")
        self.assertEqual(path.stat().st_mode, outside.stat().st_mode)

    def test_an_idx_file_is_read_or_refused(self):
        whole = b"\0\0\x08\x02" + bytes([0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(6))
        path = self.folder / "idx"
        path.write_bytes(whole)
        self.assertEqual(read_idx(path).tolist(), [[0, 1, 2], [3, 4, 5]])
        huge = b"\0\0\x08\x03" + b"\xff" * 12
        for wrong in (b"", whole[:3], whole[:9], whole[:-1], whole + b"0", b"\1" + whole, huge):
            path.write_bytes(wrong)
            with self.assertRaises(ValueError):
                read_idx(path)


class Payload:
    """Unpickled without care, it makes a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


class TestCheckpoints(InFolder):
    def setUp(self):
        super().setUp()
        self.model = VAE(num_filters=2, z_dim=2)
        self.path = save_model(self.model, self.folder / "a.ckpt")

    def assert_refused(self, *said: str) -> None:
        with self.assertRaises(InputError) as refused:
            train_pl.load_model(self.path)
        self.assertEqual(len(str(refused.exception).splitlines()), 1, refused.exception)
        for words in (str(self.path), *said):
            self.assertIn(words, str(refused.exception))

    def test_200_damaged_ones_are_refused_in_one_line_or_read_unchanged(self):
        chance, whole, refused = random.Random(0), self.path.read_bytes(), 0
        content = read_checkpoint(self.path)
        for _ in range(200):
            self.path.write_bytes(mutate(whole, chance))
            try:
                self.assertTrue(same(read_checkpoint(self.path), content))
            except InputError as error:
                self.assertEqual(len(str(error).splitlines()), 1, error)
                refused += 1
        self.assertGreater(refused, 100)

    def test_a_flipped_bit_in_a_weight_is_found_out_by_every_reader(self):
        weights = next(self.model.encoder.parameters()).detach().numpy().tobytes()
        altered = bytearray(self.path.read_bytes())
        altered[altered.index(weights)] ^= 1
        self.path.write_bytes(altered)
        torch.load(self.path, weights_only=True)  # which does not see it
        self.assert_refused("damaged")
        with self.assertRaisesRegex(InputError, "damaged"):
            load_shipped(self.model, self.path)

    def test_too_little_memory_is_no_damaged_file(self):
        with mock.patch.object(torch, "load", side_effect=MemoryError):
            self.assertRaises(MemoryError, read_checkpoint, self.path)

    def test_code_in_a_checkpoint_is_never_run(self):
        target = self.folder / "made"
        pickled = pickle.dumps(Payload(target), protocol=2)
        pickle.loads(pickled)  # the payload works
        target.unlink()
        hidden = {**read_checkpoint(self.path), "more": Payload(target)}
        for content in (Payload(target), hidden):
            torch.save(content, self.path)
            self.assert_refused()
        self.path.write_bytes(pickled)
        self.assert_refused()
        self.assertFalse(target.exists())

    def test_what_is_no_checkpoint_of_a_model_is_refused_by_name(self):
        for content in (torch.zeros(3), {"weights": 1}, ["state_dict"]):
            torch.save(content, self.path)
            self.assert_refused()
        with zipfile.ZipFile(self.path, "w") as archive:
            archive.writestr("notes.txt", "hello")
        self.assert_refused()
        for make in (Path.touch, os.mkfifo):
            self.path.unlink()
            self.assert_refused("no file")
            make(self.path)
            self.assert_refused()
        weights = self.model.state_dict()
        name = next(iter(weights))
        for wrong in (torch.zeros(1), weights[name] * math.nan):
            self.path.unlink()
            save_model(self.model, self.path, state_dict={**weights, name: wrong})
            self.assert_refused(name)


def ending(module: ModuleType, *arguments: object) -> tuple[int, str]:
    """Exit code and complaints of a command, with tiny data."""
    with tiny_data():
        code, _, said = run_command(module.main, *arguments)
    return code, said


class TestOptions(InFolder):
    def refusal(self, *arguments: object) -> tuple[int, str]:
        logs = self.folder / "logs"
        result = ending(train_pl, "--accelerator", "cpu", "--log_dir", logs, *arguments)
        self.assertFalse(logs.exists())
        return result

    def test_every_kind_of_end_has_its_exit_code_and_one_line_but_a_mistake(self):
        try:
            torch.empty(2**60)
        except RuntimeError as error:
            of_torch = error
        for error, code, line in (
            (KeyboardInterrupt(), 130, "x: stopped"),
            (InputError("bad"), 2, "x: error: bad"),
            (FloatingPointError("not finite"), 2, "x: error: not finite"),
            (WorkError("lost"), 1, "x: lost"),
            (OSError(28, "No space left on device", "a.png"), 1, "x: a.png: No space left"),
            (MemoryError(), 1, "not enough memory"),
            (torch.OutOfMemoryError("CUDA out of memory"), 1, "not enough memory"),
            (of_torch, 1, "not enough memory"),
        ):
            failing = mock.Mock(side_effect=error)
            ended, _, said = run_command(lambda _: run_main(OneLineParser(prog="x"), failing, []))  # noqa: B023
            self.assert_ends((ended, said), code, line)
        failing = mock.Mock(side_effect=RuntimeError("a mistake"))
        with self.assertRaisesRegex(RuntimeError, "a mistake"):
            run_main(OneLineParser(prog="x"), failing, [])

    def test_help_names_every_option_with_a_default_that_says_something_and_an_example(self):
        code, said, _ = run_command(train_pl.main, "--help")
        self.assertEqual(code, 0)
        words = "".join(said.split())  # however the lines are broken
        for name, default in vars(train_pl.make_parser().parse_args([])).items():
            self.assertIn(f"--{name}", words)
            says = not (default is None or isinstance(default, bool))
            self.assertEqual(f"(default:{default})" in words, says, name)
        self.assertIn("Example: python train_pl.py ", said)

    def test_values_that_make_no_sense_are_refused_by_name(self):
        for name, *values in (
            ("z_dim", 0, 10**20),
            ("num_filters", -1, 10**20),
            ("lr", "nan", "0", "fast"),
            ("beta", "0", "nan"),
            ("beta_warmup", "-0.1", "1.5"),
            ("epochs", -3, "2.5"),
            ("batch_size", 0, 10**30),
            ("num_workers", -2, 10**5),
            ("num_nodes", 0),
            ("seed", -1, 2**32),
            ("dataset", "EMNIST"),
            ("accelerator", "abacus"),
            ("devices", "none"),
            ("strategy", "luck", "ddp_spawn", "ddp_fork", "ddp_notebook"),
            ("precision", "7"),
            ("data_dir", ""),
        ):
            for value in values:
                with self.subTest(name=name, value=value):
                    self.assert_ends(self.refusal(f"--{name}", value), 2, f"--{name}", str(value))

    def test_a_log_directory_that_cannot_be_written_is_refused(self):
        file, link = self.folder / "file", self.folder / "link"
        file.touch()
        link.symlink_to(self.folder / "nowhere")
        for folder in (file / "logs", link, link / "logs"):
            self.assert_ends(self.refusal("--log_dir", folder), 2, "--log_dir", str(folder))

    def test_data_that_is_missing_without_network_or_altered_is_refused_by_the_files_name(self):
        altered = "t10k-images-idx3-ubyte.gz"
        shutil.copytree(fmnist.DATA_DIR, self.folder / "data")
        with open(self.folder / "data" / "MNIST" / "raw" / altered, "r+b") as archive:
            archive.truncate(1000)
        for name, devices, *said in (
            ("nowhere", 1, "train-images-idx3-ubyte.gz", "network", "--data_dir"),
            ("nowhere", 2, "train-images-idx3-ubyte.gz", "--data_dir"),
            ("data", 1, altered),
        ):
            options = ["--accelerator", "cpu", "--devices", devices, "--strategy", "ddp"]
            options += ["--data_dir", self.folder / name, "--log_dir", self.folder / "logs"]
            with mock.patch.dict(os.environ, NOWHERE):
                code, _, error = run_command(train_pl.main, *options)
            self.assert_ends((code, error), 2, name, *said)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["data"])

    def test_a_list_of_one_device_is_that_device_and_not_so_many(self):
        self.assertEqual(to_argv({"devices": [1]}), ["--devices=1,"])
        self.assertEqual(to_argv({"devices": 1}), ["--devices=1"])
        self.assertEqual(to_argv({"devices": (0, 2)}), ["--devices=0,2,"])

    def test_a_model_with_enormous_weights_is_refused_by_every_command(self):
        model = VAE(num_filters=2, z_dim=2)
        weights = {name: 1e25 * (1 + w.abs()) for name, w in model.state_dict().items()}
        path = save_model(model, self.folder / "enormous.ckpt", state_dict=weights)
        judged = ("--limit", 4, "--iwae_samples", 1, "--accelerator", "cpu")
        for module, *arguments in (
            (sample, "--output", self.folder / "a.png"),
            (sample, "--mean", "--output", self.folder / "a.npy"),
            (evaluate, *judged, "--output", self.folder / "evaluation"),
            (explore, "--output", self.folder / "page.html"),
        ):
            with self.subTest(module.__name__, arguments=arguments):
                self.assert_ends(ending(module, path, *arguments), 2, "not finite")
        self.assertEqual(list(self.folder.iterdir()), [path])
