"""
Write the report of a pipeline, or of evaluations in order: report.html (one page that loads nothing) and report.md.

python eval/report.py --pipeline outputs/tiny/pipeline.json --output_dir outputs/tiny/report
python eval/report.py --stages base=outputs/tiny/base/eval sft=outputs/tiny/sft/eval --output_dir outputs/tiny/report

Each stage is compared with its parent on the same items; with `--stages`, with the evaluation before it.
"""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pipeline", help="pipeline.json, written by recipes/pipeline.py")
    source.add_argument("--stages", nargs="+", metavar="NAME=FOLDER", help="output_dirs of eval/run.py, in order")
    parser.add_argument("--output_dir", "--output-dir", required=True, help="folder for report.html and report.md")
    arguments = parser.parse_args(argv)

    from schoolhouse.core.escape import one_line
    from schoolhouse.core.files import write_text
    from schoolhouse.report.contents import Report
    from schoolhouse.report.reading import read_pipeline, read_stages
    from schoolhouse.report.render import render_html, render_markdown

    try:
        report = Report(*(read_pipeline(arguments.pipeline) if arguments.pipeline else read_stages(arguments.stages)))
        folder = Path(arguments.output_dir)
        write_text(folder / "report.md", render_markdown(report))
        write_text(folder / "report.html", render_html(report))
    except (ValueError, OSError) as error:
        print(f"eval/report.py: error: {one_line(error, 1000)}", file=sys.stderr)
        return 2
    counts = ", ".join(f"{len(report.changed(kind))} {kind}" for kind in ("improved", "worse"))
    counts += f", {len(report.changed('none'))} without evidence of change"
    print(f"{counts if report.changes else one_line(report.no_comparison, 500)}: {folder / 'report.html'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
