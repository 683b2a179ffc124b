"""The header of every response, and responses cut out of results as they stand."""

from __future__ import annotations

from collections.abc import Callable

from connect_kv.kv.wire import HEADER
from connect_kv.protowire import read_varint, varint
from connect_kv.rpc.command_pb2 import Command, Result
from connect_kv.rpc.kv_pb2 import ResponseHeader
from connect_kv.services.attempts import Proposer
from connect_kv.services.status import raise_failure

_RESULT_TAGS = {
    Command.DESCRIPTOR.fields_by_name[name].number: varint(
        Result.DESCRIPTOR.fields_by_name[name].number << 3 | 2
    )
    for name in ("put", "delete_range", "txn", "lease_grant", "lease_revoke")
}
"""By the number of a request within Command, the tag of its response within Result."""


class Headers:
    """Makes and fills the headers of a member's responses."""

    def __init__(self, node: Proposer, cluster_id: int, member_id: int, revision: Callable[[], int]) -> None:
        self._node = node
        self._cluster_id = cluster_id
        self._member_id = member_id
        self._revision = revision
        self._encoded = b""
        self._encoded_for: tuple[int, int] | None = None
        """Revision and term of that header."""
        self._ids = ResponseHeader(cluster_id=cluster_id, member_id=member_id).SerializeToString()
        """What stands before the revision in a header: fields are encoded in the order of their numbers."""
        self._term = -1
        self._end = b""
        """What stands after it: the term."""
        self._heads: dict[int, bytes] = {}
        """What stands before the revision in a response, by the size of the revision's field."""

    def fill(self, header: ResponseHeader) -> None:
        """Set ids and term; the revision is the key/value machine's to set."""
        header.cluster_id = self._cluster_id
        header.member_id = self._member_id
        header.raft_term = self._node.term

    def make(self, revision: int | None = None) -> ResponseHeader:
        """A header of our own; `revision` defaults to the current one."""
        return ResponseHeader(
            cluster_id=self._cluster_id,
            member_id=self._member_id,
            revision=self._revision() if revision is None else revision,
            raft_term=self._node.term,
        )

    def encoded(self, revision: int) -> bytes:
        """A header, encoded; kept, for watches ask for it again and again."""
        wanted = (revision, self._node.term)
        if self._encoded_for != wanted:
            self._encoded_for = wanted
            self._encoded = self.make(revision).SerializeToString()
        return self._encoded

    def response(self, field: int, result: bytes) -> bytes:
        """The response within an encoded result without a number, its header filled (`responses`)."""
        return self.responses(field)(result)

    def responses(self, field: int) -> Callable[[bytes], bytes]:
        """What cuts responses out of encoded results as they stand. For use at once: the term is that of now.

        The header comes first in a response, and in that the revision. `field` is the number of the request.
        Raises what `raise_failure` does for one that was refused or failed.
        """
        if self._node.term != self._term:
            self._learn_term()
        tag, heads, end = _RESULT_TAGS[field], self._heads, self._end
        at = len(tag)

        def cut(result: bytes) -> bytes:
            if not result.startswith(tag):
                raise_failure(Result.FromString(result))
            # Most are short: then each length is one octet.
            if result[at] < 0x80:
                size, start = result[at + 2], at + 3
            else:
                _, start = read_varint(result, at)
                size, start = read_varint(result, start + len(HEADER))
            middle = start + size
            head = heads.get(size) or self._head(size)
            if middle == len(result):
                return head + result[start:] + end
            return b"".join((head, result[start:middle], end, memoryview(result)[middle:]))

        return cut

    def _learn_term(self) -> None:
        self._term = self._node.term
        self._end = ResponseHeader(raft_term=self._term).SerializeToString()
        self._heads.clear()

    def _head(self, size: int) -> bytes:
        whole = len(self._ids) + size + len(self._end)
        head = self._heads[size] = HEADER + varint(whole) + self._ids
        return head
