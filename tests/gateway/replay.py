"""Replays recorded requests to an etcd's gateway against one member, and tells where the answers differ.

The format is in the file of the cases: steps of one request each, or of reading from a stream that is open.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

from connect_kv.config import ServerConfig
from connect_kv.server.composition import KvServer
from tests.gateway.raw import Answer, connected

Json = dict[str, Any]
CASES: Json = json.loads((Path(__file__).parent / "cases.json").read_text())
# etcd's leases have 17 digits and more; of ours, of all positive numbers, one in a thousand has fewer.
NORMALISE = [
    (re.compile(pattern.replace(r"\d{17,}", r"\d{9,}")), replacement)
    for pattern, replacement in CASES["normalise"]
]
OURS = {"connectKvVersion", "contacts", "connect_kv"}
"""Fields that etcd has not."""
_CORS = ("access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers")


def normal(text: str) -> str:
    for pattern, replacement in NORMALISE:
        text = pattern.sub(replacement, text)
    return text


def without_ours(value: Any) -> Any:
    """What etcd would have said; its older versions' key of errors is no difference."""
    if isinstance(value, dict):
        kept = {key: without_ours(item) for key, item in value.items() if key not in OURS}
        if set(kept) == {"error", "code", "message"} and kept["error"] == kept["message"]:
            del kept["error"]
        return kept
    return [without_ours(item) for item in value] if isinstance(value, list) else value


def options(flags: list[str]) -> dict[str, Any]:
    """Of etcd's flags in the cases, those that we have."""
    found: dict[str, Any] = {}
    for flag in flags:
        if flag.startswith("http://"):
            found["cors"] = flag
        elif flag == "--enable-grpc-gateway=false":
            found["enable_grpc_gateway"] = False
    return found


class Asked(Protocol):
    """A request that was sent: over HTTP/1 its connection, over HTTP/2 its stream."""

    async def head(self) -> Answer: ...

    async def chunk(self) -> bytes: ...

    async def answer(self, method: str = "POST") -> Answer: ...


class Wire(Protocol):
    """A connection, of either."""

    async def ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], port: int
    ) -> Asked: ...


class Stream:
    """One that is open, line by line."""

    def __init__(self, socket: Asked) -> None:
        self.socket = socket
        self.answer: Answer | None = None
        self._first: asyncio.Task[Answer] | None = None
        self._next: asyncio.Task[bytes] | None = None
        self._over = False

    async def receive(self, within: float) -> Json:
        if self._over:
            return {"silent": within}
        found: Json = {}
        try:
            async with asyncio.timeout(within):
                if self.answer is None:
                    self._first = self._first or asyncio.create_task(self.socket.head())
                    self.answer = await asyncio.shield(self._first)
                    found = {"status": self.answer.status, "headers": headers_of(self.answer)}
                self._next = self._next or asyncio.create_task(self.socket.chunk())
                line = await asyncio.shield(self._next)
        except TimeoutError:
            return {**found, "silent": within}
        self._next = None
        if not line:
            self._over = True
            return {**found, "end": True}
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1, "one line a chunk"
        return {**found, "line": without_ours(json.loads(normal(line.decode())))}

    async def close(self) -> None:
        for task in (self._first, self._next):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def headers_of(answer: Answer) -> Json:
    """As the cases have them."""
    found = {
        name: value
        for name, value in answer.headers.items()
        if name not in ("date", "content-length", "connection", *_CORS)
    }
    if _CORS[0] in answer.headers:
        assert all(name in answer.headers for name in _CORS)
        found["cors"] = answer.headers[_CORS[0]]
    return found


class Replay:
    """Of one case, on a member of its own."""

    def __init__(
        self, directory: Path, connected: Callable[[int], AbstractAsyncContextManager[Wire]] = connected
    ) -> None:
        self._directory = directory
        self._connected = connected
        self._saved: dict[str, str] = {}
        self._streams: dict[str, Stream] = {}
        self.differences: list[str] = []

    async def run(self, case: Json) -> list[str]:
        config = ServerConfig(
            name="n1",
            data_dir=self._directory / "n1",
            listen_client="127.0.0.1:0",
            listen_peer="127.0.0.1:0",
            listen_http="127.0.0.1:0",
            bcrypt_cost=4,
            **options(case.get("server", [])),
        )
        server = KvServer(config)
        await server.start()
        try:
            await server.services.opening.wait()
            await server.node.read_barrier()
            port = server.services.client_port
            async with AsyncExitStack() as stack:
                for number, step in enumerate(case["steps"]):
                    await self._step(number, step, port, stack)
                for stream in self._streams.values():
                    await stream.close()
        finally:
            await server.stop()
        return self.differences

    async def _step(self, number: int, step: Json, port: int, stack: AsyncExitStack) -> None:
        expected: Json = step.get("answer") or {}
        if "recv" in step:
            within = min(step["within"], 1.0 if quiet(expected) else 9)
            got = await self._streams[step["recv"]].receive(within)
            if "silent" in got and quiet(expected):
                got["silent"] = expected["silent"]
            self._compare(number, step, expected, got)
            return
        connection = await stack.enter_async_context(self._connected(port))
        method, body = step["method"], step.get("body")
        sent = None if body is None else self._filled(body).encode()
        socket = await connection.ask(method, step["path"], sent, self._headers(step), port)
        if "open" in step:
            self._streams[step["open"]] = Stream(socket)
            return
        if quiet(expected):
            try:
                async with asyncio.timeout(0.5):
                    await socket.head()
                self._compare(number, step, expected, {"answered": True})
            except TimeoutError:
                pass
            return
        answer = await socket.answer(method)
        got = {"status": answer.status, "headers": headers_of(answer)}
        kind = answer.headers.get("content-type", "")
        if kind == "application/json" and method != "HEAD" and not step.get("only_status"):
            raw = json.loads(answer.text)
            for name, key in step.get("save", {}).items():
                self._saved[name] = raw[key]
            got["json"] = sorted_members(without_ours(json.loads(normal(answer.text))))
        elif "text" in expected:
            got["text"] = normal(answer.text).replace("[+]machines ok\n", "")
        if step.get("only_status"):
            expected = {key: value for key, value in expected.items() if key in ("status", "headers")}
            got = {key: value for key, value in got.items() if key in ("status", "headers")}
        if step.get("any_order"):
            expected, got = ordered(expected), ordered(got)
        self._compare(number, step, expected, got)

    def _headers(self, step: Json) -> Mapping[str, str]:
        return {name: self._filled(value) for name, value in step.get("headers", {}).items()}

    def _filled(self, text: str) -> str:
        text = re.sub(r"\$BIG(\d+)", lambda found: base64.b64encode(bytes(int(found[1]))).decode(), text)
        for name, value in self._saved.items():
            text = text.replace(f"${name}", value)
        return text

    def _compare(self, number: int, step: Json, expected: Json, got: Json) -> None:
        if "json" in expected:
            expected = {**expected, "json": sorted_members(expected["json"])}
        if expected != got:
            asked = {key: value for key, value in step.items() if key != "answer"}
            self.differences.append(
                f"{number}: {json.dumps(asked)[:400]}\n   etcd: {json.dumps(expected)[:900]}\n"
                f"   here: {json.dumps(got)[:900]}"
            )


def quiet(expected: Json) -> bool:
    return "silent" in expected


def ordered(answer: Json) -> Json:
    return {**answer, "text": sorted(answer["text"].split("\n"))}


def sorted_members(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get("members"), list):
        return {**value, "members": sorted(value["members"], key=json.dumps)}
    return value
