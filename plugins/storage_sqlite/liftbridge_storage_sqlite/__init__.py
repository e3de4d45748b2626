"""Partition logs in SQLite databases, one for each log.

``plugin`` has the hooks, ``storage`` the storage of a server, ``log`` one partition's log, ``segments`` what it knows of its
segments without a query, ``table`` every query, ``database`` opening and closing, ``compaction`` a pass over a log. What the records
mean is the kernel's business.
"""
