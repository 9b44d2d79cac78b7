"""`push_to_hub: true` in a recipe: the finished adapter is shared as recipes/share.py does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.hub.artifacts import read_stages
from schoolhouse.hub.push import build_files, check_account, push
from schoolhouse.hub.secret_scan import shown


if TYPE_CHECKING:
    from transformers import TrainingArguments


@dataclass
class PushAfterTraining:
    """
    A push that a recipe asked for.

    Args:
        api ([`~huggingface_hub.HfApi`]):
            Client.
        repo_id (`str`):
            `owner/name`.
        public (`bool`):
            Visibility of a new repository.
    """

    api: Any
    repo_id: str
    public: bool

    @classmethod
    def take(cls, training_args: TrainingArguments, model: str | None) -> PushAfterTraining | None:
        """
        Take the push over from the trainer, which would upload its checkpoints and a pickled file with them.

        Args:
            training_args ([`~transformers.TrainingArguments`]):
                `push_to_hub`, which is set to `False`, `hub_model_id` (by default the name of `output_dir`),
                `hub_token` and `hub_private_repo` (private unless `false`).
            model (`str` or `None`):
                Base model.

        Returns:
            `PushAfterTraining` or `None`: `None` where none was asked for.

        Raises:
            ValueError: what would make the push fail after hours of training: a base that is not on the Hub, no token.
        """
        if not training_args.push_to_hub:
            return None
        from huggingface_hub import HfApi

        training_args.push_to_hub = False
        if model is None:
            raise ValueError("what is pushed is an adapter on a base, and this recipe makes a base")
        if Path(model).is_dir():
            raise ValueError(
                f"the base is only known as the folder {model}: leave push_to_hub out, then "
                "`python recipes/share.py push <output_dir> owner/name --base_model owner/base`"
            )
        api = HfApi(token=training_args.hub_token)
        repo_id = check_account(api, training_args.hub_model_id or Path(training_args.output_dir).name)
        return cls(api, repo_id, public=training_args.hub_private_repo is False)

    def __call__(self, run: Path) -> None:
        """
        Push; a failure is told and leaves the run as finished as it is.

        Args:
            run (`Path`):
                Run folder with its final record.
        """
        try:
            stages = read_stages(str(run))
            files = build_files(self.api, self.repo_id, stages, None, None, self.public)
            push(self.api, self.repo_id, files, [stage.tag for stage in stages], self.public)
        except (ValueError, OSError) as error:
            command = f"python recipes/share.py push {run} {self.repo_id}"
            print(f"trained, but not pushed: {shown(error, 600)}; try `{command}`")
        else:
            print(f"pushed to {self.api.endpoint}/{self.repo_id}")
