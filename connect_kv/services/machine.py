"""connect_kv.v1.Machine: user machines from any language, with JSON or msgpack arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from connect_kv.errors import BadCall
from connect_kv.framework.types import MethodKind
from connect_kv.rpc import machine_pb2
from connect_kv.rpc.command_pb2 import MachineCall, Result
from connect_kv.services.access import Access
from connect_kv.services.asked import Asked, Many
from connect_kv.services.caller import Caller
from connect_kv.services.executor import CommandExecutor, field_number
from connect_kv.services.machine_calls import MachineCalls, NoSuchMethod
from connect_kv.services.machine_control import MachineControl
from connect_kv.services.status import raise_failure
from connect_kv.services.turns import Turns
from connect_kv.services.writes import Writes
from connect_kv.statemachine.host import MachineHost
from connect_kv.statemachine.hosted import Checked, HostedMachine, MethodDescription

_CALL = field_number("machine_call")

Describe = machine_pb2.MachineDescribeResponse


class MachineService:
    """Commands go through the log, queries behind a read barrier; which it is, the machine says."""

    def __init__(
        self,
        executor: CommandExecutor,
        host: MachineHost,
        calls: MachineCalls,
        control: MachineControl,
        read_date: Callable[[], int],
        access: Access,
        turns: Turns | None = None,
    ) -> None:
        """`read_date`, after a read barrier: the leader's time then, for queries.

        In `turns` many are answered that came together.
        """
        self._access = access
        self._read_date = read_date
        self._control = control
        self._executor = executor
        self._host = host
        self._calls = calls
        writes = Writes(executor, turns or Turns())
        self.many: Mapping[str, Many] = {"Call": writes.method(_CALL, self._prepare, self._cut)}

    async def Call(
        self, request: machine_pb2.MachineCallRequest, caller: Caller
    ) -> machine_pb2.MachineCallResponse:
        """Call a command or a query."""
        self._access.query(caller, request.machine)
        await self._calls.founded(request.machine, self._executor.time_limit)
        checked = self._check(request)
        if checked.kind is MethodKind.QUERY:
            value = await self._ask(request, checked, caller)
        else:
            by = self._access.command(caller, request.machine)
            result = await self._executor.execute(_CALL, _command(request, checked), by)
            value = result.machine_call.value
        return self._response(request, value)

    async def query(
        self, request: machine_pb2.MachineCallRequest, caller: Caller
    ) -> machine_pb2.MachineCallResponse:
        """As `Call`, for queries alone. Raises BadCall for a command."""
        self._access.query(caller, request.machine)
        await self._calls.founded(request.machine, self._executor.time_limit)
        checked = self._check(request)
        if checked.kind is not MethodKind.QUERY:
            raise BadCall(f"connect-kv: {request.machine}: {request.method[:200]} is a command, not a query")
        return self._response(request, await self._ask(request, checked, caller))

    async def _ask(self, request: machine_pb2.MachineCallRequest, checked: Checked, caller: Caller) -> bytes:
        await self._access.behind(self._executor.barrier, lambda: self._access.query(caller, request.machine))
        return await self._host.query(request.machine, checked.method, checked.arguments, self._read_date())

    def _prepare(self, one: Asked[machine_pb2.MachineCallRequest]) -> tuple[bytes, bytes] | None:
        """A command that need not wait; queries run on a thread of their own."""
        request, caller = one.request, one.caller
        self._access.query(caller, request.machine)
        if self._calls.unfounded(request.machine):
            return None
        checked = self._check(request)
        if checked.kind is MethodKind.QUERY:
            return None
        by = self._access.command(caller, request.machine)
        return _command(request, checked), by

    def _cut(self, one: Asked[machine_pb2.MachineCallRequest], encoded: bytes) -> bytes:
        result = Result.FromString(encoded)
        if result.WhichOneof("result") == "failure":
            raise_failure(result)
        return self._response(one.request, result.machine_call.value).SerializeToString()

    def _check(self, request: machine_pb2.MachineCallRequest) -> Checked:
        arguments: bytes | str = request.json if _as_json(request) else request.msgpack
        return self._calls.check(request.machine, request.method, arguments)

    def _response(
        self, request: machine_pb2.MachineCallRequest, value: bytes
    ) -> machine_pb2.MachineCallResponse:
        response = machine_pb2.MachineCallResponse(header=self._executor.header())
        if _as_json(request):
            response.json = self._calls.machines[request.machine].value_json(request.method, value)
        else:
            response.msgpack = value
        return response

    async def Describe(self, request: machine_pb2.MachineDescribeRequest, caller: Caller) -> Describe:
        """List machines, their methods and the types of their arguments."""
        self._access.known(caller)
        known = self._calls.machines
        if request.machine and request.machine not in known:
            raise NoSuchMethod(f"connect-kv: unknown machine {request.machine!r}")
        return Describe(
            header=self._executor.header(),
            machines=[
                _machine(name, machine) for name, machine in known.items() if request.machine in ("", name)
            ],
        )

    async def Status(
        self, request: machine_pb2.MachineStatusRequest, caller: Caller
    ) -> machine_pb2.MachineStatusResponse:
        """How each machine is on each member."""
        self._access.known(caller)
        members = await self._control.status(request.machine)
        return machine_pb2.MachineStatusResponse(header=self._executor.header(), members=members)

    async def Decide(
        self, request: machine_pb2.MachineDecideRequest, caller: Caller
    ) -> machine_pb2.MachineDecideResponse:
        """Skip a command that stopped a machine, retire it, host it again."""
        by = self._access.root(caller)
        await self._control.decide(request, by)
        return machine_pb2.MachineDecideResponse(header=self._executor.header())


def _as_json(request: machine_pb2.MachineCallRequest) -> bool:
    return request.WhichOneof("arguments") != "msgpack"


def _command(request: machine_pb2.MachineCallRequest, checked: Checked) -> bytes:
    return MachineCall(
        machine=request.machine,
        method=checked.method,
        arguments=checked.arguments,
        version=checked.version,
    ).SerializeToString()


def _machine(name: str, machine: HostedMachine) -> Describe.Machine:
    doc, methods = machine.describe()
    return Describe.Machine(name=name, doc=doc, methods=[_method(method) for method in methods])


def _method(method: MethodDescription) -> Describe.Method:
    return Describe.Method(
        name=method.name,
        query=method.kind is MethodKind.QUERY,
        doc=method.doc,
        parameters=[
            Describe.Parameter(name=parameter.name, type=parameter.type, required=parameter.required)
            for parameter in method.parameters
        ],
        returns=method.returns,
    )
