"""Evaluation of a reward model on pairs of answers: its preferences, their calibration and their bias to length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from schoolhouse.core.reward_models import conversation_ids, score_ids
from schoolhouse.evaluation.results import EvalSample, LengthBias, PreferenceReport, ScoreDistribution
from schoolhouse.evaluation.statistics.preference import calibration, slope
from schoolhouse.evaluation.tasks.base import Item


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COMPARED = 64  # texts that are scored again, one by one


def rate_pairs(
    scorer: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], batch_size: int
) -> list[dict[str, Any]]:
    """
    Scores both answers of every pair; an ensemble's members vote with the mean of their score differences.

    Args:
        scorer ([`~transformers.PreTrainedModel`]):
            From [`schoolhouse.core.reward_models.load_scorer`].
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Its tokenizer.
        items (`Sequence[Item]`):
            Pairs: `chosen` and `rejected` in `meta`, and where they are known the gold `margin` and `label_is_right`
            (whether an annotator's noisy label of the pair is the gold one).
        batch_size (`int`):
            Texts scored at once.

    Returns:
        `list[dict]`: for each pair `correct` (`None` for a tie, which is no verdict), `scores` and `lengths` (tokens)
        of chosen and rejected, and `metrics`.
    """
    limit = scorer.config.get_text_config().max_position_embeddings
    rows = [
        conversation_ids(tokenizer, item.prompt, item.meta[side]) for item in items for side in ("chosen", "rejected")
    ]
    every = score_ids(scorer, [row[-limit:] for row in rows], batch_size, tokenizer.pad_token_id).double().numpy()
    differences = every[:, ::2] - every[:, 1::2]
    scores = every.mean(axis=0)
    lengths = [len(row) for row in rows]
    return [
        {
            "correct": None if difference == 0 else bool(difference > 0),
            "scores": scores[2 * number : 2 * number + 2].tolist(),
            "lengths": lengths[2 * number : 2 * number + 2],
            "metrics": _metrics(item, differences[:, number], lengths[2 * number : 2 * number + 2], limit),
        }
        for number, (item, difference) in enumerate(zip(items, differences.mean(axis=0), strict=True))
    ]


def _metrics(item: Item, votes: np.ndarray, lengths: list[int], limit: int) -> dict[str, Any]:
    difference = votes.mean()
    metrics: dict[str, Any] = {
        "log_loss": float(np.logaddexp(0, -difference)),
        "cut": max(lengths) > limit,
        # What a judge that only counts words would get; equal lengths tell it nothing.
        "longer_is_chosen": None if lengths[0] == lengths[1] else lengths[0] > lengths[1],
    }
    if len(votes) > 1:
        metrics["members_agree"] = bool((np.sign(votes) == np.sign(difference)).all())
    if (label_is_right := item.meta.get("label_is_right")) is not None:
        agrees = 0.5 if difference == 0 else float((difference > 0) == label_is_right)
        metrics |= {"agrees_with_noisy_label": agrees, "ceiling_with_noisy_labels": label_is_right}
    return metrics


def describe_preferences(
    scorer: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Item],
    samples: Sequence[EvalSample],
) -> PreferenceReport:
    """
    Return measurements of a reward model beyond its accuracy.

    The bias to length is taken at an equal verdict of people and, where it is known, an equal gold margin. A longer
    answer may well be the better one; what remains at equal quality is bias.

    Args:
        scorer ([`~transformers.PreTrainedModel`]):
            The reward model.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Its tokenizer.
        items (`Sequence[Item]`):
            The pairs.
        samples (`Sequence[EvalSample]`):
            Their samples, in the same order.

    Returns:
        [`PreferenceReport`]: calibrated against noisy labels too, where there are any.
    """
    scores, lengths = (np.array([getattr(one, key) for one in samples], dtype=float) for key in ("scores", "lengths"))
    differences, sd = scores[:, 0] - scores[:, 1], float(scores.std()) or 1.0
    certain = differences != 0  # a tie is no prediction
    right = differences[certain] > 0
    fields: dict[str, Any] = {
        "scores": ScoreDistribution(mean=float(scores.mean()), sd=float(scores.std())),
        "calibration": calibration(differences[certain], right) if certain.any() else None,
    }
    if "label_is_right" in items[0].meta:
        labels = np.array([item.meta["label_is_right"] for item in items])[certain]
        fields["calibration_with_noisy_labels"] = (
            calibration(differences[certain], right == labels) if certain.any() else None
        )
    margins = [[item.meta["margin"] for item in items]] if "margin" in items[0].meta else []
    clusters = [sample.source for sample in samples]
    try:
        value, interval = slope(differences / sd, (lengths[:, 0] - lengths[:, 1]) / 10, margins, clusters)
        fields["length_bias"] = LengthBias(sd_per_10_tokens=value, interval=interval)
    except ValueError:  # lengths do not vary
        fields["length_bias"] = None
    rows = [conversation_ids(tokenizer, item.prompt, item.meta["chosen"]) for item in items[:COMPARED]]
    one, many = (score_ids(scorer, rows, size, tokenizer.pad_token_id) for size in (1, 32))
    return PreferenceReport(**fields, batch_invariance=float((one - many).abs().max() / sd))
