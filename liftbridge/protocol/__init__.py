"""Bytes to objects and back: record batches, envelopes, publish requests, acks. No IO, no clock, no state.

``generated`` holds what protoc makes of ``proto/``; nothing in it is written by hand.
"""
