"""TRL's GRPO with what it lacks: failed graders, what emerges, a whole reference adapter, and speed on a CPU."""

import inspect
import math
from typing import Any

import torch
from accelerate.utils import is_peft_model
from trl import GRPOTrainer
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

from schoolhouse.rewards import mask_invalid
from schoolhouse.rewards.columns import rows_of
from schoolhouse.training.reasoning_metrics import emergence


# Logits that a micro-batch on a CPU may hold at once, as numbers: 0.5 GB in fp32.
_LOGITS_HELD = 2**27


class RewardedTrainer(GRPOTrainer):
    """
    [`~trl.GRPOTrainer`] in which a completion with a failed grader takes no part, and which logs what emerges.

    Its reward functions are [`Reward`]s. A completion left out has advantage 0 and its tokens masked
    like padding, so that it has no say in the KL term, the entropy or the normaliser of the loss either. It adds to
    TRL's log `rewards/failed` and `rewards/idle` (shares of completions left out: a grader failed, or no reward
    applies) and `emergence/*`.
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
        for name, share in emergence(completions, rows_of(columns, len(inputs))).items():
            self._log_metric(name, share)
        values = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        values, failed = mask_invalid(values, self.reward_weights)
        metrics = self._metrics["train" if self.model.training else "eval"]
        idle = values.isnan().all(dim=1) & ~failed
        metrics["rewards/failed"].append(failed.float().mean().item())
        metrics["rewards/idle"].append(idle.float().mean().item())
        self._paid = ~values.isnan().all(dim=1)
        return values

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        mask = output["completion_mask"]
        start = self.accelerator.process_index * len(mask)  # rewards are those of all processes
        paid = self._paid[start : start + len(mask)]
        if not self._paid.all():
            output["completion_mask"] = mask = mask * paid.unsqueeze(1)
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
        The parent's, but for small batches of text on a CPU. Without Triton the parent's fused head works through the
        prompts too and computes all logits again in the backward pass: with SmolLM2-135M a fifth of the time of PPO.
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
            scores = output.logits[:, :-1].float() / self.temperature  # (rows, T, vocabulary)
            kept = slice(-logits_to_keep, None)
            logps.append(selective_log_softmax(scores, ids[:, kept], row_mask=mask[:, kept]))
            if compute_entropy:
                with torch.no_grad():
                    entropies.append(entropy_from_logits(scores) * mask[:, kept])
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None
