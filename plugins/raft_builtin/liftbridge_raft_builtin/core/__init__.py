"""The Raft algorithm, without IO, clock or randomness of its own: nothing here imports asyncio, time, random or os."""
