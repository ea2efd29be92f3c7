"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is one line that names the value, what is allowed and the way
    out. Commands print it and end with exit status 2; see `tlcluster.cli`.
    """
