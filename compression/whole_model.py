"""A model in whole numbers: what archives are made with, and what they can contain."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compression.exact import describe, whole
from compression.low_bits import load
from inputs.command_line import InputError
from prior import check_prior
from vae import VAE, check_logits


class WholeModel(NamedTuple):
    """Networks as `exact.prepare` takes them, and the weights of all.

    The weights are those of the encoder, of the decoder, of the prior (see `latents.Prior`) and,
    where images have 256 grey levels, of the low bits' network.
    """

    encoder: list
    decoder: list
    levels: int  # of the images
    weights: Sequence[NDArray[np.int32]]

    @property
    def packed(self) -> bytes:
        """All of it, the same bytes on every machine; `unpack` reads it."""
        about = [self.encoder, self.decoder, self.levels, [each.shape for each in self.weights]]
        numbers = np.concatenate([each.ravel() for each in self.weights]).astype("<i4")
        planes = numbers.view(np.uint8).reshape(-1, 4).T  # the upper bytes compress well together
        return json.dumps(about).encode() + b"\n" + planes.tobytes()

    @property
    def digest(self) -> bytes:
        """Eight bytes that tell this model from others."""
        return hashlib.sha256(self.packed).digest()[:8]


def whole_model(model: VAE, levels: int | None = None) -> WholeModel:
    """A VAE of this repository in whole numbers.

    Args:
        model: of networks that `exact.describe` knows, with the prior of prior.py.
        levels: of the images; by default those of the model. A model of 16 levels also codes 256,
            with the shipped model of the low bits, see low_bits.py.
    Raises:
        InputError: the model cannot be run on whole numbers, or is of other grey levels, or its
            p(x|z) is not the decoder's logits.
    """
    check_logits(model, "archives")
    weights: list[NDArray[np.int32]] = []
    encoder, decoder = describe(model.encoder, weights), describe(model.decoder, weights)
    own = model.hparams.num_levels
    levels = levels or own
    if levels != own and (levels, own) != (256, 16):
        can = "16 or 256" if own == 16 else own
        raise InputError(f"this model is of images with {can} grey levels, got {levels}")
    check_prior(model.prior, "archives", "class_embedding", "masked_layers")
    weights.append(whole(model.prior.class_embedding.weight))
    for weight, bias in model.prior.masked_layers():
        weights += [whole(weight).T, whole(bias)]
    return WholeModel(encoder, decoder, levels, weights + (load() if levels == 256 else []))


def unpack(packed: bytes) -> WholeModel:
    """`WholeModel.packed` backwards."""
    about, _, planes = packed.partition(b"\n")
    encoder, decoder, levels, shapes = json.loads(about)
    planes = np.frombuffer(planes, np.uint8).reshape(4, -1)
    numbers = np.ascontiguousarray(planes.T).view("<i4").ravel().astype(np.int32)
    ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
    weights = [
        part.reshape(shape) for part, shape in zip(np.split(numbers, ends), shapes, strict=True)
    ]
    return WholeModel(encoder, decoder, levels, weights)
