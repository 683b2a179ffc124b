"""§5.4.1: who lacks something committed is not elected."""

import pytest

from connect_kv.raft.errors import RaftInvariantError
from connect_kv.raft.messages import VoteRequest, VoteResponse
from connect_kv.raft.types import EntryId
from tests.raft.harness import Cluster, append, entries_of, sent


@pytest.mark.parametrize("pre_vote", [True, False])
@pytest.mark.parametrize(
    ("last", "granted"),
    [
        (EntryId(2, 3), True),
        (EntryId(2, 4), True),
        (EntryId(3, 1), True),
        (EntryId(2, 2), False),
        (EntryId(1, 9), False),
    ],
)
def test_a_vote_goes_only_to_a_log_that_is_up_to_date(last: EntryId, granted: bool, pre_vote: bool) -> None:
    """§5.4.1: a vote, and a pre-vote, is refused to a candidate whose log is behind: an earlier last
    term, or the same and shorter.
    """
    node = Cluster(3, logs=[[1, 2, 2], [], []])[1]

    node.step(VoteRequest(source=2, target=1, term=5, last=last, pre_vote=pre_vote))

    (answer,) = sent(node, VoteResponse)
    assert isinstance(answer, VoteResponse)
    assert answer.granted is granted


def test_a_candidate_whose_log_lost_its_tail_cannot_use_votes_for_the_longer_one() -> None:
    """§5.4.1: votes count for the log that was shown when asking for them.

    The request for votes waits for the disk, so a crash cannot make a second campaign in its term.
    """
    cluster = Cluster(3)
    node = cluster[1]
    node.slow_disk = True
    node.step(append(2, 1, 1, EntryId(0, 0), entries_of([1, 1])))
    node.core.campaign()
    node.step(VoteResponse(source=2, target=1, term=2, granted=True, pre_vote=True))
    assert not [request for request in sent(node, VoteRequest) if request.term == 2 and not request.pre_vote]  # type: ignore[union-attr]

    node.crash()
    node.start()
    node.step(VoteResponse(source=2, target=1, term=2, granted=True))

    assert node.core.leader_id is None


def test_what_is_committed_is_never_truncated() -> None:
    """§5.4.3, leader completeness: a leader whose log contradicts a committed entry cannot exist; the
    server stops rather than truncate.
    """
    node = Cluster(3)[1]
    node.step(append(2, 1, 1, EntryId(0, 0), entries_of([1, 1]), commit_index=2))

    with pytest.raises(RaftInvariantError, match="leader completeness"):
        node.step(append(3, 1, 2, EntryId(2, 2)))
