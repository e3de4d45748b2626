"""The gRPC endpoint: our own HTTP/2 and gRPC server, because chunks are what makes the broker fast.

``http2`` is the protocol without IO, ``framing`` finds whole messages in a stream's bytes, ``status`` has gRPC's words
for outcomes, ``calls`` joins one HTTP/2 stream to one broker call, ``methods`` says which, ``client_connection`` is one
client's socket, ``server`` listens. No gRPC library is used here, and nothing here knows what a message means.
"""
