"""The form that a value from a file must have before anything is resumed from it.

A form is one of these:

    COUNT, NUMBER         an integer from 0 to 2**63 - 1; a real number, which may be infinite or NaN
    bool, str, Array      a class that the value is an instance of; `object` takes anything
    None                  None
    (form, form)          one of several
    [form]                a list of items of that form
    {"key": form}         a dict with these keys and no others
    {str: form}           a dict with any strings as keys
"""

from __future__ import annotations

from typing import Any

import numpy as np

COUNT = "a count"
NUMBER = "a number"


def check_form(value: Any, form: Any, name: str) -> None:
    """Raise a ValueError, which calls the value `name`, unless it has the form."""
    if not _fits(value, form):
        shown = repr(value)
        shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
        raise ValueError(f"{name} must be {_text(form)}. Received: {shown}")


def _fits(value, form):
    if form is COUNT or form is NUMBER:
        if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
            return (0 if form is COUNT else -(2**63)) <= int(value) < 2**63
        return form is NUMBER and isinstance(value, (float, np.floating))
    if form is None:
        return value is None
    if isinstance(form, tuple):
        return any(_fits(value, one) for one in form)
    if isinstance(form, list):
        return isinstance(value, list) and all(_fits(item, form[0]) for item in value)
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return False
        if str in form:
            return all(isinstance(key, str) and _fits(item, form[str]) for key, item in value.items())
        return set(value) == set(form) and all(_fits(value[key], form[key]) for key in form)
    return isinstance(value, form)


def _text(form):
    if isinstance(form, tuple):
        return " or ".join(map(_text, form))
    if isinstance(form, list):
        return f"a list of {_text(form[0])}"
    if isinstance(form, dict):
        return "a dict with " + ", ".join(
            _text(inner) if key is str else f"{key} ({_text(inner)})" for key, inner in form.items()
        )
    return form if isinstance(form, str) else "anything" if form is object else getattr(form, "__name__", "None")
