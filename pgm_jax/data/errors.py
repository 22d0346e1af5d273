"""The one error of this room: a line that says what is wrong and how to mend it."""


class DataError(ValueError):
    """Bad data: an unreadable file, an unknown data set, a failed or altered download.

    The message is one line that names the file or data set, what is wrong and what to do. It never holds
    a patient field, an address of a package index or a value read from a header.
    """
