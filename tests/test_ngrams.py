"""Bits per byte of n-grams, by hand and against an entropy that is known."""

import numpy as np
import pytest

from experiments.benchmark import ngrams


def test_order_0_and_1_by_hand():
    orders = ngrams.bits_by_order(b"aab", b"ab")
    chance = {b: (n + 2 / 256) / 5 for b, n in (("a", 2), ("b", 1))}  # 3 bytes, 2 kinds
    assert orders[0] == pytest.approx(-np.log2([chance["a"], chance["b"]]).mean())
    # The first a follows the beginning, as one did in training; behind a there were an a and a b.
    first, second = (1 + chance["a"]) / 2, (1 + 2 * chance["b"]) / 4
    assert orders[1] == pytest.approx(-np.log2([first, second]).mean())


def test_more_context_helps_where_there_is_something_to_know():
    data = bytes(range(256)) * 20
    orders = ngrams.bits_by_order(data, data[:512])
    assert orders[0] == pytest.approx(8, abs=0.01) and orders[1] < 0.6 and orders[4] < 0.1
    found = ngrams.measure(data, data[:512])
    assert found["xz, primed"] < found["xz"] and set(found) > {"order 4", "bz2"}


def test_a_sum_over_all_bytes_is_one():
    train = np.frombuffer(b"abracadabra", np.uint8).tobytes()
    for context in (b"ab", b"zz"):
        chances = []
        for b in range(256):
            two = ngrams.bits_by_order(train, context + bytes([b]))
            one = ngrams.bits_by_order(train, context)
            chances.append([2.0 ** (2 * y - 3 * x) for x, y in zip(two, one, strict=True)])
        np.testing.assert_allclose(np.sum(chances, axis=0), 1, rtol=1e-6)
