"""How the replicas of a partition come to hold the same records, and when a record counts as committed.

The rules are ``leading`` and ``following``, for one partition and leader epoch; ``serving`` and ``fetching`` carry them for
all partitions between two brokers. These four do no IO and know no event loop: they take messages and the time, and
give messages. ``exchange`` is the only module here that has a loop and a transport. Nothing here appends what
publishers send (that is ``partition.leader``) or decides who leads (that is metadata).
"""
