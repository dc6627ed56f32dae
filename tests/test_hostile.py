"""Files that are damaged or meant to do harm: one line is all that may come of them."""

import argparse
import copy
import gzip
import io
import json
import math
import pickle
import random
import shutil
import struct
import tempfile
import time
import zipfile
import zlib
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import forked
import torch
from tiny import InFolder

import fmnist
import train_pl
from boundary.command_line import InputError, to_argv
from boundary.files import read_idx
from runs.folders import cut_logs, finished_logs
from runs.run import read_state

CASES = 500
RESUMES = 80
MAX_SECONDS = 40  # on two slow cores that others use too
ROOT = Path(__file__).resolve().parent.parent


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


READERS = {"checkpoint": train_pl.load_model, "idx": read_idx}


def read_in_little_memory(limit: int, files: list[tuple[str, Path]]) -> None:
    """For a process of its own: prints, for each file, the errors that reading it ends with.

    Args:
        limit: the memory that reading may take, in bytes.
        files: kind and path.
    """
    torch.set_num_threads(1)
    forked.limit_memory(limit)
    for kind, path in files:
        chain = []
        try:
            READERS[kind](path)
        except Exception as error:
            while error is not None:
                chain.append(f"{type(error).__name__}: {error}")
                error = error.__cause__ or error.__context__
        print(json.dumps(chain), flush=True)


