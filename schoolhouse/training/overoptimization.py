"""Over-optimization of a run: the optimised reward beside a gold score, when to stop, and which step to keep."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from schoolhouse.core.files import write_json
from schoolhouse.training.policy import save_adapter


if TYPE_CHECKING:
    from schoolhouse.config.arguments import RecipeParser
    from schoolhouse.rewards import Reward


# Number of logged points whose mean is compared: the highest of many noisy single points would often be luck.
WINDOW = 3


@dataclass
class OveroptimizationArguments:
    """
    The gold scorer, and limits at which optimization has gone far enough.

    Args:
        gold_reward (`str`, *optional*):
            Entry of `rewards` with weight 0, by its name in the logs: it is measured, never optimised. The adapter of
            the step where its mean over the last three logged points was highest is kept.
        gold_patience (`int`, *optional*):
            Number of logged points without a new highest mean after which training stops.
        kl_budget (`float`, *optional*):
            KL divergence from the reference, in nats per sequence, above which training stops.
    """

    gold_reward: str | None = field(
        default=None, metadata={"help": "Entry of `rewards` with weight 0: it is measured, not optimised."}
    )
    gold_patience: int | None = field(
        default=None, metadata={"help": "Logged points without a new highest gold score before training stops."}
    )
    kl_budget: float | None = field(
        default=None, metadata={"help": "KL divergence in nats per sequence at which training stops."}
    )


def validate_overoptimization(parser: RecipeParser, args: OveroptimizationArguments, rewards: list[Reward]) -> None:
    """Refuse a gold scorer that is missing or optimised, and limits out of range."""
    weights = {reward.__name__: reward.weight for reward in rewards}
    if args.gold_reward is not None and weights.get(args.gold_reward) != 0:
        measured = [name for name, weight in weights.items() if weight == 0]
        parser.error(
            "gold_reward",
            f"{args.gold_reward!r} is no entry of `rewards` with weight 0 ({', '.join(measured) or 'there is none'}): "
            "a reward that is optimised is no measure",
        )
    if args.gold_patience is not None and (args.gold_reward is None or args.gold_patience < 1):
        parser.error("gold_patience", "must be at least 1, and needs gold_reward")
    if args.kl_budget is not None and args.kl_budget <= 0:
        parser.error("kl_budget", f"must be above 0 nats per sequence, got {args.kl_budget}")


class OveroptimizationCallback(TrainerCallback):
    """
    Callback that writes `overoptimization.json` beside `run.json`, keeps the adapter of the highest gold score, and
    stops the run at its limits.

    `overoptimization.json` holds `points`, one for each logging step (means since the one before: `step`; `kl`, the
    divergence from the reference in nats per sequence; `proxy`, the reward that is optimised; `gold`; `length` in
    tokens; `eos_rate`; `entropy` in nats per token; `repetition`, minus the reward of that name; `spread`, the
    deviation between the members of an ensemble; `None` for what is not logged), `peak` and `final_minus_peak` of
    [`summarise_run`], and `stopped`.

    Args:
        folder (`Path`):
            Run folder.
        args ([`OveroptimizationArguments`]):
            Gold scorer and limits.
    """

    KEPT = "best_by_gold"

    def __init__(self, folder: Path, args: OveroptimizationArguments):
        self.folder = folder
        self.args = args
        self.stopped: dict[str, Any] | None = None

    def point(self, logs: dict[str, Any]) -> dict[str, Any] | None:
        """Point of one entry of the trainer's log; `None` for an entry without KL, such as the closing one."""
        if logs.get("objective/kl") is None:
            return None
        clipped, repeated = logs.get("completions/clipped_ratio"), logs.get("rewards/repetition/mean")
        return {
            "step": logs["step"],
            "kl": logs["objective/kl"],
            "proxy": logs["reward"],
            "gold": logs.get(f"rewards/{self.args.gold_reward}/mean"),
            "length": logs.get("completions/mean_length"),
            "eos_rate": None if clipped is None else 1 - clipped,
            "entropy": logs.get("entropy"),
            "repetition": None if repeated is None else -repeated,
            "spread": logs.get("reward_model/spread"),
        }

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if state.is_world_process_zero and state.global_step == 0:
            shutil.rmtree(self.folder / self.KEPT, ignore_errors=True)
        elif (
            state.is_world_process_zero and (self.folder / "last").is_dir() and not (self.folder / self.KEPT).exists()
        ):
            shutil.copytree(self.folder / "adapter", self.folder / self.KEPT)  # of the finished run that goes on

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        # 1. Points so far. The trainer's log is part of its checkpoints, so a resumed run has all of them.
        points = [point for logs in state.log_history if (point := self.point(logs))]
        if not points or points[-1]["step"] != state.global_step or self.point(state.log_history[-1]) is None:
            return
        scored = [point for point in points if point["gold"] is not None]
        # 2. The best window of consecutive points within the budget, by mean gold score.
        budget, patience = self.args.kl_budget, self.args.gold_patience
        within = [point for point in scored if budget is None or point["kl"] <= budget]
        recent = [within[end - WINDOW : end] for end in range(WINDOW, len(within) + 1)]
        best = max(recent, key=lambda window: sum(point["gold"] for point in window), default=None)
        # 3. Stop beyond the budget, or when the best window is too long ago.
        if budget is not None and points[-1]["kl"] > budget:
            self.stopped = {"by": "kl_budget", "step": state.global_step}
        elif patience is not None and best is not None and len(recent) - recent.index(best) > patience:
            self.stopped = {"by": "gold_patience", "step": state.global_step}
        control.should_training_stop = control.should_training_stop or self.stopped is not None
        # 4. Keep the adapter if the best window ends here.
        if state.is_world_process_zero:
            if best is not None and best[-1] is points[-1]:
                save_adapter(kwargs["model"], self.folder / self.KEPT, kwargs["processing_class"])
            self._write(points, scored)

    def _write(self, points: list[dict[str, Any]], scored: list[dict[str, Any]]) -> None:
        from schoolhouse.evaluation.statistics.overoptimization import summarise_run

        write_json(
            self.folder / "overoptimization.json",
            {"points": points, **summarise_run(scored), "stopped": self.stopped},
            allow_nan=True,
        )

    def keep_best(self, product: Path, is_writer: bool) -> None:
        """Make the adapter of the highest gold score the run's product, and keep that of the last step in `last`."""
        kept, last = self.folder / self.KEPT, self.folder / "last"
        if is_writer and kept.is_dir():
            shutil.rmtree(last, ignore_errors=True)
            product.rename(last)
            kept.rename(product)
