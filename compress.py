"""Lossless compression with a trained VAE: its bits per dimension, made real.

    python compress.py encode digits.npy digits.vae      # 4-bit images, or an IDX file
    python compress.py decode digits.vae digits.npy      # or a folder, for PNG files
    python compress.py info digits.vae
    python compress.py bench                             # against general codecs, on the test set

Bits-back coding with asymmetric numeral systems (Townsend, Bird & Barber 2019, section 2 and
algorithm 1, https://arxiv.org/abs/1901.04866). The compressed images are a stack of bits. An image
is put onto it in three steps, and taken from it by the same steps backwards:

    take z off it under the posterior q(z|x)     gives    log q(z|x)  bits back
    put x onto it under the decoder p(x|z)       costs   -log p(x|z)
    put z onto it under the prior p(z)           costs   -log p(z)

The sum is the negative ELBO, in bits. Only the first image finds nothing to take z from, and takes
it from random bits: the start-up cost of an archive.

What is guaranteed. Both directions run the networks on the same batches, with one thread, in the
same memory layout. An archive is therefore decoded exactly by the same versions of torch and
constriction with the same torch settings on the same kind of processor, whatever the number of
threads and of images. Another processor or version may round a probability differently, after which
everything decoded is noise. The archive's checksum of the pixels then makes the decoding an error,
never a wrong image: keep the originals until an archive has been decoded where it is to be used.
"""

import argparse
import bz2
import copy
import gzip
import hashlib
import io
import lzma
import math
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from constriction import stream
from numpy.typing import ArrayLike
from PIL import Image
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from tqdm import tqdm

import fmnist
from fmnist import InputError, four_bit, one_line
from train_pl import PRETRAINED, VAE, OneLineParser, find_checkpoint, load_model, whole_number

SIDE = 28
BATCH = 16  # images per run of the networks

# Each latent is coded as a whole number of bins of width BIN, up to RADIUS of them from 0: -4 to 4.
# A finer or wider grid is not better. constriction gives every bin a probability of at least 2^-24,
# so that one posterior draw in some thousand images falls on any bin at all, and where that is far
# outside of what the decoder knows, the image costs a hundred times the usual.
BIN = 2.0**-6
RADIUS = 256
POSTERIOR = stream.model.QuantizedGaussian(-RADIUS, RADIUS)  # mean and std in bins for each latent
PRIOR = stream.model.QuantizedGaussian(-RADIUS, RADIUS, 0.0, 1 / BIN)
PIXEL = stream.model.Categorical(perfect=False)

MAGIC, VERSION = b"VAE4", 1
HEADER = struct.Struct("<4sBBII8sI")  # the fields of Header
CHECKSUM = struct.Struct("<I")  # CRC-32 of all bytes before it, at the end of the archive


class Header(NamedTuple):
    """What an archive says about itself."""

    magic: bytes
    version: int
    rank: int  # 3 for images [N, 28, 28], 4 for [N, 1, 28, 28]
    count: int  # N
    startup: int  # random words that the stream begins with; decoding knows the ones before them
    weights: bytes  # fingerprint of the model's weights
    pixels: int  # CRC-32 of the images, a byte per pixel

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, *(1,) * (self.rank - 3), SIDE, SIDE)


