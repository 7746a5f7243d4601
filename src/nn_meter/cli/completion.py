"""``nn-meter completion``: what makes a shell complete the words of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from nn_meter.cli.output import OK

_NAMES = r"nn-meter --list-predictors 2>/dev/null | sed -n 's/.*\[Predictor\] \([^:]*\):.*/\1/p'"
"""Prints the predictors' names."""

_PREDICTOR = "--predictor"


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``completion``."""
    parser.description = (
        'Print a script for the shell. bash: eval "$(nn-meter completion bash)" in ~/.bashrc; zsh: '
        'eval "$(nn-meter completion zsh)" in ~/.zshrc; '
        "fish: nn-meter completion fish > ~/.config/fish/completions/nn-meter.fish"
    )
    parser.add_argument("shell", choices=tuple(_SCRIPTS))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from nn_meter.cli.main import full_parser

    print(_SCRIPTS[args.shell](full_parser()), end="")
    return OK


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Each command, under its aliases too."""
    (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return dict(commands.choices)


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    return (each for each in parser._actions if each.option_strings)


def _words(parser: argparse.ArgumentParser) -> str:
    return " ".join(word for each in _options(parser) for word in each.option_strings)


def _choices(commands: Mapping[str, argparse.ArgumentParser]) -> dict[str, str]:
    """Option to the values that it takes, where they are few."""
    return {
        each.option_strings[-1]: " ".join(map(str, each.choices))
        for parser in commands.values()
        for each in _options(parser)
        if each.choices
    }


def _bash(parser: argparse.ArgumentParser) -> str:
    commands = _commands(parser)
    values = "".join(
        f'    {option}) COMPREPLY=($(compgen -W "{words}" -- "$word")); return ;;\n'
        for option, words in _choices(commands).items()
    )
    options = "".join(f'    {name}) words="{_words(each)}" ;;\n' for name, each in commands.items())
    return (
        "_nn_meter() {\n"
        '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" words="" each\n'
        '  case "$before" in\n'
        f'    {_PREDICTOR}) COMPREPLY=($(compgen -f -W "$({_NAMES})" -- "$word")); return ;;\n'
        f"{values}"
        "  esac\n"
        '  for each in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do\n'
        '  case "$each" in\n'
        f"{options}"
        "  esac\n"
        "  done\n"
        f'  [[ -z "$words" ]] && words="{" ".join(commands)} {_words(parser)}"\n'
        '  COMPREPLY=($(compgen -W "$words" -- "$word"))\n'
        "}\n"
        "complete -o default -F _nn_meter nn-meter\n"
    )


def _zsh(parser: argparse.ArgumentParser) -> str:
    return f"autoload -U +X compinit bashcompinit && compinit && bashcompinit\n{_bash(parser)}"


def _fish(parser: argparse.ArgumentParser) -> str:
    commands = _commands(parser)
    lines = [f"complete -c nn-meter -n __fish_use_subcommand -a '{' '.join(commands)}'"]
    lines += [f"complete -c nn-meter -n __fish_use_subcommand {_fish_option(each)}" for each in _options(parser)]
    for name, inner in commands.items():
        seen = f"complete -c nn-meter -n '__fish_seen_subcommand_from {name}'"
        lines += [f"{seen} {_fish_option(each)}" for each in _options(inner)]
    return "\n".join(lines) + "\n"


def _fish_option(action: argparse.Action) -> str:
    parts = [f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}" for word in action.option_strings]
    if action.choices:
        parts.append(f"-xa '{' '.join(map(str, action.choices))}'")
    elif _PREDICTOR in action.option_strings:
        parts.append(f'-ra "({_NAMES})"'.replace("\\[", "\\\\[").replace("\\]", "\\\\]"))
    elif action.nargs != 0:
        parts.append("-r")
    described = (action.help or "").replace("'", "\\'")
    return " ".join((*parts, f"-d '{described}'"))


_SCRIPTS: Mapping[str, Callable[[argparse.ArgumentParser], str]] = MappingProxyType(
    {"bash": _bash, "zsh": _zsh, "fish": _fish}
)
