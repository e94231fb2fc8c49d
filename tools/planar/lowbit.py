"""Golden data of the 1 to 2 bit formats: BitNet's packings, OneBit, tables per group."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import numpy as np

from planar.golden import Golden, bit_stream, codes, errors_of, generator, maker, scales

BITNET_CPP = "specification: microsoft/BitNet 16da220, utils/convert-hf-to-gguf-bitnet.py and src/ggml-bitnet-mad.cpp"


@maker("bitnet-hf")
def bitnet_hf() -> Iterator[Golden]:
    import torch
    from transformers.integrations.bitnet import pack_weights, unpack_weights

    # One tensor name, two meanings: BitLinear divides by weight_scale, AutoBitLinear multiplies.
    for name, divides in (("bitnet.hf", True), ("bitnet.hf_auto", False)):
        rng = generator(name)
        n, k = 24, 80
        q = torch.from_numpy(ternary(rng, (n, k)).astype(np.float32))
        packed = pack_weights(q.clone())
        scale = torch.tensor([rng.uniform(10, 40) if divides else rng.uniform(0.02, 0.1)], dtype=torch.float32)
        t = unpack_weights(packed, torch.float32)
        w = t / scale if divides else t * scale

        def quantize(x: np.ndarray) -> np.ndarray:
            s = 1.0 / np.abs(x).mean()
            return np.clip(np.round(x * s), -1, 1) / s

        planes = {"weight": packed.numpy(), "weight_scale": scale.numpy()}
        yield Golden(name, w.numpy(), planes, f"transformers {version('transformers')}", errors=errors_of(quantize))


def ternary(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """-1, 0 and 1 about equally often."""
    n = int(np.prod(shape))
    return (rng.permutation(np.arange(n) % 3) - 1).reshape(shape)


@maker("bitnet-cpp")
def bitnet_cpp() -> Iterator[Golden]:
    for layout in ("x86", "arm", "rows4"):
        name = f"bitnet.i2_s.{layout}"
        rng = generator(name)
        q = ternary(rng, (24, 256))
        scale = np.float32(rng.uniform(0.02, 0.1))
        # In a file the scale follows the codes, in a tail of 32 bytes.
        planes = {"weight": pack_i2_s(q, layout), "weight_scale": np.array([scale])}
        yield Golden(name, q * scale, planes, BITNET_CPP)

    name, tile = "bitnet.tl1.128x64x32", {"bm": 128, "bk": 64, "bmm": 32}
    rng = generator(name)
    q, scale = ternary(rng, (128, 128)), np.float32(0.021)
    planes = {"weight": pack_tl1(q, **tile), "weight_scale": np.array([scale])}
    yield Golden(name, q * scale, planes, BITNET_CPP)

    name, tile = "bitnet.tl2.128x96x32", {"bm": 128, "bk": 96, "bmm": 32}
    rng = generator(name)
    q, scale = ternary(rng, (128, 352)), np.float32(0.07)  # three tiles and 64 columns of pairs
    planes = {"weight": pack_tl2(q, **tile), "weight_scale": np.array([scale])}
    yield Golden(name, q * scale, planes, BITNET_CPP)


def pack_i2_s(q: np.ndarray, layout: str) -> np.ndarray:
    """Bytes of BitNet's I2_S without its tail: codes q + 1, the first of four in the highest bits.

    x86: bytes of 128 consecutive weights, byte j holds weights j, 32 + j, 64 + j, 96 + j. arm: 64 weights, 16 apart.
    rows4: the four weights are those of four rows in one column.
    """
    n, k = q.shape
    out = np.zeros(n * k // 4, np.uint8)
    for r in range(n):
        for c in range(k):
            i = r * k + c
            if layout == "rows4":
                byte, place = r // 4 * k + c, r % 4
            else:
                lanes = 32 if layout == "x86" else 16
                byte, place = i // (4 * lanes) * lanes + i % lanes, i // lanes % 4
            out[byte] |= (q[r, c] + 1) << (6 - 2 * place)
    return out


def pack_tl1(q: np.ndarray, bm: int, bk: int, bmm: int) -> np.ndarray:
    """Bytes of BitNet's TL1. A pair of weights along K is 3 a + b + 4; two pairs share a byte, the first on top.

    Order: tiles of bm rows, tiles of bk columns, bmm rows, 256 / bmm columns, 16 rows, 4 columns, row.
    """
    n, k = q.shape
    by = 256 // bmm
    out = np.zeros(n * k // 4, np.uint8)
    for r in range(n):
        for c in range(0, k, 4):
            high, low = 3 * q[r, c] + q[r, c + 1] + 4, 3 * q[r, c + 2] + q[r, c + 3] + 4
            at = r // bm
            at = at * (k // bk) + c // bk
            at = at * (bm // bmm) + r % bm // bmm
            at = at * (bk // by) + c % bk // by
            at = at * (bmm // 16) + r % bmm // 16
            at = at * (by // 4) + c % by // 4
            out[at * 16 + r % 16] = high << 4 | low
    return out


def pack_tl2(q: np.ndarray, bm: int, bk: int, bmm: int) -> np.ndarray:
    """Bytes of BitNet's TL2: three regions and padding.

    Columns up to a multiple of bk form triples v = 9 a + 3 b + c. First region: |v| in nibbles, the first of two
    triples on top; order as in TL1 with 192 / bmm columns to a run of bmm rows, whose quarters of 8 bytes are swapped.
    Second: signs, 16-bit words for 8 triples (24 columns) of rows j and j + 16, from the highest bit down. Third: the
    other columns as TL1's pairs, 32 x 4 to a run, quarters swapped.
    """
    n, k = q.shape
    by, triples = 192 // bmm, k - k % bk
    nibbles, signs = np.zeros(n * triples // 6, np.uint8), np.zeros(n * triples // 48, np.uint16)

    def swapped(r: int) -> int:
        return (0, 2, 1, 3)[r // 8 % 4] * 8 + r % 8

    for r in range(n):
        for c in range(0, triples, 3):
            v = 9 * q[r, c] + 3 * q[r, c + 1] + q[r, c + 2]
            run = ((r // bm * (triples // bk)) + c // bk) * (bm // bmm) + r % bm // bmm
            first = (c // 3) % 2 == 0
            at = (run * (bk // by) + c % bk // by) * bmm + swapped(r % bmm)
            nibbles[at] |= abs(v) << (4 if first else 0)
            word = (run * (bk // (4 * by)) + c % bk // (4 * by)) * 16 + r % 16
            bit = 15 - ((c // 3) % 8 * 2 + r % bmm // 16)
            signs[word] |= (v < 0) << bit
    parts = [nibbles, signs.view(np.uint8)]
    if k > triples:
        rest = k - triples
        pairs = np.zeros(n * rest // 4, np.uint8)
        for r in range(n):
            for c in range(0, rest, 4):
                a, b, d, e = q[r, triples + c : triples + c + 4]
                run = ((r // bm * (rest // 32)) + c // 32) * (bm // 32) + r % bm // 32
                pairs[(run * 8 + c % 32 // 4) * 32 + swapped(r % 32)] = (3 * a + b + 4) << 4 | (3 * d + e + 4)
        parts.append(pairs)
    out = np.concatenate(parts)
    room = (k - 256) * n // 3 * 5 // 8 + 256 * n // 2 * 4 // 8
    return np.pad(out, (0, max(room - out.size, 0)))


@maker("onebit")
def onebit() -> Iterator[Golden]:
    rng = generator("onebit.rank1")
    n, k = 20, 96
    bits = codes(rng, (n, k), 1)
    planes = {
        "weight": bit_stream(bits, 1).view(np.int8),
        "weight_scale": scales(rng, (n,)),
        "input_factor": scales(rng, (k,), signed=True) * np.float16(16),
    }
    rows, cols = planes["weight_scale"].astype(np.float32), planes["input_factor"].astype(np.float32)
    w = (1 - 2 * bits).astype(np.float32) * rows[:, None] * cols[None, :]
    source = "specification: xuyuzhuang11/OneBit 42d6d7b, scripts/convert_llama_to_infer_ckpt.py"

    def singular_pair(x: np.ndarray) -> np.ndarray:
        """OneBit's start: the first singular pair of |x|."""
        u, s, v = np.linalg.svd(np.abs(x))
        return np.sign(x) * (s[0] * np.outer(u[:, 0], v[0]))

    yield Golden("onebit.rank1", w, planes, source, errors=errors_of(singular_pair))


