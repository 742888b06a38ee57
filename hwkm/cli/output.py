"""Printing: tables for people, one JSON document for scripts, errors as one paragraph."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from hwkm.checks import Status, all_ok

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hwkm.checks import Check
    from hwkm.errors import HwkmError

WIDTH_OF_FILES = 160
"""How wide a table may be where the output is not a terminal, in characters."""

_COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}


def print_json(document: object) -> None:
    """Print one JSON document on standard output."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table for people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else WIDTH_OF_FILES
    Console(markup=False, highlight=False, width=width).print(table)


def report(checks: Sequence[Check], *, as_json: bool) -> None:
    """Print findings, and end with status 1 if one of them is a failure."""
    print_checks(checks, {"ok": all_ok(checks)} if as_json else {}, as_json=as_json)
    if not all_ok(checks):
        raise typer.Exit(1)


def print_checks(checks: Sequence[Check], summary: dict[str, Any], *, as_json: bool) -> None:
    """Print findings below what they amount to."""
    if as_json:
        print_json({**summary, "checks": [_check(one) for one in checks]})
        return
    print_fields(summary, as_json=False)
    for check in checks:
        typer.secho(f"{check.status:<5}", fg=_COLOURS[check.status], nl=False)
        typer.echo(f"{check.name}: {check.detail}")
        if check.advice and check.status is not Status.OK:
            typer.echo(f"     → {check.advice}")


def _check(one: Check) -> dict[str, Any]:
    return {
        "name": one.name,
        "ok": one.status is not Status.FAIL,
        "status": one.status,
        "detail": one.detail,
        "advice": one.advice,
    }


def print_fields(fields: dict[str, Any], *, as_json: bool) -> None:
    """Print what is known of one thing, a line for each field."""
    if as_json:
        print_json(fields)
        return
    for name, value in fields.items():
        typer.echo(f"{name.replace('_', ' ')}: {_words(value)}")


def _words(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(f"{key} {_words(one)}" for key, one in value.items())
        case list():
            return "; ".join(map(_words, value)) or "-"
        case bool():
            return "yes" if value else "no"
    return text(value)


def print_error(error: HwkmError) -> None:
    """Print an error on standard error: what happened, why, what to do next."""
    typer.secho("error: ", fg="red", nl=False, err=True)
    typer.echo(" ".join(error.diagnostics().split()), err=True)


def time_text(seconds: int | None) -> str | None:
    """Return seconds since 1970 as RFC 3339, UTC; None stays None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def text(value: Any) -> str:
    """Return a table cell's text; nothing is shown as a dash."""
    return "-" if value is None or value == "" else str(value)
