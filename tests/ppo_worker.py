"""One process of a PPO run with fixed completions, under torchrun: `ppo_worker.py BASE OUTPUT ACCUMULATION`."""

import sys
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from schoolhouse.rewards import Reward
from schoolhouse.training import PPOConfig, PPOTrainer


class Fixed(PPOTrainer):
    """Answers every prompt with itself reversed, so that the split over processes changes no sample."""

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        return [[*reversed(ids), self.processing_class.eos_token_id] for ids in prompt_ids], None


def main(base, output, accumulation):
    torch.set_num_threads(1)
    set_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False),
    )
    model.get_output_embeddings().bias = None
    tokenizer = AutoTokenizer.from_pretrained(base)
    args = PPOConfig(  # SGD: Adam would make a sign of a rounding error
        output_dir=output, max_steps=4, per_device_train_batch_size=2, num_iterations=2, max_completion_length=8,
        gradient_accumulation_steps=accumulation, learning_rate=1e-2, optim="sgd", weight_decay=0.0, max_grad_norm=0.5,
        adam_epsilon=1.0, gradient_checkpointing=False, bf16=False, use_cpu=True, report_to="none", save_strategy="no",
        disable_tqdm=True, ddp_find_unused_parameters=False,
    )  # fmt: skip
    letters = "abcd0123"
    rows = Dataset.from_list([{"prompt": letters[i % 8] * (1 + i % 3) + letters[i // 3 % 8]} for i in range(32)])
    trainer = Fixed(
        model,
        args=args,
        reward_funcs=[Reward("length", 1.0, lambda completions, **_: [float(len(text)) for text in completions])],
        train_dataset=rows,
        processing_class=tokenizer,
    )
    trainer.train()
    if trainer.is_world_process_zero():
        policy = trainer.accelerator.unwrap_model(trainer.model)
        models = {"policy": policy, "value": trainer.value_model}
        save_file(
            {f"{name}.{key}": p.detach().clone() for name, m in models.items() for key, p in m.named_parameters()
             if p.requires_grad},
            Path(output) / "weights.safetensors",
        )  # fmt: skip
    # A process that ends while the other still works may abort in gloo's threads.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