def check_images(images: ArrayLike) -> np.ndarray:
    """The images as a NumPy array.

    Raises:
        TypeError: they are not uint8.
        ValueError: they are not [N, 28, 28] or [N, 1, 28, 28], or have values above 15.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    if images.shape[1:] not in ((SIDE, SIDE), (1, SIDE, SIDE)):
        raise ValueError(
            f"images must be [N, {SIDE}, {SIDE}] or [N, 1, {SIDE}, {SIDE}], "
            f"got {list(images.shape)}"
        )
    if len(images) >= 2**32:
        raise ValueError(f"at most {2**32 - 1} images fit into an archive, got {len(images)}")
    if images.size and images.max() > 15:
        raise ValueError(f"images must have 16 grey levels, 0..15, got {images.max()}")
    return images


def fingerprint(model: torch.nn.Module) -> bytes:
    """Eight bytes that tell the weights of one model from those of another."""
    digest = hashlib.sha256()
    for name, weights in sorted(model.state_dict().items()):
        digest.update(f"{name} {weights.dtype} {list(weights.shape)}".encode())
        digest.update(weights.contiguous().numpy().tobytes())
    return digest.digest()[:8]


def read_header(archive: bytes) -> Header:
    """The header of a whole archive of this version.

    Raises:
        InputError: it is something else, of another version, truncated or altered.
    """
    if archive[: len(MAGIC)] != MAGIC:
        raise InputError("this is no archive of compress.py")
    if archive[len(MAGIC) : len(MAGIC) + 1] != bytes([VERSION]):
        found = archive[len(MAGIC)] if len(archive) > len(MAGIC) else "no"
        raise InputError(
            f"the archive is of version {found}, this program reads version {VERSION}: "
            "use the program that wrote it"
        )
    end = len(archive) - CHECKSUM.size
    if end < HEADER.size or CHECKSUM.pack(zlib.crc32(archive[:end])) != archive[end:]:
        raise InputError("the archive is truncated or altered: take another copy of it")
    header = Header(*HEADER.unpack_from(archive))
    if header.rank not in (3, 4) or (end - HEADER.size) % 4:
        raise InputError("the archive makes no sense, though its checksum is right")
    return header


def batches(count: int) -> Iterator[int]:
    """The sizes of the batches in the order of decoding: 16, 16, ..., 8, 4, 2, 1, roughly.

    What is decoded last was encoded first: one image on random bits, then two on the bits of the
    first, and so on. The start-up cost is that of one image for any number of them.
    """
    while count:
        if count < BATCH:
            rest = (1 << (count.bit_length() - 1)) - 1
        else:
            rest = (count - BATCH) // BATCH * BATCH + BATCH - 1
        yield count - rest
        count = rest


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread inside, the number that there was before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Codec:
    """Compresses and decompresses images with one model.

    Args:
        model: its weights are float32 and on the CPU; it is not changed.
        progress: show a progress bar where there is a terminal.
    Raises:
        ValueError: the weights are something else.
    """

    def __init__(self, model: VAE, progress: bool = False):
        kinds = {f"{p.dtype} on {p.device.type}" for p in model.parameters()}
        if kinds != {"torch.float32 on cpu"}:
            raise ValueError(f"the model must be float32 on the CPU, got {', '.join(kinds)}")
        self.encoder, self.decoder = (
            copy.deepcopy(net).eval().to(memory_format=torch.channels_last)
            for net in (model.encoder, model.decoder)
        )
        self.z_dim = model.decoder.z_dim
        self.weights = fingerprint(model)
        self.progress = progress
        self.network_seconds = 0.0  # spent in the networks so far
        # A latent takes at most 24 bits from the stack: a full batch leaves a quarter of this. The
        # one at the end is the head of an otherwise empty stack.
        known = hashlib.shake_128(MAGIC).digest(4 * (BATCH * self.z_dim + 4))
        self.start = np.append(np.frombuffer(known, "<u4"), 1).astype(np.uint32)
        self.least = self.z_dim + 4  # words without which something is wrong

    def encode(self, images: ArrayLike) -> bytes:
        """See `encode`."""
        images = check_images(images)
        stack = stream.stack.AnsCoder(self.start)
        stop = len(images)
        with self._at_work("encoding", stop) as bar:
            for size in reversed(list(batches(stop))):
                self._push(stack, images[stop - size : stop])
                stop -= size
                bar.update(size)
        words = stack.get_compressed()
        overlap = min(len(words), len(self.start))
        differs = words[:overlap] != self.start[:overlap]
        untouched = int(differs.argmax()) if differs.any() else overlap
        header = Header(
            MAGIC,
            VERSION,
            images.ndim,
            len(images),
            len(self.start) - untouched,
            self.weights,
            zlib.crc32(np.ascontiguousarray(images)),
        )
        archive = HEADER.pack(*header) + words[untouched:].astype("<u4").tobytes()
        return archive + CHECKSUM.pack(zlib.crc32(archive))

    def decode(self, archive: bytes) -> np.ndarray:
        """See `decode`."""
        header = read_header(archive)
        if header.weights != self.weights:
            raise InputError(
                f"the archive was made with another checkpoint, of fingerprint "
                f"{header.weights.hex()}, this one has {self.weights.hex()}: give that one"
            )
        mismatch = InputError(
            "the decoded pixels do not match the archive's checksum: decode it with the versions "
            "of torch and constriction and on the kind of processor that it was made with"
        )
        words = np.frombuffer(archive[HEADER.size : -CHECKSUM.size], "<u4").astype(np.uint32)
        if header.startup > len(self.start) or (len(words) and not words[-1]):
            raise mismatch
        untouched = self.start[: len(self.start) - header.startup]
        stack = stream.stack.AnsCoder(np.concatenate([untouched, words]))
        pixels = bytearray()  # grows with what is there, not with what the header says
        with self._at_work("decoding", header.count) as bar:
            for size in batches(header.count):
                if (images := self._pop(stack, size)) is None:
                    raise mismatch
                pixels += images.tobytes()
                bar.update(size)
        if not np.array_equal(stack.get_compressed(), self.start):
            raise mismatch
        if zlib.crc32(pixels) != header.pixels:
            raise mismatch
        return np.frombuffer(pixels, np.uint8).reshape(header.shape)

    @contextmanager
    def _at_work(self, what: str, count: int) -> Iterator[tqdm]:
        hidden = None if self.progress else True  # None: shown on a terminal
        bar = tqdm(total=count, desc=what, unit=" images", disable=hidden)
        with bar, one_thread(), torch.inference_mode():
            yield bar

    def _push(self, stack: stream.stack.AnsCoder, images: np.ndarray) -> None:
        z = stack.decode(POSTERIOR, *self._posterior(images))
        if stack.num_words() < self.least:
            raise InputError("this model takes more bits back than its images cost: train it anew")
        stack.encode_reverse(images.ravel().astype(np.int32), PIXEL, self._probabilities(z))
        stack.encode_reverse(z, PRIOR)

    def _pop(self, stack: stream.stack.AnsCoder, size: int) -> np.ndarray | None:
        """`_push` backwards: uint8 [size, 28, 28], or None where the stack has run empty."""
        z = stack.decode(PRIOR, size * self.z_dim)
        pixels = stack.decode(PIXEL, self._probabilities(z))
        if stack.num_words() < self.least:
            return None
        images = pixels.astype(np.uint8).reshape(size, SIDE, SIDE)
        stack.encode_reverse(z, POSTERIOR, *self._posterior(images))
        return images

    def _posterior(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of every latent, in bins: float32 [B * z_dim] each."""
        started = time.perf_counter()
        x = torch.from_numpy(images.reshape(-1, 1, SIDE, SIDE).astype(np.int64))
        mean, log_std = self._finite(*self.encoder(x))
        mean = (mean / BIN).clamp(-RADIUS, RADIUS)
        std = (log_std.exp() / BIN).clamp(1 / 8, RADIUS)  # of no use below a bin, or above all
        self.network_seconds += time.perf_counter() - started
        return mean.flatten().numpy(), std.flatten().numpy()

    def _probabilities(self, z: np.ndarray) -> np.ndarray:
        """Latents in bins, int32 [B * z_dim], to every pixel's: float32 [B * 784, 16]."""
        started = time.perf_counter()
        (logits,) = self._finite(self.decoder(torch.from_numpy(z).view(-1, self.z_dim) * BIN))
        probabilities = logits.permute(0, 2, 3, 1).flatten(0, 2).softmax(dim=1)
        self.network_seconds += time.perf_counter() - started
        return probabilities.numpy()

    @staticmethod
    def _finite(*outputs: Tensor) -> tuple[Tensor, ...]:
        if not all(output.isfinite().all() for output in outputs):
            raise InputError("the model's outputs are not finite numbers: train it anew")
        return outputs


