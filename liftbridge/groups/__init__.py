"""Consumer groups on one server: the members that it watches over as their coordinator, and who may read what.

What a group is, and who gets which partitions, is metadata's; choosing coordinators is the cluster's.
"""
