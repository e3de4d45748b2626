"""Removing a whole log, so that a crash never leaves half of one."""

from pathlib import Path

from liftbridge_storage_segments.files import Files, storage_errors

#: Directories that are being deleted get this prefix first, so that a crash never leaves half a log that opens.
DELETED_PREFIX = "deleted-"


def remove_directory(directory: Path, files: Files) -> None:
    """Removes a log's directory; a no-op when it doesn't exist."""
    if not directory.exists():
        return
    doomed = directory.with_name(DELETED_PREFIX + directory.name)
    with storage_errors(f"{directory}: delete"):
        files.rename(directory, doomed)
    empty_directory(doomed, files)


def empty_directory(directory: Path, files: Files) -> None:
    """Removes a doomed directory and what is in it."""
    with storage_errors(f"{directory}: delete"):
        for path in directory.iterdir():
            files.remove(path)
        files.remove_directory(directory)
