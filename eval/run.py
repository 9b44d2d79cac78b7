"""
Evaluate a model, with or without an adapter, and compare two results.

python eval/run.py --list   # the built-in tasks
python eval/run.py --model_name_or_path HuggingFaceTB/SmolLM2-135M-Instruct --tasks svamp --output_dir outputs/base
python eval/run.py --model_name_or_path HuggingFaceTB/SmolLM2-135M-Instruct --tasks my.yaml --output_dir outputs/my
python eval/run.py --adapter_name_or_path outputs/sft --tasks own   # the rows that the run held out
python eval/run.py --config eval.yaml --adapter_name_or_path outputs/sft/adapter --output_dir outputs/sft/eval
python eval/run.py --compare outputs/base outputs/sft/eval
python eval/run.py --export_lm_eval outputs/sft/eval --output_dir outputs/lm-eval

An output_dir holds results.json, samples/<task>.jsonl (one scored line per sample) and generations.jsonl, from which
an interrupted run goes on and a finished one is scored again without generating.
"""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from schoolhouse.config.parser import RecipeParser
from schoolhouse.evaluation.arguments import EvalArguments


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from schoolhouse.evaluation.run_task import PreparedTask


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if "--list" in argv:
        list_tasks()
        return 0
    parser = RecipeParser((EvalArguments,), __doc__, check="read tasks, tokenizer and adapter, load no model")
    (arguments,) = parser.parse_args(argv)
    try:
        if arguments.compare:
            compare(arguments)
            return 0
        if arguments.export_lm_eval:
            from schoolhouse.evaluation.lm_eval_export import export_lm_eval

            print(f"lm-eval's layout: {export_lm_eval(arguments.export_lm_eval, arguments.output_dir)}")
            return 0
        tokenizer, tasks, hashes = prepare_all(arguments)
    except (ValueError, OSError, ImportError) as error:
        from schoolhouse.core.escape import one_line

        print(f"eval/run.py: error: {one_line(error, 1000)}", file=sys.stderr)
        return 2
    if parser.check:
        print("\n".join(f"{prepared.task.name}: {len(prepared.items)} items" for prepared in tasks))
        return 0

    from schoolhouse.core.manifest import AdapterSource, ModelSource
    from schoolhouse.core.run import open_evaluation

    model = ModelSource(name=arguments.model_name_or_path, revision=arguments.revision, hash=hashes["model"])
    adapter = arguments.adapter_name_or_path
    evaluated = AdapterSource(name=adapter, hash=hashes["adapter"]) if adapter else None
    with open_evaluation(__file__, Path(arguments.output_dir), arguments.written(), model, evaluated):
        evaluate(arguments, argv, tokenizer, tasks, hashes)
    return 0


def list_tasks() -> None:
    """Print the built-in tasks, one line each: name, kind or scorer, number of items, metric, description."""
    from schoolhouse.evaluation.tasks import load_task, task_names

    for task in map(load_task, task_names()):
        print(f"{task.name:20}{task.asked_as:17}{task.num_items or '':>5}  {task.metric:15}{task.description}")


def compare(arguments: EvalArguments) -> None:
    """Print the paired comparison of two results, and write it where an output_dir is given."""
    from schoolhouse.core.files import write_json
    from schoolhouse.evaluation.compare import compare_runs
    from schoolhouse.evaluation.tables import print_comparison

    comparison = compare_runs(*arguments.compare)
    if arguments.output_dir:
        write_json(Path(arguments.output_dir) / "comparison.json", comparison.to_json())
    print_comparison(comparison)


