"""connect_kv.v1.Machine: user machines from any language, with JSON or msgpack arguments."""

from __future__ import annotations

from collections.abc import Callable

from connect_kv.framework.types import Kind
from connect_kv.rpc import machine_pb2
from connect_kv.rpc.command_pb2 import MachineCall
from connect_kv.services.access import Access
from connect_kv.services.caller import Caller
from connect_kv.services.executor import Replica, field_number
from connect_kv.services.machine_calls import MachineCalls, NoSuchMethod
from connect_kv.services.machine_control import MachineControl
from connect_kv.statemachine.host import MachineHost
from connect_kv.statemachine.hosted import HostedMachine, MethodDescription

_CALL = field_number("machine_call")

Describe = machine_pb2.MachineDescribeResponse


class MachineService:
    """Commands go through the log, queries behind a read barrier; which it is, the machine says."""

    def __init__(
        self,
        replica: Replica,
        host: MachineHost,
        calls: MachineCalls,
        control: MachineControl,
        read_date: Callable[[], int],
        access: Access,
    ) -> None:
        """`read_date`, after a read barrier: the leader's time then, for queries."""
        self._access = access
        self._read_date = read_date
        self._control = control
        self._replica = replica
        self._host = host
        self._calls = calls

    async def Call(
        self, request: machine_pb2.MachineCallRequest, caller: Caller
    ) -> machine_pb2.MachineCallResponse:
        """Call a command or a query."""
        arguments: bytes | str
        as_json = request.WhichOneof("arguments") != "msgpack"
        arguments = request.json if as_json else request.msgpack
        self._access.query(caller, request.machine)
        await self._calls.founded(request.machine, self._replica.time_limit)
        checked = self._calls.check(request.machine, request.method, arguments)
        if checked.kind is Kind.QUERY:
            await self._replica.barrier()
            value = await self._host.query(
                request.machine, checked.method, checked.arguments, self._read_date()
            )
        else:
            by = self._access.command(caller, request.machine)
            call = MachineCall(
                machine=request.machine,
                method=checked.method,
                arguments=checked.arguments,
                version=checked.version,
            )
            result = await self._replica.execute(_CALL, call.SerializeToString(), by)
            value = result.machine_call.value
        response = machine_pb2.MachineCallResponse(header=self._replica.header())
        if as_json:
            response.json = self._calls.machines[request.machine].value_json(checked.method, value)
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
            header=self._replica.header(),
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
        return machine_pb2.MachineStatusResponse(header=self._replica.header(), members=members)

    async def Decide(
        self, request: machine_pb2.MachineDecideRequest, caller: Caller
    ) -> machine_pb2.MachineDecideResponse:
        """Skip a command that stopped a machine, retire it, host it again."""
        by = self._access.root(caller)
        await self._control.decide(request, by)
        return machine_pb2.MachineDecideResponse(header=self._replica.header())


def _machine(name: str, machine: HostedMachine) -> Describe.Machine:
    doc, methods = machine.describe()
    return Describe.Machine(name=name, doc=doc, methods=[_method(method) for method in methods])


def _method(method: MethodDescription) -> Describe.Method:
    return Describe.Method(
        name=method.name,
        query=method.kind is Kind.QUERY,
        doc=method.doc,
        parameters=[
            Describe.Parameter(name=parameter.name, type=parameter.type, required=parameter.required)
            for parameter in method.parameters
        ],
        returns=method.returns,
    )
