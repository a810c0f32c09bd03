"""A crew with a tool server of its own: MCP over HTTP on loopback, server and client unmodified.

usage: tool_server.py [serve PORT]
"""
from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from mcp.server.fastmcp import FastMCP

PORT = 17431


def serve() -> None:
    made = FastMCP("tools", host="127.0.0.1", port=PORT, log_level="ERROR")

    @made.tool()
    def add(one: int, two: int) -> int:
        """The sum."""
        return one + two

    made.run(transport="streamable-http")


def wait_until_up(seconds: float) -> int:
    """As clients do that start their server themselves.  How often it was refused."""
    refused, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", PORT), 1).close()
            return refused
        except ConnectionRefusedError:
            refused += 1
            time.sleep(0.05)
    raise TimeoutError


async def ask() -> str:
    async with (
        streamablehttp_client(f"http://localhost:{PORT}/mcp") as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        answer = await session.call_tool("add", {"one": 40, "two": 2})
        return f"{tools} {answer.content[0].text}"


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        return serve()
    with subprocess.Popen([sys.executable, __file__, "serve"]) as server:
        try:
            print("refused first:", wait_until_up(60) > 0)
            print(asyncio.run(ask()))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
