"""Intervals, paired tests, pass@k and maj@k against published values, brute force and simulation."""

import functools
import itertools
import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from schoolhouse.evaluation.statistics.intervals import bootstrap_mean, clustered_standard_error, wilson
from schoolhouse.evaluation.statistics.paired import (
    holm,
    mcnemar_exact,
    paired_bootstrap,
    smallest_detectable_effect,
)
from schoolhouse.evaluation.statistics.sampling import maj_at_k, pass_at_k


SIMULATIONS = 10_000


def outcomes(both, gained, lost, neither):
    """Right and wrong answers of two models with that many items in each cell of the table."""
    before = [True] * both + [False] * gained + [True] * lost + [False] * neither
    after = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return before, after


@functools.cache
def compare(n, gained, lost):
    return mcnemar_exact(*outcomes(n - gained - lost, gained, lost, 0))


def simulate_tables(n, gain_rate, loss_rate, seed):
    """Each distinct (gained, lost) of `SIMULATIONS` data sets, with its frequency."""
    rates = [gain_rate, loss_rate, 1 - gain_rate - loss_rate]
    tables = np.random.default_rng(seed).multinomial(n, rates, size=SIMULATIONS)[:, :2]
    return [(*map(int, table), count / SIMULATIONS) for table, count in Counter(map(tuple, tables)).items()]


# Intervals of one score


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_published_values(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    n, rate = 100, rng.uniform(size=SIMULATIONS)
    ends = np.array([wilson(successes, n) for successes in range(n + 1)])[rng.binomial(n, rate)]
    assert np.mean((ends[:, 0] <= rate) & (rate <= ends[:, 1])) == pytest.approx(0.95, abs=0.01)


def test_bootstrap_interval_covers_as_often_as_it_says():
    samples = np.random.default_rng(1).gamma(9.0, size=(SIMULATIONS, 100))  # a skewness of 0.67
    ends = np.array([bootstrap_mean(sample, resamples=999, seed=seed) for seed, sample in enumerate(samples)])
    assert np.mean((ends[:, 0] <= 9.0) & (ends[:, 1] >= 9.0)) == pytest.approx(0.95, abs=0.01)


def test_bootstrap_interval_of_clusters_covers_where_the_plain_one_does_not():
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(40), 5)
    plain = clustered = 0
    for seed in range(1000):
        values = rng.normal(size=40)[clusters] + 0.5 * rng.normal(size=200)
        low, high = bootstrap_mean(values, resamples=499, seed=seed)
        plain += low <= 0 <= high
        low, high = bootstrap_mean(values, resamples=499, seed=seed, clusters=clusters)
        clustered += low <= 0 <= high
    assert plain / 1000 < 0.75
    assert clustered / 1000 == pytest.approx(0.95, abs=0.025)  # three standard errors and the bootstrap's own noise


def test_bootstrap_percentiles_are_those_of_scipy_but_for_the_expansion():
    values = np.random.default_rng(3).exponential(size=500)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=50_000, method="percentile", rng=4).confidence_interval
    expansion = math.sqrt(500 / 499) * stats.t.ppf(0.975, 499) / stats.norm.ppf(0.975)
    wanted = [values.mean() + expansion * (end - values.mean()) for end in theirs]
    assert bootstrap_mean(values, resamples=50_000) == pytest.approx(wanted, abs=0.03 * values.std() / math.sqrt(500))


def test_bootstrap_of_small_samples_is_as_wide_as_students_interval():
    values = stats.norm.ppf(np.linspace(0.05, 0.95, 10))
    student = stats.t.interval(0.95, 9, loc=values.mean(), scale=stats.sem(values))
    assert bootstrap_mean(values, resamples=100_000) == pytest.approx(student, rel=0.05)


