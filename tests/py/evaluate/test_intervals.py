import math

import numpy as np
import pytest
from edgequant.evaluate.intervals import BlockBootstrap


def series(random, windows, scored, memory):
    """Numbers in which each remembers a share of the one before, within its window; mean 0, variance 1."""
    x = random.standard_normal((windows, scored))
    for i in range(1, scored):
        x[:, i] = memory * x[:, i - 1] + math.sqrt(1 - memory**2) * x[:, i]
    return x.ravel()


def test_error_of_independent_numbers_is_the_usual_one():
    x = np.random.default_rng(0).standard_normal(64 * 256)
    estimate = BlockBootstrap(64, 256).mean(x)
    assert estimate.value == x.mean()
    assert estimate.error == pytest.approx(x.std() / math.sqrt(len(x)), rel=0.2)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * estimate.error, rel=0.1)


@pytest.mark.parametrize("windows", [4, 40])
def test_intervals_hold_what_they_promise_where_neighbours_are_alike(windows):
    """95 % of the intervals should hold the true mean; those for independent numbers hold it in half of the cases."""
    random = np.random.default_rng(1)
    holds = naive = 0
    for _ in range(200):
        x = series(random, windows, 256, 0.8)
        estimate = BlockBootstrap(windows, 256, draws=200).mean(x)
        holds += estimate.low < 0 < estimate.high
        naive += abs(x.mean()) < 1.96 * x.std() / math.sqrt(len(x))
    assert 0.86 < holds / 200 <= 0.99
    assert naive / 200 < 0.65


def test_functions_of_means_and_quantiles():
    x = np.random.default_rng(2).exponential(size=50 * 100)
    bootstrap = BlockBootstrap(50, 100)
    root = bootstrap.mean(x**2, np.sqrt)
    assert root.value == pytest.approx(math.sqrt((x**2).mean()))
    assert root.low < math.sqrt(2) < root.high
    median, high = bootstrap.quantiles(x, [0.5, 0.99])
    assert (median.value, high.value) == pytest.approx(tuple(np.quantile(x, [0.5, 0.99])))
    assert median.low < math.log(2) < median.high
    # the error of a median of independent numbers: 1 / (2 density sqrt(n))
    assert median.error == pytest.approx(1 / (2 * 0.5 * math.sqrt(len(x))), rel=0.3)
    assert high.low < -math.log(0.01) < high.high and high.error > median.error


def test_blocks_cover_all_tokens_and_say_what_they_are():
    for windows, scored, blocks in ((100, 511, 100), (6, 511, 36), (1, 511, 31), (2, 20, 2), (1, 5, 1)):
        bootstrap = BlockBootstrap(windows, scored)
        assert bootstrap.blocks == blocks
        assert f"{blocks} blocks of" in bootstrap.line()
        assert bootstrap.mean(np.ones(windows * scored)).value == 1
    alone = BlockBootstrap(1, 5).mean(np.arange(5.0))
    assert alone.value == 2 and alone.error == math.inf and alone.low == -math.inf
    assert BlockBootstrap(40, 64).mean(np.arange(2560.0)) == BlockBootstrap(40, 64).mean(np.arange(2560.0))


def test_no_interval_leaves_what_is_possible():
    share = np.ones(40 * 16)
    share[::160] = 0  # a share near 1
    bootstrap = BlockBootstrap(40, 16)
    estimate = bootstrap.mean(share)
    assert 0.98 < estimate.low < estimate.value < estimate.high <= 1
    assert bootstrap.mean(1 - share).low >= 0
    assert bootstrap.quantiles(share, [0.5])[0].high <= 1
