"""LMDB storage: the offset index (a cache) and the stable store (which must never lie). Two environments, because their
promises are opposite: the index may lose everything at any time and is never waited for; the stable store is durable when
``write`` returns."""