def encode(images: ArrayLike, model: VAE) -> bytes:
    """Images to an archive that `decode` turns into the same images with the same model.

    Args:
        images: uint8 [N, 28, 28] or [N, 1, 28, 28], values 0..15, N >= 0.
        model: its weights are float32 and on the CPU.
    Raises:
        TypeError, ValueError: images or model are something else.
        InputError: the model is of no use, as its outputs are not finite numbers.
    """
    return Codec(model).encode(images)


def decode(archive: bytes, model: VAE) -> np.ndarray:
    """An archive to its images: uint8, in the shape that they were given in.

    The time and memory that this takes are in proportion to what is in the archive, whatever its
    header says.

    Args:
        archive: what `encode` returned.
        model: the one that it was encoded with.
    Raises:
        InputError: the archive is damaged or of another model or version, or its pixels come out
            differently on this machine.
        ValueError: the model is not float32 on the CPU.
    """
    return Codec(model).decode(archive)


def read_images(path: Path, discretize: bool) -> np.ndarray:
    """Images from a .npy file or, with `discretize`, from an IDX file of 256 grey levels.

    Returns:
        uint8 [N, 28, 28] or [N, 1, 28, 28], values 0..15; those of a .npy file stay on disk.
    Raises:
        InputError: the file cannot be read or contains something else.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(6)
        if start == b"\x93NUMPY":
            if discretize:
                raise ValueError("--discretize is for IDX files, a .npy file has 16 levels already")
            return check_images(np.load(path, mmap_mode="r", allow_pickle=False))
        with (gzip.open if start.startswith(b"\x1f\x8b") else open)(path, "rb") as file:
            data = file.read()
        if len(data) < 16 or data[:4] != b"\0\0\x08\x03":  # unsigned bytes, three dimensions
            raise ValueError("neither a .npy file nor an IDX file of images")
        if not discretize:
            raise ValueError("it has 256 grey levels; with --discretize, 16 of them are kept")
        shape = struct.unpack(">3I", data[4:16])
        if len(data) - 16 != math.prod(shape):
            raise ValueError(f"it should have {list(shape)} pixels, but has {len(data) - 16}")
        return check_images(four_bit(np.frombuffer(data, np.uint8, offset=16)).reshape(shape))
    except Exception as error:  # there is no end to what a damaged file can raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path} cannot be used: {one_line(why)}") from error


def read_archive(path: Path) -> bytes:
    """Raises InputError where the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


