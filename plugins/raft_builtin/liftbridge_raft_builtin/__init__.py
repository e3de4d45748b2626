"""The built-in consensus: Raft for the metadata of the cluster.

``core`` holds the rules of Raft and does no IO; ``driver`` gives it time, disk, network and the state machine;
``storage`` lays its state out in the stable store; ``plugin`` is what Liftbridge finds. What the commands mean is not
known here.
"""
