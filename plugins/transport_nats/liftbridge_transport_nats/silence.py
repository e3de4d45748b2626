"""Noticing that the machine at the other end of a direct link is gone."""

import socket

#: A server whose machine doesn't answer for so long is not sent to on the link any more.
_UNANSWERED_MS = 3000
_KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3))


def notice_silence(sock: socket.socket) -> None:
    """A machine that is gone is noticed within seconds, whether there is something to send or not."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (*_KEEPALIVE, ("TCP_USER_TIMEOUT", _UNANSWERED_MS)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
