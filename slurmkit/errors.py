"""The exception tree. Every message says where, what, with which value, and what to do.

SlurmkitError                 a problem that the person at the keyboard can solve; never shown as a traceback
├── DefinitionError           a sweep file that cannot be used: holds every problem of the file
├── UsageError                a request that makes no sense here (unknown collection, empty selection, ...)
├── PinError                  git: no repository, a dirty tree, an unknown revision
├── StoreError                a record under runs/ that cannot be read or written
│   └── LockTimeoutError      another command holds the collection's lock
└── SchedulerError            the scheduler refused, or is out of reach
    ├── LimitReachedError     it takes no more jobs now
    └── OutOfReachError       it cannot be asked (in `schedulers`)
"""


class SlurmkitError(Exception):
    """Base of all errors that a user can cause or mend.

    Attributes:
        exit_code: what the command line exits with.
    """

    exit_code = 1


class DefinitionError(SlurmkitError):
    """A definition with problems, all of them at once.

    Attributes:
        problems: one line each, ``file:line:column: key.path: what, with the value. What to do``.
    """

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class UsageError(SlurmkitError):
    """A request that cannot be carried out as it was made."""

    exit_code = 2


class PinError(SlurmkitError):
    """Git cannot give the commit that was asked for."""

    exit_code = 2


class StoreError(SlurmkitError):
    """A record cannot be read or written."""


class LockTimeoutError(StoreError):
    """Another command holds the lock for longer than this one waits."""


class SchedulerError(SlurmkitError):
    """The scheduler is out of reach or refused."""

    exit_code = 3


class LimitReachedError(SchedulerError):
    """The scheduler takes no more jobs from this person now."""
