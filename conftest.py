"""For all tests, those of the plugins too."""

from hypothesis import settings

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("liftbridge", deadline=None)
settings.load_profile("liftbridge")
