"""GRPO: TRL's trainer, with masking of invalid completions, reasoning metrics, and a faster loss on a CPU."""

import inspect
import math
from typing import Any

import torch
import trl
from accelerate.utils import is_peft_model
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

from schoolhouse.rewards import mask_invalid
from schoolhouse.rewards.columns import rows_of
from schoolhouse.training.reasoning_metrics import reasoning_metrics


# Logits that a micro-batch on a CPU may hold at once, as numbers: 0.5 GB in fp32.
_LOGITS_HELD = 2**27


class GRPOTrainer(trl.GRPOTrainer):
    """
    [`~trl.GRPOTrainer`] of this package (group relative policy optimization,
    [Shao et al., 2024](https://huggingface.co/papers/2402.03300)). Sampling, groups, advantages and the clipped loss
    are TRL's. One rollout goes through these steps:

    1. `_generate_and_score_completions` samples `num_generations` completions of each prompt.
    2. `_calculate_rewards` scores them: shape (B, R), one column for each [`Reward`]. Here completions without a valid
       reward are marked.
    3. TRL sums the rewards with their weights. A completion's advantage is its reward minus the mean of its group
       (divided by the deviation, if `scale_rewards` says so). Marked completions get advantage 0 and do not count in
       mean and deviation.
    4. Here the tokens of marked completions are masked like padding. An advantage of 0 alone would leave them in the
       KL term, in the entropy, and in the number of tokens that the loss is divided by.

    It also copies trained token rows into the reference adapter, which TRL forgets, and logs `rewards/grader_failed`
    and `rewards/not_applicable` (shares of completions that are masked because a grader failed, or because no reward
    applies) and `reasoning/*`.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if is_peft_model(self.model) and "ref" in self.model.peft_config:
            # TRL copies the parameters that have ".default." in their names; trained token rows end in ".default".
            for name, parameter in self.model.named_parameters():
                if name.endswith(".default"):
                    reference = self.model.get_parameter(name.removesuffix("default") + "ref")
                    reference.data.copy_(parameter.data)
        base = self.model.get_base_model() if is_peft_model(self.model) else self.model
        needs_parent = (
            self.accelerator.device.type != "cpu"
            or self.args.cast_lm_head_to_fp32
            or self.args.entropy_coef != 0
            or self.args.use_adaptive_entropy
            or "logits_to_keep" not in inspect.signature(base.forward).parameters
        )
        self._logits_per_token = math.inf if needs_parent else base.get_output_embeddings().weight.size(0)

    def _calculate_rewards(
        self, inputs: list[dict], prompts: list, completions: list, completion_ids_list: list[list[int]]
    ) -> torch.Tensor:
        columns = {name: [row[name] for row in inputs] for name in inputs[0]}
        for name, share in reasoning_metrics(completions, rows_of(columns, len(inputs))).items():
            self._log_metric(name, share)
        # (B, R), gathered from all processes: NaN where a reward does not apply, infinity where its grader failed.
        values = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        values, failed = mask_invalid(values, self.reward_weights)
        self._is_valid = ~values.isnan().all(dim=1)
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["rewards/grader_failed"].append(failed.float().mean().item())
        metrics["rewards/not_applicable"].append((~self._is_valid & ~failed).float().mean().item())
        return values

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if not self._is_valid.all():
            mask = output["completion_mask"]
            start = self.accelerator.process_index * len(mask)  # validity is known of all processes' completions
            valid = self._is_valid[start : start + len(mask)]
            output["completion_mask"] = mask = mask * valid.unsqueeze(1)
            # The loss is a sum over tokens divided by this number, so masked tokens must not be in it.
            tokens = mask * output["tool_mask"] if "tool_mask" in output else mask
            output["num_items_in_batch"] = self.accelerator.gather(tokens.sum()).sum()
        return output

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """
        Return TRL's values, computed more cheaply for small batches of text on a CPU. Without Triton, TRL's fused head
        works through the prompts too and computes all logits again in the backward pass: with SmolLM2-135M that takes
        a fifth of PPO's time.
        """
        rows = min(batch_size or len(input_ids), len(input_ids))
        is_text = all(value is None or value is False for value in others.values())
        if not is_text or rows * logits_to_keep * self._logits_per_token > _LOGITS_HELD:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **others
            )
        logps, entropies = [], []
        for ids, mask in zip(input_ids.split(rows), attention_mask.split(rows), strict=True):
            with self.accelerator.autocast():
                output = model(input_ids=ids, attention_mask=mask, logits_to_keep=logits_to_keep + 1, use_cache=False)
            # The logits at a token predict the next one, so the last is not needed: (rows, T, vocabulary).
            scores = output.logits[:, :-1].float() / self.temperature
            kept = slice(-logits_to_keep, None)
            logps.append(selective_log_softmax(scores, ids[:, kept], row_mask=mask[:, kept]))
            if compute_entropy:
                with torch.no_grad():
                    entropies.append(entropy_from_logits(scores) * mask[:, kept])
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None
