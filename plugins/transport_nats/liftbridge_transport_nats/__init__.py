"""The transport over NATS: the default of ``transport``.

``transport`` is the seam's implementation on two nats-py connections, ``bulk`` goes below nats-py where a callback for
every message is too dear, ``embedded`` runs a nats-server as a child process.
"""
