"""Jinja2 itself as the reference for what expressions and templates mean, with what NoETL's engines add to it."""

from __future__ import annotations

import base64
import json
from collections.abc import ItemsView, KeysView, ValuesView
from typing import Any

import jinja2


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(autoescape=False)
    # What NoETL's engines add to Jinja2, or have otherwise: see playbooks/DESIGN.md.
    environment.filters |= {
        "b64encode": lambda value: base64.b64encode(str(value).encode()).decode(),
        "b64decode": lambda value: base64.b64decode(value, validate=True).decode(),
        "tojson": lambda value, indent=None: json.dumps(value, sort_keys=True, indent=indent),
        "fromjson": json.loads,
        "len": len,
        "get": lambda value, key, default=None: value.get(key, default),
        "keys": lambda value: list(value.keys()),
        "values": lambda value: list(value.values()),
        "split": lambda value, sep=None, maxsplit=-1: value.split(sep, maxsplit),
        "bool": bool,
    }
    return environment


ORACLE = _environment()


def as_plain(value: Any) -> Any:
    """Jinja2's tuples and its own kinds of text as plain values."""
    if isinstance(value, dict):
        return {key: as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, range, KeysView, ItemsView, ValuesView)):
        return [as_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


#: What Jinja2 raises for what it cannot work out; a syntax error is Python's own, on what it was compiled to.
JINJA_ERRORS = (
    jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, SyntaxError,
)  # fmt: skip
