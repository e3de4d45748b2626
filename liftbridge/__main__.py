"""``python -m liftbridge``."""

from liftbridge.cli import main

main()
