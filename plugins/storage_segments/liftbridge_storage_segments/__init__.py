"""Log storage in segment files: the default of ``storage.log``.

Here lives everything that knows the layout of the files on disk; what the records mean is the kernel's business.
``plugin`` has the hooks, ``storage`` the storage of a server, ``log`` one partition's log, ``segments`` its segments at one
moment, ``segment`` one file, ``recovery`` what opening does, ``compaction`` a pass over a log, ``files`` every call of the
operating system, ``dump`` the tool for people.
"""
