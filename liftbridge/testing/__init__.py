"""Shipped for plugin authors: what their tests need, and nothing that a server runs with.

``*_suite`` hold a conformance suite for each seam: subclass it, give it the fixtures that its docstring names. ``memory_*`` are
twins of the seams in memory, held to the same suites. ``contexts`` makes what the server hands to ``create``,
``scripted_broker`` stands in for the broker behind an endpoint, ``batches`` and ``log_filling`` make records and read them back,
``faults`` are disks that fail, ``virtual_clock`` is time that a test moves. Nothing here knows the kernel's insides.
"""
