"""Run a script of the project by its name, from any folder: `schoolhouse sft --config FILE`.

`python -m schoolhouse sft …` and `accelerate launch -m schoolhouse sft …` do the same.
"""

import ast
import runpy
import sys

from schoolhouse.config.paths import shipped


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    scripts = {path.stem: path for path in sorted(shipped("recipes").glob("*.py"))}
    scripts |= {"eval": shipped("eval/run.py"), "report": shipped("eval/report.py")}
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: schoolhouse SCRIPT [FLAGS], and schoolhouse SCRIPT --help for its flags\n")
        for name, path in scripts.items():
            summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
            print(f"  {name:<14}{summary}")
        return 0
    name, *flags = argv
    if name not in scripts:
        print(f"schoolhouse: unknown script {name!r}; scripts: {', '.join(scripts)}", file=sys.stderr)
        return 2
    # The script ends the process with its own status.
    sys.argv = [str(scripts[name]), *flags]
    runpy.run_path(sys.argv[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
