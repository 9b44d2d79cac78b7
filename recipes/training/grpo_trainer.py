"""TRL's GRPO with three things it lacks: failed graders, what emerges, and a whole reference adapter."""

from typing import Any

import torch
from accelerate.utils import is_peft_model
from trl import GRPOTrainer

from recipes.rewards import leave_out
from recipes.rewards.rows import rows_of
from recipes.training.emergence import emergence


class RewardedTrainer(GRPOTrainer):
    """
    [`~trl.GRPOTrainer`] in which a completion with a failed grader takes no part, and which logs what emerges.

    Its reward functions are [`recipes.rewards.Reward`]s. A completion left out has advantage 0 and its tokens masked
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

    def _calculate_rewards(
        self, inputs: list[dict], prompts: list, completions: list, completion_ids_list: list[list[int]]
    ) -> torch.Tensor:
        columns = {name: [row[name] for row in inputs] for name in inputs[0]}
        for name, share in emergence(completions, rows_of(columns, len(inputs))).items():
            self._log_metric(name, share)
        values = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        values, failed = leave_out(values, self.reward_weights)
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
