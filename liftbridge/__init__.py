"""Liftbridge: durable, replicated, replayable message streams for NATS.

This package is the kernel. It knows the seams (:mod:`liftbridge.interfaces`) and never an implementation: storage,
consensus, transport, routing and endpoints are plugins, found by the entry point group ``liftbridge``.
Start reading at :mod:`liftbridge.hookspecs`, then :mod:`liftbridge.interfaces`, then :mod:`liftbridge.server` and
:mod:`liftbridge.wiring`.

Nothing is imported here, so that importing one kernel module never drags in the others.
"""
