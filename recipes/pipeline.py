"""A pipeline: every stage of a chain in order, an evaluation after each, and one report at the end.

    python recipes/pipeline.py --config recipes/configs/tiny/pipeline.yaml

A stage is done if its settings, parents, base model, data and code are those that its manifest records. Done stages
are skipped; changed ones are trained again, and so are all that descend from them. The recipes of all due stages are
checked before the first one is trained. A pipeline that was stopped or killed goes on with the same command.
"""

import sys

from schoolhouse.config.errors import FlagParser
from schoolhouse.core.escape import one_line
from schoolhouse.pipeline.estimates import left_out
from schoolhouse.pipeline.plan import load_pipeline
from schoolhouse.pipeline.process import Stop
from schoolhouse.pipeline.progress import View, print_plan
from schoolhouse.pipeline.recipe_checks import check_recipes
from schoolhouse.pipeline.runner import Runner, StageFailed
from schoolhouse.pipeline.staleness import is_done


def main(argv: list[str] | None = None) -> int:
    parser = FlagParser(description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the pipeline")
    parser.add_argument("--output_dir", metavar="FOLDER", help="instead of the file's own")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="A,B", help="these stages; their parents must be done")
    which.add_argument("--from", dest="first", metavar="STAGE", help="this stage and those below it in the file")
    arguments = parser.parse_args(argv)
    try:
        pipeline = load_pipeline(arguments.config, arguments.output_dir)
        names = [stage.name for stage in pipeline.stages]
        wanted = arguments.only.split(",") if arguments.only else names
        for name in [*wanted, *([arguments.first] if arguments.first else [])]:
            if name not in names:
                raise ValueError(f"unknown stage {name!r}; stages: {', '.join(names)}")
        if arguments.first:
            wanted = names[names.index(arguments.first) :]
        stages = [stage for stage in pipeline.stages if stage.name in wanted]
        check_recipes(pipeline, [stage for stage in stages if not is_done(pipeline, stage)])
        if arguments.dry_run:
            print_plan(pipeline, stages)
            return 0
        view = View(pipeline.name)
        runner = Runner(pipeline, view, Stop(view.stop))
        missing = left_out(pipeline, stages)
        print("".join(f"{line}\n" for line in missing), end="", flush=True)
        worked = runner.run(stages)
        if not runner.report() and not worked:
            print(f"nothing to do: every {'other ' if missing else ''}stage is done and evaluated")
        print(f"the report: {pipeline.folder / 'report' / 'report.html'}")
    except (ValueError, OSError) as error:
        print(f"recipes/pipeline.py: error: {one_line(error, 1000)}", file=sys.stderr)
        return 2
    except StageFailed as error:
        print(f"recipes/pipeline.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
