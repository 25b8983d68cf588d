"""The one error of the local stack: something cannot start, said in words that a person can act on."""


class StackError(Exception):
    """The message names what failed, shows the last lines of its log, and says what to do where that is known."""