def test_bootstrap_repeats_itself_and_keeps_equal_values_without_width():
    values = np.random.default_rng(5).normal(size=30)
    assert bootstrap_mean(values, seed=5) == bootstrap_mean(values, seed=5) != bootstrap_mean(values, seed=6)
    assert bootstrap_mean([0.25] * 8) == (0.25, 0.25)


def test_clustered_standard_error_is_the_plain_one_for_clusters_of_one():
    values = np.random.default_rng(7).normal(size=50)
    assert clustered_standard_error(values, range(50)) == pytest.approx(values.std(ddof=1) / math.sqrt(50))


def test_clustered_standard_error_is_the_sum_over_pairs_within_clusters():
    values, clusters = [1.0, 0.0, 0.5, 1.0, 0.0, 0.0, 1.0], list("aabbbcd")
    mean = sum(values) / 7
    total = 0.0
    for i, j in itertools.product(range(7), repeat=2):
        if clusters[i] == clusters[j]:
            total += (values[i] - mean) * (values[j] - mean)
    assert clustered_standard_error(values, clusters) == pytest.approx(math.sqrt(4 / 3 * total) / 7)


def test_clustered_standard_error_ignores_copies_of_an_item():
    values = [1.0, 0.0, 0.0, 1.0, 1.0]
    copies = clustered_standard_error(values * 10, list(range(5)) * 10)
    assert copies == pytest.approx(clustered_standard_error(values, range(5)))


# The same items before and after


def test_mcnemar_gives_the_known_p_value():
    test = mcnemar_exact(*outcomes(500, 209, 152, 458))
    assert test.p_value == pytest.approx(0.0032, abs=5e-5)
    assert (test.n, test.gained, test.lost) == (1319, 209, 152)
    assert (test.before, test.after, test.difference) == pytest.approx((652 / 1319, 709 / 1319, 57 / 1319))
    assert test.verdict().startswith("improved (0.4943 -> 0.5375, difference +0.0432 [")
    assert mcnemar_exact(*outcomes(500, 152, 209, 458)).verdict().startswith("worse (")


def test_mcnemar_p_value_is_the_sum_of_the_binomial_tails():
    for gained, lost in itertools.product(range(7), repeat=2):
        total = gained + lost
        tail = sum(math.comb(total, side) for side in range(min(gained, lost) + 1))
        assert compare(20, gained, lost).p_value == pytest.approx(min(1.0, float(Fraction(2 * tail, 2**total))))


@pytest.mark.parametrize(
    ("table", "interval"),
    [
        ((1, 7, 1, 12), (0.026, 0.517)),  # Fagerland, Lydersen and Laake 2014: Tango's interval of their table II
        ((53, 16, 8, 9), (-0.020, 0.207)),  # Agresti and Min 2005
    ],
)
def test_paired_interval_gives_published_values(table, interval):
    low, high = mcnemar_exact(*outcomes(*table)).interval
    assert (low, high) == pytest.approx(interval, abs=5e-4)
    both, gained, lost, neither = table
    assert mcnemar_exact(*outcomes(both, lost, gained, neither)).interval == pytest.approx((-high, -low))


@pytest.mark.parametrize(("gain_rate", "loss_rate"), [(0.15, 0.15), (0.2, 0.1), (0.05, 0.25)])
def test_paired_interval_covers_as_often_as_it_says(gain_rate, loss_rate):
    covered = 0.0
    for gained, lost, frequency in simulate_tables(80, gain_rate, loss_rate, seed=8):
        low, high = compare(80, gained, lost).interval
        covered += frequency * (low <= gain_rate - loss_rate <= high)
    assert covered == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("rate", [0.02, 0.15])
def test_mcnemar_seldom_sees_a_change_where_there_is_none(rate):
    found = sum(
        frequency
        for gained, lost, frequency in simulate_tables(80, rate, rate, seed=9)
        if not compare(80, gained, lost).verdict().startswith("no evidence")
    )
    assert found <= 0.05


