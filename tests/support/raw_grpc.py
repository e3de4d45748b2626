"""A gRPC client of one call on a plain socket: fast enough that the broker is the limit."""

import socket
from collections.abc import Iterator
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes

_WINDOW = 2**31 - 1
_DEFAULT_WINDOW = 65_535
_READ_BYTES = 256 * 1024


class RawCall:
    """One call. Sends and receives framed messages, many at a time."""

    def __init__(self, port: int, method: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
        self._h2.increment_flow_control_window(_WINDOW - _DEFAULT_WINDOW)
        headers = {":method": "POST", ":scheme": "http", ":path": f"/proto.API/{method}", ":authority": "localhost"}
        self._h2.send_headers(1, [*headers.items(), ("content-type", "application/grpc"), ("te", "trailers")])
        self._received: list[Any] = []

    def __enter__(self) -> "RawCall":
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def send(self, framed: bytes) -> None:
        """Waits for the server's window."""
        position = 0
        while position < len(framed):
            room = min(self._h2.local_flow_control_window(1), self._h2.max_outbound_frame_size)
            if room == 0:
                self._receive()
                continue
            self._h2.send_data(1, framed[position : position + room])
            position += room
            self._flush()

    def end(self) -> None:
        """There are no more requests."""
        self._h2.end_stream(1)
        self._flush()

    def messages(self) -> Iterator[bytes]:
        """What the server sends, in pieces, until it ends the call."""
        while True:
            for event in self._received:
                if isinstance(event, DataReceived):
                    self._h2.acknowledge_received_data(event.flow_controlled_length, 1)
                    yield event.data
                elif isinstance(event, StreamEnded | StreamReset):
                    return
            self._received = []
            self._receive()

    def _receive(self) -> None:
        self._flush()
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionError("the server hung up")
        self._received += self._h2.receive_data(data)
        self._flush()

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())
