"""HTTP/2 for servers (RFC 9113), without IO: bytes in, events out; commands in, bytes out. Imports no asyncio, socket,
time or random, and knows nothing of gRPC.

``connection`` is what its owner holds, with ``output`` as its sending half. Both stand on ``streams`` (what is open),
``limits`` (what a peer may have), ``frames``, ``control_frames`` and ``data_runs`` (layouts), ``headers`` (compression and the
rules for requests). ``events`` is what the owner hears.
"""
