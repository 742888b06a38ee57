"""Installations and agents for the tests; an agent does not outlive its test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.getkey.conftest import (  # noqa: F401  # fixtures
    _copy_of,
    base,
    home,
    labelled,
    others,
    owned,
    shim_module,
    shimmed,
)

from .agents import Agent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.getkey.home import Home


@pytest.fixture(name="start_agent")
def _start_agent() -> Iterator[Callable[..., Agent]]:
    started: list[Agent] = []

    def start(site: Home, how: dict[str, Any] | None = None, **limits: Any) -> Agent:
        agent = Agent.start(site, limits, **(how or {}))
        started.append(agent)
        return agent

    yield start
    for agent in started:
        agent.kill()


@pytest.fixture(name="agent")
def _agent(home: Home, start_agent: Callable[..., Agent]) -> Agent:  # noqa: F811
    """An agent with the limits that it has in earnest, started by the command."""
    return start_agent(home)
