"""Subjects as NATS has them: tokens between dots, ``*`` for one token, ``>`` for the rest.

``router`` has the rules, as functions of their arguments; ``plugin`` the hook. Who listens on a subject is not known here.
"""
