"""`push_to_hub: true` in a recipe: the finished adapter is shared as recipes/share.py does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi

from schoolhouse.core.escape import one_line
from schoolhouse.hub.artifacts import read_artifacts
from schoolhouse.hub.bundle import build_files
from schoolhouse.hub.client import check_account
from schoolhouse.hub.push import push


if TYPE_CHECKING:
    from transformers import TrainingArguments


@dataclass
class PushTarget:
    """
    Destination of a push that a recipe asked for: client with its token, `owner/name`, and visibility if it is new.
    """

    api: HfApi
    repo_id: str
    public: bool


def prepare_push(training_args: TrainingArguments, base: str) -> PushTarget:
    """
    Check before training that the push can succeed, and take it over from the trainer.

    The trainer's own push uploads its checkpoints and a pickled file with them, so `push_to_hub` is set to `False`.
    The repository is `hub_model_id`, by default the name of `output_dir`, and private unless `hub_private_repo` is
    `false`.

    Raises:
        ValueError: the push would fail after hours of training: the base is not on the Hub, or there is no token.
    """
    training_args.push_to_hub = False
    if Path(base).is_dir():
        raise ValueError(
            f"the base is only known as the folder {base}: leave push_to_hub out, then "
            "`python recipes/share.py push <output_dir> owner/name --base_model owner/base`"
        )
    api = HfApi(token=training_args.hub_token)
    repo_id = check_account(api, training_args.hub_model_id or Path(str(training_args.output_dir)).name)
    return PushTarget(api, repo_id, public=training_args.hub_private_repo is False)


def push_after_training(folder: Path, target: PushTarget) -> None:
    """Push a finished run. A failure is printed; the run is finished all the same."""
    try:
        artifacts = read_artifacts(str(folder))
        files = build_files(target.api, target.repo_id, artifacts, public=target.public)
        push(target.api, target.repo_id, files, [artifact.tag for artifact in artifacts], target.public)
    except (ValueError, OSError) as error:
        command = f"python recipes/share.py push {folder} {target.repo_id}"
        print(f"trained, but not pushed: {one_line(error, 600)}; try `{command}`")
    else:
        print(f"pushed to {target.api.endpoint}/{target.repo_id}")
