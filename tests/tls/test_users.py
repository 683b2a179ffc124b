"""A certificate is a user, where authentication is on and no token comes with the call."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from connect_kv.authority import make_client
from connect_kv.rpc import auth_pb2 as auth
from connect_kv.rpc.kv_pb2 import PutRequest, RangeRequest
from tests.services.conftest import unary
from tests.tls.conftest import member, options_of


async def test_the_common_name_is_the_user(tmp_path: Path, folder: Path) -> None:
    make_client(folder, "root")
    async with member(tmp_path, **options_of(folder, mutual=True)) as server:

        async def call(name: str, path: str, request: Message, *metadata: tuple[str, str]) -> bytes:
            shown = [(folder / f"{name}.{end}").read_bytes() for end in ("key", "pem")]
            secure = grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes(), *shown)
            async with grpc.aio.secure_channel(server.client_address, secure) as channel:
                method = unary(channel, f"/etcdserverpb.{path}")
                answer: bytes = await method(request.SerializeToString(), metadata=metadata)
                return answer

        async def refused(*arguments: object) -> str:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(*arguments)  # type: ignore[arg-type]
            return f"{caught.value.code().name} {caught.value.details()}"

        key = PutRequest(key=b"k", value=b"v")
        await call("bob", "KV/Put", key)  # authentication is off: names count nowhere
        none = auth.UserAddOptions(no_password=True)
        await call("alice", "Auth/UserAdd", auth.AuthUserAddRequest(name="root", password="secret"))
        await call("alice", "Auth/UserAdd", auth.AuthUserAddRequest(name="alice", options=none))
        await call("alice", "Auth/RoleAdd", auth.AuthRoleAddRequest(name="root"))
        await call("alice", "Auth/RoleAdd", auth.AuthRoleAddRequest(name="reader"))
        await call("alice", "Auth/UserGrantRole", auth.AuthUserGrantRoleRequest(user="root", role="root"))
        await call("alice", "Auth/UserGrantRole", auth.AuthUserGrantRoleRequest(user="alice", role="reader"))
        granted = auth.Permission(permType=auth.Permission.READ, key=b"k")
        await call(
            "alice",
            "Auth/RoleGrantPermission",
            auth.AuthRoleGrantPermissionRequest(name="reader", perm=granted),
        )
        await call("alice", "Auth/AuthEnable", auth.AuthEnableRequest())

        read = RangeRequest(key=b"k")
        denied = "PERMISSION_DENIED etcdserver: permission denied"
        await call("alice", "KV/Range", read)
        await call("root", "KV/Put", key)
        assert await refused("alice", "KV/Put", key) == denied
        assert await refused("bob", "KV/Range", read) == denied  # nobody of that name
        # A token counts before the name, a bad one too.
        login = auth.AuthenticateRequest(name="root", password="secret")
        answer = auth.AuthenticateResponse.FromString(await call("bob", "Auth/Authenticate", login))
        await call("alice", "KV/Put", key, ("token", answer.token))
        invalid = await refused("root", "KV/Put", key, ("token", "made.up"))
        assert invalid == "UNAUTHENTICATED etcdserver: invalid auth token"
        # Whoever comes through a gateway is not who the gateway is.
        lent = await refused("root", "KV/Put", key, ("grpcgateway-accept", "*/*"))
        assert lent == "INVALID_ARGUMENT etcdserver: user name is empty"
