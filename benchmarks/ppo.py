"""
PPO against TRL 1.12's, the last with a PPOTrainer that TRL maintained, in one run:

    make bench-ppo MODEL=HuggingFaceTB/SmolLM2-135M
    python benchmarks/ppo.py --model FOLDER --reference_python PYTHON

Both sides train the same LoRA policy on the same prompts against the same reward model, token for token the same
amount: fp32, gradient checkpointing off, answers of a fixed length, two passes over each batch of samples. TRL holds
the policy's base, a reward model and a value model of full size (and trains all of the latter); here all three are
adapters on one base. Each run is a process of its own, the sides taking turns; its first update is not timed. The
figures are medians over the timed updates: seconds and, as other work on the machine hardly changes them, CPU seconds
per episode; the peak of the resident memory; and the mean score of the last update.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


ROOT = Path(__file__).parents[1]
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
TARGETS = {"memory": 0.5, "seconds": 0.7}
# What is the same on both sides.
SHARED = {
    "learning_rate": 1e-5,
    "lr_scheduler_type": "constant",
    "gradient_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "kl_coef": 0.05,
    "gamma": 1.0,
    "lam": 0.95,
    "vf_coef": 0.1,
    "cliprange_value": 0.2,
    "temperature": 1.0,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
}


def clock() -> Any:
    """A callback that keeps the time of every end of a step."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self):
            self.ticks: list[tuple[float, float]] = []
            self.logs: list[dict] = []

        def tick(self) -> None:
            self.ticks.append((time.perf_counter(), time.process_time()))

        def on_train_begin(self, args, state, control, **kwargs):
            self.tick()

        def on_step_end(self, args, state, control, **kwargs):
            self.tick()

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.logs.append(dict(logs))

    return Clock()


def prompts(count: int) -> list[str]:
    """Word problems as plain text, of about thirty tokens."""
    from schoolhouse.data import load_rows

    return [f"Question: {row['prompt'][0]['content']}\nAnswer:" for row in load_rows("tiny/stories", size=count)]


def write_reward_adapter(model: str, folder: Path) -> None:
    """A one-label classifier's LoRA adapter with a random head: a meaningless reward, the same on both sides."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    set_seed(0)
    classifier = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype="float32")
    classifier.score.weight.data.normal_(std=0.02)
    config = LoraConfig(task_type="SEQ_CLS", modules_to_save=["score"], exclude_modules=["score"], **LORA)
    get_peft_model(classifier, config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)


def run_theirs(job: dict[str, Any]) -> Any:
    """Trains with TRL's PPOTrainer; returns the clock."""
    from datasets import Dataset
    from peft import LoraConfig, PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, set_seed
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    # Its masks are read off the token ids, so padding must not be EOS; this token is in every SmolLM2 vocabulary.
    tokenizer.pad_token = job["pad_token"]
    scorers = []
    for _ in range(2):
        classifier = AutoModelForSequenceClassification.from_pretrained(job["model"], num_labels=1, dtype="float32")
        scorers.append(PeftModel.from_pretrained(classifier, job["reward_adapter"]).merge_and_unload())
        scorers[-1].config.pad_token_id = tokenizer.pad_token_id
        scorers[-1].requires_grad_(len(scorers) == 2)
    args = PPOConfig(
        output_dir=job["output_dir"],
        total_episodes=job["updates"] * job["episodes"],
        per_device_train_batch_size=job["micro_batch"],
        gradient_accumulation_steps=job["episodes"] // job["micro_batch"],
        local_rollout_forward_batch_size=job["episodes"],
        num_ppo_epochs=job["epochs"],
        response_length=job["tokens"],
        num_sample_generations=0,
        **SHARED,
    )
    timer = clock()
    PPOTrainer(
        args=args,
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(job["model"], dtype="float32"),
        ref_model=None,
        reward_model=scorers[0],
        value_model=scorers[1],
        train_dataset=Dataset.from_list([tokenizer(text) for text in job["prompts"]]),
        # Never asked for a sample, but its constructor loads one.
        eval_dataset=Dataset.from_list([tokenizer(text) for text in job["prompts"][: job["episodes"]]]),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **LORA),
        callbacks=[timer],
    ).train()
    return timer


