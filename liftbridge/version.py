"""The version of this distribution."""

from importlib import metadata


def version() -> str:
    """As installed; ``dev`` in a source tree that isn't."""
    try:
        return metadata.version("liftbridge")
    except metadata.PackageNotFoundError:
        return "dev"
