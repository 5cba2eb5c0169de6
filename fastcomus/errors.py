"""The one exception that a user is meant to see."""


class InputError(ValueError):
    """Something the user gave cannot be used: one sentence saying what was wrong, what was got, what to do.

    The command line prints the sentence and exits with code 2.
    """
