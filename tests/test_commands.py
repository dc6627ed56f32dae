"""What all commands do alike: how they end, and what a model without finite outputs comes to."""

import threading
import unittest
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from types import ModuleType
from unittest import mock

import torch
from tiny import InFolder, save_model, tiny_data

import evaluate
import explore
import fmnist
import sample
import train_pl
from boundary.command_line import OneLineParser, run_main, to_argv
from compression import low_bits, low_bits_training
from compression.codec import at_work
from compression.low_bits import LowBits
from train_pl import VAE


def ending(module: ModuleType, *arguments: object) -> tuple[int, str]:
    """Exit code and complaints of a command, with tiny data."""
    with tiny_data(), redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
        try:
            module.main([*map(str, arguments)])
        except SystemExit as stop:
            return stop.code, said.getvalue()
    return 0, said.getvalue()


class TestEndings(unittest.TestCase):
    def ends(self, error: BaseException) -> tuple[int, str]:
        with redirect_stderr(StringIO()) as said, self.assertRaises(SystemExit) as stop:
            run_main(OneLineParser("x"), mock.Mock(side_effect=error))
        self.assertEqual(len(said.getvalue().splitlines()), 1, said.getvalue())
        return stop.exception.code, said.getvalue()

    def test_ctrl_c_ends_with_one_line(self):
        self.assertEqual(self.ends(KeyboardInterrupt()), (130, "x: stopped\n"))

    def test_too_little_memory_ends_with_one_line(self):
        try:
            torch.empty(2**60)
        except RuntimeError as error:
            of_torch = error
        for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), of_torch):
            code, said = self.ends(error)
            self.assertEqual(code, 1)
            self.assertIn("not enough memory", said)

    def test_other_failures_keep_their_traceback(self):
        with self.assertRaisesRegex(RuntimeError, "a mistake"):
            run_main(OneLineParser("x"), mock.Mock(side_effect=RuntimeError("a mistake")))


class TestSizes(unittest.TestCase):
    def test_sizes_beyond_all_memory_and_too_many_processes_are_refused_by_name(self):
        for name, value in (
            ("z_dim", 10**20),
            ("num_filters", 10**20),
            ("batch_size", 10**30),
            ("num_workers", 10**5),
            ("log_dir", "logs-\udcff"),  # a name that is no UTF-8
            ("devices", 10**6),  # of CPU processes, Lightning starts any number
        ):
            code, said = ending(train_pl, "--accelerator", "cpu", f"--{name}", value)
            self.assertEqual((code, len(said.splitlines())), (2, 1), said)
            self.assertIn(f"--{name}", said)
            self.assertIn(str(value).strip("\udcff"), said)

    def test_a_list_of_one_device_is_that_device_and_not_so_many(self):
        self.assertEqual(to_argv({"devices": [1]}), ["--devices=1,"])
        self.assertEqual(to_argv({"devices": 1}), ["--devices=1"])
        self.assertEqual(to_argv({"devices": (0, 2)}), ["--devices=0,2,"])


class TestOutputsThatAreNotFinite(InFolder):
    def test_a_model_with_enormous_weights_is_refused_in_one_line_by_every_command(self):
        model, path = VAE(num_filters=2, z_dim=2), self.folder / "enormous.ckpt"
        judged = ("--limit", 4, "--iwae_samples", 1, "--accelerator", "cpu")
        commands = (
            (sample, "--output", self.folder / "a.png"),
            (sample, "--mean", "--output", self.folder / "a.npy"),
            (evaluate, *judged, "--output", self.folder / "evaluation"),
            (explore, "--output", self.folder / "page.html"),
        )
        weights = {name: 1e25 * (1 + w.abs()) for name, w in model.state_dict().items()}
        save_model(model, path, state_dict=weights)
        for module, *arguments in commands:
            with self.subTest(module.__name__, arguments=arguments):
                code, said = ending(module, path, *arguments)
                self.assertEqual((code, len(said.splitlines())), (2, 1), said)
                self.assertIn("not finite", said)
        self.assertEqual(list(self.folder.iterdir()), [path])

    def test_pictures_that_cannot_be_drawn_end_a_training_with_the_remedy(self):
        def enormous(model, *_):
            for weights in model.prior.parameters():
                weights.data.fill_(1e30)

        with mock.patch.object(VAE, "on_validation_end", enormous, create=True):
            code, said = ending(
                *(train_pl, "--num_filters", 2, "--z_dim", 2, "--batch_size", 100),
                *("--epochs", 1, "--accelerator", "cpu", "--log_dir", self.folder / "logs"),
            )
        self.assertEqual((code, len(said.splitlines())), (1, 1), said)
        self.assertIn("lower --lr", said)
        self.assertIn("last.ckpt", said)


class TestTraining(InFolder):
    def test_the_low_bits_are_learned_from_the_archives_in_the_repository(self):
        for train, count in ((True, 60_000), (False, 10_000)):
            values = low_bits_training.grey_levels(fmnist.DATA_DIR, train)
            self.assertEqual((values.shape, values.dtype), ((count, 28, 28), torch.uint8))
            whole = fmnist.load(train=train)
            self.assertTrue(torch.equal(low_bits.LEVEL[values.int()].byte(), whole.images[:, 0]))

    def test_the_model_of_the_low_bits_is_not_lost_for_the_name_of_its_file(self):
        with (
            mock.patch.object(low_bits_training, "train", return_value=LowBits()) as train,
            mock.patch.object(low_bits_training, "bits_per_pixel", return_value=1.0),
            mock.patch.object(
                low_bits_training, "grey_levels", return_value=torch.zeros(360, 28, 28)
            ),
        ):
            new = self.folder / "new" / "low_bits.pt"
            self.assertEqual(ending(low_bits_training, "--output", new), (0, ""))
            low_bits.load(new)
            train.reset_mock()
            for wrong in (self.folder, new / "below.pt"):
                code, said = ending(low_bits_training, "--output", wrong)
                self.assertEqual((code, len(said.splitlines())), (2, 1), said)
                self.assertIn("--output", said)
        train.assert_not_called()


class TestThreads(unittest.TestCase):
    def test_the_codec_is_at_work_in_one_thread_at_a_time(self):
        # Who ends first would give the other one all of torch's threads, and so other roundings.
        entered = threading.Event()

        def other() -> None:
            with at_work():
                entered.set()

        thread = threading.Thread(target=other)
        with at_work():
            thread.start()
            self.assertFalse(entered.wait(0.2))
        thread.join()
        self.assertTrue(entered.is_set())


if __name__ == "__main__":
    unittest.main()
