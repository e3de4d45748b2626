"""The built-in consensus: Raft, as its paper has it, with pre-vote, check-quorum, learners and snapshots.

``core`` is the algorithm and does no IO: messages and ticks in, work lists out. ``store`` keeps it in the stable store,
``codec`` turns its messages into bytes, ``consensus`` drives it on the event loop.
"""
