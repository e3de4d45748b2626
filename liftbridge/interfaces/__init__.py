"""The seams: what a plugin implements (an ABC) and what it is handed (a Protocol or a frozen data class).

One module a seam. Nothing here does IO or knows an implementation; nothing here imports the rest of the kernel but
:mod:`liftbridge.errors` and :mod:`liftbridge.clock`. A breaking change of a seam is a new generation number in
:mod:`liftbridge.interfaces.provider`.
"""
