"""Evaluation of a reward model on pairs of answers: its preferences, their calibration and their bias to length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from schoolhouse.core.reward_models import conversation_ids, score_ids
from schoolhouse.evaluation.results import EvalSample, LengthBias, PreferenceReport, ScoreDistribution
from schoolhouse.evaluation.statistics.preference import calibration, slope
from schoolhouse.evaluation.tasks.items import Messages


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COMPARED = 64  # texts that are scored again, one by one


@dataclass(frozen=True)
class Pair:
    """
    Two answers to one prompt, as messages or texts.

    Args:
        margin (`float`, *optional*):
            Difference of the gold reward, where it is known.
        label_is_right (`bool`, *optional*):
            Whether a noisy annotator's label of the pair is the gold one, where it is known.
    """

    prompt: Messages | str
    chosen: Messages | str
    rejected: Messages | str
    margin: float | None = None
    label_is_right: bool | None = None


def rate_pairs(
    scorer: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair], batch_size: int
) -> list[dict[str, Any]]:
    """
    Score both answers of every pair. An ensemble's verdict is the mean of its members' score differences.

    `scorer` is from [`schoolhouse.core.reward_models.load_scorer`]; `batch_size` counts texts. Returns for each pair
    the fields `correct` (`None` for a tie, which results count as wrong), `scores`, `lengths` (tokens) and `metrics`
    of its [`EvalSample`].
    """
    limit = scorer.config.get_text_config().max_position_embeddings
    rows = [
        conversation_ids(tokenizer, pair.prompt, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)
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
            "metrics": _metrics(pair, differences[:, number], lengths[2 * number : 2 * number + 2], limit),
        }
        for number, (pair, difference) in enumerate(zip(pairs, differences.mean(axis=0), strict=True))
    ]


def _metrics(pair: Pair, votes: np.ndarray, lengths: list[int], limit: int) -> dict[str, Any]:
    difference = votes.mean()
    metrics: dict[str, Any] = {
        "log_loss": float(np.logaddexp(0, -difference)),
        "cut": max(lengths) > limit,
        # Accuracy of the rule "the longer answer is the better one"; it has no verdict on equal lengths.
        "longer_is_chosen": None if lengths[0] == lengths[1] else lengths[0] > lengths[1],
    }
    if len(votes) > 1:
        metrics["members_agree"] = bool((np.sign(votes) == np.sign(difference)).all())
    if pair.label_is_right is not None:
        agrees = 0.5 if difference == 0 else float((difference > 0) == pair.label_is_right)
        metrics |= {"agrees_with_noisy_label": agrees, "ceiling_with_noisy_labels": pair.label_is_right}
    return metrics


def describe_preferences(
    scorer: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    samples: Sequence[EvalSample],
) -> PreferenceReport:
    """
    Return measurements of a reward model beyond its accuracy, from pairs and their samples in the same order;
    calibrated against noisy labels too, where there are any.

    The bias to length is taken at an equal verdict of people and, where it is known, an equal gold margin. A longer
    answer may well be the better one; what remains at equal quality is bias.
    """
    scores, lengths = (np.array([getattr(one, key) for one in samples], dtype=float) for key in ("scores", "lengths"))
    differences, sd = scores[:, 0] - scores[:, 1], float(scores.std()) or 1.0
    certain = differences != 0  # a tie is no prediction
    right = differences[certain] > 0
    fields: dict[str, Any] = {
        "scores": ScoreDistribution(mean=float(scores.mean()), sd=float(scores.std())),
        "calibration": calibration(differences[certain], right) if certain.any() else None,
    }
    if pairs[0].label_is_right is not None:
        labels = np.array([pair.label_is_right for pair in pairs])[certain]
        fields["calibration_with_noisy_labels"] = (
            calibration(differences[certain], right == labels) if certain.any() else None
        )
    margins = [[pair.margin or 0.0 for pair in pairs]] if pairs[0].margin is not None else []
    clusters = [sample.source for sample in samples]
    try:
        value, interval = slope(differences / sd, (lengths[:, 0] - lengths[:, 1]) / 10, margins, clusters)
        fields["length_bias"] = LengthBias(sd_per_10_tokens=value, interval=interval)
    except ValueError:  # lengths do not vary
        fields["length_bias"] = None
    rows = [conversation_ids(tokenizer, pair.prompt, pair.chosen) for pair in pairs[:COMPARED]]
    one, many = (score_ids(scorer, rows, size, tokenizer.pad_token_id) for size in (1, 32))
    return PreferenceReport(**fields, batch_invariance=float((one - many).abs().max() / sd))
