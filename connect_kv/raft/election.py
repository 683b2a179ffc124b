"""Elections: pre-vote, vote, transfer (§5.2, §5.4.1, thesis 9.6, 6.2, 3.10)."""

from __future__ import annotations

from collections.abc import Callable

from connect_kv.raft.messages import VoteRequest, VoteResponse
from connect_kv.raft.quorum import VoteResult, vote_result
from connect_kv.raft.ready import ReadState
from connect_kv.raft.state import RaftState
from connect_kv.raft.types import Role


class LeaderElection:
    """How a node comes to lead, and whom it helps to."""

    def __init__(self, state: RaftState, won: Callable[[], None]) -> None:
        self._state = state
        self._won = won

    @property
    def may_campaign(self) -> bool:
        """Whether this node could lead: it counts, remembers everything it promised, and has its state."""
        state = self._state
        return state.may_lead and state.may_vote and state.may_campaign and not state.needs_snapshot

    @property
    def hears_leader(self) -> bool:
        """Whether a leader is alive as far as this node knows: then nobody need replace it (thesis 9.6)."""
        state = self._state
        config = state.config
        silence = config.election_ticks if state.doubt is None else 2 * config.heartbeat_ticks
        return state.leader_id is not None and state.election_elapsed < silence

    def tick(self) -> None:
        """One tick of a node that does not lead."""
        state = self._state
        state.election_elapsed += 1
        for context in state.forwarded_reads.expired(state.tick_count):
            state.outbox.reads.append(ReadState(context=context, index=None))
        timeout = state.election_timeout
        if state.election_elapsed < (timeout if state.doubt is None else min(timeout, state.doubt)):
            return
        if self.may_campaign:
            self.campaign()
        else:
            state.become_follower(state.term, None)
            state.reset_election_timer()

    def campaign(self) -> None:
        """Ask the others whether a campaign would succeed, without disturbing anybody (thesis 9.6)."""
        state = self._state
        if not self.may_campaign or state.role is Role.LEADER:
            return
        state.become_pre_candidate()
        state.votes[state.node_id] = True
        self._ask(pre_vote=True)
        self._count()

    def campaign_by_transfer(self) -> None:
        """The leader asked for it: campaign at once, and say so (thesis 3.10)."""
        # Without a pre-vote, which the others would refuse: they still hear the leader (thesis 4.2.3).
        if self.may_campaign:
            self._campaign(transfer=True)

    def own_vote_persisted(self) -> None:
        """A candidate's vote for itself counts once it is on disk."""
        state = self._state
        if state.role is Role.CANDIDATE and (state.persisted_term, state.persisted_vote) == (
            state.term,
            state.node_id,
        ):
            state.votes[state.node_id] = True
            self._count()

    def vote_request(self, message: VoteRequest) -> None:
        """Vote at most once in a term, and only for a log that has everything committed (§5.4.1)."""
        state = self._state
        if message.pre_vote:
            free = message.term > state.term
        else:
            free = message.term == state.term and state.vote in (None, message.source)
        # Compared by term first, then by length (§5.4.1): a longer log of an older term may lack what was
        # committed.
        granted = free and state.may_vote and message.last >= state.log.last
        if granted and not message.pre_vote:
            state.vote = message.source
            state.take_part()
            # Only a vote given puts off one's own campaign (§5.2): refusing must not, or a candidate whose
            # log is too old to win could keep all others from ever campaigning. Nor does a pre-vote.
            state.election_elapsed = 0
        response = VoteResponse(
            source=state.node_id,
            target=message.source,
            term=message.term if granted else state.term,
            granted=granted,
            pre_vote=message.pre_vote,
        )
        # A vote that left before it was on disk could be given again after a crash, to somebody else: two
        # leaders in one term. A pre-vote and a refusal promise nothing.
        if granted and not message.pre_vote:
            state.outbox.promise(response)
        else:
            state.outbox.send(response)

    def vote_response(self, message: VoteResponse) -> None:
        """Count an answer to the present campaign."""
        state = self._state
        if message.pre_vote:
            asked = state.term + 1 if message.granted else state.term
            current = state.role is Role.PRE_CANDIDATE and message.term == asked
        else:
            current = state.role is Role.CANDIDATE and message.term == state.term
        if current:
            # A pre-vote refused in an earlier round may be granted in this one.
            state.votes[message.source] = message.granted or state.votes.get(message.source, False)
            self._count()

    def _campaign(self, *, transfer: bool) -> None:
        self._state.become_candidate()
        self._ask(pre_vote=False, transfer=transfer)

    def _ask(self, *, pre_vote: bool, transfer: bool = False) -> None:
        """Request votes from every voter.

        A real request waits until term and log are on disk. Otherwise, after a crash that takes the
        log's tail, the node could campaign in the same term again, and a vote that was given to the
        longer log would elect the shorter one.
        """
        state, membership = self._state, self._state.membership
        for node_id in sorted((membership.voters | membership.voters_outgoing) - {state.node_id}):
            request = VoteRequest(
                source=state.node_id,
                target=node_id,
                term=state.term + 1 if pre_vote else state.term,
                last=state.log.last,
                pre_vote=pre_vote,
                transfer=transfer,
            )
            if pre_vote:
                state.outbox.send(request)
            else:
                state.outbox.promise(request)

    def _count(self) -> None:
        state = self._state
        result = vote_result(state.membership, state.votes)
        if result is VoteResult.LOST:
            state.become_follower(state.term, None)
        elif result is VoteResult.WON:
            if state.role is Role.PRE_CANDIDATE:
                self._campaign(transfer=False)
            else:
                self._won()
