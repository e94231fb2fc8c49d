"""Golden data of the vector grids: QuIP#'s E8P12, AQLM."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np

from planar.golden import Golden, codes, errors_of, generator, maker, scales


def e8p_magnitudes() -> np.ndarray:
    """(256, 8): the 227 vectors of half-integers with a squared norm of at most 10, sorted; then 29 of norm 12.

    The choice of the 29 (three entries of 1/2, or one of them five 3/2) is QuIP#'s, here as bits: set where 3/2.
    """
    grid = [v for v in itertools.product((0.5, 1.5, 2.5), repeat=8) if sum(x * x for x in v) <= 10]
    chosen = (
        "10001111 01001111 00101111 00011111 11101100 11101010 11100110 11101001 11100101 11100011 11011100 11011010"
        " 11010110 11011001 11010101 11010011 10111100 10111010 10110110 10111001 10110101 01110011 01111100 01111010"
        " 01110110 01111001 01110101 00110111 11001110"
    ).split()
    return np.array(grid + [[1.5 if b == "1" else 0.5 for b in v] for v in chosen])


def e8p_vector(magnitudes: np.ndarray, code: int) -> np.ndarray:
    """The 8 weights of a 16-bit code: row in the high byte, signs in the low one.

    The parity of the sign byte says whether 1/4 is subtracted or added; it is then removed from sign 0. Signs belong
    to coordinates in the order 0, 2, 4, 6, 1, 3, 5, 7, and the last of them is flipped where the row's sum is odd.
    """
    v = magnitudes[code >> 8].copy()
    signs = code & 255
    parity = signs.bit_count() & 1
    signs ^= parity
    if v.sum() % 2:
        v[7] = -v[7]
    for bit, coordinate in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
        if signs >> bit & 1:
            v[coordinate] = -v[coordinate]
    return v - 0.25 if parity else v + 0.25


def e8p_pack(q: np.ndarray) -> np.ndarray:
    """int64 (N, K / 32) of 16-bit codes (N, K / 8), in the order of QuIP#'s kernel: tiles of 16 rows and 4 words.

    A word holds the codes of rows r, r + 1 and of two neighbouring vectors: row bytes in the low half, sign bits
    interleaved by four in the high half.
    """
    n, vectors = q.shape
    out = np.zeros((n // 16, vectors // 8, 8, 4), np.uint64)
    for r in range(0, n, 2):
        for v in range(0, vectors, 2):
            four = [int(q[r, v]), int(q[r + 1, v]), int(q[r, v + 1]), int(q[r + 1, v + 1])]
            word = sum((c >> 8) << (8 * i) for i, c in enumerate(four))
            word += sum((c >> j & 1) << (32 + 4 * j + i) for i, c in enumerate(four) for j in range(8))
            out[r // 16, v // 8, r // 2 % 8, v // 2 % 4] = word
    return out.view(np.int64).reshape(n, vectors // 4)


@maker("quip-sharp")
def quip() -> Iterator[Golden]:
    rng = generator("quip.e8p")
    n, k = 32, 256
    q = rng.integers(0, 1 << 16, (n, k // 8))
    q[:16] = (codes(rng, (16, k // 8), 8) << 8) + codes(rng, (16, k // 8), 8)  # every row, every sign byte
    magnitudes = e8p_magnitudes()
    w = np.stack([e8p_vector(magnitudes, int(c)) for c in q.reshape(-1)]).reshape(n, k)
    scale = np.float32(0.03125 * 1.03)
    planes = {"Qidxs": e8p_pack(q), "Wscale": np.array([scale])}
    source = "specification: Cornell-RelaxML/quip-sharp 1d8f873, lib/codebook/latticee8_padded12.py"
    grid = np.stack([e8p_vector(magnitudes, c) for c in range(65536)])

    def nearest(x: np.ndarray) -> np.ndarray:
        """The nearest of all points, at the scale that QuIP# takes: the root mean square over 1.03."""
        s = np.sqrt(np.mean(np.square(x, dtype=np.float64))) / 1.03
        v = x.reshape(-1, 8) / s
        return (grid[np.argmax(2 * v @ grid.T - (grid**2).sum(1), axis=1)] * s).reshape(x.shape)

    yield Golden("quip.e8p", w.astype(np.float32) * scale, planes, source, errors=errors_of(nearest))


@maker("aqlm")
def aqlm() -> Iterator[Golden]:
    import torch
    from aqlm.utils import _dequantize_weight, pack_int_data, unpack_int_data

    for books, bits in ((1, 16), (2, 8)):
        name = f"aqlm.{books}x{bits}.g8"
        rng = generator(name)
        n, k = 16, 256
        q = codes(rng, (n, k // 8, books), bits)
        packed = pack_int_data(torch.from_numpy(q), bits)
        if bits == 8:
            books_ = rng.standard_normal((books, 256, 1, 8)).astype(np.float16)
        else:  # every vector different, and yet small in the file
            books_ = ((np.arange(65536)[None, :, None, None] >> (2 * np.arange(8))) & 3) - 1.5
        codebooks = torch.from_numpy(np.asarray(books_, np.float16))
        s = torch.from_numpy(scales(rng, (n, 1, 1, 1)))
        w = _dequantize_weight(unpack_int_data(packed, bits), codebooks.float(), s.float())
        planes = {"codes": packed.numpy(), "codebooks": codebooks.numpy(), "scales": s.numpy()}
        yield Golden(name, w.numpy(), planes, f"aqlm {version('aqlm')}")