@maker("group-tables")
def group_tables() -> Iterator[Golden]:
    """2-bit codes with four values per group: DB-LLM's two scaled bit planes; ParetoQ's half-integer zero."""
    rng = generator("table2.g64")
    n, k, group = 12, 256, 64
    q = codes(rng, (n, k), 2)
    a1, a2 = scales(rng, (n, k // group)), -scales(rng, (n, k // group))
    entries = np.stack([np.zeros_like(a1), a1, a2, a1 + a2], -1)
    each = q.reshape(n, k // group, group)
    w = np.take_along_axis(entries, each, 2).astype(np.float32).reshape(n, k)
    planes = {"codes": bit_stream(q, 2), "entries": entries}
    yield Golden("table2.g64", w, planes, "specification: DB-LLM (arXiv 2402.11960), values 0, a1, a2, a1 + a2")

    for bits in (2, 3, 4):
        name = f"paretoq.int{bits}"
        rng = generator(name)
        q = codes(rng, (n, k), bits)
        clip = scales(rng, (n, 1)).astype(np.float32)
        if bits == 2:  # levels -0.75, -0.25, 0.25, 0.75
            w = ((q - 1.5) / 2).astype(np.float32) * clip
            s = clip / 2
        else:
            w, s = (q - (1 << (bits - 1))).astype(np.float32) * clip, clip
        yield Golden(name, w, {"codes": bit_stream(q, bits), "scale": s}, "specification: ParetoQ (arXiv 2502.02631)")
