"""Keys of an evaluation, given as flags of `eval/run.py` or in its `--config` file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schoolhouse.config.errors import ConfigError
from schoolhouse.config.paths import find_file
from schoolhouse.core.manifest import RUN_FILE, read_manifest


def run_folder(path: str | Path | None) -> Path | None:
    """Return the run folder that a path leads to: itself, or the one that holds this product; `None` for another."""
    folders = [] if path is None else [Path(path), Path(path).parent]
    return next((folder for folder in folders if (folder / RUN_FILE).is_file()), None)


@dataclass
class EvalArguments:
    """
    Keys of an evaluation.

    Args:
        model_name_or_path (`str`, *optional*):
            Hub id or folder of the base model; that of the run where the adapter lies in a run's folder.
        adapter_name_or_path (`str`, *optional*):
            Hub id or folder of a LoRA adapter on it.
        revision (`str`, *optional*):
            Branch, tag or commit of the base model on the Hub.
        tasks (`list[str]`, *optional*):
            Names of tasks (`--list`), paths of task files, or `own`: the rows that the run held out which trained the
            adapter (a run's folder stands for its rows, to ask other models); separated by commas.
        own_scorer (`str`, *optional*):
            Scorer of held-out answers (a name or `file.py:function`), instead of the one that follows from the data.
        output_dir (`str`, *optional*):
            Folder of results.json and the samples, or of the comparison.json of `--compare`. By default `eval` in the
            folder of the run that trained the adapter.
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
    own_scorer: str | None = None
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

    @property
    def run(self) -> Path | None:
        """Folder of the run that trained what is evaluated, where there is one."""
        return run_folder(self.adapter_name_or_path or self.model_name_or_path)

    def _fill_in_run(self) -> None:
        """Take model, product and `output_dir` from the run, where the flags leave them out."""
        if (run := self.run) is None or self.adapter_name_or_path is None:
            return
        manifest = read_manifest(run)
        if Path(self.adapter_name_or_path) == run and manifest.product and (run / manifest.product).is_dir():
            self.adapter_name_or_path = str(run / manifest.product)
        if self.model_name_or_path is None and manifest.model is not None:
            self.model_name_or_path, self.revision = manifest.model.name, self.revision or manifest.model.revision
        if self.output_dir is None:
            self.output_dir = str(run / "eval")

    def __post_init__(self) -> None:
        if self.compare:
            if len(self.compare) != 2:
                raise ConfigError(("compare",), f"names {len(self.compare)} folders: give two, before and after")
            return
        try:
            self._fill_in_run()
        except ValueError as error:  # a damaged manifest
            raise ConfigError(("adapter_name_or_path",), str(error)) from None
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
