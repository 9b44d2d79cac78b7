"""
PPO for adapters on one base model. Its algorithm is in this file, its tensor functions are in `ppo_ops.py`.

Rollouts, reward functions, the clipped policy loss, logs and checkpoints are those of TRL's [`~trl.GRPOTrainer`]. One
iteration, with the method that does each step (equations and their lines: `docs/ppo.md`):

| step | where |
|---|---|
| sample completions and score them | `_generate_and_score_completions` of the parent class, `_calculate_rewards` |
| log-probabilities under the policy that sampled and under the reference | `_sampling_log_probs` |
| values before each token | `_values` |
| rewards of tokens: KL penalty everywhere, the score at the end | `_generate_and_score_completions`, `token_rewards` |
| advantages and returns | `_generate_and_score_completions`, `generalized_advantages`, `whiten` |
| clipped policy loss and clipped value loss, `num_iterations` times on the same samples | `_compute_loss` |
| a step of both optimizers | TRL's for the policy; `step_values` for the value model |
"""

from __future__ import annotations

import copy
import functools
import os
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback
from trl.models.utils import disable_gradient_checkpointing

from schoolhouse.rewards import RewardModel, total
from schoolhouse.training.grpo import GRPOTrainer
from schoolhouse.training.ppo_config import PPOConfig
from schoolhouse.training.ppo_ops import (
    clipped_value_loss,
    generalized_advantages,
    masked_sum,
    penalize_missing_eos,
    token_rewards,
    whiten,
)
from schoolhouse.training.value_model import shared_classifier, token_values, value_model


# File names in a checkpoint that the Trainer does not take for the policy's.
VALUE_MODEL, VALUE_OPTIMIZER = "value_model.safetensors", "value_optimizer.pt"
# Tensors of a batch that belong to images.
_IMAGE_KEYS = (
    "pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes", "num_tiles",
    "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids",
)  # fmt: skip


