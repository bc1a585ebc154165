"""McNemar's test against scipy's own tests and by hand."""

from __future__ import annotations

import pytest
from scipy import stats

from alexnet.significance import Paired, pair


def test_pairs_are_counted_by_who_was_right():
    first = [True] * 3 + [False] * 7
    second = [True, False, False] + [True] * 3 + [False] * 4
    assert pair(first, second) == Paired(both=1, only_first=2, only_second=3, neither=4)
    assert pair(first, second).count == 10


def test_photos_that_do_not_correspond_are_refused():
    with pytest.raises(ValueError):
        pair([True], [True, False])


@pytest.mark.parametrize(("only_first", "only_second"), [(1, 6), (6, 1), (3, 3), (0, 1), (0, 9), (40, 61), (900, 1100)])
def test_p_is_that_of_the_two_sided_binomial_test(only_first, only_second):
    expected = stats.binomtest(only_first, only_first + only_second).pvalue
    assert Paired(100, only_first, only_second, 7).p == pytest.approx(expected, rel=1e-9)


def test_p_by_hand():
    assert Paired(0, 0, 5, 0).p == 2 / 32
    assert Paired(50, 1, 3, 4).p == 2 * (1 + 4) / 16
    assert Paired(50, 0, 0, 4).p == 1.0


def test_p_nears_the_approximation_that_mcnemar_published():
    statistic = (abs(900 - 1100) - 1) ** 2 / 2000
    assert Paired(0, 900, 1100, 0).p == pytest.approx(stats.chi2.sf(statistic, 1), rel=0.05)
