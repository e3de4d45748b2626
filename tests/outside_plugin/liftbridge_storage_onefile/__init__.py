"""The log storage "onefile" for Liftbridge."""