@contextmanager
def replacing(target: Path, force: bool) -> Iterator[Path]:
    """A path for a new file or folder, which takes the target's place once it is whole.

    Raises:
        InputError: the target exists and `force` is not given, or is a folder with anything but
            PNG files in it, or cannot be written.
    """
    target = target.absolute()
    try:
        if target.exists() and not force:
            raise InputError(f"{target} exists: pass --force to replace it, or choose another name")
        if target.is_dir() and any(path.suffix != ".png" for path in target.iterdir()):
            raise InputError(f"{target} is a folder with other files than PNGs: choose another")
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".compress-") as staging:
            new, old = Path(staging, "new"), Path(staging, "old")
            yield new
            if target.is_dir() and new.is_dir():
                os.replace(target, old)
            os.replace(new, target)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}): choose another"
        ) from error


def write_images(path: Path, images: np.ndarray, as_npy: bool) -> None:
    """A .npy file of the levels 0..15, or a folder of PNG files with 17 times the level."""
    if as_npy:
        with open(path, "xb") as file:
            np.save(file, images)
        return
    path.mkdir()
    width = max(5, len(str(len(images) - 1)))
    for number, image in enumerate(images.reshape(-1, SIDE, SIDE)):
        Image.fromarray(image * np.uint8(17)).save(path / f"{number:0{width}}.png")


def cost(header: Header, size: int) -> str:
    """An archive's size in bytes, in words."""
    rate = 8 * size / max(1, header.count * SIDE**2)
    per_pixel = f"{rate:.4f} bits per pixel, " if header.count else ""
    return (
        f"{header.count:,} images in {size:,} bytes: {per_pixel}with {8 * overhead():,} bits of "
        f"header and {32 * header.startup:,} bits to start up with"
    )


def overhead() -> int:
    """Bytes of an archive that are not the stream."""
    return HEADER.size + CHECKSUM.size


class VerificationError(Exception):
    """An archive does not decode to what was encoded; there is no known way for this to happen."""