@pytest.mark.parametrize(("n", "discordant_rate"), [(80, 0.3), (80, 0.02), (1319, 0.2)])
def test_the_smallest_detectable_effect_is_found_four_times_in_five(n, discordant_rate):
    effect = smallest_detectable_effect(n, discordant_rate)
    rate = max(discordant_rate, effect)
    found = 0.0
    for gained, lost, frequency in simulate_tables(n, (rate + effect) / 2, (rate - effect) / 2, seed=10):
        found += frequency * (gained + lost > 0 and stats.binomtest(gained, gained + lost).pvalue <= 0.05)
    assert found == pytest.approx(0.8, abs=0.015)


def test_the_smallest_detectable_effect_nears_the_normal_approximation_for_many_items():
    n, rate = 200_000, 0.25
    effect = smallest_detectable_effect(n, rate)
    normal = (stats.norm.ppf(0.975) * math.sqrt(rate) + stats.norm.ppf(0.8) * math.sqrt(rate - effect**2)) / n**0.5
    assert effect == pytest.approx(normal, rel=0.01)
    assert smallest_detectable_effect(n, rate, power=0.9) > effect > smallest_detectable_effect(n, rate, alpha=0.1)


def test_no_evidence_names_the_smallest_detectable_effect():
    test = mcnemar_exact(*outcomes(40, 11, 9, 40))
    assert (
        f"no evidence of change, smallest detectable effect {test.smallest_detectable_effect:.3g} " in test.verdict()
    )
    assert test.smallest_detectable_effect == smallest_detectable_effect(100, 0.2)


def test_too_few_items_are_said_to_show_nothing():
    assert smallest_detectable_effect(5, 0.5) is None  # five gains of five still have p = 0.0625
    assert "could not have shown any" in mcnemar_exact([False] * 5, [True] * 5).verdict()
    assert smallest_detectable_effect(6, 0.0) == pytest.approx(0.8 ** (1 / 6))  # all six must be gained


def test_equal_answers_are_no_evidence():
    test = mcnemar_exact([True, False] * 20, [True, False] * 20)
    assert (test.p_value, test.difference, test.gained, test.lost) == (1.0, 0.0, 0, 0)
    assert test.interval[0] == -test.interval[1] == pytest.approx(-(1.96**2) / (40 + 1.96**2), abs=1e-4)


def test_paired_bootstrap_agrees_with_the_paired_t_test():
    rng = np.random.default_rng(11)
    before = rng.normal(1.0, 0.3, size=60)
    after = before + rng.normal(0.02, 0.06, size=60)
    test, student = paired_bootstrap(before, after, resamples=200_000), stats.ttest_rel(after, before)
    assert test.p_value == pytest.approx(student.pvalue, rel=0.1)
    assert test.interval == pytest.approx(tuple(student.confidence_interval()), abs=0.001)
    assert (test.gained, test.lost) == (int(np.sum(after > before)), int(np.sum(after < before)))


def test_paired_bootstrap_has_its_level_and_finds_its_smallest_detectable_effect():
    rng = np.random.default_rng(12)
    noise = rng.normal(0.0, 0.1, size=(1000, 40))
    effect = (stats.t.ppf(0.975, 39) + stats.t.ppf(0.8, 39)) * 0.1 / math.sqrt(40)
    estimates, null, planted = [], 0, 0
    for seed, differences in enumerate(noise):
        test = paired_bootstrap(np.zeros(40), differences, resamples=499, seed=seed)
        estimates.append(test.smallest_detectable_effect)
        null += test.p_value <= 0.05
        planted += paired_bootstrap(np.zeros(40), differences + effect, resamples=499, seed=seed).p_value <= 0.05
    assert null / 1000 == pytest.approx(0.05, abs=0.02)
    assert planted / 1000 == pytest.approx(0.8, abs=0.04)
    assert np.mean(estimates) == pytest.approx(effect, rel=0.02)


