"""For all tests, those of the plugins too."""

import signal

from hypothesis import settings

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("liftbridge", deadline=None)
settings.load_profile("liftbridge")

# A shell's job in the background ignores Ctrl-C, and so would the programs that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
