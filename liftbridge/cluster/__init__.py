"""Servers as a group: finding and joining it, heartbeats, who leads what, draining and removing.

What is replicated, and its rules, is metadata's; what a server does with its partitions is partition's.
"""
