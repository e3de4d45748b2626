"""Shipped for plugin authors: a conformance suite for each seam, in-memory twins, fault injection, a virtual clock."""
