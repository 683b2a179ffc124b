"""Replays recorded calls of an etcd against one member, and tells where the answers differ.

The format of the cases is in `cases.json`: steps that call, open streams, send and receive, save tokens, sign
their own ones, restart. Answers are those of etcd 3.6.14; "*" stands for any value.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from connect_kv.config import ServerConfig
from connect_kv.frontend.grpc.router import ETCD_NAMES
from connect_kv.frontend.grpc.services import SERVICES
from connect_kv.server.composition import KvServer

Json = dict[str, Any]
CASES: Json = json.loads((Path(__file__).parent / "cases.json").read_text())
DEADLINE = 8.0

METHODS: Mapping[str, MethodDescriptor] = {
    f"/{name}/{method.name}": method
    for service in SERVICES
    for name in (service.full_name, ETCD_NAMES.get(service.name, service.full_name))
    for method in service.methods
}


@dataclass
class Keys:
    """An RSA pair of the member, and another one."""

    own: rsa.RSAPrivateKey
    other: rsa.RSAPrivateKey
    private: Path
    public: Path

    @classmethod
    def made(cls, directory: Path) -> Keys:
        own, other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
        private, public = directory / "key.pem", directory / "public.pem"
        private.write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        public.write_bytes(
            own.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        return cls(own, other, private, public)


@dataclass
class Replay:
    """One case on a fresh member."""

    directory: Path
    keys: Keys
    saved: dict[str, str] = field(default_factory=dict)
    streams: dict[str, Any] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    async def run(self, case: Json) -> list[str]:
        """The differences; none if every answer is etcd's."""
        await self._start(case.get("server", []))
        try:
            for number, step in enumerate(case["steps"]):
                await self._step(f"{case['name']} [{number}]", step, case)
        finally:
            await self._stop()
        return self.differences

    async def _start(self, flags: list[str]) -> None:
        options: Json = {"bcrypt_cost": 4}
        for flag, value in zip(flags[::2], flags[1::2], strict=True):
            name = flag.removeprefix("--").replace("-", "_")
            value = value.replace("{priv}", str(self.keys.private)).replace("{pub}", str(self.keys.public))
            options[name] = int(value) if value.isdigit() else value
        config = ServerConfig(
            name="n1",
            data_dir=self.directory / "n1",
            listen_client="127.0.0.1:0",
            listen_peer="127.0.0.1:0",
            listen_http="127.0.0.1:0",
            heartbeat_ms=20,
            election_ms=200,
            tick_ms=10,
            **options,
        )
        self.server = KvServer(config)
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(self.server.client_address)
        await self.channel.channel_ready()

    async def _stop(self) -> None:
        for stream in self.streams.values():
            stream.cancel()
        self.streams.clear()
        await self.channel.close()
        await self.server.stop()

    async def _step(self, where: str, step: Json, case: Json) -> None:
        if "setup" in step:
            for inner in CASES["setups"][step["setup"]]:
                await self._call(f"{where} setup", {**inner, "answer": {"code": "OK"}}, only_code=True)
        elif "wait" in step:
            await asyncio.sleep(step["wait"])
        elif "restart" in step:
            await self._stop()
            await self._start(case.get("server", []))
        elif "open" in step:
            self._open(step)
        elif "send" in step:
            await self._send(step)
        elif "recv" in step:
            self._compare(where, step, await self._receive(step))
        elif "close" in step:
            self.streams.pop(step["close"]).cancel()
        else:
            await self._call(where, step)

    def _metadata(self, step: Json) -> tuple[tuple[str, str], ...]:
        if "metadata" in step:
            return tuple((key, self._text(value)) for key, value in step["metadata"])
        if "token" not in step:
            return ()
        token = step["token"]
        return (("token", self._signed(token) if isinstance(token, dict) else self._text(token)),)

    def _text(self, value: str) -> str:
        for name in sorted(self.saved, key=len, reverse=True):
            value = value.replace(f"${name}", self.saved[name])
        return value

    def _signed(self, wanted: Json) -> str:
        claims, method = dict(wanted["jwt"]), wanted.get("alg", "RS256")
        if isinstance(claims.get("exp"), str):
            claims["exp"] = int(time.time()) + int(claims["exp"])
        if method == "none":
            return jwt.encode(claims, "", algorithm="none")
        if method.startswith("HS"):
            return jwt.encode(claims, "a secret of thirty-two bytes or so", algorithm=method)
        key = self.keys.other if wanted.get("key") == "other" else self.keys.own
        return jwt.encode(claims, key, algorithm=method)

    def _request(self, path: str, step: Json) -> bytes:
        message: Message = GetMessageClass(METHODS[path].input_type)()
        json_format.ParseDict(step.get("request", {}), message)
        return message.SerializeToString()

    async def _call(self, where: str, step: Json, *, only_code: bool = False) -> None:
        path, method = step["call"], METHODS[step["call"]]
        metadata, within = self._metadata(step), step.get("within", DEADLINE)
        try:
            if method.client_streaming or method.server_streaming:
                stream: Any = self.channel.stream_stream(path)
                call = stream(metadata=metadata, timeout=within)
                await call.write(self._request(path, step))
                response = await call.read()
                if response is grpc.aio.EOF:
                    found: Json = {"end": (await call.code()).name}
                else:
                    found = self._response(path, response)
                call.cancel()
            else:
                unary: Any = self.channel.unary_unary(path)
                response = await unary(self._request(path, step), metadata=metadata, timeout=within)
                found = self._response(path, response)
        except grpc.aio.AioRpcError as error:
            found = {"code": error.code().name, "message": error.details()}
        for name, of in step.get("save", {}).items():
            self.saved[name] = found.get("response", {}).get(of, "")
        if only_code:
            found = {"code": found.get("code")}
        self._compare(where, step, found)

    def _open(self, step: Json) -> None:
        self.paths[step["open"]] = step["call"]
        method: Any = self.channel.stream_stream(step["call"])
        self.streams[step["open"]] = method(metadata=self._metadata(step))

    async def _send(self, step: Json) -> None:
        name = step["send"]
        await self.streams[name].write(self._request(self.paths[name], step))

    async def _receive(self, step: Json) -> Json:
        name = step["recv"]
        stream = self.streams[name]
        reading = asyncio.ensure_future(stream.read())
        done, _ = await asyncio.wait([reading], timeout=step.get("within", DEADLINE))
        if not done:
            # Cancelling the read would cancel the call with it.
            self.streams[name] = _Ahead(stream, reading)
            return {"silent": step.get("within")}
        try:
            response = reading.result()
        except grpc.aio.AioRpcError as error:
            return {"end": error.code().name, "message": error.details()}
        if response is grpc.aio.EOF:
            return {"end": (await stream.code()).name}
        return self._response(self.paths[name], response)

    def _response(self, path: str, data: bytes) -> Json:
        message: Message = GetMessageClass(METHODS[path].output_type).FromString(data)
        found = json_format.MessageToDict(message, preserving_proto_field_name=True)
        for header in (found.get("header"), found.get("responseHeader")):
            if header is not None:
                for key in ("cluster_id", "member_id", "raft_term"):
                    header.pop(key, None)
        return {"code": "OK", "response": found}

    def _compare(self, where: str, step: Json, found: Json) -> None:
        wanted = step.get("answer")
        if wanted is not None and not same(wanted, found):
            self.differences.append(f"{where}: {step.get('call', step)}\n  etcd {wanted}\n  here {found}")


class _Ahead:
    """A stream whose next message is being read already."""

    def __init__(self, stream: Any, reading: asyncio.Future[Any]) -> None:
        self._stream = stream
        self._reading: asyncio.Future[Any] | None = reading

    async def read(self) -> Any:
        reading, self._reading = self._reading, None
        return await (self._stream.read() if reading is None else reading)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


TRANSPORT = frozenset(("DEADLINE_EXCEEDED",))
"""Codes whose text is that of the client's library."""
OURS = frozenset(("connectKvVersion", "contacts"))
"""Fields of answers that etcd does not have."""


def same(wanted: Any, found: Any) -> bool:
    """Whether an answer is the one recorded."""
    if wanted == "*":
        return True
    if isinstance(wanted, dict) and isinstance(found, dict):
        if wanted.get("code") in TRANSPORT:
            return bool(wanted["code"] == found.get("code"))
        if "end" in wanted and "message" not in wanted:
            return bool(wanted["end"] == found.get("end"))
        if "silent" in wanted:
            return "silent" in found
        keys = (wanted.keys() | found.keys()) - OURS
        return all(same(wanted.get(key), found.get(key)) for key in keys)
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(same(*pair) for pair in zip(wanted, found, strict=True))
    return bool(wanted == found)