def encode_file(args: argparse.Namespace) -> None:
    images = read_images(args.images, args.discretize)
    codec = Codec(load_model(find_checkpoint(args.checkpoint)), progress=True)
    with replacing(args.archive, args.force) as new:
        archive = codec.encode(images)
        if args.verify:
            try:
                same = np.array_equal(codec.decode(archive), images)
            except InputError:
                same = False
            if not same:
                raise VerificationError("the archive does not decode to the images: not written")
        new.write_bytes(archive)
    verified = "verified by decoding it" if args.verify else "not verified"
    print(f"{args.archive}: {cost(read_header(archive), len(archive))}; {verified}")


def decode_file(args: argparse.Namespace) -> None:
    archive = read_archive(args.archive)
    with naming(args.archive):
        read_header(archive)  # before the model is loaded
    codec = Codec(load_model(find_checkpoint(args.checkpoint)), progress=True)
    with replacing(args.images, args.force) as new:
        with naming(args.archive):
            images = codec.decode(archive)
        write_images(new, images, as_npy=args.images.suffix == ".npy")
    print(f"{args.images}: {len(images):,} images, as they were")


def show_info(args: argparse.Namespace) -> None:
    archive = read_archive(args.archive)
    with naming(args.archive):
        header = read_header(archive)
    print(
        f"version      {header.version}\n"
        f"images       uint8 {list(header.shape)}, values 0..15\n"
        f"size         {cost(header, len(archive))}\n"
        f"checkpoint   weights of fingerprint {header.weights.hex()}\n"
        f"pixels       CRC-32 {header.pixels:08x}\n"
        f"file         whole, its CRC-32 is right"
    )


@torch.inference_mode()
def negative_elbo(model: VAE, images: np.ndarray) -> float:
    """The mean over the images with one sample of z each, in bits per dimension."""
    with isolate_rng():
        torch.manual_seed(0)
        parts = torch.from_numpy(images).long().unsqueeze(1).split(500)
        return sum(len(part) * model(part)[2].item() for part in parts) / len(images)


def file_size(picture: Image.Image, **how: object) -> int:
    file = io.BytesIO()
    picture.save(file, **how)
    return file.tell()


def png_bytes(pictures: Iterable[np.ndarray]) -> int:
    """Of PNG files of the levels, uint8 [H, W] in 0..15.

    At 4 bits per pixel, which needs a palette, or as grey at 8, whichever is the smaller file.
    """

    def smaller(levels: np.ndarray) -> int:
        palette = Image.frombytes("P", levels.shape[::-1], levels.tobytes())
        palette.putpalette([17 * level for level in range(16) for _ in "RGB"])
        forms = ((palette, {"bits": 4}), (Image.fromarray(17 * levels), {}))
        return min(file_size(form, format="PNG", optimize=True, **how) for form, how in forms)

    return sum(map(smaller, pictures))


def webp_bytes(pictures: Iterable[np.ndarray]) -> int:
    """Of lossless WebP files of the levels, uint8 [H, W] in 0..15."""
    how = {"format": "WEBP", "lossless": True, "quality": 100, "method": 6}
    return sum(file_size(Image.fromarray(levels), **how) for levels in pictures)


