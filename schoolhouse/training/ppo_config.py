"""Settings of PPO: GRPO's, and those of the value model and the KL penalty."""

import os
from dataclasses import dataclass, field

from trl import GRPOConfig


@dataclass
class PPOConfig(GRPOConfig):
    """
    [`~trl.GRPOConfig`] for [`PPOTrainer`]. Settings of both methods keep GRPO's name: `num_iterations` is the number
    of PPO's epochs on the same samples, `epsilon` its clip range, `steps_per_generation` over
    `gradient_accumulation_steps` the number of its minibatches.

    Args:
        num_generations (`int`, *optional*, defaults to `1`):
            Completions of each prompt; there are no groups to compare, so one will do.
        kl_coef (`float`, *optional*, defaults to `0.05`):
            Penalty per nat of KL divergence from the reference, in the reward of every token. With 0 the divergence is
            still measured.
        gamma (`float`, *optional*, defaults to `1.0`):
            Discount per token.
        lam (`float`, *optional*, defaults to `0.95`):
            λ of generalized advantage estimation ([Schulman et al., 2015](https://huggingface.co/papers/1506.02438)).
        vf_coef (`float`, *optional*, defaults to `1.0`):
            Weight of the value loss. The value model has an optimizer and a gradient norm of its own, so this matters
            only against `max_grad_norm`.
        cliprange_value (`float`, *optional*, defaults to `0.2`):
            How far a value may move from what it was when the completions were sampled, in units of the reward.
        value_learning_rate (`float`, *optional*):
            Constant learning rate of the value model; that of the policy by default.
        value_warmup_steps (`int`, *optional*, defaults to `0`):
            Steps at the start in which the value model learns alone.
        whiten_advantages (`bool`, *optional*, defaults to `True`):
            Bring the advantages of a batch to mean 0 and variance 1.
        missing_eos_penalty (`float`, *optional*):
            Penalty in the score of a completion without an end: with a chat template a reward model cannot see that it
            was cut off.

    Raises:
        ValueError: for values out of range, for settings of GRPO that PPO has no use for, and under DeepSpeed or FSDP.
    """

    num_generations: int | None = field(default=1, metadata={"help": "Completions of each prompt."})
    kl_coef: float = field(default=0.05, metadata={"help": "Penalty per nat of KL divergence from the reference."})
    gamma: float = field(default=1.0, metadata={"help": "Discount per token."})
    lam: float = field(default=0.95, metadata={"help": "Lambda of generalized advantage estimation."})
    vf_coef: float = field(default=1.0, metadata={"help": "Weight of the value loss."})
    cliprange_value: float = field(
        default=0.2, metadata={"help": "How far a value may move on the same samples, in units of the reward."}
    )
    value_learning_rate: float | None = field(
        default=None, metadata={"help": "Constant learning rate of the value model; the policy's by default."}
    )
    value_warmup_steps: int = field(default=0, metadata={"help": "Steps in which the value model learns alone."})
    whiten_advantages: bool = field(default=True, metadata={"help": "Whiten the advantages of a batch."})
    missing_eos_penalty: float | None = field(
        default=None, metadata={"help": "Penalty in the score of a completion that was cut off."}
    )

    def __post_init__(self):
        for name, low, high in (("gamma", 0, 1), ("lam", 0, 1), ("kl_coef", 0, None), ("vf_coef", 0, None),
                                ("cliprange_value", 0, None), ("value_warmup_steps", 0, None)):  # fmt: skip
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                raise ValueError(
                    f"{name} is {value}: it must be at least {low}" + (f", at most {high}" if high else "")
                )
        if self.beta:
            raise ValueError(f"beta is {self.beta}: the KL penalty of PPO is kl_coef")
        if self.loss_type != "dapo":
            raise ValueError(f"loss_type is {self.loss_type!r}: PPO's loss is a mean over tokens, which is 'dapo'")
        if self.importance_sampling_level != "token":
            raise ValueError("importance_sampling_level must be 'token': PPO's advantages are those of tokens")
        if self.mask_truncated_completions and self.missing_eos_penalty is not None:
            raise ValueError("missing_eos_penalty has nothing to act on with mask_truncated_completions: choose one")
        launched = {
            name: os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true" for name in ("DEEPSPEED", "FSDP")
        }
        if self.deepspeed or self.fsdp or any(launched.values()):
            raise ValueError(
                "PPO supports one process or DDP: DeepSpeed and FSDP shard the base's tensors, which the value model "
                "shares; take recipes/configs/accelerate/ddp.yaml"
            )
        if self.fp16:
            raise ValueError("fp16 is not supported by PPO: take bf16, or fp32")
        if self.num_generations != 1:
            super().__post_init__()
            return
        # The parent insists on groups of two or more that fill a batch. Show it valid ones, then set the real ones.
        steps, batch, evaluated = self.steps_per_generation, self.generation_batch_size, self.num_generations_eval
        if steps is not None and batch is not None:
            raise ValueError("give generation_batch_size or steps_per_generation, not both")
        self.num_generations, self.num_generations_eval = 2, evaluated or 1
        self.steps_per_generation, self.generation_batch_size = 2, None
        super().__post_init__()
        self.num_generations = 1
        step = self.per_device_train_batch_size * self.world_size
        if batch is not None and batch % step:
            raise ValueError(
                f"generation_batch_size is {batch}: it must be a multiple of per_device_train_batch_size x devices, "
                f"which is {step}"
            )
        self.steps_per_generation = steps or (batch // step if batch else self.gradient_accumulation_steps)
        self.generation_batch_size = step * self.steps_per_generation
