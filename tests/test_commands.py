"""To be moved into the room's file."""

import threading
import unittest
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from types import ModuleType
from unittest import mock

import torch
from tiny import InFolder, tiny_data

import fmnist
from compression import low_bits, low_bits_training
from compression.codec import at_work
from compression.low_bits import LowBits


def ending(module: ModuleType, *arguments: object) -> tuple[int, str]:
    """Exit code and complaints of a command, with tiny data."""
    with tiny_data(), redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
        try:
            module.main([*map(str, arguments)])
        except SystemExit as stop:
            return stop.code, said.getvalue()
    return 0, said.getvalue()


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