def prepare_all(
    arguments: EvalArguments,
) -> "tuple[PreTrainedTokenizerBase, list[PreparedTask], dict[str, str | None]]":
    """
    Read everything but the weights, so that mistakes in names, paths, data and prompts show in seconds.

    Returns tokenizer, prepared tasks, and the hashes of `model`, `adapter` and `chat_template`. A mistake is a
    `ValueError` of one line.
    """
    from schoolhouse.evaluation.tasks import load_tasks

    # The task files first: they are read in milliseconds, transformers takes seconds to import.
    tasks = load_tasks(arguments.tasks, arguments.run, arguments.own_scorer)
    model_types = {task.model_type for task in tasks.values()}
    if len(model_types) > 1:
        raise ValueError(
            f"tasks {', '.join(tasks)}: some ask a reward model, some a language model; evaluate them apart"
        )

    from transformers import AutoConfig

    from schoolhouse.core.models import load_tokenizer, model_hash, template_hash
    from schoolhouse.core.reward_models import member_folders, scorer_hash, validate_task_type
    from schoolhouse.evaluation.run_task import prepare

    adapters = member_folders(arguments.adapter_name_or_path) if arguments.adapter_name_or_path else []
    for adapter in adapters:
        validate_task_type(adapter, *model_types)
    hashes = {
        "model": model_hash(arguments.model_name_or_path, arguments.revision),
        "adapter": scorer_hash(arguments.adapter_name_or_path) if adapters else None,
    }
    tokenizer = load_tokenizer(arguments.model_name_or_path, adapters[0] if adapters else None, arguments.revision)
    config = AutoConfig.from_pretrained(arguments.model_name_or_path, revision=arguments.revision)
    if len(tokenizer) > (rows := config.get_text_config().vocab_size):
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens but the model {rows}: it belongs to another base")
    prepared = [
        prepare(task, arguments, tokenizer, config, arguments.task_paths.get(name)) for name, task in tasks.items()
    ]
    return tokenizer, prepared, hashes | {"chat_template": template_hash(tokenizer)}


def evaluate(
    arguments: EvalArguments,
    argv: list[str],
    tokenizer: "PreTrainedTokenizerBase",
    tasks: "list[PreparedTask]",
    hashes: dict[str, str | None],
) -> None:
    """Load the model, ask and score every task, and write samples and results."""
    from schoolhouse.config.errors import exit_with
    from schoolhouse.core.models import load_model
    from schoolhouse.core.reward_models import load_scorer
    from schoolhouse.evaluation.results import Hashes, SamplingSettings, build_results, write_evaluation
    from schoolhouse.evaluation.run_task import run_task
    from schoolhouse.evaluation.sample_cache import SampleCache
    from schoolhouse.evaluation.tables import print_results
    from schoolhouse.graders.code import sandbox_layers

    base, adapter = arguments.model_name_or_path, arguments.adapter_name_or_path
    placed = arguments.dtype, arguments.device, arguments.revision
    try:
        if tasks[0].task.model_type == "SEQ_CLS":
            model, tokenizer = load_scorer(adapter or base, base, *placed)
        else:
            model = load_model(base, adapter, *placed)
    except (ValueError, OSError) as error:
        exit_with(f"eval/run.py: error: {error}")
    is_sampled = any(prepared.plan and prepared.plan.sampling.temperature for prepared in tasks)
    sampling = SamplingSettings(
        num_samples=arguments.num_samples or 1,
        temperature=arguments.temperature or 0.0,
        top_p=arguments.top_p,
        seed=arguments.seed if is_sampled else None,
        dtype=str(model.dtype).removeprefix("torch."),
        device=model.device.type,
    )

    folder = Path(arguments.output_dir)
    cache = SampleCache(folder / "generations.jsonl")
    samples, results = {}, {}
    for prepared in tasks:
        samples[prepared.task.name], results[prepared.task.name] = run_task(
            prepared, model, tokenizer, arguments, cache, hashes, sampling
        )
    command = shlex.join(["python", "eval/run.py", *argv])
    document = build_results(base, adapter, Hashes(**hashes), command, sampling, results, sandbox_layers())
    # Only now, so that samples of this run never lie beside the results of an earlier one.
    write_evaluation(folder, document, samples)
    print_results(document)


if __name__ == "__main__":
    raise SystemExit(main())