def test_paired_p_value_is_at_the_level_where_the_interval_reaches_zero():
    rng = np.random.default_rng(13)
    before, after = rng.normal(size=30), rng.normal(0.5, size=30)
    p_value = paired_bootstrap(before, after).p_value
    assert 0.01 < p_value < 0.5
    assert paired_bootstrap(before, after, confidence=1 - p_value * 1.05).interval[0] > 0
    assert paired_bootstrap(before, after, confidence=1 - p_value * 0.95).interval[0] < 0


def test_clusters_widen_a_paired_bootstrap():
    rng = np.random.default_rng(14)
    clusters = np.repeat(np.arange(20), 10)
    after = 0.1 + 0.3 * rng.normal(size=20)[clusters] + 0.05 * rng.normal(size=200)
    plain, clustered = (paired_bootstrap(np.zeros(200), after, clusters=given) for given in (None, clusters))
    width = np.diff(plain.interval) / np.diff(clustered.interval)
    assert 0.25 < width < 0.4  # ten copies of nearly the same difference: about 1 / sqrt(10)
    assert clustered.p_value > plain.p_value
    assert clustered.smallest_detectable_effect > 2 * plain.smallest_detectable_effect


def test_a_falling_loss_is_an_improvement():
    before, after = np.linspace(1.0, 1.2, 50), np.linspace(0.9, 1.2, 50)
    assert paired_bootstrap(before, after, higher_is_better=False).verdict().startswith("improved (1.1 -> 1.05")
    assert paired_bootstrap(before, after).verdict().startswith("worse (")
    assert paired_bootstrap(before, after, higher_is_better=False).gained == 49


def test_identical_scores_are_no_evidence():
    test = paired_bootstrap([0.1, 0.7, 0.3], [0.1, 0.7, 0.3])
    assert (test.p_value, test.interval, test.smallest_detectable_effect) == (1.0, (0.0, 0.0), None)
    assert test.verdict().startswith("no evidence of change, and these items could not have shown any")


def test_holm_gives_the_hand_worked_example():
    # sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1 raised to its predecessor's 0.06
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_an_adjusted_p_value_changes_the_verdict():
    test = mcnemar_exact(*outcomes(50, 14, 4, 32))
    assert test.verdict().startswith("improved")
    assert (
        replace(test, p_value=holm({"here": test.p_value, "there": 0.9})["here"]).verdict().startswith("no evidence")
    )


# Several samples per problem


def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample():
    for n in range(1, 8):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            subsets = list(itertools.combinations(range(n), k))  # the first c samples are the correct ones
            assert pass_at_k(n, c, k) == pytest.approx(sum(min(subset) < c for subset in subsets) / len(subsets))


def test_pass_at_k_takes_arrays_and_large_counts():
    correct = np.array([0, 1, 7, 999, 1000])
    estimates = pass_at_k(1000, correct, 100)
    exact = [1 - Fraction(math.comb(1000 - int(c), 100), math.comb(1000, 100)) for c in correct]
    assert estimates == pytest.approx([float(value) for value in exact], rel=1e-10)
    assert pass_at_k([5, 10], [1, 1], 5) == pytest.approx([1.0, 0.5])


def majority_by_enumeration(answers, correct, k):
    scores = []
    for subset in itertools.combinations(range(len(answers)), k):
        votes = Counter(answers[index] for index in subset if answers[index] is not None)
        top = [answer for answer, count in votes.items() if count == max(votes.values())]
        right = {answers[index] for index in subset if correct[index]}
        scores.append(Fraction(len(right & set(top)), len(top)) if top else Fraction(0))
    return float(sum(scores) / len(scores))


@pytest.mark.parametrize("seed", range(30))
def test_maj_at_k_is_the_mean_over_all_subsets(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 11))
    answers = [None if answer == 4 else str(answer) for answer in rng.integers(0, 5, size=n)]
    right = {"0", "1"} if seed % 2 else {"0"}  # two spellings of the right answer may both be marked correct
    correct = [answer in right for answer in answers]
    for k in range(1, n + 1):
        assert maj_at_k(answers, correct, k) == pytest.approx(majority_by_enumeration(answers, correct, k), abs=1e-12)


