"""The one kind of error that is written for people."""


class LabError(Exception):
    """Something that a person can cause or mend. Its text is one plain sentence: what is wrong and what to do."""
