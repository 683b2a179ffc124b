"""Opens a data directory: whose it is, what its log holds, and whether its state is whole."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass

from connect_kv.config import ServerConfig, check_own_entry
from connect_kv.errors import RefusedToStart
from connect_kv.interfaces import Identity, Transport, Worker
from connect_kv.node import startup
from connect_kv.peer_protocol import Description
from connect_kv.raft.types import Member, Restored
from connect_kv.statemachine import stored_states
from connect_kv.storage.engine import Disk
from connect_kv.storage.log_store import EngineLogStore
from connect_kv.storage.log_sweeper import Background
from connect_kv.storage.state_dirs import BrokenChain, StateDatabase, StateDirs

logger = logging.getLogger(__name__)

FIRST_STATE = "1"


@dataclass(slots=True, kw_only=True)
class Directory:
    """A data directory in use."""

    log: EngineLogStore
    identity: Identity
    restored: Restored
    states: StateDirs
    database: StateDatabase
    description: Description | None
    """What a running member told one that joins."""

    def close(self) -> None:
        """Close both databases; nothing may use them any more."""
        self.database.close()
        self.log.close()


async def open_directory(
    config: ServerConfig,
    *,
    disk: Disk,
    worker: Worker,
    background: Background,
    transport: Transport,
    rng: random.Random,
) -> Directory:
    """Open or create it. Raises RefusedToStart, MemberRemoved, StorageError, each saying what to do.

    `worker` writes the log from then on; what gives its space back is handed to `background`.
    """
    path = config.data_dir
    log = await worker.run(lambda: EngineLogStore.open(disk, path, background=background))
    try:
        states = StateDirs(disk, path)
        description = await _identify(config, log, states, worker=worker, transport=transport, rng=rng)
        identity = log.identity
        assert identity is not None
        database, restored = await worker.run(lambda: _open_state(log, states, identity))
    except BaseException:
        log.close()
        raise
    return Directory(
        log=log,
        identity=identity,
        restored=restored,
        states=states,
        database=database,
        description=description,
    )


async def _identify(
    config: ServerConfig,
    log: EngineLogStore,
    states: StateDirs,
    *,
    worker: Worker,
    transport: Transport,
    rng: random.Random,
) -> Description | None:
    members = [
        Member(
            node_id=0,
            name=member.name,
            peer_address=member.peer_address,
            client_address=config.client_addresses.get(member.name, ""),
        )
        for member in config.members
    ]
    others = [one.peer_address for one in members if one.peer_address != config.peer_address]
    token = config.initial_cluster_token
    joins = config.initial_cluster_state == "existing"
    if log.identity is not None:
        try:
            startup.restarted(
                log.identity,
                name=config.name,
                peer_address=config.peer_address,
                configured=members if config.initial_cluster else (),
                membership=log.membership,
            )
        except RefusedToStart as error:
            raise RefusedToStart(f"{config.data_dir}: {error}") from error
        # One that joined, and was stopped before its log came, must ask again who the others are; where
        # the configuration names none any more, the leader will call.
        if log.membership.members or not others:
            return None
    else:
        check_own_entry(config)
        await worker.run(lambda: states.create_first(FIRST_STATE).close())
    if joins or log.identity is not None:
        return await startup.join(
            log=log,
            worker=worker,
            transport=transport,
            name=config.name,
            peer_address=config.peer_address,
            ask=others,
            rng=rng,
            state_name=FIRST_STATE,
        )
    await startup.bootstrap(
        log=log,
        worker=worker,
        name=config.name,
        members=members,
        token=token,
        rng=rng,
        state_name=FIRST_STATE,
    )
    return None


def _open_state(log: EngineLogStore, states: StateDirs, identity: Identity) -> tuple[StateDatabase, Restored]:
    try:
        database = states.open(log.state_name, log.durable_index)
    except BrokenChain as broken:
        return _replace_state(log, states, identity, f"{broken.database} lost writes in a power failure")
    alone = log.membership.voters <= {identity.node_id}
    if not alone and (behind := _machines_behind(log, database)):
        database.close()
        reason = f"the log that is needed for {behind}, which stopped long ago, is gone"
        return _replace_state(log, states, identity, reason)
    try:
        restored = startup.start_from(
            log.load(), node_id=identity.node_id, last_applied=database.last_applied, state_lost=False
        )
    except BaseException:
        database.close()
        raise
    return database, restored


def _machines_behind(log: EngineLogStore, database: StateDatabase) -> str:
    """User machines whose stored state is older than the log: they were suspended beyond its limit."""
    compacted = log.load().compacted.index
    found = stored_states.headers(database.engine)
    return ", ".join(name for name, header in sorted(found.items()) if header.index < compacted)


def _replace_state(
    log: EngineLogStore, states: StateDirs, identity: Identity, reason: str
) -> tuple[StateDatabase, Restored]:
    """An empty state, rebuilt from the log or from the leader's snapshot.

    First it is made sure that one of the two is possible; otherwise nothing is touched.
    """
    restored = startup.start_from(log.load(), node_id=identity.node_id, last_applied=0, state_lost=True)
    logger.warning(
        "the state database is rebuilt",
        extra={"reason": reason, "from_leader": restored.needs_snapshot},
    )
    name = states.next_name(log.state_name)
    database = states.create(name)
    log.reset_state(name)
    return database, restored
