"""PPO's tensor functions against loops over plain floats."""

import math
import random

import pytest
import torch

from schoolhouse.training.ppo_ops import (
    clipped_value_loss,
    generalized_advantages,
    last_token,
    masked_sum,
    penalize_missing_eos,
    token_rewards,
    whiten,
)


# Full, ragged on the right, on the left, with gaps, one token, none.
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [0, 0, 1, 0, 0], [0] * 5])


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_advantages(rewards, values, gamma, lam):
    """The definition: a double sum over the one-step errors of a row without gaps."""
    errors = [r + gamma * v_next - v for r, v, v_next in zip(rewards, values, [*values, 0.0][1:], strict=True)]
    return [math.fsum((gamma * lam) ** k * error for k, error in enumerate(errors[t:])) for t in range(len(errors))]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (1.0, 1.0), (0.99, 0.0)])
def test_advantages_equal_a_naive_loop_over_ragged_masks_with_gaps(gamma, lam):
    rewards, values = normal(0, *MASK.shape), normal(1, *MASK.shape)
    poisoned = [tensor.masked_fill(MASK == 0, math.nan) for tensor in (rewards, values)]
    advantages, returns = generalized_advantages(*poisoned, MASK, gamma, lam)
    for row, mask in enumerate(MASK.bool()):
        expected = naive_advantages(rewards[row, mask].tolist(), values[row, mask].tolist(), gamma, lam)
        assert advantages[row, mask].tolist() == pytest.approx(expected, abs=1e-12, rel=0)
        sums = [a + v for a, v in zip(expected, values[row, mask].tolist(), strict=True)]
        assert returns[row, mask].tolist() == pytest.approx(sums, abs=1e-12, rel=0)
    assert (advantages[MASK == 0] == 0).all() and (returns[MASK == 0] == 0).all()


def test_returns_with_lambda_1_are_the_rewards_still_to_come():
    rewards = normal(2, *MASK.shape)
    _, returns = generalized_advantages(rewards, normal(3, *MASK.shape), MASK, 1.0, 1.0)
    for row, mask in enumerate(MASK.bool()):
        chosen = rewards[row, mask].tolist()
        expected = [math.fsum(chosen[t:]) for t in range(len(chosen))]
        assert returns[row, mask].tolist() == pytest.approx(expected, abs=1e-12, rel=0)


def test_last_token_is_the_last_unmasked_one():
    assert [row.nonzero().flatten().tolist() for row in last_token(MASK)] == [[4], [1], [4], [4], [2], []]


def test_token_rewards_are_the_kl_penalty_and_the_score_on_the_last_token():
    logps, ref_logps, scores = normal(4, *MASK.shape), normal(5, *MASK.shape), normal(6, len(MASK))
    poisoned = [tensor.masked_fill(MASK == 0, math.nan) for tensor in (logps, ref_logps)]
    rewards = token_rewards(scores, *poisoned, MASK, 0.3)
    for row in range(len(MASK)):
        chosen = [t for t in range(MASK.shape[1]) if MASK[row, t]]
        for t in range(MASK.shape[1]):
            expected = -0.3 * (logps[row, t].item() - ref_logps[row, t].item()) if t in chosen else 0.0
            expected += scores[row].item() if chosen and t == chosen[-1] else 0.0
            assert rewards[row, t].item() == pytest.approx(expected, abs=1e-12)


def test_a_more_likely_token_than_under_the_reference_is_penalized():
    one = torch.ones(1, 1)
    assert token_rewards(torch.zeros(1), -1.0 * one, -3.0 * one, one, 0.5).item() == -1.0


def test_the_kl_penalty_is_exactly_0_for_the_reference_itself():
    logps = normal(7, *MASK.shape)
    rewards = token_rewards(torch.zeros(len(MASK), dtype=torch.float64), logps, logps.clone(), MASK, 0.3)
    assert (rewards == 0).all()


def test_missing_eos_lowers_the_score_of_a_completion_cut_off():
    scores, ended = torch.tensor([2.0, 2.0, -1.0]), torch.tensor([True, False, False])
    assert penalize_missing_eos(scores, ended, 1.5).tolist() == [2.0, 0.5, -2.5]
    assert penalize_missing_eos(scores, ended, None).tolist() == [2.0, 2.0, -1.0]


def test_whitening_gives_mean_0_and_variance_1_over_unmasked_tokens():
    values = (5 + 3 * normal(8, *MASK.shape)).masked_fill(MASK == 0, math.nan)
    chosen = whiten(values, MASK)[MASK.bool()].tolist()
    assert math.fsum(chosen) == pytest.approx(0, abs=1e-12)
    assert math.fsum(x * x for x in chosen) / len(chosen) == pytest.approx(1, abs=1e-7)
    assert sorted(range(len(chosen)), key=chosen.__getitem__) == values[MASK.bool()].argsort().tolist()
    assert (whiten(values, MASK)[MASK == 0] == 0).all()


