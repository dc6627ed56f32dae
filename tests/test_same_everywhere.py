"""Archives that were made on one machine are decoded, and made again to the byte, on this one.

Made on a virtual AMD EPYC (Zen 4, AVX-512) with torch 2.14.1, NumPy 2.4.6 and constriction 0.5.0.
.ci/run repeats this test with other instructions. As a command it makes the archives anew, for
another version of the format or another shipped model: python -m tests.test_same_everywhere
"""

import unittest
from hashlib import sha256, shake_128
from pathlib import Path

import numpy as np
from test_compression import digits, small_model

from compress import decode, encode
from compression.archive import read_archive
from compression.codec import Codec
from compression.whole_model import unpack
from fmnist import four_bit
from vae import PRETRAINED, VAE, load_model

FOLDER = Path(__file__).resolve().parent / "archives"
SHA256 = {
    "16_levels": "053f8d26675e907638a09803651520210cfb7672974834ef6d56ae5b61ba1ac8",
    "256_levels": "0b6a53a9dc087720bf2a752bdb66f80b675f01a084a9a73a24b5f1c2a9d66f25",
    "one_image": "5aadce00299773a774de6963f6c22a7bef1a2a0252089dcac82e6c8c44167129",
    "no_image": "16a6ff770ef8e4ab4fed727b43b90c822670f7aff97914db94db76965a165906",
    "one_class": "4bf2a92d73a278cee6ad98d8bf6bc25efab4a69a8942239f7d8b3ba68b8ea8a8",
    "2_levels": "6cab35639782ad4bbd4d6ca32f405ded835427b2df2aacc042912ea4d150c395",
}


def cases() -> dict[str, tuple[np.ndarray, int, VAE | None]]:
    """Images, their levels, and the model that is put into the archive; None is the shipped one."""
    levels, noise = four_bit(digits()), shake_128(b"noise").digest(5 * 784)
    noise = np.frombuffer(noise, np.uint8).reshape(5, 28, 28)
    return {
        "16_levels": (levels[:40], 16, None),
        "256_levels": (digits()[:20], 256, None),
        "one_image": (digits()[7:8, np.newaxis], 256, None),
        "no_image": (levels[:0], 16, None),
        "one_class": (noise % np.uint8(8), 16, small_model(num_classes=1)),
        "2_levels": ((noise < 20).astype(np.uint8), 2, small_model(num_levels=2)),
    }


class TestSameEverywhere(unittest.TestCase):
    def test_archives_of_another_machine_are_decoded_and_made_again_to_the_byte(self):
        shipped = load_model(PRETRAINED)
        for name, (images, levels, model) in cases().items():
            with self.subTest(name, means="a mistake, or another version of the format"):
                archive = (FOLDER / f"{name}.vae").read_bytes()
                self.assertEqual(sha256(archive).hexdigest(), SHA256[name])
                if model is None:
                    self.assertTrue(np.array_equal(decode(archive, shipped), images))
                    self.assertEqual(encode(images, shipped, levels), archive)
                else:  # another version of xz may pack the model in other bytes
                    self.assertTrue(np.array_equal(decode(archive), images))
                    codec = Codec(unpack(read_archive(archive).model))
                    again = codec.encode(images, with_model=True)
                    self.assertEqual(read_archive(again), read_archive(archive))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, (images, levels, model) in cases().items():
        archive = encode(images, model or load_model(PRETRAINED), levels, with_model=bool(model))
        (FOLDER / f"{name}.vae").write_bytes(archive)
        print(f'    "{name}": "{sha256(archive).hexdigest()}",')
