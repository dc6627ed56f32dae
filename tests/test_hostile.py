"""Files that are damaged or meant to do harm: one line is all that may come of them."""

import gzip
import io
import pickle
import random
import resource
import struct
import time
import zipfile
from hashlib import md5
from pathlib import Path
from unittest import mock
from urllib.error import URLError

import torch
from tiny import InFolder
from torchvision.datasets import MNIST

import fmnist
import train_pl
from support.command_line import InputError, to_argv
from support.runs import cut_logs, read_state

CASES = 500
MAX_SECONDS, MAX_BYTES = 10, 1 << 30
NUM_IMAGES = 12


def mutate(content: bytes, header: int, chance: random.Random) -> bytes:
    """Flipped bits, another length, or other bytes where the sizes stand."""
    altered = bytearray(content)
    kind = chance.randrange(5)
    if kind == 0:
        for _ in range(chance.choice((1, 1, 2, 50))):
            altered[chance.randrange(len(altered))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del altered[chance.randrange(len(altered)) :]
    elif kind == 2:
        start = chance.randrange(max(1, header - 3))
        sizes = (0, 1, 2**31 - 1, 2**32 - 1, chance.getrandbits(32))
        altered[start : start + 4] = struct.pack(chance.choice("<>") + "I", chance.choice(sizes))
    elif kind == 3:
        start = chance.randrange(len(altered))
        del altered[start : start + chance.randrange(1, 100)]
    else:
        start = chance.randrange(len(altered))
        altered[start:start] = chance.randbytes(chance.randrange(1, 100))
    return bytes(altered)


class HostileTest(InFolder):
    def setUp(self):
        super().setUp()
        self.chance = random.Random(0)

    def one_line_or_result(self, read, *arguments: object) -> object:
        """What `read` returns, or None after an InputError; anything else fails the test."""
        start = time.monotonic()
        try:
            result = read(*arguments)
        except InputError as error:
            self.assertEqual(len(str(error).splitlines()), 1, error)
            result = None
        self.assertLess(time.monotonic() - start, MAX_SECONDS)
        return result

    def run(self, result=None):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        super().run(result)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.assertLess((peak - before) * 1024, MAX_BYTES)


class TestDataFiles(HostileTest):
    def setUp(self):
        super().setUp()
        # MNIST in small: the same four files with a few images, whose MD5s torchvision knows.
        self.raw = self.folder / "MNIST" / "raw"
        self.raw.mkdir(parents=True)
        official = fmnist.DATA_DIR / "MNIST" / "raw"
        self.contents = {}
        for name, _ in MNIST.resources:
            with gzip.open(official / name) as archive:
                start = archive.read(16 if "images" in name else 8)
                pixels = archive.read(NUM_IMAGES * (784 if "images" in name else 1))
            self.contents[name] = start[:4] + struct.pack(">I", NUM_IMAGES) + start[8:] + pixels
        self.archives = {n: gzip.compress(c, mtime=0) for n, c in self.contents.items()}
        resources = [(name, md5(packed).hexdigest()) for name, packed in self.archives.items()]
        for patch in (
            mock.patch.object(MNIST, "resources", resources),
            mock.patch("urllib.request.urlopen", side_effect=URLError("no network")),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        self.write_all()
        self.whole = fmnist.load(self.folder)

    def write_all(self) -> None:
        for name, packed in self.archives.items():
            (self.raw / name).write_bytes(packed)

    def check_loaded(self) -> bool:
        """Whether both sets can be read; if so, they must be images with their labels."""
        sets = [self.one_line_or_result(fmnist.load, self.folder, "MNIST", b) for b in (0, 1)]
        for data in sets:
            if data is not None:
                self.assertEqual(data.images.shape, (len(data.labels), 1, 28, 28))
                self.assertEqual((data.images.dtype, data.labels.dtype), (torch.uint8, torch.long))
                self.assertTrue(((data.labels >= 0) & (data.labels <= 9)).all())
        return None not in sets

    def test_500_mutated_archives_are_refused_in_one_line(self):
        refused = 0
        for _ in range(CASES):
            self.write_all()
            name = self.chance.choice(list(self.archives))
            altered = mutate(self.archives[name], 16, self.chance)
            (self.raw / name).write_bytes(altered)
            prepared = self.one_line_or_result(lambda: fmnist.prepare(self.folder) or True)
            self.assertEqual(prepared is None, altered != self.archives[name])
            refused += prepared is None
            self.check_loaded()  # of who did not prepare
        self.assertGreater(refused, 400)

    def test_500_mutated_files_in_whole_archives_are_read_as_images_or_refused(self):
        read = 0
        for _ in range(CASES):
            self.write_all()
            name = self.chance.choice(list(self.contents))
            altered = mutate(self.contents[name], 16, self.chance)
            compress = self.chance.choice((gzip.compress, bytes))  # read_idx takes both
            (self.raw / name).write_bytes(compress(altered))
            read += self.check_loaded()
        self.assertTrue(20 < read < 450, read)

    def test_an_archive_that_would_unpack_to_gigabytes_is_not_unpacked(self):
        packed = gzip.compress(bytes(1 << 26))
        (self.raw / "t10k-labels-idx1-ubyte.gz").write_bytes(packed * 64)  # 4 GB
        self.assertIsNone(self.one_line_or_result(fmnist.prepare, self.folder))


class Payload:
    """Unpickled without care, it makes a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


class TestCheckpoints(HostileTest):
    def setUp(self):
        super().setUp()
        self.path = self.folder / "checkpoints" / "last.ckpt"
        self.path.parent.mkdir()
        model = train_pl.VAE(num_filters=2, z_dim=2, lr=1e-3)
        run = {"logs": {}, "step": 3, "unlogged": {"epoch": 0.0}, "processes": 1}
        self.checkpoint = {
            "state_dict": dict(model.state_dict()),
            "hyper_parameters": dict(model.hparams),
            "run": {**run, "argv": to_argv({**model.hparams, "epochs": 3})},
        }
        self.whole = self.saved(self.checkpoint)

    def saved(self, content: object) -> bytes:
        file = io.BytesIO()
        torch.save(content, file)
        return file.getvalue()

    def rezipped(self, change) -> bytes:
        """The checkpoint with other bytes in one of its parts and right checksums."""
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(self.whole)) as old, zipfile.ZipFile(out, "w") as new:
            for part in old.namelist():
                new.writestr(part, change(part, old.read(part)))
        return out.getvalue()

    def read(self) -> object:
        train_pl.load_model(self.path)
        return read_state(self.path, train_pl.make_parser())[1]

    def test_the_whole_one_is_read(self):
        self.path.write_bytes(self.whole)
        self.assertEqual(self.read()["step"], 3)

    def test_500_mutated_ones_are_refused_in_one_line_or_read_unchanged(self):
        refused = 0
        for _ in range(CASES):
            self.path.write_bytes(mutate(self.whole, len(self.whole), self.chance))
            try:
                if self.one_line_or_result(self.read) is None:
                    refused += 1
                    continue
                model = train_pl.load_model(self.path)
                for name, weight in model.state_dict().items():
                    self.assertTrue(torch.equal(weight, self.checkpoint["state_dict"][name]))
            except AssertionError:
                raise
        self.assertGreater(refused, CASES // 2)

    def test_500_with_right_checksums_over_mutated_pickles_are_refused_in_one_line_or_a_model(self):
        for _ in range(CASES):
            content = self.rezipped(
                lambda part, old: (
                    mutate(old, len(old), self.chance) if part.endswith("data.pkl") else old
                )
            )
            self.path.write_bytes(content)
            self.one_line_or_result(self.read)

    def test_code_in_a_checkpoint_is_never_run(self):
        target = self.folder / "made"
        pickled = pickle.dumps(Payload(target), protocol=2)
        pickle.loads(pickled)  # the payload works
        target.unlink()
        hidden = {**self.checkpoint, "more": Payload(target)}
        for content in (
            pickled,
            self.saved(Payload(target)),
            self.saved(hidden),
            self.rezipped(lambda part, old: pickled if part.endswith("data.pkl") else old),
        ):
            self.path.write_bytes(content)
            self.assertIsNone(self.one_line_or_result(self.read))
            self.assertFalse(target.exists())

    def test_a_few_bytes_that_claim_gigabytes_are_refused(self):
        gigabytes = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R."
        self.assertEqual(gigabytes.count(b"bytearray"), 1)
        self.path.write_bytes(
            self.rezipped(lambda part, old: gigabytes if part.endswith("data.pkl") else old)
        )
        self.assertIsNone(self.one_line_or_result(self.read))
        for sizes in ({"num_filters": 10**6}, {"z_dim": 10**9}):
            self.checkpoint["hyper_parameters"].update(sizes)
            self.path.write_bytes(self.saved(self.checkpoint))
            self.assertIsNone(self.one_line_or_result(self.read))
        one, wide = torch.zeros(1), torch.zeros(1).expand(10**12)
        self.checkpoint["hyper_parameters"].update(num_filters=2, z_dim=2)
        right_shapes = {n: one.expand(p.shape) for n, p in self.checkpoint["state_dict"].items()}
        for weights in (right_shapes, dict.fromkeys(right_shapes, wide)):
            self.checkpoint["state_dict"] = weights
            self.path.write_bytes(self.saved(self.checkpoint))
            self.assertIsNone(self.one_line_or_result(self.read))

    def test_values_of_other_kinds_are_refused_in_one_line(self):
        run = self.checkpoint["run"]
        for wrong in (
            {"hyper_parameters": {**self.checkpoint["hyper_parameters"], "lr": 10**400}},
            {"state_dict": {**self.checkpoint["state_dict"], 7: torch.zeros(1)}},
            {"run": {name: value for name, value in run.items() if name != "processes"}},
            {"run": {name: value for name, value in run.items() if name != "argv"}},
            {"run": {**run, "argv": ["--help"]}},
            {"run": {**run, "argv": ["--resume"]}},
            {"run": {**run, "argv": [3]}},
            {"run": {**run, "argv": None}},
            {"run": {**run, "logs": {"events.out.tfevents.1": 1.5}}},
            {"run": {**run, "step": -1}},
        ):
            self.path.write_bytes(self.saved({**self.checkpoint, **wrong}))
            with self.subTest(wrong=list(wrong)):
                self.assertIsNone(self.one_line_or_result(self.read))

    def test_settings_that_make_no_sense_are_refused_by_name(self):
        for name, value in (
            ("epochs", -1),
            ("batch_size", 0),
            ("seed", -5),
            ("dataset", "EMNIST"),
            ("unknown", 1),
        ):
            wrong = {**self.checkpoint["run"], "argv": to_argv({name: value})}
            self.path.write_bytes(self.saved({**self.checkpoint, "run": wrong}))
            with self.subTest(name=name), self.assertRaisesRegex(InputError, "--resume.*last.ckpt"):
                self.read()

    def test_names_in_a_checkpoint_touch_no_file_outside_its_run(self):
        outside = self.folder / "outside"
        outside.write_bytes(b"important")
        log = self.folder / "run" / "events.out.tfevents.1"
        log.parent.mkdir()
        log.write_bytes(b"0123456789")
        cut_logs(log.parent, {"../outside": 1, str(outside): 0, log.name: 4})
        self.assertEqual((outside.read_bytes(), log.read_bytes()), (b"important", b"0123"))
