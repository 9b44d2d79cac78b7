"""Keys of an evaluation, given as flags of `eval/run.py` or in its `--config` file."""

from dataclasses import dataclass, field
from typing import Any

from schoolhouse.config.errors import ConfigError
from schoolhouse.config.paths import find_file


@dataclass
class EvalArguments:
    """
    Keys of an evaluation.

    Args:
        model_name_or_path (`str`, *optional*):
            Hub id or folder of the base model.
        adapter_name_or_path (`str`, *optional*):
            Hub id or folder of a LoRA adapter on it.
        revision (`str`, *optional*):
            Branch, tag or commit of the base model on the Hub.
        tasks (`list[str]`, *optional*):
            Names of tasks (`--list`), or paths of task files, separated by commas.
        output_dir (`str`, *optional*):
            Folder of results.json and the samples, or of the comparison.json of `--compare`.
        task_paths (`dict[str, str]`, *optional*):
            Task -> local file or folder to read instead of the Hub: '{svamp: my/svamp.jsonl}'.
        trained_on (`list[str]`, *optional*):
            Training data (NAME, NAME=PATH or a file), for a second score on the items that share nothing with it.
        limit (`int`, *optional*):
            Number of items of each task, from the top.
        num_samples (`int`, *optional*):
            Completions per item, instead of the task's own number (1 but for tiny_descriptions).
        temperature (`float`, *optional*):
            Temperature of the sampling, instead of the task's own (0, greedy, but for tiny_descriptions).
        top_p (`float`, *optional*, defaults to `1.0`):
            Share of the probability that is sampled from.
        max_new_tokens (`int`, *optional*):
            Length at which completions are cut, instead of the task's own.
        seed (`int`, *optional*, defaults to `42`):
            Seed of the sampling.
        batch_size (`int`, *optional*, defaults to `64`):
            Most sequences of a batch.
        tokens_per_batch (`int`, *optional*, defaults to `32768`):
            Most tokens of a batch, prompts and completions.
        dtype (`str`, *optional*):
            Precision of the weights; the hardware decides where it is not set.
        device (`str`, *optional*):
            Torch device, instead of the fastest one.
        compare (`list[str]`, *optional*):
            Two folders of results, before and after: their paired tests; nothing is evaluated.
        export_lm_eval (`str`, *optional*):
            Folder of results to write in lm-eval's layout into output_dir; nothing is evaluated.
    """

    model_name_or_path: str | None = None
    adapter_name_or_path: str | None = None
    revision: str | None = None
    tasks: list[str] = field(default_factory=list, metadata={"comma": True})
    output_dir: str | None = None
    task_paths: dict[str, str] = field(default_factory=dict)
    trained_on: list[str] = field(default_factory=list, metadata={"comma": True})
    limit: int | None = None
    num_samples: int | None = None
    temperature: float | None = field(default=None, metadata={"bounds": "0 or more"})
    top_p: float = 1.0
    max_new_tokens: int | None = None
    seed: int = 42
    batch_size: int = 64
    tokens_per_batch: int = 32_768
    dtype: str | None = field(default=None, metadata={"choices": ["float32", "bfloat16", "float16"]})
    device: str | None = None
    compare: list[str] = field(default_factory=list)
    export_lm_eval: str | None = None

    def written(self) -> dict[str, Any]:
        """Return the arguments that differ from their defaults."""
        return {
            key: value
            for key, value in vars(self).items()
            if value not in (None, [], {}) and value != getattr(type(self), key, None)
        }

    def __post_init__(self) -> None:
        if self.compare:
            if len(self.compare) != 2:
                raise ConfigError(("compare",), f"names {len(self.compare)} folders: give two, before and after")
            return
        for name in ("output_dir",) if self.export_lm_eval else ("model_name_or_path", "tasks", "output_dir"):
            if not getattr(self, name):
                raise ConfigError((name,), f"missing: give --{name}, or set it in the --config file")
        if len(set(self.tasks)) < len(self.tasks):
            raise ConfigError(("tasks",), f"name each task once, got {', '.join(self.tasks)}")
        if unused := sorted(set(self.task_paths) - set(self.tasks)):
            raise ConfigError(("task_paths", unused[0]), f"is not among the tasks ({', '.join(self.tasks)})")
        self.task_paths = {name: str(find_file(path)) for name, path in self.task_paths.items()}
        for name, path in self.task_paths.items():
            if not find_file(path).exists():
                raise ConfigError(("task_paths", name), f"{path} does not exist")
