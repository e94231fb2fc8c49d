#!/usr/bin/env python3
"""How far each encoder is from the best bytes there are, on a sample of blocks.

    python benchmarks/optimum.py [--blocks 8] [--importance] [--student] [formats ...]

The optimum is found by enumeration in NumPy, without the engine: all f16 scales of the range in which the largest
weight (two levels: the largest group scale) can lie, times all integer scales, each with the codes best for it.
Two-level formats: the integer that the largest group scale wants lies at 40 to 200 % of the last one, where it is cut.
Q2_K, Q4_K and Q5_K, with integer minima, have too many pairs of numbers to try them all: their "bound" leaves the
minima unrounded, so nothing lies below it; their "optimum" is the best of the scales that the bound likes most, times
a grid of minima. All others are exact.
Errors are root mean squares, plain or with a random importance.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import gguf.quants
import numpy as np
from edgequant import _core

Array = np.ndarray
EFFORTS = ("fast", "default", "best")
IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113.0])
E2M1 = np.array([-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6])


def f16_between(low: float, high: float) -> Array:
    """All positive f16 numbers in [low, high]."""
    first, last = np.array([low, high], np.float16).view(np.uint16)
    return np.arange(max(first, 1), min(last, 0x7BFF) + 1, dtype=np.uint16).view(np.float16).astype(np.float64)


# ---- Errors of one group of weights as a function of its scale


def nearest(x: Array, levels: Array) -> Array:
    return levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, x)]


def error_of_scales(x: Array, w: Array, levels: Array, scales: Array) -> Array:
    """The least weighted error of x (n,) for each scale, codes free. scales (...) -> (...)."""
    flat, out = scales.reshape(-1), np.empty(scales.size)
    whole = np.all(np.diff(levels) == 1)
    for begin in range(0, flat.size, 1 << 14):
        s = flat[begin : begin + (1 << 14), None]
        with np.errstate(divide="ignore", invalid="ignore"):
            position = np.where(s == 0, 0, x / s)
        q = np.clip(np.rint(position), levels[0], levels[-1]) if whole else nearest(position, levels)
        out[begin : begin + (1 << 14)] = ((x - s * q) ** 2) @ w
    return out.reshape(scales.shape)


def sweep(x: Array, w: Array, top: int, scales: Array, stored: Callable[[Array], Array]) -> Array:
    """The least weighted error of s q - m, q in 0 ... top, for each s > 0, over all m that `stored` returns.

    As m grows, codes go up one at a time; between two such steps the error is a parabola in m.
    """
    out = np.empty(len(scales))
    for begin in range(0, len(scales), 256):
        s = scales[begin : begin + 256, None, None]
        k = np.arange(top)[:, None]
        at = ((k + 0.5) * s - x).reshape(len(s), -1)
        order = np.argsort(at, axis=1)
        slope = np.take_along_axis(np.broadcast_to(-w * s, (len(s), top, len(x))).reshape(len(s), -1), order, 1)
        step = np.take_along_axis((w * (s * s - 2 * s * (x - s * k))).reshape(len(s), -1), order, 1)
        zero = np.zeros((len(s), 1))
        b = w @ x + np.concatenate([zero, np.cumsum(slope, 1)], 1)
        c = w @ (x * x) + np.concatenate([zero, np.cumsum(step, 1)], 1)
        m = stored(-b / w.sum())
        out[begin : begin + 256] = (c + 2 * m * b + m * m * w.sum()).min(1)
    return out


# ---- Optima of one block


@dataclass
class Optimum:
    error: float
    bound: float = field(default=np.nan)


def one_level(x: Array, w: Array, levels: Array) -> Optimum:
    most, reach = np.abs(x).max(), np.abs(levels).max()
    scales = f16_between(0.02 * most / reach, 8 * most / np.abs(levels[levels != 0]).min() / 2)
    return Optimum(min(error_of_scales(sign * x, w, levels, scales).min() for sign in (1, -1)))


def one_level_minimum(x: Array, w: Array, top: int) -> Optimum:
    spread = (x.max() - x.min()) / top
    scales = f16_between(0.3 * spread, 1.4 * spread)
    return Optimum(
        min(
            sweep(sign * x, w, top, scales, lambda m: m.astype(np.float16).astype(np.float64)).min() for sign in (1, -1)
        )
    )


def bytes_as_scales(x: Array, w: Array, levels: Array, group: int, scales: Array) -> Optimum:
    parts = zip(x.reshape(-1, group), w.reshape(-1, group), strict=True)
    return Optimum(sum(float(error_of_scales(a, b, levels, scales).min()) for a, b in parts))


def super_scales(largest: float, top: int) -> Array:
    """Those that bring the largest group scale to 40 to 200 % of the largest integer (beyond 100 % it is cut)."""
    return f16_between(largest / (2 * top), largest / (0.4 * top))


def two_levels(x: Array, w: Array, levels: Array, group: int, low: int, high: int) -> Optimum:
    xs, ws = x.reshape(-1, group), w.reshape(-1, group)
    best = np.inf
    probe = np.geomspace(0.2, 4, 400) * np.abs(x).max() / np.abs(levels).max()
    wanted = [probe[error_of_scales(a, b, levels, probe).argmin()] for a, b in zip(xs, ws, strict=True)]
    for sign in (1, -1):
        scales = sign * super_scales(max(wanted), max(-low, high))[:, None] * np.arange(low, high + 1)
        best = min(best, sum(error_of_scales(a, b, levels, scales).min(1) for a, b in zip(xs, ws, strict=True)).min())
    return Optimum(float(best))


def two_levels_minimum(x: Array, w: Array, top: int, group: int, most: int) -> Optimum:
    """most: the largest integer of scales and minima."""
    xs, ws = x.reshape(-1, group), w.reshape(-1, group)
    best = Optimum(np.inf, np.inf)
    spread = max(np.ptp(np.append(a, 0)) for a in xs) / top
    grid = np.geomspace(spread / 200, spread * 1.5, 1500)
    integers = np.arange(most + 1)
    for sign in (1, -1):  # both numbers negative: the greatest weight is the offset
        curves = [sweep(sign * a, b, top, grid, lambda m: np.maximum(m, 0)) for a, b in zip(xs, ws, strict=True)]
        largest = max(grid[c.argmin()] for c in curves)
        numbers = super_scales(largest, most)
        scales = numbers[:, None] * integers
        relaxed = [np.interp(scales, grid, c) for c in curves]
        total = sum(r.min(1) for r in relaxed)
        best.bound = min(best.bound, float(total.min()))
        for k in np.argsort(total)[:24]:
            likely = [scales[k, np.argsort(r[k])[:6]] for r in relaxed]
            minima = super_scales(max(0.0, *(-(sign * a).min() for a in xs)) + 1e-12, most)
            minima = np.append(minima[:: max(1, len(minima) // 96)], 0)
            errors = np.zeros(len(minima))
            for a, b, s in zip(xs, ws, likely, strict=True):
                m = (minima[:, None] * integers)[:, None, :, None]
                q = np.clip(np.rint((sign * a + m) / s[:, None, None]), 0, top)
                errors += ((sign * a + m - s[:, None, None] * q) ** 2 @ b).min((1, 2))
            best.error = min(best.error, float(errors.min()))
    return best


def envelope(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """The lines a t - 2 b that are least somewhere in t > 0: their a and b, and where each gives way to the next."""
    order = np.lexsort((-b, -a))  # steep ones are least for small t
    lines: list[tuple[float, float]] = []
    ends: list[float] = []
    for slope, offset in zip(a[order], b[order], strict=True):
        if lines and slope == lines[-1][0]:
            continue
        while lines:
            cross = 2 * (lines[-1][1] - offset) / (lines[-1][0] - slope)
            if cross > (ends[-1] if ends else 0):
                ends.append(cross)
                break
            lines.pop()
            if ends:
                ends.pop()
        lines.append((float(slope), float(offset)))
    return np.array([s for s, _ in lines]), np.array([o for _, o in lines]), np.array(ends[: len(lines) - 1])


def grid_points(
    x: Array, w: Array, grid: Array, parity: bool, sub: int, scales: int, unit: float, shift: float, shift_group: int
) -> Optimum:
    dim = grid.shape[1]
    best = np.inf
    for sign in (1, -1) if shift else (1,):
        sides = []  # per shift and vector: the least of a s^2 - 2 b s
        for delta in (shift, -shift) if shift else (0.0,):
            points, curves = grid + delta, []
            for v in range(0, 256, dim):
                xv, wv = sign * x[v : v + dim], w[v : v + dim]
                curves.append(((points**2) @ wv, points @ (wv * (xv if shift else np.abs(xv)))))
            if parity:  # of 8 weights an even number is negative: else the least product loses its sign
                for v in range(0, 256, 8):
                    of8 = range(v // dim, (v + 8) // dim)
                    if (x[v : v + 8] < 0).sum() % 2 == 0:
                        continue
                    products = [(points * (w * np.abs(x))[k * dim : k * dim + dim]).min(1) for k in of8]
                    flipped = [(curves[k][0], curves[k][1] - 2 * p) for k, p in zip(of8, products, strict=True)]
                    for k, f in zip(of8, flipped, strict=True):
                        curves[k] = (*curves[k], *f)  # type: ignore[assignment]
            sides.append(curves)

        def least(a: Array, b: Array, s: Array) -> Array:
            slopes, offsets, ends = envelope(a, b)
            at = np.searchsorted(ends, s)
            return s * (slopes[at] * s - 2 * offsets[at])

        def error(curves: list, j: int, count: int, s: Array) -> Array:
            """Of vectors j * count ... of one side at scales s."""
            part = [curves[k] for k in range(j * count, (j + 1) * count)]
            kept = [least(p[0], p[1], s) for p in part]
            if len(part[0]) == 2:
                return sum(kept)
            other = [least(p[2], p[3], s) for p in part]
            return np.min([sum(kept) - kept[k] + other[k] for k in range(count)], axis=0)

        def sub_block(j: int, s: Array, sides: list = sides) -> Array:
            if not shift:
                return sum(error(sides[0], k, 8 // dim, s) for k in range(j * sub // 8, (j + 1) * sub // 8))
            count = shift_group // 8
            groups = range(j * sub // shift_group, (j + 1) * sub // shift_group)
            return sum(np.minimum(error(sides[0], k, count, s), error(sides[1], k, count, s)) for k in groups)

        subs = range(256 // sub)
        probe = np.geomspace(0.1, 4, 400) * np.abs(x).max() / np.abs(grid).max()
        largest = max(probe[sub_block(j, probe).argmin()] for j in subs)
        s = super_scales(largest / unit, 2 * scales - 1)[:, None] * unit * (2 * np.arange(scales) + 1)
        best = min(best, float(sum(sub_block(j, s).min(1) for j in subs).min()))
    return Optimum(best + float(w @ (x * x)))


# ---- The formats


def whole(low: int, high: int) -> Array:
    return np.arange(low, high + 1, dtype=np.float64)


def grid_of(name: str) -> Array:
    cls = getattr(gguf.quants, name)
    cls.init_grid()
    return np.asarray(cls.grid, np.float64).reshape(cls.grid_shape)


E4M3 = np.array([(8 + c % 8) * 2.0 ** (c // 8 - 10) if c >= 8 else c * 2.0**-9 for c in range(127)])
SOLVERS: dict[str, tuple[int, Callable[[Array, Array], Optimum]]] = {
    "q1_0": (128, lambda x, w: one_level(x, w, np.array([-1.0, 1]))),
    "tq1_0": (256, lambda x, w: one_level(x, w, whole(-1, 1))),
    "tq2_0": (256, lambda x, w: one_level(x, w, whole(-1, 1))),
    "q2_0": (64, lambda x, w: one_level(x, w, whole(-1, 2))),
    "q4_0": (32, lambda x, w: one_level(x, w, whole(-8, 7))),
    "q5_0": (32, lambda x, w: one_level(x, w, whole(-16, 15))),
    "q8_0": (32, lambda x, w: one_level(x, w, whole(-128, 127))),
    "iq4_nl": (32, lambda x, w: one_level(x, w, IQ4)),
    "q4_1": (32, lambda x, w: one_level_minimum(x, w, 15)),
    "q5_1": (32, lambda x, w: one_level_minimum(x, w, 31)),
    "mxfp4": (32, lambda x, w: bytes_as_scales(x, w, E2M1, 32, 2.0 ** np.arange(-40, 20))),
    "nvfp4": (64, lambda x, w: bytes_as_scales(x, w, E2M1, 16, E4M3)),
    "q3_k": (256, lambda x, w: two_levels(x, w, whole(-4, 3), 16, -32, 31)),
    "q6_k": (256, lambda x, w: two_levels(x, w, whole(-32, 31), 16, -128, 127)),
    "iq4_xs": (256, lambda x, w: two_levels(x, w, IQ4, 32, -32, 31)),
    "q2_k": (256, lambda x, w: two_levels_minimum(x, w, 3, 16, 15)),
    "q4_k": (256, lambda x, w: two_levels_minimum(x, w, 15, 32, 63)),
    "q5_k": (256, lambda x, w: two_levels_minimum(x, w, 31, 32, 63)),
    "iq1_s": (256, lambda x, w: grid_points(x, w, grid_of("IQ1_S"), False, 32, 8, 1, 0.125, 32)),
    "iq1_m": (256, lambda x, w: grid_points(x, w, grid_of("IQ1_S"), False, 16, 8, 1, 0.125, 8)),
    "iq2_xxs": (256, lambda x, w: grid_points(x, w, grid_of("IQ2_XXS"), True, 32, 16, 0.125, 0, 0)),
    "iq2_xs": (256, lambda x, w: grid_points(x, w, grid_of("IQ2_XS"), True, 16, 16, 0.125, 0, 0)),
    "iq2_s": (256, lambda x, w: grid_points(x, w, grid_of("IQ2_S"), False, 16, 16, 0.125, 0, 0)),
    "iq3_xxs": (256, lambda x, w: grid_points(x, w, grid_of("IQ3_XXS"), True, 32, 16, 0.25, 0, 0)),
    "iq3_s": (256, lambda x, w: grid_points(x, w, grid_of("IQ3_S"), False, 32, 16, 1, 0, 0)),
}


def optima(name: str, x: Array, w: Array) -> Iterator[Optimum]:
    """Of each block of the rows of x; w: the importance of the columns, as long as a row."""
    block, solve = SOLVERS[name]
    for row in x.astype(np.float64):
        for begin in range(0, len(row), block):
            yield solve(row[begin : begin + block], w[begin : begin + block])


def errors(name: str, x: Array, w: Array | None) -> dict[str, float]:
    """The (weighted) squared error of each effort."""
    out = {}
    for effort in EFFORTS:
        data = _core.quantize(x, "f32", *x.shape, name, w, effort=effort, objective="plain")[0]
        difference = (_core.dequantize(data, name, *x.shape).astype(np.float64) - x) ** 2
        out[effort] = float((difference * (1 if w is None else w)).sum())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", choices=[*SOLVERS, []], help="all, if none are named")
    parser.add_argument("--blocks", type=int, default=8, help="rows of 256 weights in the sample")
    parser.add_argument("--importance", action="store_true", help="weigh the columns by a log-normal importance")
    parser.add_argument("--student", action="store_true", help="Student-t weights with 4 degrees of freedom")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    shape = (args.blocks, 256)
    x = ((rng.standard_t(4, shape) if args.student else rng.standard_normal(shape)) * 0.02).astype(np.float32)
    w = rng.lognormal(0, 1, 256).astype(np.float32) if args.importance else None
    weights = np.ones(256) if w is None else w.astype(np.float64)
    energy = (x.astype(np.float64) ** 2 * weights).sum()
    print("| format | optimum, relative | fast | default | best | bound |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in args.formats or SOLVERS:
        found = list(optima(name, x, weights))
        least = sum(o.error for o in found)
        ours = errors(name, x, w)
        ratios = " | ".join(f"{np.sqrt(ours[e] / least):.4f}" for e in EFFORTS)
        bound = np.sqrt(sum(o.bound for o in found) / least)
        print(
            f"| {name} | {np.sqrt(least / energy):.5f} | {ratios} | {'exact' if np.isnan(bound) else f'{bound:.4f}'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
