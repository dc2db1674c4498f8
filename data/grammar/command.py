"""The command line of the grammars: their names, a record under one of them, more instructions."""

from __future__ import annotations

import argparse
import json
import sys

from data.errors import InputError
from data.grammar.formats import KINDS


def main(argv: list[str] | None = None) -> int:
    """`list`, `show GRAMMAR RECORD.json`, `instructions SET`. 0 done, 2 bad arguments or input."""
    arguments = _parser().parse_args(argv)
    try:
        run(arguments)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def run(arguments: argparse.Namespace) -> None:
    """Print what was asked for."""
    if arguments.command == "list":
        print("\n".join(KINDS))
    elif arguments.command == "show":
        from data.grammar.show import show

        shown = show(arguments.grammar, arguments.record, arguments.seed, arguments.model)
        print(json.dumps(shown, ensure_ascii=False))
    else:
        print(json.dumps(_instructions(arguments), ensure_ascii=False))


def _instructions(arguments: argparse.Namespace) -> list[str]:
    from data.grammar.instructions import built_in, draw_from_endpoint

    known = built_in().get(arguments.set, ())
    if arguments.count == 0 and known:
        return list(known)
    drawn = draw_from_endpoint(arguments.endpoint, arguments.model, arguments.set, arguments.count)
    return [*known, *drawn]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data.grammar", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the names of the published formats")
    show = commands.add_parser("show", help="one record under one grammar, as one JSON object")
    show.add_argument("grammar", help="a name of `list`; with --model also a task of the model")
    show.add_argument("record", metavar="RECORD.json", help="a record as a token store has it; a list is joined")
    show.add_argument("--seed", type=int, default=0, help="what is drawn depends on it (default 0)")
    show.add_argument("--model", metavar="PATH", help="a model folder, for its vocabulary; default: bytes")
    more = commands.add_parser("instructions", help="a set of instructions, with more from an endpoint, as JSON")
    more.add_argument("set", help="asr, tts, music_caption or text_to_music")
    more.add_argument("--count", type=int, default=0, help="how many to draw beside the built-in ones")
    more.add_argument(
        "--endpoint", default="http://127.0.0.1:8000/v1", help="base URL of an OpenAI-compatible endpoint"
    )
    more.add_argument("--model", default="default", help="the endpoint's model")
    return parser
