"""The transport over NATS: the default of ``transport``.

``transport`` is the seam's implementation on two connections, ``connection`` one of them, ``bulk`` goes below nats-py
where a callback for every message is too dear, ``wire`` and ``subjects`` are the protocol's bytes and rules without IO,
``links`` finds other servers and the way of a message past NATS, ``outgoing_link``, ``incoming_link`` and ``frames`` are such a
way, ``credentials`` signs in, ``embedded`` runs a nats-server as a child process. What messages mean doesn't belong here.
"""
