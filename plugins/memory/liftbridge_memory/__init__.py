"""The in-memory twins of ``liftbridge.testing`` as providers named ``memory``. Only that; the twins live there."""
