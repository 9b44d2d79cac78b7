"""
Share an adapter on the Hub with a card made of measurements, and check one that was shared.

    python recipes/share.py card outputs/tiny/sft                  # README.md there: no token, no network
    python recipes/share.py push outputs/tiny/sft user/my-adapter --base_model user/my-base
    python recipes/share.py pull user/my-adapter --output_dir outputs/theirs
    python recipes/share.py verify user/my-adapter --limit 200
    python recipes/share.py merge outputs/tiny/sft/adapter --output_dir outputs/merged --dtype bfloat16
    python recipes/share.py export outputs/tiny/sft --format gguf --output_dir outputs/gguf --llama_cpp ../llama.cpp

`push` takes a run folder, or the folder of a pipeline, whose stages become sub-folders. The repository is private
unless you say --public. `verify` exits with 0 for "reproduced", 1 for "differs" and 3 for "cannot tell"; errors exit
with 2. `export` writes a merged checkpoint, GGUF files for llama.cpp, or one with a Modelfile for Ollama;
docs/serving.md has the commands that serve them.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from schoolhouse.config.errors import FlagParser
from schoolhouse.config.paths import shipped
from schoolhouse.core.escape import one_line


UNASKED = "the Hub was not asked: `push` checks base and account, and reads the license of the base there"


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    try:
        return arguments.action(arguments)
    except (ValueError, OSError) as error:
        print(f"recipes/share.py: error: {one_line(error, 600)}", file=sys.stderr)
        return 2


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = FlagParser(description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="card|push|pull|verify|merge|export")
    shared = FlagParser(add_help=False)
    shared.add_argument("repo_id", help="owner/name on the Hub")
    shared.add_argument("--revision", help="branch, tag or commit")

    described = FlagParser(add_help=False)
    described.add_argument("folder", help="run folder, its adapter folder, or a pipeline's folder")
    described.add_argument("--base_model", help="Hub id of the base, where the run knows only a folder")
    described.add_argument("--results", nargs="*", default=[], help="folders of results, of this adapter and its base")
    described.add_argument("--license", help="your decision, where none follows from base and data")

    card = actions.add_parser("card", parents=[described], help="write the model card as README.md, without the Hub")
    card.set_defaults(action=write_card)
    card.add_argument("repo_id", nargs="?", help="owner/name that it will have on the Hub")
    card.add_argument("--output_dir", help="folder of README.md, by default the one that is described")

    push = actions.add_parser("push", parents=[described], help="upload an adapter or a pipeline")
    push.set_defaults(action=push_adapter)
    push.add_argument("repo_id", help="owner/name on the Hub")
    visibility = push.add_mutually_exclusive_group()
    visibility.add_argument("--public", action="store_true", default=None, help="everybody may see it")
    visibility.add_argument("--private", dest="public", action="store_false", help="only you may see it (the default)")
    push.add_argument("--collection", metavar="TITLE", help="add it to your collection of this title, made if need be")
    push.add_argument("--overwrite", action="store_true", help="replace a different adapter that is there")
    push.add_argument(
        "--dry_run",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="list what would be uploaded, and write it to FOLDER if one is named: no token, no network",
    )

    pull = actions.add_parser("pull", parents=[shared], help="download, and check every file against the lineage")
    pull.set_defaults(action=pull_adapter)
    pull.add_argument("--output_dir", required=True, help="folder for what is downloaded; must be empty or absent")

    verify = actions.add_parser("verify", parents=[shared], help="measure the claims of a card again")
    verify.set_defaults(action=verify_claims)
    verify.add_argument("--output_dir", help="keep what is downloaded in this folder")
    verify.add_argument("--base_model", help="folder or Hub id of the base, instead of the one named there")
    verify.add_argument("--stage", help="one stage of a pipeline")
    verify.add_argument(
        "--tasks",
        help="of the claimed tasks only these, comma-separated; names or YAML files",
    )
    verify.add_argument("--task_paths", help="local data for tasks, as eval/run.py takes it")
    verify.add_argument("--limit", type=int, help="items per task; by default as many as the claim")

    merge = actions.add_parser("merge", help="write adapter and base as one checkpoint, after a parity check")
    merge.set_defaults(action=merge_adapter)
    merge.add_argument("adapter", help="Hub id or folder of the adapter")
    merge.add_argument("--output_dir", required=True, help="folder of the merged model; must not exist")
    merge.add_argument("--base_model", help="folder or Hub id of the base, instead of the one the adapter names")
    merge.add_argument("--dtype", default="float32", help="float32 (the default) or bfloat16")

    export = actions.add_parser("export", help="write what llama.cpp, Ollama and other programs load")
    export.set_defaults(action=export_adapter)
    export.add_argument("adapter", help="run folder, folder of an adapter, or its Hub id")
    export.add_argument("--format", required=True, choices=("merged", "gguf", "ollama"))
    export.add_argument("--output_dir", required=True, help="folder of the result; must not exist")
    export.add_argument("--base_model", help="folder or Hub id of the base, instead of the one the adapter names")
    export.add_argument("--dtype", default="float32", help="of merged weights: float32 (the default) or bfloat16")
    export.add_argument("--outtype", default="f16", choices=("f32", "f16", "bf16", "q8_0"), help="of GGUF weights")
    export.add_argument("--llama_cpp", metavar="FOLDER", help="checkout of llama.cpp; by default that of LLAMA_CPP")
    return parser.parse_args(argv)


def write_card(arguments: argparse.Namespace) -> int:
    from schoolhouse.hub.artifacts import read_artifacts
    from schoolhouse.hub.bundle import build_files, local_repo_id
    from schoolhouse.hub.client import check_repo_id

    artifacts = read_artifacts(arguments.folder, arguments.results)
    repo_id = check_repo_id(arguments.repo_id) if arguments.repo_id else local_repo_id(arguments.folder)
    files = build_files(None, repo_id, artifacts, arguments.base_model, arguments.license)
    path = Path(arguments.output_dir or arguments.folder, "README.md")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(files["README.md"])
    later = " (OWNER stands for who will own it on the Hub)" if b"OWNER/" in files["README.md"] else ""
    print(f"{path}: the card of {', '.join(artifact.name for artifact in artifacts)}{later}; {UNASKED}")
    return 0


def push_adapter(arguments: argparse.Namespace) -> int:
    from huggingface_hub import HfApi

    from schoolhouse.hub.artifacts import read_artifacts
    from schoolhouse.hub.bundle import build_files
    from schoolhouse.hub.client import check_account, check_repo_id
    from schoolhouse.hub.push import add_to_collection, push

    artifacts = read_artifacts(arguments.folder, arguments.results)
    is_dry = arguments.dry_run is not None
    api = HfApi()
    repo_id = check_repo_id(arguments.repo_id) if is_dry else check_account(api, arguments.repo_id)
    public = ask_visibility(repo_id) if arguments.public is None and not is_dry else bool(arguments.public)
    files = build_files(None if is_dry else api, repo_id, artifacts, arguments.base_model, arguments.license, public)
    size = sum(map(len, files.values())) / 1e6
    names = ", ".join(artifact.name for artifact in artifacts)
    print(f"{'public' if public else 'private'} repository {repo_id}: {names}; {len(files)} files, {size:.1f} MB")
    if is_dry:
        for path, content in sorted(files.items()):
            print(f"  {path} ({len(content):,} bytes)")
            if arguments.dry_run:
                (Path(arguments.dry_run) / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(arguments.dry_run) / path).write_bytes(content)
        print(f"nothing was uploaded; {UNASKED}")
        return 0
    tags = [artifact.tag for artifact in artifacts]
    commit = push(api, repo_id, files, tags, public, arguments.overwrite)
    print(f"{api.endpoint}/{repo_id} at {commit[:12]}, tags {', '.join(tags)}")
    if arguments.collection:
        slug = add_to_collection(api, repo_id, arguments.collection, public)
        print(f"{api.endpoint}/collections/{slug}")
    return 0


def ask_visibility(repo_id: str) -> bool:
    """Ask whether the repository shall be public; without a terminal it is private."""
    if not sys.stdin.isatty():
        return False
    return input(f"Shall everybody be able to see {repo_id}? [y/N] ").strip().lower() in ("y", "yes")


def pull_adapter(arguments: argparse.Namespace) -> int:
    from huggingface_hub import HfApi

    from schoolhouse.hub.pull import pull

    folder = Path(arguments.output_dir)
    lineage = pull(HfApi(), arguments.repo_id, folder, arguments.revision)
    for stage in lineage.stages:
        print(f"{one_line(stage.name)}: {folder / stage.folder}, on {one_line(lineage.base.name)}")
    print(f"{len(lineage.files)} files are those of the lineage")
    return 0


def verify_claims(arguments: argparse.Namespace) -> int:
    from huggingface_hub import HfApi

    from schoolhouse.evaluation.tasks import task_names
    from schoolhouse.hub.pull import pull
    from schoolhouse.hub.verify import Verdict, check_claim, overall, read_claims

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.output_dir or scratch) / "adapter"
        lineage = pull(HfApi(), arguments.repo_id, folder, arguments.revision)
        folders = {stage.name: stage.folder for stage in lineage.stages}
        if arguments.stage not in (None, *folders):
            raise ValueError(f"--stage {arguments.stage}: there is {', '.join(map(one_line, folders))}")
        stages = [arguments.stage] if arguments.stage else list(folders)
        claims = {stage: read_claims(folder, folders[stage]) for stage in stages}
        claimed = {task for tasks in claims.values() for task in tasks}
        # Name of a task -> what eval/run.py is told: the name, or the path of a task's file.
        asked = {Path(task).stem: task for task in (arguments.tasks.split(",") if arguments.tasks else claimed)}
        if absent := sorted(asked.keys() - claimed):
            there = ", ".join(map(one_line, sorted(claimed)))
            raise ValueError(f"--tasks {absent[0]}: claimed is {there}")
        if foreign := sorted(name for name, task in asked.items() if task == name and name not in task_names()):
            raise ValueError(
                f"{one_line(foreign[0])} is no built-in task: name its YAML file, or other tasks, in --tasks"
            )
        verdicts = []
        for stage in stages:
            wanted = {task: claim for task, claim in claims[stage].items() if task in asked}
            if not wanted:
                print(f"{one_line(stage)}: claims nothing")
                continue
            base = arguments.base_model or lineage.base.name
            results = Path(scratch, "eval", folders[stage])
            measure_again(base, folder / folders[stage], [asked[task] for task in wanted], arguments, results)
            found = read_claims(results)
            for task, claim in wanted.items():
                verdict, why = check_claim(claim, found[task])
                verdicts.append(verdict)
                print(f"{one_line(stage)} {one_line(task)}: {verdict} ({one_line(why)})")
    verdict = overall(verdicts)
    print(verdict)
    return {Verdict.REPRODUCED: 0, Verdict.DIFFERS: 1, Verdict.UNKNOWN: 3}[verdict]


def measure_again(base: str, adapter: Path, tasks: list[str], arguments: argparse.Namespace, folder: Path) -> None:
    """Evaluate the adapter with eval/run.py in a process of its own; the results are in `folder`."""
    script = shipped("eval/run.py")
    command = [sys.executable, str(script), "--model_name_or_path", base, "--adapter_name_or_path", str(adapter)]
    command += ["--tasks", ",".join(tasks), "--output_dir", str(folder)]
    command += ["--limit", str(arguments.limit)] if arguments.limit else []
    command += ["--task_paths", arguments.task_paths] if arguments.task_paths else []
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise ValueError(f"eval/run.py ended with {run.returncode}: {one_line(run.stderr[-500:], 500)}")


def merge_adapter(arguments: argparse.Namespace) -> int:
    from schoolhouse.hub.merge import TOLERANCE, merge

    difference = merge(arguments.base_model, arguments.adapter, Path(arguments.output_dir), arguments.dtype)
    print(
        f"{arguments.output_dir}: {arguments.dtype}; logits differ from base + adapter by {difference:.1e} of the "
        f"largest (allowed {TOLERANCE[arguments.dtype]:.0e})"
    )
    return 0


def export_adapter(arguments: argparse.Namespace) -> int:
    from schoolhouse.hub.export import export

    folder, base = Path(arguments.output_dir), arguments.base_model
    options = {"dtype": arguments.dtype, "outtype": arguments.outtype, "llama_cpp": arguments.llama_cpp}
    for line in export(arguments.adapter, folder, arguments.format, base, **options):
        print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
