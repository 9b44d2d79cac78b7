"""Talk to one stage of a pipeline, or put one question to several and see the answers side by side.

    python recipes/chat.py --pipeline outputs/tiny --stages sft
    python recipes/chat.py --pipeline outputs/tiny --stages base,sft,grpo_math --prompt "What is 17 + 25?"
    python recipes/chat.py --model_name_or_path data/tiny/base --stages mine=outputs/tiny/sft/adapter

An empty line begins a new talk; Ctrl-C ends an answer, and at the prompt, like Ctrl-D, the program.
"""

import sys

from schoolhouse.config.errors import FlagParser
from schoolhouse.config.paths import find_file


def main(argv: list[str] | None = None) -> int:
    parser = FlagParser(description=__doc__)
    parser.add_argument("--pipeline", metavar="FOLDER", help="folder of a pipeline, or its pipeline.json")
    parser.add_argument("--model_name_or_path", metavar="X", help="base model, where there is no pipeline")
    parser.add_argument("--stages", metavar="A,B", help="base, stages of the pipeline, or name=ADAPTER")
    parser.add_argument("--prompt", metavar="TEXT", help="one question to all the stages, and no talk")
    parser.add_argument("--max_new_tokens", type=int, default=256, metavar="N", help="default: 256")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="default: 0, greedy")
    arguments = parser.parse_args(argv)

    from schoolhouse.core.escape import printable, response_of
    from schoolhouse.pipeline.chat import AdapterChat, find_stages

    try:
        base = arguments.model_name_or_path and str(find_file(arguments.model_name_or_path))
        model, stages = find_stages(arguments.pipeline, base, arguments.stages)
        if arguments.prompt is None and len(stages) > 1:
            raise ValueError("several stages answer a --prompt; a talk is with one: name one in --stages")
        chat = AdapterChat(model, stages)
    except (ValueError, OSError) as error:
        print(f"recipes/chat.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    options = {"max_new_tokens": arguments.max_new_tokens, "temperature": arguments.temperature}

    if arguments.prompt is not None:
        from rich.columns import Columns
        from rich.console import Console
        from rich.panel import Panel
        from rich.text import Text

        question = [{"role": "user", "content": arguments.prompt}]
        answers = {name: chat.answer(name, question, **options) for name in stages}
        Console().print(
            Columns([Panel(Text(printable(text)), title=Text(name)) for name, text in answers.items()], equal=True)
        )
        return 0

    (stage,) = stages
    messages: list[dict[str, str]] = []
    while True:
        try:
            line = input("\nyou: ")
        except (EOFError, KeyboardInterrupt):
            print()
            return 0
        if not line.strip():
            messages = []
            print("(a new talk)")
            continue
        messages.append({"role": "user", "content": line})
        print(f"{stage}: ", end="", flush=True)
        try:
            said = chat.answer(stage, messages, lambda text: print(text, end="", flush=True), **options)
            # Its thoughts are shown, but the next turn reads the response only, as models with thoughts are trained.
            messages.append({"role": "assistant", "content": response_of(said)})
        except KeyboardInterrupt:
            messages.pop()
            print(" (stopped)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
