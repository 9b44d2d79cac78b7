"""PPO for adapters on one base, by calling TRL's GRPO: its rollouts, rewards, policy loss, logs and checkpoints."""

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

from schoolhouse.rewards import RewardModel
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


# Names that the Trainer does not take for the policy's.
VALUE_MODEL, VALUE_OPTIMIZER = "value_model.safetensors", "value_optimizer.pt"


class PPOTrainer(GRPOTrainer):
    """
    Proximal policy optimization ([Schulman et al., 2017](https://huggingface.co/papers/1707.06347)) as in RLHF
    ([Ouyang et al., 2022](https://huggingface.co/papers/2203.02155)): a KL penalty and the score in the rewards of
    tokens, advantages from a value model, clipped losses.

    Policy, reference, value model and reward models on the same base are adapters on the same frozen tensors.
    Whatever [`~trl.GRPOTrainer`] takes is taken, with these differences:

    Args:
        args ([`PPOConfig`]):
            Settings.
        value_adapter (`str`, *optional*):
            Folder of a reward adapter on the policy's base which the value model begins with. By default it begins
            with the policy's adapter and values of 0.

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
        self._share_base(policy)
        self.value_optimizer = torch.optim.AdamW(
            [parameter for parameter in self.value_model.parameters() if parameter.requires_grad],
            lr=config.learning_rate if config.value_learning_rate is None else config.value_learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            weight_decay=config.weight_decay,
        )
        self.add_callback(_ValueStep(self))

    def _share_base(self, policy: Any) -> None:
        """Have reward models that stand on the policy's base read its tensors rather than load their own."""
        for reward in self.reward_funcs:
            function = getattr(reward, "function", None)
            if isinstance(function, RewardModel) and function.shares_base(policy.config._name_or_path):
                function.attach_to(shared_classifier(policy))

    def _calculate_rewards(
        self, inputs: list[dict], prompts: list, completions: list, completion_ids_list: list[list[int]]
    ) -> Tensor:
        values = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        start = self.accelerator.process_index * len(prompts)
        local = values[start : start + len(prompts)]
        total = (local * self.reward_weights.to(local.device)).nansum(dim=1)
        self._scores = total.masked_fill(local.isnan().all(dim=1), torch.nan)
        return values

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        args, scores = self.args, self._scores
        mask = _loss_mask(output)  # which leaves out completions that cannot be paid
        sequence = _sequence(output)
        length = mask.size(1)
        rows = args.per_device_train_batch_size if self.model.training else args.per_device_eval_batch_size
        with torch.no_grad(), disable_gradient_checkpointing(self.model, args.gradient_checkpointing_kwargs):
            logps = output.get("old_per_token_logps")
            if logps is None:
                images = {name: output[name] for name in self._image_keys() if name in output}
                logps = self._get_per_token_logps_and_entropies(self.model, *sequence, length, rows, **images)[0]
            with self.accelerator.autocast():
                values = torch.cat(
                    [
                        token_values(self.value_model, ids, attended, length)
                        for ids, attended in zip(*(part.split(rows) for part in sequence), strict=True)
                    ]
                )
        logps, ref_logps = logps.float(), output.pop("ref_per_token_logps").float()
        ended = self._ended(output)
        paid = ~scores.isnan()
        scores = penalize_missing_eos(scores.nan_to_num(0.0), ended, args.missing_eos_penalty)
        rewards = token_rewards(scores, logps, ref_logps, mask, args.kl_coef)
        advantages, returns = generalized_advantages(rewards, values, mask, args.gamma, args.lam)
        if args.whiten_advantages:
            advantages = whiten(advantages, mask, functools.partial(self.accelerator.reduce, reduction="sum"))
        output |= {"advantages": advantages, "old_values": values, "returns": returns}

        kl = torch.where(mask.bool(), logps - ref_logps, 0).sum(dim=1)
        self._note("objective/kl", kl, paid)
        self._note("objective/kl_per_token", kl / mask.sum(dim=1).clamp(min=1), paid)
        self._note("objective/score", scores, paid)
        self._note("objective/return", rewards.sum(dim=1), paid)
        self._note("eos_rate", ended.float(), paid)
        self._note("val/mean", values, mask.bool())
        error, spread = (self._variance(part, mask) for part in (returns - values, returns))
        self._metric("val/explained_variance", 1 - error / spread if spread > 0 else float("nan"))
        return output

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        mask = _loss_mask(inputs)
        # The parent's normaliser of the policy loss: the tokens of one accumulation window, over all processes.
        tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        if self.model.training:
            tokens = tokens * self.current_gradient_accumulation_steps / self.args.steps_per_generation
        with self.accelerator.autocast():
            values = token_values(self.value_model, *_sequence(inputs), mask.size(1))
        old, returns, cliprange = inputs["old_values"], inputs["returns"], self.args.cliprange_value
        value_loss = self.args.vf_coef * clipped_value_loss(values, old, returns, mask, cliprange, tokens)
        if self.model.training:
            value_loss.backward()  # now, so that only one model's activations are in memory at a time
        values = values.detach()
        self._note("val/loss", (values - returns).square() / 2, mask.bool())
        self._note("val/clip_ratio", ((values - old).abs() > cliprange).float(), mask.bool())

        # The KL penalty is in the reward: it must not be in the loss a second time.
        beta, self.beta = self.beta, 0.0
        try:
            return super()._compute_loss(model, inputs) + value_loss.detach()
        finally:
            self.beta = beta

    def step_values(self) -> None:
        """One step of the value model's optimizer on the gradients accumulated so far."""
        parameters = [p for group in self.value_optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self.accelerator.num_processes > 1:
            for parameter in parameters:
                parameter.grad.copy_(self.accelerator.reduce(parameter.grad, reduction="mean"))
        if self.args.max_grad_norm > 0:
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.args.max_grad_norm)
            self._metric("val/grad_norm", norm.item())
        self.value_optimizer.step()
        self.value_optimizer.zero_grad()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            save_file(self._value_state(), os.path.join(output_dir, VALUE_MODEL))
            torch.save(self.value_optimizer.state_dict(), os.path.join(output_dir, VALUE_OPTIMIZER))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            for name, tensor in load_file(os.path.join(checkpoint, VALUE_MODEL)).items():
                self.value_model.get_parameter(name).data.copy_(tensor)
            state = torch.load(os.path.join(checkpoint, VALUE_OPTIMIZER), map_location="cpu", weights_only=True)
            self.value_optimizer.load_state_dict(state)

    def _value_state(self) -> dict[str, Tensor]:
        named = self.value_model.named_parameters()
        return {name: parameter.detach().clone() for name, parameter in named if parameter.requires_grad}

    def _ended(self, output: dict[str, Any]) -> Tensor:
        """Which completions (B,) have their end-of-sequence token last."""
        lengths = output["completion_mask"].sum(dim=1)
        last = output["completion_ids"].gather(1, (lengths - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
        return torch.isin(last, torch.tensor(self.eos_token_ids, device=last.device)) & (lengths > 0)

    @staticmethod
    def _image_keys() -> tuple[str, ...]:
        return ("pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes", "num_tiles",
                "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids")  # fmt: skip

    def _metric(self, name: str, value: float) -> None:
        self._metrics["train" if self.model.training else "eval"][name].append(value)

    def _note(self, name: str, values: Tensor, mask: Tensor) -> None:
        """Log the mean of the marked entries over all processes."""
        sums = torch.stack([masked_sum(values, mask), mask.sum().to(values.dtype)])
        total, count = self.accelerator.reduce(sums, reduction="sum").tolist()
        self._metric(name, total / count if count else float("nan"))

    def _variance(self, values: Tensor, mask: Tensor) -> float:
        moments = torch.stack(
            [masked_sum(values, mask), masked_sum(values.square(), mask), mask.sum().to(values.dtype)]
        )
        total, squares, count = self.accelerator.reduce(moments, reduction="sum").double().tolist()
        return squares / max(count, 1) - (total / max(count, 1)) ** 2


class _ValueStep(TrainerCallback):
    """Steps the value model when the policy steps, and holds the policy still while the values warm up."""

    def __init__(self, trainer: PPOTrainer):
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: PPOConfig, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step < args.value_warmup_steps:
            for parameter in self.trainer.model.parameters():
                parameter.grad = None

    def on_optimizer_step(self, args: PPOConfig, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.step_values()


def _loss_mask(batch: dict[str, Any]) -> Tensor:
    """The tokens that the policy chose (B, T)."""
    return batch["completion_mask"] * batch["tool_mask"] if "tool_mask" in batch else batch["completion_mask"]


def _sequence(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of prompts and completions, each (B, P + T)."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    return ids, torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