def one_sheet(images: np.ndarray) -> np.ndarray:
    """Images [N, 28, 28] as one of about as many rows as columns, the last row filled with 0."""
    columns = math.isqrt(len(images) - 1) + 1
    rows = -(-len(images) // columns)
    filled = np.zeros((rows * columns, SIDE, SIDE), np.uint8)
    filled[: len(images)] = images
    grid = filled.reshape(rows, columns, SIDE, SIDE).swapaxes(1, 2)
    return grid.reshape(rows * SIDE, columns * SIDE)


def codec_bytes(images: np.ndarray) -> dict[str, int]:
    """What general codecs make of all images at once, without loss.

    Args:
        images: uint8 [N, 28, 28], values 0..15, N >= 1.
    Returns:
        bytes by the codec's name; bz2 gets a byte per pixel, xz one for two pixels, which suits
        them better than the reverse.
    """
    sheet, raw = one_sheet(images), images.tobytes()
    packed = (16 * images[..., ::2] + images[..., 1::2]).tobytes()
    return {
        "PNG, one sheet": png_bytes([sheet]),
        "WebP, one sheet": webp_bytes([sheet]),
        "bz2": len(bz2.compress(raw, 9)),
        "xz": len(lzma.compress(packed, preset=9 | lzma.PRESET_EXTREME)),
    }


def slow_codec_bytes(images: np.ndarray) -> dict[str, int]:
    """As `codec_bytes`: a file per image, and JPEG XL where imagecodecs is installed."""
    sizes = {"PNG, single images": png_bytes(images), "WebP, single images": webp_bytes(images)}
    try:
        import imagecodecs  # for this comparison only
    except ImportError:
        return sizes
    for effort in (9, 10):
        file = imagecodecs.jpegxl_encode(one_sheet(images), lossless=True, effort=effort)
        sizes[f"JPEG XL, one sheet, effort {effort}"] = len(file)
    return sizes


def bench(args: argparse.Namespace) -> None:
    model = load_model(find_checkpoint(args.checkpoint))
    fmnist.prepare()
    images = fmnist.load(train=False).images.squeeze(1).numpy()[: args.limit]
    codec = Codec(model, progress=True)
    speeds = []

    def timed(name: str, function: Callable, argument: object) -> object:
        started, in_networks = time.perf_counter(), codec.network_seconds
        result = function(argument)
        seconds = time.perf_counter() - started
        share = (codec.network_seconds - in_networks) / seconds
        speeds.append(
            f"{name}: {len(images) / seconds:,.0f} images/s on one thread, {share:.0%} of the time "
            f"in the networks, {1 - share:.0%} in the coder"
        )
        return result

    archive = timed("encoding", codec.encode, images)
    if not np.array_equal(timed("decoding", codec.decode, archive), images):
        raise VerificationError("the archive does not decode to the images")
    elbo = negative_elbo(model, images)
    rate = 8 * len(archive) / images.size
    lines = [("this model, one archive", rate, len(archive))]
    for name, size in {**codec_bytes(images), **slow_codec_bytes(images)}.items():
        lines.append((name, 8 * size / images.size, size))
    print("| method | bits per pixel | bytes |\n| --- | --- | --- |")
    for name, bits, size in sorted(lines, key=lambda line: line[1]):
        print(f"| {name} | {bits:.4f} | {size:,} |")
    if not any("JPEG XL" in name for name, *_ in lines):
        print("\nJPEG XL is left out: pip install imagecodecs")
    print(f"\nthis model: {cost(read_header(archive), len(archive))}")
    print(f"its negative ELBO: {elbo:.4f} bits per pixel, the archive has {rate / elbo - 1:+.2%}")
    print(*speeds, sep="\n")


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description="Lossless compression of 4-bit digits with a trained VAE.")
    commands = parser.add_subparsers(required=True, metavar="encode|decode|info|bench")

    def command(name: str, run: Callable[[argparse.Namespace], None], summary: str) -> Callable:
        subparser = commands.add_parser(name, help=summary, description=summary)
        subparser.set_defaults(run=run)
        return subparser.add_argument

    checkpoint = {"type": Path, "default": PRETRAINED, "help": "model (default: %(default)s)"}
    force = {"action": "store_true", "help": "replace what is there"}
    archive = {"type": Path, "metavar": "ARCHIVE"}

    add = command("encode", encode_file, "compress images without loss")
    images = ".npy file, uint8 [N, 28, 28] or [N, 1, 28, 28], values 0..15, or an IDX file"
    add("images", type=Path, metavar="IMAGES", help=images)
    add("archive", **archive)
    add("--checkpoint", **checkpoint)
    add("--discretize", action="store_true", help="of an IDX file's 256 grey levels, keep 16")
    add("--no-verify", dest="verify", action="store_false", help="do not decode the result")
    add("--force", **force)

    add = command("decode", decode_file, "get the images back")
    add("archive", **archive)
    images = ".npy file to write; any other name is a folder for PNGs of 17 times the level"
    add("images", type=Path, metavar="IMAGES", help=images)
    add("--checkpoint", **checkpoint)
    add("--force", **force)

    add = command("info", show_info, "show what an archive contains")
    add("archive", **archive)

    add = command("bench", bench, "compare with general codecs on the test images")
    add("--checkpoint", **checkpoint)
    add("--limit", type=whole_number(1, 10_000), help="take only the first images")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command line: bad input ends with one line and exit code 2."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except InputError as error:
        parser.error(str(error))
    except VerificationError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