def test_maj_at_k_splits_ties_and_lets_invalid_answers_abstain():
    assert maj_at_k(["1", "2"], [True, False], 2) == pytest.approx(0.5)
    assert maj_at_k(["1", None, None], [True, False, False], 3) == pytest.approx(1.0)
    assert maj_at_k(["1", "9", "9"], [True, None, None], 3) == pytest.approx(1.0)
    assert maj_at_k([None, None], [False, False], 1) == 0.0


def test_maj_at_k_of_many_samples_agrees_with_drawing_subsets():
    rng = np.random.default_rng(15)
    answers = list(map(str, np.minimum(rng.geometric(0.3, size=64), 9)))
    correct = [answer == "2" for answer in answers]
    drawn = []
    for _ in range(4000):
        votes = Counter(answers[index] for index in rng.choice(64, size=16, replace=False))
        top = [answer for answer, count in votes.items() if count == max(votes.values())]
        drawn.append(("2" in top) / len(top))
    assert maj_at_k(answers, correct, 16) == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / math.sqrt(4000))


# What cannot be computed is refused by name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson(0, 0), "n is 0"),
        (lambda: wilson(5, 4), "successes is 5"),
        (lambda: wilson(1, 4, confidence=95), "confidence is 95"),
        (lambda: bootstrap_mean([]), "0 items"),
        (lambda: bootstrap_mean([0.5]), "1 items"),
        (lambda: bootstrap_mean([0.5, None, 1.0]), "index 1"),
        (lambda: bootstrap_mean([0.5, math.inf]), "index 1"),
        (lambda: bootstrap_mean([[0.5, 1.0]]), "one dimension"),
        (lambda: bootstrap_mean([0.5, 1.0], resamples=0), "resamples is 0"),
        (lambda: bootstrap_mean([0.5, 1.0], confidence=1), "confidence is 1"),
        (lambda: clustered_standard_error([0.5, 1.0], ["a", "a"]), "1 clusters"),
        (lambda: clustered_standard_error([0.5, 1.0], ["a"]), "clusters has 1 entries for 2 values"),
        (lambda: mcnemar_exact([], []), "no items"),
        (lambda: mcnemar_exact([True], [True, False]), "before has 1 items and after 2"),
        (lambda: mcnemar_exact([True, False], [True, None]), r"after\[1\] is None"),
        (lambda: mcnemar_exact([True], [True], confidence=0), "confidence is 0"),
        (lambda: paired_bootstrap([1.0], [1.0]), "1 items"),
        (lambda: paired_bootstrap([1.0, 2.0], [1.0]), "before has 2 items and after 1"),
        (lambda: smallest_detectable_effect(0, 0.1), "n is 0"),
        (lambda: smallest_detectable_effect(10, 1.1), "discordant_rate is 1.1"),
        (lambda: smallest_detectable_effect(10, 0.1, power=0.01), "power 0.01"),
        (lambda: holm({"gsm8k": math.nan}), "p-value of gsm8k is nan"),
        (lambda: pass_at_k(5, 1, 6), "only 5 samples"),
        (lambda: pass_at_k([5, 9], [1, 1], 6), "k is 6: a problem has only 5"),
        (lambda: pass_at_k(5, 1, 0), "k is 0"),
        (lambda: pass_at_k([5, 5], [1, 6], 2), "c is 6"),
        (lambda: maj_at_k([], [], 1), "k is 1"),
        (lambda: maj_at_k(["1"], [True], 2), "k is 2"),
        (lambda: maj_at_k(["1"], [], 1), "correct has 0 entries for 1 answers"),
        (lambda: maj_at_k(["1", "1"], [True, False], 1), "answer '1' is graded both right and wrong"),
    ],
)
def test_an_impossible_request_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
