"""Members trust only members."""

from __future__ import annotations

from connect_kv.credentials import Credentials
from connect_kv.transport.stream import PermissionDenied
from connect_kv.transport.wire import PeerCaller


def certified_names(credentials: Credentials | None, caller: PeerCaller) -> frozenset[str] | None:
    """Who the caller is by its certificate; None without TLS.

    Raises PermissionDenied for a certificate that is revoked, not allowed, or no member's: the CA that
    signs members' certificates may sign those of clients as well, and these may not serve.
    """
    if credentials is None or credentials.demands.unverified:
        return None
    from connect_kv.certificates import BadCertificate, presented

    if caller.certificate is None:
        raise PermissionDenied("there is no certificate")
    if refusal := credentials.refusal(caller.certificate):
        raise PermissionDenied(refusal)
    try:
        shown = presented(caller.certificate)
    except BadCertificate as error:
        raise PermissionDenied(f"the certificate {error}") from None
    if not shown.may_serve:
        raise PermissionDenied(f"the certificate of {shown} is a client's, not a member's")
    return shown.all_names
