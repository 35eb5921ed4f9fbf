"""The errors of training. Every message says what was wrong and what to do about it.

TrainingError
  CorpusError           the text cannot be used
    CorpusNotFound      there is no file at that path
    CorpusIsBinary      a file that is not text
    CorpusIsNotUtf8     a byte that is not UTF-8, at a named offset
    CorpusTooSmall      not enough characters to learn from
  InvalidOption         a flag is out of its range
  NotPossible           the flags are valid, but this machine or model cannot do it
  Interrupted           Ctrl-C, before there was a result
  OutputInTheWay        the output directory has files that would be overwritten
  OutputFailed          a file of the run could not be written
  RunStateDamaged       the saved state of a run cannot be read
  Diverged              the loss diverged repeatedly
  ProcessLost           another process of the run has ended
  ClusterFailed         no Ray cluster answers, or it has given up
"""


class TrainingError(Exception):
    """The base of all errors that a user of training can cause."""


class CorpusError(TrainingError):
    """The corpus cannot be used."""


class CorpusNotFound(CorpusError):
    """No text is at the given place."""


class CorpusIsBinary(CorpusError):
    """A file holds NUL bytes, so it is not text."""


class CorpusIsNotUtf8(CorpusError):
    """A file holds a byte sequence that is not UTF-8."""


class CorpusTooSmall(CorpusError):
    """The corpus has too few characters to train and validate on."""


class InvalidOption(TrainingError):
    """A flag has a value outside its range, or two flags exclude each other."""


class NotPossible(TrainingError):
    """The flags are valid, but this machine or this model cannot do what they ask for."""


class Interrupted(TrainingError):
    """The command was interrupted before it had anything to show."""


class OutputInTheWay(TrainingError):
    """The output directory exists, and --force was not given."""


class OutputFailed(TrainingError):
    """A file of the run could not be written."""


class RunStateDamaged(TrainingError):
    """The saved state of a run is damaged, and so is the one before it."""


class Diverged(TrainingError):
    """Training diverged again at every lower learning rate."""


class ProcessLost(TrainingError):
    """Another process of the run ended or cannot be reached."""


class ClusterFailed(TrainingError):
    """A Ray cluster cannot be reached, or lost more workers than it may."""
