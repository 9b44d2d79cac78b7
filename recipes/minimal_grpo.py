# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.8", "transformers>=5.20,<6", "peft>=0.20,<1"]
# ///
"""GRPO on one page: no trainer, no configuration, only transformers, peft and torch. To be read from top to bottom.

    python recipes/minimal_grpo.py --output_dir outputs/minimal_grpo      # half a minute on two CPU cores

Group relative policy optimization (Shao et al. 2024, https://huggingface.co/papers/2402.03300) in a few words: let the
model answer each question several times, reward the right answers, and make every token of an answer more likely if
the answer was better than the average of its group, less likely if it was worse. Nobody shows the model how to get an
answer right. It only has to be right sometimes.

The tiny base model has read a book of exercises. It ends them in three ways ("Answer: 19", "So it is 19.", "#### 19"),
with the work shown or not, and often wrong. Only a right "#### 19" is rewarded here. The recipe with everything that
this page leaves out (a KL penalty, vLLM, checkpoints, many devices, other rewards) is `recipes/grpo.py`.
"""

import argparse
import json
import random
import re
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer


def make_question(rng: random.Random) -> tuple[str, int]:
    """A prompt and its right answer."""
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    return f"Exercise: What is {a}+{b}?\n", a + b


def reward(completion: str, answer: int) -> float:
    """1 for the right answer in the form asked for, else 0. A program checks it, so no reward model is needed."""
    stated = re.search(r"#### (\d+)\s*$", completion)
    return float(stated is not None and int(stated[1]) == answer)


def token_log_probs(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor, length: int) -> torch.Tensor:
    """Log-probabilities of the last `length` tokens of each row: (B, P + T) -> (B, T)."""
    # The logits at position t predict token t + 1, so they are shifted by one against the tokens.
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=length + 1).logits[:, :-1].float()
    return logits.log_softmax(-1).gather(-1, ids[:, -length:, None]).squeeze(-1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", default="data/tiny/base")
    parser.add_argument("--output_dir", required=True, help="the adapter and log.json are saved here")
    parser.add_argument("--steps", type=int, default=20, help="rollouts")
    parser.add_argument("--num_prompts", type=int, default=8, help="questions of a rollout")
    parser.add_argument("--num_generations", type=int, default=8, help="answers to each question: the group")
    parser.add_argument("--num_iterations", type=int, default=2, help="updates on the same samples")
    parser.add_argument("--max_completion_length", type=int, default=32, help="in tokens")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--epsilon", type=float, default=0.2, help="clip range of the probability ratio")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    rng = random.Random(args.seed)
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    # The policy: the frozen base with a LoRA adapter, which starts as no change at all.
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    base = AutoModelForCausalLM.from_pretrained(args.model_name_or_path, dtype=torch.float32)
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora).to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.learning_rate, weight_decay=0.0)

    log = []
    for step in range(1, args.steps + 1):
        # 1. Sample: a group of answers to each question, from the policy as it is now. Temperature 1 without top-k or
        #    top-p, so that the probabilities below are those that the samples were drawn with.
        prompts, answers = zip(*(make_question(rng) for _ in range(args.num_prompts)), strict=True)
        inputs = tokenizer(list(prompts), return_tensors="pt", padding=True).to(device)  # (Q, P), padded on the left
        with torch.no_grad():
            ids = model.generate(
                **inputs,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                num_return_sequences=args.num_generations,
                max_new_tokens=args.max_completion_length,
                pad_token_id=tokenizer.pad_token_id,
            )  # (B, P + T) with B = Q * G; the answers to one question follow each other
        prompt_length = inputs.input_ids.size(1)
        completions = ids[:, prompt_length:]  # (B, T)

        # 2. Mask: an answer's tokens up to its end-of-sequence token, that one included: to stop is a decision too.
        #    What follows is padding, which has the same id, so the mask goes by position.
        is_end = completions == tokenizer.eos_token_id
        mask = (is_end.cumsum(dim=1) - is_end.long()) == 0  # (B, T), true until the first EOS has passed
        prompt_mask = inputs.attention_mask.repeat_interleave(args.num_generations, dim=0)
        attention = torch.cat([prompt_mask, mask.long()], dim=1)  # (B, P + T)

        # 3. Score every answer.
        texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
        wanted = [answer for answer in answers for _ in range(args.num_generations)]
        rewards = torch.tensor([reward(text, answer) for text, answer in zip(texts, wanted, strict=True)])  # (B,)

        # 4. Advantages: how much better an answer is than its group. The group's mean is the baseline for which PPO
        #    trains a value model. Where all answers have the same reward, the advantage is 0, and so is the gradient.
        groups = rewards.view(-1, args.num_generations)  # (Q, G)
        advantages = (groups - groups.mean(dim=1, keepdim=True)) / (groups.std(dim=1, keepdim=True) + 1e-4)
        advantages = advantages.view(-1, 1).to(device)  # (B, 1): one number for all tokens of an answer

        # 5. Update the policy a few times on these samples.
        with torch.no_grad():
            old_log_probs = token_log_probs(model, ids, attention, completions.size(1))
        for _ in range(args.num_iterations):
            log_probs = token_log_probs(model, ids, attention, completions.size(1))
            # The ratio corrects for samples that come from an older policy. Clipping it removes the gradient of tokens
            # that have moved further than epsilon already, in the direction of their advantage: the smaller of the two
            # terms is a pessimistic bound.
            ratio = (log_probs - old_log_probs).exp()
            clipped = ratio.clamp(1 - args.epsilon, 1 + args.epsilon)
            objective = torch.min(ratio * advantages, clipped * advantages)  # (B, T)
            loss = -(objective * mask).sum() / mask.sum()  # the mean over tokens, so long answers count more
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()

        log.append({"step": step, "reward": rewards.mean().item(), "length": mask.sum(dim=1).float().mean().item()})
        print(
            f"step {step:3d}  reward {log[-1]['reward']:.3f}  tokens {log[-1]['length']:.1f}  {texts[0]!r}", flush=True
        )

    folder = Path(args.output_dir)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "log.json").write_text(json.dumps(log, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
