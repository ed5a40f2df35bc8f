"""What can keep the embedded mesh from starting."""


class StartError(Exception):
    """The embedded mesh can't start; the message says in one line why and what to do about it."""