class TestMemory(InFolder):
    """What a file may cost is known before it is paid; see `boundary.files.check_memory`."""

    LIMIT = 256 << 20

    def outcomes(self, files: dict[str, tuple[str, bytes]]) -> dict[str, list[str]]:
        """Name to kind and content of a file, to the errors that reading it ends with."""
        paths = []
        for number, (kind, content) in enumerate(files.values()):
            path = self.folder / str(number)
            path.write_bytes(content)
            paths.append((kind, path))
        code, said, complaints = forked.run(read_in_little_memory, self.LIMIT, paths)
        self.assertEqual(code, 0, complaints)
        return dict(zip(files, map(json.loads, said.splitlines()), strict=True))

    def test_files_that_claim_gigabytes_are_refused_before_memory_is_taken(self):
        model = train_pl.VAE(num_filters=2, z_dim=2, lr=1e-3)
        good = {"state_dict": dict(model.state_dict()), "hyper_parameters": dict(model.hparams)}
        gigabytes = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R."
        deep: list | tuple = []
        for _ in range(60):
            deep = [deep, deep]
        keys: tuple = ()
        for _ in range(60):
            keys = (keys, keys)
        endless: list = []
        endless.append(endless)
        wide = torch.zeros(1).expand(10**9)
        dear = zipped({"a/data.pkl": b"\x80\x02](" + b"}" * 8_000_000 + b"e."})
        with zipfile.ZipFile(io.BytesIO(saved(good))) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        del parts["archive/data.pkl"]
        capitals = zipped({"archive/DATA.PKL": gigabytes, **parts})
        labels = b"\0\0\x08\x01"
        three = b"\0\0\x08\x03"
        zeros = gzip.compress(bytes(1 << 26)) * 64  # 4 GB
        bombs = {
            "a pickle in capitals": ("checkpoint", capitals),
            "a pickle that asks for bytes": ("checkpoint", zipped({"a/data.pkl": gigabytes})),
            "a pickle of millions of objects": ("checkpoint", dear),
            "parts that overlap": ("checkpoint", overlapping(3 << 20, 800)),
            "lists of the same lists": ("checkpoint", saved({**good, "more": deep})),
            "a list of itself": ("checkpoint", saved({**good, "more": endless})),
            "a key of tuples of tuples": ("checkpoint", saved_key(keys)),
            "an optimizer state of one element": ("checkpoint", saved({**good, "state": wide})),
            "weights of one element": (
                "checkpoint",
                saved({**good, "state_dict": dict.fromkeys(good["state_dict"], wide)}),
            ),
            "gigabytes of labels": ("idx", gzip.compress(labels + b"\xff" * 4) + zeros),
            "gigabytes of images": ("idx", three + struct.pack(">3I", 2**32 - 1, 28, 28) + b"0"),
            "more than its shape": ("idx", gzip.compress(labels + struct.pack(">I", 2)) + zeros),
        }
        for name, errors in self.outcomes(bombs).items():
            with self.subTest(name):
                self.assertTrue(errors)
                for words in ("MemoryError", "alloc", "RecursionError"):
                    self.assertNotIn(words, " ".join(errors))

    def test_whole_files_are_read_within_the_same_memory(self):
        shipped = train_pl.PRETRAINED.read_bytes()
        images = (fmnist.DATA_DIR / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").read_bytes()
        whole = {"the shipped model": ("checkpoint", shipped), "MNIST": ("idx", images)}
        self.assertEqual(self.outcomes(whole), {"the shipped model": [], "MNIST": []})

    def test_the_limit_is_one(self):
        self.LIMIT = 1 << 20
        images = (fmnist.DATA_DIR / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").read_bytes()
        self.assertIn("MemoryError", str(self.outcomes({"MNIST": ("idx", images)})))


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def zipped(parts: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def overlapping(size: int, times: int) -> bytes:
    """An archive in which the content of every part is all the parts behind it."""
    content, directory = bytes(size), b""
    for number in reversed(range(times)):
        name = f"a/data/{number}".encode()
        sizes = struct.pack("<3I", zlib.crc32(content), len(content), len(content))
        common = struct.pack("<5H", 20, 0, 0, 0, 33) + sizes + struct.pack("<2H", len(name), 0)
        header = b"PK\x03\x04" + common + name
        # Where it starts, counted from the end of the contents for now.
        directory = (b"PK\x01\x02\x14\0" + common + bytes(10) + b"%4d" % number + name) + directory
        content = header + content
    starts = [i for i in range(len(content) - size) if content[i : i + 4] == b"PK\x03\x04"]
    for number, start in enumerate(starts):
        directory = directory.replace(b"%4d" % number, struct.pack("<I", start), 1)
    end = struct.pack("<4H2IH", 0, 0, times, times, len(directory), len(content), 0)
    return content + directory + b"PK\x05\x06" + end


def saved_key(key: tuple) -> bytes:
    """A dictionary with this key, without its hash being taken here."""
    entry = pickle.dumps([key], protocol=2)
    start, end = entry.index(b"]"), entry.rindex(b"a.")
    put_list = entry[start : start + 3]  # EMPTY_LIST, BINPUT 0
    inner = entry[start + len(put_list) : end]
    return zipped({"a/data.pkl": b"\x80\x02}" + inner + b"Ns."})


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
        run = {"logs": {}, "seconds": 9.0, "step": 3, "unlogged": {"epoch": 0.0}, "processes": 1}
        self.checkpoint = {
            "state_dict": dict(model.state_dict()),
            "hyper_parameters": dict(model.hparams),
            "run": {**run, "argv": to_argv({**model.hparams, "epochs": 3})},
        }
        self.whole = saved(self.checkpoint)

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
            if self.one_line_or_result(self.read) is None:
                refused += 1
                continue
            model = train_pl.load_model(self.path)
            for name, weight in model.state_dict().items():
                self.assertTrue(torch.equal(weight, self.checkpoint["state_dict"][name]))
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
            saved(Payload(target)),
            saved(hidden),
            self.rezipped(lambda part, old: pickled if part.endswith("data.pkl") else old),
        ):
            self.path.write_bytes(content)
            self.assertIsNone(self.one_line_or_result(self.read))
            self.assertFalse(target.exists())

    def test_sizes_and_strides_that_claim_more_than_the_weights_are_refused(self):
        for sizes in ({"num_filters": 10**6}, {"z_dim": 10**9}):
            self.checkpoint["hyper_parameters"].update(sizes)
            self.path.write_bytes(saved(self.checkpoint))
            self.assertIsNone(self.one_line_or_result(self.read))
        self.checkpoint["hyper_parameters"].update(num_filters=2, z_dim=2)
        one = torch.zeros(1)
        weights = {n: one.expand(p.shape) for n, p in self.checkpoint["state_dict"].items()}
        self.path.write_bytes(saved({**self.checkpoint, "state_dict": weights}))
        self.assertIsNone(self.one_line_or_result(self.read))

    def test_a_tensor_that_claims_more_than_its_part_of_the_file_is_refused(self):
        self.checkpoint["more"] = torch.zeros(77, dtype=torch.uint8)
        self.whole = saved(self.checkpoint)
        number, more = b"K\x4d", b"J" + struct.pack("<i", 10**6)
        content = self.rezipped(lambda _, old: old.replace(number, more))
        self.assertNotEqual(len(content), len(self.rezipped(lambda _, old: old)))
        self.path.write_bytes(content)
        # Torch itself looks at this, from 2.10 on; before, it read memory that is not the file's.
        self.assertIsNone(self.one_line_or_result(self.read))

    def test_the_sizes_of_weights_without_a_prior_make_none_of_terabytes(self):
        weights = {n: w for n, w in self.checkpoint["state_dict"].items() if "prior" not in n}
        weights["decoder.net.0.weight"] = torch.zeros(0, 10**9)
        self.path.write_bytes(saved({**self.checkpoint, "state_dict": weights}))
        self.assertIsNone(self.one_line_or_result(self.read))

    def test_a_device_is_no_checkpoint(self):
        with (
            mock.patch.object(zipfile, "ZipFile", side_effect=AssertionError("it was opened")),
            self.assertRaisesRegex(InputError, "/dev/zero.*no regular file"),
        ):
            train_pl.load_model("/dev/zero")

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
            {"run": {**run, "unlogged": {3: 0.5}}},
            {"run": {**run, "unlogged": [("epoch", 0.5)]}},
        ):
            self.path.write_bytes(saved({**self.checkpoint, **wrong}))
            with self.subTest(wrong=list(wrong)):
                self.assertIsNone(self.one_line_or_result(self.read))

    def test_settings_that_make_no_sense_are_refused_by_name(self):
        for name, value in (
            ("epochs", -1),
            ("batch_size", 0),
            ("seed", -5),
            ("dataset", "EMNIST"),
            ("num_workers", 10**5),
            ("unknown", 1),
        ):
            wrong = {**self.checkpoint["run"], "argv": to_argv({name: value})}
            self.path.write_bytes(saved({**self.checkpoint, "run": wrong}))
            with self.subTest(name=name), self.assertRaisesRegex(InputError, "--resume.*last.ckpt"):
                self.read()

    def test_a_result_of_brackets_in_brackets_is_refused(self):
        (self.folder / "result.json").write_text("[" * 200_000)
        self.assertIsNone(self.one_line_or_result(finished_logs, self.folder))

    def test_names_in_a_checkpoint_touch_no_file_outside_its_run(self):
        outside = self.folder / "outside"
        outside.write_bytes(b"important")
        log = self.folder / "run" / "events.out.tfevents.1"
        log.parent.mkdir()
        log.write_bytes(b"0123456789")
        (log.parent / "events.out.tfevents.2").symlink_to(outside)
        lengths = {"../outside": 1, str(outside): 0, log.name: 4, "events.out.tfevents.2": 4}
        cut_logs(log.parent, lengths)
        self.assertEqual((outside.read_bytes(), log.read_bytes()), (b"important", b"0123"))


class TestResume(HostileTest):
    """Damage behind right checksums, as far as the trainer's own restoring and beyond."""

    def setUp(self):
        super().setUp()
        data = {train: fmnist.load(train=train).subset(torch.arange(90)) for train in (True, False)}
        for patch in (
            mock.patch.object(fmnist, "load", lambda root, name="", train=True: data[train]),
            mock.patch.multiple(fmnist, NUM_TRAIN=60, NUM_VAL=30),
            mock.patch.object(train_pl.GenerateCallback, "sample_and_save"),
            mock.patch.object(train_pl, "show_latents", return_value={}),
            redirect_stdout(io.StringIO()),
        ):
            patch.__enter__()
            self.addCleanup(patch.__exit__, None, None, None)
        options = {"num_filters": 2, "z_dim": 2, "batch_size": 30, "epochs": 1}
        (self.result,) = train_pl.train_vae(
            argparse.Namespace(**options, accelerator="cpu", devices="1", log_dir=self.folder)
        )
        self.run_folder = self.folder / "version_0"
        self.last = self.run_folder / "checkpoints" / "last.ckpt"
        self.good = torch.load(self.last, weights_only=True)

    def resume(self, checkpoint: dict) -> object:
        """The test result after one more epoch, or None where the checkpoint is refused."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            shutil.copytree(self.run_folder, f"{folder}/version_0")
            torch.save(checkpoint, f"{folder}/version_0/checkpoints/last.ckpt")
            args = argparse.Namespace(resume=f"{folder}/version_0", epochs=2)
            return self.one_line_or_result(train_pl.train_vae, args)

    def places(self, content: object) -> list[tuple[dict | list, object]]:
        """Every place in dicts and lists, as container and key; tensors are left alone."""
        found = []
        keys = list(content) if isinstance(content, dict) else range(len(content))
        for key in keys:
            found.append((content, key))
            if isinstance(content[key], dict | list):
                found += self.places(content[key])
        return found

    def test_what_the_trainer_restores_from_is_whole_or_refused_in_one_line(self):
        self.assertIsNotNone(self.resume(self.good))
        odd = (None, "x", "", -1, 0, 2**62, 2**80, 1.5, math.nan, [], {}, True, torch.zeros(2))
        refused = 0
        for _ in range(RESUMES):
            checkpoint = copy.deepcopy(self.good)
            part = self.chance.choice([name for name in checkpoint if name != "state_dict"])
            within = self.chance.random() < 0.8 and isinstance(checkpoint[part], dict | list)
            places = self.places(checkpoint[part]) if within else []
            container, key = self.chance.choice(places or [(checkpoint, part)])
            value = self.chance.choice(odd)
            if remove := self.chance.random() < 0.2:
                del container[key]
            else:
                container[key] = value
            with self.subTest(part=part, key=key, value="removed" if remove else value):
                refused += self.resume(checkpoint) is None
        self.assertGreater(refused, RESUMES // 2)

    def test_a_version_of_lightning_that_is_odd_or_missing_is_refused(self):
        for version in (None, 3, "", "x", "1.0.0.0.x"):
            with self.subTest(version=version):
                damaged = {**self.good, "pytorch-lightning_version": version}
                self.assertIsNone(self.resume(damaged))
        del damaged["pytorch-lightning_version"]
        self.assertIsNone(self.resume(damaged))
