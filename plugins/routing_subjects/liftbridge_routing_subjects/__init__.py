"""Subjects as NATS has them: tokens between dots, ``*`` for one token, ``>`` for the rest."""
