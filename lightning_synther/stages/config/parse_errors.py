"""One sentence out of what jsonargparse says about a config: a typo should not cost a page of types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from jsonargparse import ArgumentError, ArgumentParser

from lightning_synther.command import parse_error
from lightning_synther.stages.config.module import import_class

#: What a complaint looks like, innermost last; a union of types complains about each of its members.
_CLASS = re.compile(r"Problem with given class_path '([^']+)'")
_KEY = re.compile(r'Parser key "([^"]+)":')
_UNKNOWN = (
    re.compile(r"Subcommand '\w+' does not accept option '([^']+)'"),
    re.compile(r"[Uu]nrecognized arguments: --([\w.+-]+)"),
    re.compile(r"Option '([^']+)' is not accepted"),
)
_NO_CLASS = (
    re.compile(r"Expected a dot import path string: (\S+)"),
    re.compile(r"given class_path '([^']+)':\s+(?:module|No module|Not a|'\S+' object|.* has no attribute)"),
    re.compile(r"Import path (\S+) does not correspond"),
)
#: The innermost union, which is the last one, and the first value after it.
_UNION = re.compile(r".*Subtypes: \[(.*?)\]\n\s+Errors:.*?Given value: ([^\n]*)", re.DOTALL)
_VALUE = re.compile(r"Expected an? (?!<class 'NoneType'>|dot import|path)(.+?)\. Got value: (.*)")


def explain(message: str, options: Sequence[str] = ()) -> str:
    """What is wrong with which key, in one sentence; ``options`` are the keys that a config may have."""
    keys = _KEY.findall(message)
    key = ".".join(name.removesuffix(".init_args") for name in keys)
    for pattern in _UNKNOWN:
        if found := pattern.search(message):
            return _unknown(key, found[1], _CLASS.findall(message), options)
    for pattern in _NO_CLASS:
        if found := pattern.search(message):
            example = "lightning_synther.agents.DrQV2"
            return f"--{key}: there is no class {found[1]}, give an import path as in {example}"
    if found := _VALUE.search(message):
        return f"--{key}: expected {_readable(found[1])}, got {found[2]}"
    if found := _UNION.match(message):
        return f"--{key}: expected {_kinds(found[1])}, got {found[2].strip()}"
    return parse_error(ArgumentError(None, message))


def _readable(kinds: str) -> str:
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", kinds).replace("typing.", "")


def _kinds(union: str) -> str:
    """The members of a union, the values of literals spelled out.

    >>> _kinds("<class 'float'>, typing.Literal['return_range'], <class 'NoneType'>")
    "float, 'return_range' or null"
    """
    listed = re.sub(r"Literal\[(.*?)\]", r"\1", _readable(union)).replace("NoneType", "null")
    members = list(dict.fromkeys(listed.split(", ")))
    return f"{', '.join(members[:-1])} or {members[-1]}"


def parser_keys(parser: ArgumentParser) -> list[str]:
    """All keys that a config may have, those of the classes that it chooses aside."""
    return sorted(parser.get_defaults().keys())


def _unknown(key: str, name: str, classes: list[str], options: Sequence[str]) -> str:
    name = name.replace("init_args.", "")
    where = f"--{key}.{name}" if key else f"--{name}"
    known = [f"{key}.{option}" for option in _arguments(classes[-1])] if key and classes else options
    close = get_close_matches(where, [f"--{option}" for option in known], n=1)
    owner = f" of {classes[-1].rpartition('.')[2]}" if classes else ""
    return f"{where} is not an option{owner}" + (f": did you mean {close[0]}?" if close else "")


def _arguments(class_path: str) -> list[str]:
    """Constructor arguments of a class."""
    parser = ArgumentParser(exit_on_error=False)
    return [str(key) for key in parser.add_class_arguments(import_class(class_path))]
