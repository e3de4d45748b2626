"""Made by protoc from ``proto/`` (``tox -e proto``); not written by hand, not checked for style."""
