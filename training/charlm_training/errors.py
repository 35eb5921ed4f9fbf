"""What can go wrong in training. Every message is a sentence a person can act on.

TrainingError
  CorpusError           the text cannot be used
    CorpusNotFound      nothing is at that path
    CorpusIsBinary      a file that is not text
    CorpusIsNotUtf8     a byte that is not UTF-8, at a named offset
    CorpusTooSmall      not enough characters to learn from
  InvalidOption         a flag is out of its range
  NotPossible           what the flags ask for cannot be done here, or with this model
  Interrupted           Ctrl-C came before there was anything to show
  OutputInTheWay        the output directory holds something that would be lost
  OutputFailed          the disk would not take the checkpoint
  RunStateDamaged          what a killed run saved of itself cannot be read
  Diverged              the loss exploded again and again
  ProcessLost              another process of the same run is gone
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
    """The flags are in order, but what they ask for cannot be done here, or with this model."""


class Interrupted(TrainingError):
    """The command was interrupted before it had anything to show."""


class OutputInTheWay(TrainingError):
    """The output directory exists and was not said to be replaceable."""


class OutputFailed(TrainingError):
    """A file of the run could not be written."""


class RunStateDamaged(TrainingError):
    """The saved state of a run is torn, and its spare too."""


class Diverged(TrainingError):
    """Training diverged more often than lower learning rates could repair."""


class ProcessLost(TrainingError):
    """Another process of the run ended or cannot be reached."""


class ClusterFailed(TrainingError):
    """A Ray cluster cannot be reached, or lost more workers than it may."""
