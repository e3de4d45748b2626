"""Bytes to objects and back: record batches, envelopes, publish requests, acks. No IO, no clock, no state beyond what a
parser remembers of its own input; what is done with the objects belongs to the partition and the broker.

``generated`` holds what protoc makes of ``proto/``; nothing in it is written by hand.
"""
