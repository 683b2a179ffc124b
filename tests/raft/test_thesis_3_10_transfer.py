"""Thesis 3.10: leadership is handed to a member that has the whole log."""

import pytest

from connect_kv.errors import MembershipRefused, NotLeader
from connect_kv.raft.messages import TimeoutNow
from connect_kv.raft.types import Role
from tests.raft.harness import Cluster, header, membership_of, sent


def test_the_successor_leads_at_once() -> None:
    """Thesis 3.10: asked by the leader, the successor campaigns without waiting for a timeout, and leads."""
    cluster = Cluster(3)
    cluster.elect(1)

    cluster[1].core.transfer_leadership(3)
    cluster.stabilize()

    assert cluster.leaders == [3]
    assert cluster[1].core.leader_id == 3


def test_the_successor_first_gets_the_whole_log() -> None:
    """Thesis 3.10: the request goes out only once the successor's log is as long as the leader's."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.propose(b"a")
    leader.core.transfer_leadership(3)
    leader.run()
    assert not sent(leader, TimeoutNow)

    cluster.stabilize()

    assert cluster.leaders == [3]


def test_proposals_are_refused_meanwhile_and_taken_again_after_one_election_timeout() -> None:
    """Thesis 3.10: a leader takes no commands while it hands over, and gives up after an election timeout."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.dropped = lambda packet: header(packet).target == 3 and isinstance(packet, TimeoutNow)
    leader.core.transfer_leadership(3)
    with pytest.raises(NotLeader):
        leader.propose(b"a")

    cluster.tick(10)

    assert leader.core.status().transfer_to is None
    leader.propose(b"a")


def test_a_lost_request_is_repeated() -> None:
    """Thesis 3.10: a TimeoutNow request that was lost is sent again, within the time for the transfer."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.drop(TimeoutNow)
    leader.core.transfer_leadership(3)
    cluster.stabilize()
    cluster.heal()

    cluster.tick(3)

    assert cluster.leaders == [3]


@pytest.mark.parametrize("to", [4, 9])
def test_learners_and_strangers_do_not_lead(to: int) -> None:
    """Thesis 3.10, 4.2.1: leadership goes to a voter only; neither to a learner nor to who is no member."""
    cluster = Cluster(4, membership=membership_of([1, 2, 3], [4]))
    leader = cluster.elect(1)

    with pytest.raises(MembershipRefused):
        leader.core.transfer_leadership(to)


def test_who_may_not_campaign_ignores_the_request() -> None:
    """Thesis 3.10: a successor that may not campaign does not, and the old leader goes on leading."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster[3].core.set_eligible(vote=True, campaign=False)

    cluster[1].core.transfer_leadership(3)
    cluster.stabilize()

    assert cluster[1].core.role is Role.LEADER


def test_a_request_from_somebody_who_does_not_lead_is_ignored() -> None:
    """Thesis 3.10: TimeoutNow counts only from the leader that the server follows."""
    cluster = Cluster(3)
    cluster.elect(1)

    cluster[3].step(TimeoutNow(source=2, target=3, term=1))

    assert cluster[3].core.role is Role.FOLLOWER


def test_only_a_leader_hands_over() -> None:
    """Thesis 3.10: leadership is handed over by the leader; a follower refuses and names it."""
    cluster = Cluster(3)
    cluster.elect(1)

    with pytest.raises(NotLeader) as refused:
        cluster[2].core.transfer_leadership(3)

    assert refused.value.leader_id == 1
