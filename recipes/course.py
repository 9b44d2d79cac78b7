"""A course: every stage of a chain in order, an eval after each, and one report card at the end.

    python recipes/course.py --config recipes/configs/tiny/course.yaml

Each stage is known by a hash of its settings, its parents, its base model, its data and the code that it runs. What is
done is skipped; what changed is trained again, and so is all that came after it. The recipes of all that is due are
checked before anything is trained. A course that was stopped, or killed, goes on where it was when the same command is
given again.
"""

import argparse
import sys

from schoolhouse.pipeline.fingerprints import is_done, set_keys
from schoolhouse.pipeline.plan import load_course
from schoolhouse.pipeline.process import Stop
from schoolhouse.pipeline.progress import View, print_plan
from schoolhouse.pipeline.recipe_checks import check_recipes
from schoolhouse.pipeline.runner import Runner, StageFailed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the course")
    parser.add_argument("--output_dir", metavar="FOLDER", help="instead of the file's own")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="A,B", help="these stages; their parents must be done")
    which.add_argument("--from", dest="first", metavar="STAGE", help="this stage and those below it in the file")
    arguments = parser.parse_args()
    try:
        course = load_course(arguments.config, arguments.output_dir)
        set_keys(course)
        names = [stage.name for stage in course.stages]
        wanted = arguments.only.split(",") if arguments.only else names
        for name in [*wanted, *([arguments.first] if arguments.first else [])]:
            if name not in names:
                raise ValueError(f"unknown stage {name!r}; stages: {', '.join(names)}")
        if arguments.first:
            wanted = names[names.index(arguments.first) :]
        stages = [stage for stage in course.stages if stage.name in wanted]
        check_recipes(course, [stage for stage in stages if not is_done(course, stage)])
        if arguments.dry_run:
            print_plan(course, stages)
            return
        view = View(course.name)
        runner = Runner(course, view, Stop(view.stop))
        worked = runner.run(stages)
        if not runner.report() and not worked:
            print("nothing to do: every stage is done and measured")
        print(f"the report: {course.folder / 'report' / 'report.html'}")
    except (ValueError, OSError) as error:
        print(f"recipes/course.py: error: {error}", file=sys.stderr)
        sys.exit(2)
    except StageFailed as error:
        print(f"recipes/course.py: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
