"""
Evaluate a model, with or without an adapter, and compare two results.

python eval/run.py --model_name_or_path HuggingFaceTB/SmolLM2-135M-Instruct --tasks svamp --output_dir outputs/base
python eval/run.py --config eval.yaml --adapter_name_or_path outputs/sft/adapter --output_dir outputs/sft/eval
python eval/run.py --compare outputs/base outputs/sft/eval
python eval/run.py --export_lm_eval outputs/sft/eval --output_dir outputs/lm-eval

An output_dir holds results.json, samples/<task>.jsonl (one graded line per sample) and generations.jsonl, from which
an interrupted run goes on and a finished one is graded again without generating.
"""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.config.parser import RecipeParser
from schoolhouse.evaluation.arguments import EvalArguments
from schoolhouse.evaluation.tasks import TASKS


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from schoolhouse.evaluation.results import SamplingSettings
    from schoolhouse.evaluation.run_task import PreparedTask


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = RecipeParser((EvalArguments,), __doc__, check="read tasks, tokenizer and adapter, load no model")
    (arguments,) = parser.parse_args(argv)
    try:
        if arguments.compare:
            from schoolhouse.evaluation.compare import compare_runs

            comparison = compare_runs(*arguments.compare)
        elif arguments.export_lm_eval:
            from schoolhouse.evaluation.lm_eval_export import export_lm_eval

            print(f"lm-eval's layout: {export_lm_eval(arguments.export_lm_eval, arguments.output_dir)}")
            return 0
        else:
            tokenizer, prepared_tasks, hashes = prepare_all(arguments)
    except (ValueError, OSError, ImportError) as error:
        print("eval/run.py: error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    if parser.check and not arguments.compare:
        print("\n".join(f"{prepared.task.name}: {len(prepared.items)} items" for prepared in prepared_tasks))
        return 0

    from schoolhouse.core.files import write_json
    from schoolhouse.evaluation import tables

    if arguments.compare:
        if arguments.output_dir:
            write_json(Path(arguments.output_dir) / "comparison.json", comparison.to_json())
        tables.print_comparison(comparison)
        return 0

    from schoolhouse.core.manifest import AdapterSource, ModelSource
    from schoolhouse.core.run import open_evaluation

    model = ModelSource(name=arguments.model_name_or_path, revision=arguments.revision, hash=hashes["model"])
    adapter = arguments.adapter_name_or_path
    evaluated = AdapterSource(name=adapter, hash=hashes["adapter"]) if adapter else None
    with open_evaluation(__file__, Path(arguments.output_dir), arguments.written(), model, evaluated):
        evaluate(arguments, argv, tokenizer, prepared_tasks, hashes)
    return 0


def evaluate(
    arguments: EvalArguments,
    argv: list[str],
    tokenizer: "PreTrainedTokenizerBase",
    prepared_tasks: "list[PreparedTask]",
    hashes: dict[str, Any],
) -> None:
    """Load the model, run the tasks, and write samples and results."""
    from schoolhouse.core.models import load_model
    from schoolhouse.core.reward_models import load_scorer
    from schoolhouse.evaluation import tables
    from schoolhouse.evaluation.preference import describe_preferences
    from schoolhouse.evaluation.results import Hashes, SamplingSettings, build_results, write_evaluation
    from schoolhouse.evaluation.run_task import run_task
    from schoolhouse.evaluation.sample_cache import SampleStore
    from schoolhouse.evaluation.summary import summarise

    if prepared_tasks[0].task.kind == "preference":
        model, tokenizer = load_scorer(
            arguments.adapter_name_or_path or arguments.model_name_or_path,
            arguments.model_name_or_path,
            arguments.dtype,
            arguments.device,
            arguments.revision,
        )
    else:
        model = load_model(
            arguments.model_name_or_path,
            arguments.adapter_name_or_path,
            arguments.dtype,
            arguments.device,
            arguments.revision,
        )
    folder = Path(arguments.output_dir)
    store = SampleStore(folder / "generations.jsonl")
    sampling = SamplingSettings(
        num_samples=arguments.num_samples or 1,
        temperature=arguments.temperature or 0.0,
        top_p=arguments.top_p,
        seed=arguments.seed if any(prepared.sampling.temperature for prepared in prepared_tasks) else None,
        dtype=str(model.dtype).removeprefix("torch."),
        device=model.device.type,
    )
    samples = {
        prepared.task.name: run_task(prepared, model, tokenizer, arguments, store, hashes)
        for prepared in prepared_tasks
    }
    tasks = {
        prepared.task.name: summarise(prepared.task, samples[prepared.task.name]).model_copy(
            update={"preference": describe_preferences(model, tokenizer, prepared.items, samples[prepared.task.name])}
            if prepared.task.kind == "preference"
            else {"max_new_tokens": prepared.sampling.max_new_tokens} | _own_sampling(prepared, sampling)
        )
        for prepared in prepared_tasks
    }
    command = shlex.join(["python", "eval/run.py", *argv])
    results = build_results(
        arguments.model_name_or_path, arguments.adapter_name_or_path, Hashes(**hashes), command, sampling, tasks
    )
    # Only now, so that samples of this run never lie beside the results of an earlier one.
    write_evaluation(folder, results, samples)
    tables.print_results(results)


def _own_sampling(prepared: "PreparedTask", sampling: "SamplingSettings") -> dict[str, Any]:
    """Where a task is sampled in another way than the others, how."""
    from schoolhouse.evaluation.results import TaskSampling

    own = TaskSampling(num_samples=prepared.num_samples, temperature=prepared.sampling.temperature)
    differs = (own.num_samples, own.temperature) != (sampling.num_samples, sampling.temperature)
    return {"sampling": own} if prepared.task.kind == "generate" and differs else {}


def prepare_all(arguments: EvalArguments) -> tuple:
    """
    Whatever can go wrong before weights load: names, paths, data, prompts.

    Args:
        arguments ([`EvalArguments`]):
            The run's arguments.

    Returns:
        `tuple`: tokenizer, prepared_tasks and hashes.

    Raises:
        ValueError: naming what is wrong, in one line.
    """
    if unknown := [name for name in arguments.tasks if name not in TASKS]:
        raise ValueError(f"unknown task {unknown[0]!r}; known: {', '.join(sorted(TASKS))}")
    judges = {TASKS[name].kind == "preference" for name in arguments.tasks}
    if len(judges) > 1:
        raise ValueError(
            f"tasks {', '.join(arguments.tasks)}: some ask a reward model, some a language model; evaluate them apart"
        )

    from transformers import AutoConfig

    from schoolhouse.core.models import load_tokenizer, model_hash, template_hash
    from schoolhouse.core.reward_models import member_folders, scorer_hash, validate_task_type
    from schoolhouse.evaluation.run_task import prepare

    adapters = member_folders(arguments.adapter_name_or_path) if arguments.adapter_name_or_path else []
    for adapter in adapters:
        validate_task_type(adapter, "SEQ_CLS" if judges == {True} else "CAUSAL_LM")
    hashes = {
        "model": model_hash(arguments.model_name_or_path, arguments.revision),
        "adapter": scorer_hash(arguments.adapter_name_or_path) if adapters else None,
    }
    tokenizer = load_tokenizer(arguments.model_name_or_path, adapters[0] if adapters else None, arguments.revision)
    config = AutoConfig.from_pretrained(arguments.model_name_or_path, revision=arguments.revision)
    if len(tokenizer) > (rows := config.get_text_config().vocab_size):
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens but the model {rows}: it belongs to another base")
    prepared_tasks = [prepare(TASKS[name], arguments, tokenizer, config) for name in arguments.tasks]
    return tokenizer, prepared_tasks, hashes | {"chat_template": template_hash(tokenizer)}


if __name__ == "__main__":
    raise SystemExit(main())
