"""Made by protoc from ``proto/raft.proto`` (``tox -e proto``); not written by hand, not checked for style."""
