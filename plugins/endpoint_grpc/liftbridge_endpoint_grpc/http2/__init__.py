"""HTTP/2 for servers (RFC 9113), without IO: bytes in, events out; commands in, bytes out. Imports no asyncio, socket,
time or random."""
