"""Stores that a config gives by hand: whether its data use them all, and have those that its arms need."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_synther.data.mixing import sources
from lightning_synther.errors import ConfigError
from lightning_synther.stages.config.module import ModuleConfig


def check_stores(data: ModuleConfig, arms: Mapping[str, str]) -> None:
    """Raise `ConfigError` for a synthetic store that ``mixing`` leaves out, or a wanted arm that lacks its store.

    ``arms`` are those of `comparison`, with the kind of transitions that each is trained on.
    """
    args = data.init_args
    if "mixing" not in args:
        if arms:
            raise ConfigError(
                f"comparison.{next(iter(arms))} is true, but {data.cls.__name__} has no stores to choose from: "
                "set it to false"
            )
        return
    if args["synthetic"] is not None and not sources(args["mixing"], args["ratio"])[1]:
        raise ConfigError(
            f"data.synthetic is {args['synthetic']}, but data.mixing is {args['mixing']!r} and leaves it out: give "
            "data.mixing alternate, ratio or synthetic, or remove data.synthetic"
        )
    for arm, kind in arms.items():
        if args[kind] is None:
            raise ConfigError(
                f"comparison.{arm} is true, but data.{kind} is not given: give that store, or set it to false"
            )
