"""Checks on what is set on an optimizer, by the constructor or later: the range of each number, and unknown names."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any

from cnnlite.support.arguments import integer, number, text

if TYPE_CHECKING:
    from cnnlite.optimizers.base import Optimizer

Check = Callable[[Any, str, str], Any]  # (value, name, owner), like those of `arguments`


def share(value: Any, name: str, owner: str) -> float:
    """Return `value` as a float from 0 to below 1."""
    return number(value, name, owner, minimum=0, below=1)


def not_negative(value: Any, name: str, owner: str) -> float:
    """Return `value` as a float of at least 0."""
    return number(value, name, owner, minimum=0)


def _decay(value: Any, name: str, owner: str) -> float | None:
    return None if value is None else number(value, name, owner, minimum=0)


def _limit(value: Any, name: str, owner: str) -> float | None:
    return None if value is None else number(value, name, owner, above=0)


def _count(value: Any, name: str, owner: str) -> int:
    return integer(value, name, owner, minimum=0)


LIMITS = ("clipnorm", "clipvalue", "global_clipnorm")
CHECKS: Mapping[str, Check] = {
    "name": text, "iterations": _count, "weight_decay": _decay, **{limit: _limit for limit in LIMITS}
}


def checks(optimizer: type[Optimizer], **more: Check) -> Mapping[str, Check]:
    """Return the checks of an optimizer, plus `more`, for a subclass."""
    return MappingProxyType({**optimizer._checks, **more})


def check_only_limit(optimizer: Optimizer, name: str, value: float | None) -> None:
    """Raise a ValueError if `value` would be a second gradient limit."""
    limits = {limit: value if limit == name else getattr(optimizer, limit) for limit in LIMITS}
    given = [f"{limit}={value}" for limit, value in limits.items() if value is not None]
    if value is not None and len(given) > 1:
        raise ValueError(
            f"{type(optimizer).__name__}: only one of {', '.join(LIMITS[:-1])} and {LIMITS[-1]} can be set. "
            f"Received: {', '.join(given)}. Set the other to None first."
        )


def refuse_unknown(optimizer: Optimizer, name: str, value: Any) -> None:
    """Raise an AttributeError if setting `name` would change nothing: the name is unknown or misspelt."""
    cls = type(optimizer)
    if hasattr(cls, name) or name in vars(optimizer) or _is_named_in_methods(cls, name):
        return
    known = {_letters(setting): setting for setting in (*optimizer._checks, "learning_rate")}
    meant = "learning_rate" if _letters(name) == "lr" else known.get(_letters(name))
    if meant is None and not _is_of_cnnlite(cls):
        return
    if meant is None:
        close = difflib.get_close_matches(name, known.values(), n=1)
        meant = close[0] if close else None
    remedy = f"Did you mean {meant}?" if meant else f"It has {', '.join(sorted(known.values()))}."
    raise AttributeError(
        f"{cls.__name__}: an optimizer has no attribute {name!r} to set. Received: {name}={value!r}. {remedy}"
    )


def _is_named_in_methods(optimizer: type[Optimizer], name: str) -> bool:
    """Return whether a method of a user's own class uses the name, so that setting it may have an effect."""
    methods = (method for cls in optimizer.__mro__ if not _is_of_cnnlite(cls) for method in vars(cls).values())
    return any(name in method.__code__.co_names for method in methods if isinstance(method, FunctionType))


def _is_of_cnnlite(optimizer: type) -> bool:
    return optimizer.__module__.startswith(f"{__package__}.")


def _letters(name: str) -> str:
    return name.lower().replace("_", "")
