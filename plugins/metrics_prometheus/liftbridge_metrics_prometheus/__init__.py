"""Metrics for Prometheus, and health for who looks by HTTP: an endpoint that is for operators, not for clients.

:mod:`.metrics` says what there is to see, :mod:`.exposition` puts it into words, :mod:`.http1` and :mod:`.server` serve it.
"""
