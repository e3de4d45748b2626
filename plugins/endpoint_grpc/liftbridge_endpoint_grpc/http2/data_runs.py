"""Reading DATA frames by the hundred: clients that stream small messages fill a read with equal frames."""

import struct

from liftbridge.protocol.strides import count_repeats
from liftbridge_endpoint_grpc.http2.frames import FRAME_HEADER_BYTES, MAX_FRAME_BYTES

#: Where type, flags and stream ID begin in a frame's header: equal in all frames of a run, while lengths may differ.
_AFTER_LENGTH = 3


def read_data_run(data: bytes, position: int, length: int) -> tuple[bytes, int]:
    """The payloads, joined, of the plain DATA frames of one stream that stand together from ``position`` on, and the
    position behind them. The first has ``length`` bytes and is complete."""
    if position + FRAME_HEADER_BYTES + length == len(data):
        return data[position + FRAME_HEADER_BYTES :], len(data)
    header_tail = data[position + _AFTER_LENGTH : position + FRAME_HEADER_BYTES]
    payloads: list[bytes] = []
    is_run = True
    while is_run:
        stride = FRAME_HEADER_BYTES + length
        count = (len(data) - position) // stride
        if count > 1:
            count = count_repeats(data, position, stride, range(FRAME_HEADER_BYTES), count)
        end = position + count * stride
        if count > 1:
            layout = struct.Struct(f"{FRAME_HEADER_BYTES}x{length}s")
            payloads += [payload for (payload,) in layout.iter_unpack(memoryview(data)[position:end])]
        else:
            payloads.append(data[position + FRAME_HEADER_BYTES : end])
        position = end
        length = int.from_bytes(data[position : position + _AFTER_LENGTH], "big")
        is_run = (
            data[position + _AFTER_LENGTH : position + FRAME_HEADER_BYTES] == header_tail
            and 0 < length <= MAX_FRAME_BYTES
            and position + FRAME_HEADER_BYTES + length <= len(data)
        )
    return payloads[0] if len(payloads) == 1 else b"".join(payloads), position
