"""Scores from several samples per problem: at least one of k correct (pass@k), the majority of k correct (maj@k)."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> np.ndarray:
    r"""
    Unbiased estimate of the probability that at least one of k samples is correct, $1 - \binom{n-c}{k} / \binom nk$
    (Chen et al. 2021, "Evaluating large language models trained on code", equation 1).

    The plain estimate $1 - (1 - c/n)^k$ is too low, as it draws the k samples with replacement.

    Args:
        n (`int` or array of `int`):
            Samples drawn for each problem.
        c (`int` or array of `int`):
            How many of them are correct.
        k (`int`):
            Samples that one attempt may use, at most `n`.

    Returns:
        `np.ndarray`: one estimate per problem (a scalar for scalars); the score of a data set is their mean.

    Raises:
        ValueError: if k is not among 1..n, or c not among 0..n, for some problem.
    """
    n, c = np.broadcast_arrays(n, c)
    if k < 1:
        raise ValueError(f"k is {k}: it must be at least 1")
    if np.any(k > n):
        raise ValueError(f"k is {k}: a problem has only {n.min()} samples, draw more or lower k")
    if np.any((c < 0) | (c > n)):
        raise ValueError(f"c is {c[(c < 0) | (c > n)][0]} for a problem: it must be between 0 and its n samples")
    # None of k drawn without replacement being correct is a hypergeometric zero.
    return np.asarray(stats.hypergeom.sf(0, n, c, k))


def maj_at_k(answers: Sequence[Hashable | None], correct: Sequence[bool | None], k: int) -> float:
    """
    Probability that the most frequent answer among k samples of one problem is correct, averaged exactly over all
    subsets of k of the samples (Wang et al. 2022, "Self-consistency improves chain of thought reasoning").

    Equal answers are votes for the same one, so normalise them first. A tie at the top is split evenly among the
    answers in it. An invalid answer abstains; a subset in which all abstain counts as wrong.

    Args:
        answers (`Sequence[Hashable | None]`):
            The extracted answer of each sample, `None` where there was none.
        correct (`Sequence[bool | None]`):
            Whether each answer is right; `None` (the grader failed) abstains as well.
        k (`int`):
            Voters, at most the number of samples.

    Returns:
        `float`: the probability, in [0, 1].

    Raises:
        ValueError: if the lengths differ, k is not among 1..n, or equal answers were graded differently.
    """
    n = len(answers)
    if len(correct) != n:
        raise ValueError(f"correct has {len(correct)} entries for {n} answers: one per answer is wanted")
    if not 1 <= k <= n:
        raise ValueError(f"k is {k}: it must be between 1 and the number of samples, {n}")
    valid = [
        (answer, bool(right)) for answer, right in zip(answers, correct, strict=True) if None not in (answer, right)
    ]
    is_right = dict(valid)
    for answer, right in valid:
        if is_right[answer] != right:
            raise ValueError(f"answer {answer!r} is graded both right and wrong: equal answers need one verdict")
    votes = Counter(answer for answer, _ in valid)

    # The vote counts of a random subset have a multivariate hypergeometric distribution, which equals that of
    # independent binomial counts given that they sum to k. The distribution of each answer's count is therefore a
    # polynomial in the number of votes, and products of these polynomials replace the enumeration of all subsets.
    counts = np.array([*votes.values(), n - len(valid)])
    chances = np.asarray(stats.binom.pmf(np.arange(k + 1), counts[:, None], k / n))
    abstentions = chances[-1]
    rights = sum(is_right.values())
    wrongs = len(is_right) - rights
    score = 0.0
    for top in range(1, min(k, max(votes.values(), default=0)) + 1):
        # leaders[w, r, v]: probability that w wrong and r right answers have exactly `top` votes each, all others
        # fewer, with v votes in total. Answers are added one at a time.
        leaders = np.zeros((min(wrongs, k // top) + 1, min(rights, k // top) + 1, k + 1))
        leaders[0, 0, 0] = 1.0
        for answer, chance in zip(votes, chances[:-1], strict=True):
            grown = np.zeros_like(leaders)
            for count in range(top):  # this answer stays below `top`
                grown[:, :, count:] += chance[count] * leaders[:, :, : k + 1 - count]
            if is_right[answer]:  # or it reaches `top`, and is one more leader
                grown[:, 1:, top:] += chance[top] * leaders[:, :-1, : k + 1 - top]
            else:
                grown[1:, :, top:] += chance[top] * leaders[:-1, :, : k + 1 - top]
            leaders = grown
        weight = leaders @ abstentions[::-1]  # (wrong, right): the rest of the k voters abstained
        wrong, right = np.indices(weight.shape)
        # Of several leaders each wins with the same probability.
        score += float(np.sum(weight * right / np.maximum(wrong + right, 1)))
    # Bayes: the condition that the binomial counts sum to k.
    return score / float(stats.binom.pmf(k, n, k / n))
