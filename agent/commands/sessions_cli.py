"""`weir sessions`: the enforcer's side reads them and follows one; ending one is the agent's."""
from __future__ import annotations

import importlib

import click

from agent.commands.live_cli import kill

sessions: click.Group = importlib.import_module("enforcer.recording.cli").group.commands["sessions"]
sessions.add_command(kill)
