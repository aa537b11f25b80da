"""The one error that bad input raises, wherever it is found."""


class InputError(Exception):
    """Bad input: a file or option that the user can mend. Commands print it as one line and exit with 2.

    Attributes:
        source: the file, spec or option that is wrong, as the user named it.
        field: the field inside it (dotted path), or "" where the whole is wrong.
        problem: what is wrong.
        mend: how to put it right.
    """

    def __init__(self, source: str, field: str, problem: str, mend: str) -> None:
        self.source, self.field, self.problem, self.mend = source, field, problem, mend
        where = f"{source}: {field}" if field else source
        super().__init__(" ".join(f"{where}: {problem}; {mend}".split()))
