"""``null`` for a key of a class within a class, as in ``--data.dataset.num_episodes=null``.

jsonargparse (4.53) turns it into None at the outer class and hands that on as the text ``None``, which the inner class
takes for a string: the value is refused or, worse, accepted as the name of a file. Here it is handed on as it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jsonargparse import _typehints


@contextmanager
def nested_null() -> Iterator[None]:
    """While it is entered, ``null`` reaches the class that it is meant for."""
    parse = _typehints.parse_value_or_config

    def keep_null(value: Any, *args: Any, **kwargs: Any) -> Any:
        parsed, path = parse(value, *args, **kwargs)
        is_null = isinstance(value, _typehints.NestedArg) and parsed.val is None
        return (value if is_null else parsed), path

    _typehints.parse_value_or_config = keep_null
    try:
        yield
    finally:
        _typehints.parse_value_or_config = parse
