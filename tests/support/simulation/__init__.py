"""A whole cluster in one thread, on a virtual clock, network and disk, from one seed.

The servers are the real ones (:class:`liftbridge.server.Server` with the real Raft), each on an event loop of its own that
the simulation turns. ``world`` puts the parts together and decides what happens; ``process`` is a server's event loop and
what may befall it; ``network`` and ``disk`` stand for NATS and the file system; ``server`` says which plugins a server
gets; ``clients`` publish and read through the broker's API as an endpoint does; ``invariants`` is what must hold.
Nothing here decides what a server should do: that would be a model of it.
"""