def test_whitening_keeps_a_small_spread_around_a_large_mean():
    values = 1e4 + torch.tensor([[-1.0, 1.0, -1.0, 1.0]])
    assert whiten(values, torch.ones(1, 4)).tolist() == [pytest.approx([-1, 1, -1, 1])]


def test_whitening_of_equal_values_and_of_none_is_0():
    assert (whiten(torch.full((2, 3), 7.0), torch.ones(2, 3)) == 0).all()
    assert (whiten(torch.full((2, 3), math.nan), torch.zeros(2, 3)) == 0).all()


def test_two_processes_whiten_as_one():
    values = normal(9, *MASK.shape)
    halves = [(values[:3], MASK[:3]), (values[3:], MASK[3:])]
    totals = [MASK.sum().double(), masked_sum(values, MASK)]
    center = totals[1] / totals[0]
    totals.append(sum(masked_sum((v - center) ** 2, m) for v, m in halves))
    parts = []
    for part in halves:
        answers = iter(totals)  # what an all-reduce of the count, the sum and the squares brings
        parts.append(whiten(*part, lambda _, answers=answers: next(answers)))
    torch.testing.assert_close(torch.cat(parts), whiten(values, MASK), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("value", "old", "target", "expected"),
    [
        (1.0, 1.0, 3.0, 2.0),  # not moved: 0.5 · 2²
        (1.5, 1.0, 3.0, 1.5312500),  # moved towards the target past the clip: 0.5 · (1.25 - 3)²
        (1.125, 1.0, 3.0, 1.7578125),  # within the clip: 0.5 · 1.875²
        (0.0, 1.0, 3.0, 4.5),  # moved away: the unclipped error is the worse
        (4.0, 1.0, 1.25, 3.78125),  # overshot: 0.5 · 2.75²
        (1.25, 1.0, 1.25, 0.0),  # at the target, on the edge
    ],
)
def test_value_loss_has_the_table_of_clipping(value, old, target, expected):
    tensors = [torch.tensor([[number]], dtype=torch.float64) for number in (value, old, target)]
    assert clipped_value_loss(*tensors, torch.ones(1, 1), 0.25, 1).item() == expected


def test_a_clipped_value_gets_no_gradient():
    value = torch.tensor([[1.5]], requires_grad=True)
    clipped_value_loss(value, torch.ones(1, 1), torch.full((1, 1), 3.0), torch.ones(1, 1), 0.25, 1).backward()
    assert value.grad.item() == 0


def test_the_value_loss_equals_a_hand_loop():
    values, old_values, returns = normal(10, *MASK.shape), normal(11, *MASK.shape), normal(12, *MASK.shape)
    expected = 0.0
    for row in range(MASK.shape[0]):
        for t in range(MASK.shape[1]):
            if MASK[row, t]:
                new, old, target = (x[row, t].item() for x in (values, old_values, returns))
                near = min(max(new, old - 0.2), old + 0.2)
                expected += 0.5 * max((new - target) ** 2, (near - target) ** 2) / 17
    assert clipped_value_loss(values, old_values, returns, MASK, 0.2, 17).item() == pytest.approx(expected, 1e-12)


def padded(tensor, left, right, fill):
    return torch.nn.functional.pad(tensor, (left, right), value=fill)


@pytest.mark.parametrize("fill", [0.0, 1e30, math.nan])
def test_the_value_loss_and_its_gradient_ignore_padding(fill):
    def run(left, right):
        leaf = normal(13, *MASK.shape).requires_grad_()
        others = [padded(normal(seed, *MASK.shape), left, right, fill) for seed in (14, 15)]
        inputs, mask = padded(leaf, left, right, fill), padded(MASK, left, right, 0)
        inputs.retain_grad()  # in a model, a NaN here would go on into the weights
        result = clipped_value_loss(inputs, *others, mask, 0.2, 15)
        result.backward()
        assert (inputs.grad[mask == 0] == 0).all()
        return result.item(), leaf.grad

    plain, gradient = run(0, 0)
    for sides in ((3, 0), (0, 4), (2, 2)):
        result, moved = run(*sides)
        assert result == pytest.approx(plain, rel=1e-14)
        assert torch.equal(moved, gradient)


def test_micro_batches_add_up_to_the_batch():
    tensors = [normal(seed, *MASK.shape) for seed in (16, 17, 18)] + [MASK]
    rows = random.Random(0).sample(range(len(MASK)), len(MASK))
    whole = clipped_value_loss(*tensors, 0.2, MASK.sum())
    parts = [clipped_value_loss(*(x[[row]] for x in tensors), 0.2, MASK.sum()) for row in rows]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-12)
