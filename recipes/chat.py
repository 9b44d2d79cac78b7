"""Talk to a model, a run or a stage of a pipeline, or to several on one base, which then answer one after the other.

    python recipes/chat.py outputs/tiny/sft                            # a run folder, an adapter, or a model
    python recipes/chat.py outputs/tiny/sft outputs/tiny/grpo_math     # two runs on the same base
    python recipes/chat.py outputs/tiny --stages base,sft              # stages of a pipeline
    python recipes/chat.py outputs/tiny --stages base,sft --prompt "What is 17 + 25?"

In a talk, a line that begins with / is a command: /help lists them. Ctrl-C ends an answer, and at the prompt, like
Ctrl-D, the program.
"""

import sys

from schoolhouse.config.errors import FlagParser


COMMANDS = """/help           show these commands
/reset          begin a new talk
/system TEXT    set the system prompt and begin a new talk; without a text there is none
/stages         show who answers
/stages A,B     let these of the loaded stages answer, and begin a new talk
/quit           end"""


def main(argv: list[str] | None = None) -> int:
    parser = FlagParser(description=__doc__)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="run, adapter, model or pipeline, on one base")
    parser.add_argument("--pipeline", metavar="FOLDER", help="the same as FOLDER")
    parser.add_argument("--model_name_or_path", metavar="X", help="base model, where no folder names it")
    parser.add_argument("--adapter_name_or_path", metavar="X", help="adapter on that base")
    parser.add_argument("--stages", metavar="A,B", help="base, names of runs or of stages, or name=ADAPTER")
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    parser.add_argument("--prompt", metavar="TEXT", help="one question to all the stages, and no talk")
    parser.add_argument("--max_new_tokens", type=int, default=256, metavar="N", help="default: 256")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="default: 0, greedy")
    arguments = parser.parse_args(argv)

    from schoolhouse.core.escape import one_line
    from schoolhouse.pipeline.chat import AdapterChat, find_stages

    folders = [*arguments.folders, *filter(None, [arguments.pipeline])]
    adapters = list(filter(None, [arguments.adapter_name_or_path]))
    try:
        model, stages = find_stages(folders, arguments.model_name_or_path, adapters, arguments.stages)
        chat = AdapterChat(model, stages)
    except (ValueError, OSError) as error:
        print(f"recipes/chat.py: error: {one_line(error, 1000)}", file=sys.stderr)
        return 2
    options = {"max_new_tokens": arguments.max_new_tokens, "temperature": arguments.temperature}
    start = [{"role": "system", "content": arguments.system}] if arguments.system else []
    if arguments.prompt is not None:
        show_answers(chat, list(stages), [*start, {"role": "user", "content": arguments.prompt}], options)
    else:
        print(f"{', '.join(stages)} on {model}; /help lists the commands")
        talk(chat, list(stages), start, options)
    return 0


def show_answers(chat, stages: list[str], messages: list[dict[str, str]], options: dict) -> None:
    """Print the answers of several stages to one question side by side."""
    from rich.columns import Columns
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    from schoolhouse.core.escape import printable

    answers = {name: chat.answer(name, messages, **options) for name in stages}
    panels = [Panel(Text(printable(text)), title=Text(name)) for name, text in answers.items()]
    Console().print(Columns(panels, equal=True))


def talk(chat, stages: list[str], start: list[dict[str, str]], options: dict) -> None:
    """Read lines and print the answers of each stage, which remembers its own words only."""
    loaded = stages
    talks = {name: list(start) for name in stages}
    while True:
        try:
            line = input("\nyou: ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return
        if command == "/stages" and not rest:
            print(f"answering: {', '.join(stages)}; loaded: {', '.join(loaded)}")
        elif command == "/stages" and (unknown := {name.strip() for name in rest.split(",")} - set(loaded)):
            print(f"unknown stage {', '.join(sorted(unknown))}; loaded: {', '.join(loaded)}")
        elif command in ("/reset", "/system", "/stages"):
            if command == "/system":
                start = [{"role": "system", "content": rest}] if rest else []
            elif command == "/stages":
                stages = [name.strip() for name in rest.split(",")]
            talks = {name: list(start) for name in stages}
            print("(a new talk)")
        elif command.startswith("/"):
            print(COMMANDS if command == "/help" else f"unknown command {command}\n{COMMANDS}")
        elif line:
            for name in stages:
                answer(chat, name, talks[name], line, options)


def answer(chat, name: str, messages: list[dict[str, str]], line: str, options: dict) -> None:
    """Print the answer of one stage as it is generated, and add question and answer to its talk."""
    from schoolhouse.core.escape import response_of

    question = {"role": "user", "content": line}
    print(f"{name}: ", end="", flush=True)
    try:
        said = chat.answer(name, [*messages, question], lambda text: print(text, end="", flush=True), **options)
        messages += [question, {"role": "assistant", "content": response_of(said)}]
    except KeyboardInterrupt:
        print(" (stopped)")
    except ValueError as error:  # such as a chat template without a system prompt
        print(f"(no answer: {' '.join(str(error).split())})")


if __name__ == "__main__":
    raise SystemExit(main())