def run_ours(job: dict[str, Any]) -> Any:
    """Trains with `schoolhouse.training.PPOTrainer`; returns the clock."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    from schoolhouse.rewards import Reward, RewardModel
    from schoolhouse.training import PPOConfig, PPOTrainer

    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype="float32")
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **LORA))
    if not hasattr(head := model.get_output_embeddings(), "bias"):
        head.bias = None
    args = PPOConfig(
        output_dir=job["output_dir"],
        max_steps=job["updates"] * job["epochs"],
        per_device_train_batch_size=job["micro_batch"],
        gradient_accumulation_steps=job["episodes"] // job["micro_batch"],
        num_iterations=job["epochs"],
        max_completion_length=job["tokens"],
        generation_kwargs={"min_new_tokens": job["tokens"]},  # TRL 1.12 fills its answers up too
        **SHARED,
    )
    timer = clock()
    reward = RewardModel(job["reward_adapter"], base=job["model"], normalize=False)
    PPOTrainer(
        model,
        args=args,
        reward_funcs=[Reward("reward_model", 1.0, reward)],
        train_dataset=Dataset.from_list([{"prompt": text} for text in job["prompts"]]),
        processing_class=tokenizer,
        callbacks=[timer],
        value_adapter=job["reward_adapter"],
    ).train()
    return timer


def work(job: dict[str, Any]) -> None:
    """One run of one side in this process; prints its figures as the last line."""
    import torch

    torch.set_num_threads(job["threads"])
    timer = (run_ours if job["side"] == "ours" else run_theirs)(job)
    steps = (len(timer.ticks) - 1) // job["updates"]  # optimizer steps that the trainer counts for an update
    ends = timer.ticks[::steps]
    spent = [
        [(after[kind] - before[kind]) / job["episodes"] for kind in (0, 1)]
        for before, after in itertools.pairwise(ends[1:])
    ]
    names = ("objective/scores", "reward")
    scores = [logs[name] for logs in timer.logs for name in names if name in logs]
    print(
        json.dumps(
            {
                "seconds": [wall for wall, _ in spent],
                "cpu_seconds": [cpu for _, cpu in spent],
                "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
                "scores": scores,
                "kl": [logs["objective/kl"] for logs in timer.logs if "objective/kl" in logs],
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M", help="base model, folder or Hub id")
    parser.add_argument("--reference_python", default=sys.executable, help="a Python that has trl 1.12")
    parser.add_argument("--episodes", type=int, default=16, help="answers of an update")
    parser.add_argument("--updates", type=int, default=3, help="updates of a run; the first is not timed")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each side")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--micro_batch", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=2, help="passes over the answers of an update")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--pad_token", default="<|im_end|>", help="any token that answers will not hold, for TRL")
    parser.add_argument("--output_dir", default="outputs/bench/ppo")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        work(json.loads(Path(args.job).read_text(encoding="utf-8")))
        return

    probe = subprocess.run([args.reference_python, "-c", "import trl.experimental.ppo"], capture_output=True)
    if probe.returncode:
        sys.exit(
            f"{args.reference_python} has no TRL with a PPOTrainer to compare with: `make bench-ppo` installs it into "
            "an environment of its own, or name another Python with --reference_python"
        )
    folder = Path(args.output_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_reward_adapter(args.model, folder / "reward_adapter")
    job = vars(args) | {
        "prompts": prompts(args.episodes * args.updates),
        "reward_adapter": str(folder / "reward_adapter"),
        "output_dir": str(folder / "run"),
    }
    pythons = {"ours": sys.executable, "theirs": args.reference_python}
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in pythons}
    for number in range(args.rounds):
        for side in ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours"):
            (folder / "job.json").write_text(json.dumps(job | {"side": side}), encoding="utf-8")
            command = [pythons[side], __file__, "--job", str(folder / "job.json")]
            environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment)
            runs[side].append(json.loads(done.stdout.splitlines()[-1]))
            last = runs[side][-1]
            print(
                f"{side}: {statistics.median(last['seconds']):.2f} s an episode, "
                f"{statistics.median(last['cpu_seconds']):.2f} s of CPU, peak {last['peak_gb']:.2f} GB, scores "
                f"{', '.join(f'{score:+.3f}' for score in last['scores'])}; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    report(runs, folder / "ppo.json")


def report(runs: dict[str, list[dict[str, Any]]], output: Path) -> None:
    """Prints the ratios and writes all figures."""
    figures: dict[str, Any] = {"runs": runs}
    for name in ("seconds", "cpu_seconds"):
        medians = {side: statistics.median(x for run in runs[side] for x in run[name]) for side in runs}
        figures[name] = medians | {"ratio": medians["ours"] / medians["theirs"]}
    peaks = {side: max(run["peak_gb"] for run in runs[side]) for side in runs}
    figures["memory"] = peaks | {"ratio": peaks["ours"] / peaks["theirs"]}
    for name, unit in (("seconds", "s an episode"), ("cpu_seconds", "s of CPU an episode"), ("memory", "GB at most")):
        row = figures[name]
        wanted = f" (wanted: at most {TARGETS[name]})" if name in TARGETS else ""
        print(f"{row['ratio']:.2f} times TRL 1.12{wanted}: {row['ours']:.2f} against {row['theirs']:.2f} {unit}")
    output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"all figures: {output}")


if __name__ == "__main__":
    main()