class PPOTrainer(GRPOTrainer):
    """
    Proximal policy optimization ([Schulman et al., 2017](https://huggingface.co/papers/1707.06347)) as in RLHF
    ([Ouyang et al., 2022](https://huggingface.co/papers/2203.02155)): a KL penalty and the score in the rewards of
    tokens, advantages from a value model, clipped losses.

    It replaces two things of [`~trl.GRPOTrainer`]: advantages come from a value model instead of a group's mean, one
    for each token; and the KL divergence from the reference is a penalty in the reward instead of a term of the loss.
    Policy, reference, value model and reward models on the same base are adapters on the same frozen tensors.

    Shapes below: B completions, P tokens of the longest prompt (padded on the left), T tokens of the longest
    completion (padded on the right).

    Args:
        model, reward_funcs, and further arguments:
            As for [`~trl.GRPOTrainer`].
        args ([`PPOConfig`]):
            Settings.
        value_adapter (`str`, *optional*):
            Folder of a reward adapter on the policy's base from which the value model starts. By default it starts
            from the policy's adapter and values of 0.

    Attributes:
        value_model ([`~transformers.PreTrainedModel`]): one-label classifier, see
            [`~schoolhouse.training.value_model.value_model`].

    Logged beside the parent's metrics: `objective/kl` and `objective/kl_per_token` (nats, of a completion and of a
    token, under the policy that sampled), `objective/score` (before the KL penalty), `objective/return` (with it),
    `val/loss`, `val/explained_variance`, `val/clip_ratio`, `val/mean`, `eos_rate`.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any,
        args: PPOConfig,
        *others: Any,
        value_adapter: str | None = None,
        **kwargs: Any,
    ):
        config = copy.copy(args)
        config.beta = 1.0  # the parent keeps a reference only where its own KL term counts; see `_compute_loss`
        super().__init__(model, reward_funcs, config, *others, **kwargs)
        policy = self.accelerator.unwrap_model(self.model)
        self.value_model = value_model(policy, value_adapter).to(self.accelerator.device)
        self.value_model.train()
        if config.gradient_checkpointing:
            # Re-entrant checkpoints give no gradients where the embeddings, being frozen, ask for none.
            self.value_model.gradient_checkpointing_enable({"use_reentrant": False})
        for reward in self.reward_funcs:
            # Reward models on the policy's base use its tensors instead of loading their own.
            function = getattr(reward, "function", None)
            if isinstance(function, RewardModel) and function.shares_base(policy.config._name_or_path):
                function.attach_to(shared_classifier(policy))
        self.value_optimizer = torch.optim.AdamW(
            [parameter for parameter in self.value_model.parameters() if parameter.requires_grad],
            lr=config.learning_rate if config.value_learning_rate is None else config.value_learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            weight_decay=config.weight_decay,
        )
        self.add_callback(_ValueStep(self))

    # Rollout

    def _calculate_rewards(
        self, inputs: list[dict], prompts: list, completions: list, completion_ids_list: list[list[int]]
    ) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        # Keep the weighted sum of this process's completions: the scores (B,), NaN for those that are invalid.
        start = self.accelerator.process_index * len(prompts)
        self._scores = total(rewards[start : start + len(prompts)], self.reward_weights.to(rewards.device))
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        # 1. Sample completions and score them; invalid ones are masked. The group advantages are replaced below.
        output = super()._generate_and_score_completions(inputs)
        args = self.args
        mask = _loss_mask(output)  # (B, T)
        is_valid = ~self._scores.isnan()

        # 2. Log-probabilities of the sampled tokens under the policy that sampled them and under the reference (B, T).
        #    The reference is the adapter as it was before training; no gradient is needed here.
        logps, ref_logps = self._sampling_log_probs(output).float(), output.pop("ref_per_token_logps").float()

        # 3. Values V_t, what the value model expects the rest of a completion to bring, before its token t is chosen.
        values = self._values(output)  # (B, T)

        # 4. Rewards of tokens: r_t = -kl_coef (log π(a_t) - log π_ref(a_t)), and the score on top at the last token.
        #    The KL divergence is measured on the samples themselves, so the penalty makes the objective
        #    E[score] - kl_coef KL(π, π_ref). A completion that was cut off may cost `missing_eos_penalty`.
        ended = self._ended(output)  # (B,)
        scores = penalize_missing_eos(self._scores.nan_to_num(0.0), ended, args.missing_eos_penalty)
        rewards = token_rewards(scores, logps, ref_logps, mask, args.kl_coef)  # (B, T)

        # 5. Advantages by GAE, from the last token back to the first: A_t = δ_t + γλ A_{t+1} with
        #    δ_t = r_t + γ V_{t+1} - V_t. Returns A_t + V_t are the targets of the value model.
        advantages, returns = generalized_advantages(rewards, values, mask, args.gamma, args.lam)  # each (B, T)
        if args.whiten_advantages:
            # Mean 0 and variance 1 over all processes, so the learning rate does not depend on the reward's scale.
            advantages = whiten(advantages, mask, functools.partial(self.accelerator.reduce, reduction="sum"))
        output |= {"advantages": advantages, "old_values": values, "returns": returns}

        kl = torch.where(mask.bool(), logps - ref_logps, 0).sum(dim=1)
        self._log_mean("objective/kl", kl, is_valid)
        self._log_mean("objective/kl_per_token", kl / mask.sum(dim=1).clamp(min=1), is_valid)
        self._log_mean("objective/score", scores, is_valid)
        self._log_mean("objective/return", rewards.sum(dim=1), is_valid)
        self._log_mean("eos_rate", ended.float(), is_valid)
        self._log_mean("val/mean", values, mask.bool())
        error, spread = (self._variance(part, mask) for part in (returns - values, returns))
        self._log("val/explained_variance", 1 - error / spread if spread > 0 else float("nan"))
        return output

    @torch.no_grad()
    def _sampling_log_probs(self, output: dict[str, Any]) -> Tensor:
        """Log-probabilities (B, T) under the policy as it is now; the parent computes them only if it needs them."""
        if output.get("old_per_token_logps") is not None:
            return output["old_per_token_logps"]
        images = {name: output[name] for name in _IMAGE_KEYS if name in output}
        with disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            return self._get_per_token_logps_and_entropies(
                self.model, *_sequence(output), output["completion_ids"].size(1), self._rows_at_once(), **images
            )[0]

    @torch.no_grad()
    def _values(self, output: dict[str, Any]) -> Tensor:
        """Values (B, T), computed in micro-batches."""
        length, rows = output["completion_ids"].size(1), self._rows_at_once()
        with self.accelerator.autocast():
            return torch.cat(
                [
                    token_values(self.value_model, ids, attended, length)
                    for ids, attended in zip(*(part.split(rows) for part in _sequence(output)), strict=True)
                ]
            )

    def _rows_at_once(self) -> int:
        args = self.args
        return args.per_device_train_batch_size if self.model.training else args.per_device_eval_batch_size

    def _ended(self, output: dict[str, Any]) -> Tensor:
        """Mask (B,) of the completions whose last token is an end-of-sequence token."""
        lengths = output["completion_mask"].sum(dim=1)
        last = output["completion_ids"].gather(1, (lengths - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
        return torch.isin(last, torch.tensor(self.eos_token_ids, device=last.device)) & (lengths > 0)

    # Losses

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        mask = _loss_mask(inputs)  # (B, T)
        # Both losses are sums over tokens, divided by the tokens of one accumulation window over all processes: how a
        # batch is split over micro-batches and devices changes nothing. This is the parent's number.
        tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        if self.model.training:
            tokens = tokens * self.current_gradient_accumulation_steps / self.args.steps_per_generation

        # Value loss: half the squared error to the returns, where the value may move at most `cliprange_value` from
        # what it was at sampling: max((V - R)², (clip(V, V_old ± cliprange) - R)²) / 2.
        with self.accelerator.autocast():
            values = token_values(self.value_model, *_sequence(inputs), mask.size(1))
        old, returns, cliprange = inputs["old_values"], inputs["returns"], self.args.cliprange_value
        value_loss = self.args.vf_coef * clipped_value_loss(values, old, returns, mask, cliprange, tokens)
        if self.model.training:
            value_loss.backward()  # now, so that only one model's activations are in memory at a time
        values = values.detach()
        self._log_mean("val/loss", (values - returns).square() / 2, mask.bool())
        self._log_mean("val/clip_ratio", ((values - old).abs() > cliprange).float(), mask.bool())

        # Policy loss, by the parent: with ratio_t = π(a_t) / π_old(a_t),
        # -min(ratio_t A_t, clip(ratio_t, 1 - epsilon, 1 + epsilon) A_t), a mean over tokens. Its KL term is turned
        # off: the penalty is in the rewards and must not count twice.
        beta, self.beta = self.beta, 0.0
        try:
            return super()._compute_loss(model, inputs) + value_loss.detach()
        finally:
            self.beta = beta

    def step_values(self) -> None:
        """Take one step of the value model's optimizer, on the gradients accumulated so far."""
        parameters = [p for group in self.value_optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self.accelerator.num_processes > 1:
            # Only the policy is wrapped in DDP, so the value model's gradients are averaged here.
            for parameter in parameters:
                parameter.grad.copy_(self.accelerator.reduce(parameter.grad, reduction="mean"))
        if self.args.max_grad_norm > 0:
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.args.max_grad_norm)
            self._log("val/grad_norm", norm.item())
        self.value_optimizer.step()
        self.value_optimizer.zero_grad()

    # Checkpoints: the value model is part of the trainer's state, not of the product.

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            named = self.value_model.named_parameters()
            trained = {name: parameter.detach().clone() for name, parameter in named if parameter.requires_grad}
            save_file(trained, os.path.join(output_dir, VALUE_MODEL))
            torch.save(self.value_optimizer.state_dict(), os.path.join(output_dir, VALUE_OPTIMIZER))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            for name, tensor in load_file(os.path.join(checkpoint, VALUE_MODEL)).items():
                self.value_model.get_parameter(name).data.copy_(tensor)
            state = torch.load(os.path.join(checkpoint, VALUE_OPTIMIZER), map_location="cpu", weights_only=True)
            self.value_optimizer.load_state_dict(state)

    # Logs

    def _log(self, name: str, value: float) -> None:
        self._metrics["train" if self.model.training else "eval"][name].append(value)

    def _log_mean(self, name: str, values: Tensor, mask: Tensor) -> None:
        """Log the mean of the unmasked entries over all processes."""
        sums = torch.stack([masked_sum(values, mask), mask.sum().to(values.dtype)])
        summed, count = self.accelerator.reduce(sums, reduction="sum").tolist()
        self._log(name, summed / count if count else float("nan"))

    def _variance(self, values: Tensor, mask: Tensor) -> float:
        """Variance of the unmasked entries over all processes."""
        moments = torch.stack(
            [masked_sum(values, mask), masked_sum(values.square(), mask), mask.sum().to(values.dtype)]
        )
        summed, squares, count = self.accelerator.reduce(moments, reduction="sum").double().tolist()
        return squares / max(count, 1) - (summed / max(count, 1)) ** 2


class _ValueStep(TrainerCallback):
    """Steps the value model when the policy steps, and holds the policy still during `value_warmup_steps`."""

    def __init__(self, trainer: PPOTrainer):
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: PPOConfig, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step < args.value_warmup_steps:
            for parameter in self.trainer.model.parameters():
                parameter.grad = None

    def on_optimizer_step(self, args: PPOConfig, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.step_values()


def _loss_mask(batch: dict[str, Any]) -> Tensor:
    """Mask (B, T) of the tokens that the policy chose; a tool's answer is none of them."""
    return batch["completion_mask"] * batch["tool_mask"] if "tool_mask" in batch else batch["completion_mask"]


def _sequence(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of prompts and completions, each (B, P + T)."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    return ids, torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
