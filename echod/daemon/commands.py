"""
The words of the command ``echod``: `COMMANDS`, one line each.

A word's module is imported when the word is given, because ``check`` is a probe that must be quick.
This module imports next to nothing: a daemon's signals are taken over only when it has been loaded
(`echod.startup`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["COMMANDS", "Command", "load", "split", "synopsis", "unknown"]


class Command:
    """
    What one word does.

    :ivar module: where its function is.
    :ivar function: its name; it is called with the arguments behind the word, and returns the
        exit status or raises SystemExit.
    :ivar usage: what comes behind ``echod`` on a command line.
    :ivar what: what it does, in a few words.
    :ivar serves: whether it is a daemon, which drains on a signal; any other word is ended by one.
    """

    def __init__(
        self, module: str, function: str, usage: str, what: str, *, serves: bool = False
    ) -> None:
        self.module = module
        self.function = function
        self.usage = usage
        self.what = what
        self.serves = serves


#: Every word, in the order of the help.
COMMANDS = {
    "serve": Command(
        "echod.daemon.foreground",
        "serve",
        "[serve] [options]",
        "serve until a signal ends it; the word may be left out",
        serves=True,
    ),
    "check": Command(
        "echod.client.check",
        "runCheck",
        "check ENDPOINT [options]",
        "ask whether there is an echo, and exit 0 if there is",
    ),
    "protocols": Command(
        "echod.daemon.foreground",
        "protocols",
        "protocols",
        "print the protocols with their options",
    ),
}


def split(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The word of a command line, and the arguments behind it; without a word, ``serve``."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], [*arguments[1:]]
    return "serve", [*arguments]


def load(word: str) -> Callable[[Sequence[str]], int]:
    """
    Import what a word does.

    :raises KeyError: there is no such word.
    """
    from importlib import import_module

    command = COMMANDS[word]
    function: Callable[[Sequence[str]], int] = getattr(
        import_module(command.module), command.function
    )
    return function


def unknown(word: str) -> str:
    """What is to be said of a word that there is not."""
    from difflib import get_close_matches

    near = get_close_matches(word.lower(), COMMANDS, 1)
    guess = f": did you mean {near[0]!r}?" if near else "."
    return f"no command {word!r}{guess} There are {', '.join(COMMANDS)}; see echod --help"


def synopsis() -> str:
    """Every word with what it does, a line each."""
    width = max(len(command.usage) for command in COMMANDS.values())
    return "\n".join(
        f"{'Usage:' if not number else '      '} echod {command.usage:{width}}  {command.what}"
        for number, command in enumerate(COMMANDS.values())
    )
