"""Bayes: which of several models a text came from, given its log-probs and priors."""

from collections.abc import Sequence
from math import exp, fsum, log


def posteriors(logprobs: Sequence[float], priors: Sequence[float]) -> list[float]:
    """p(model | text), proportional to prior * p(text | model); they sum to 1.

    Log-probs in nats, of any size; priors positive, of any sum. Only differences to the largest
    term are exponentiated (log-sum-exp), so nothing overflows and never is everything 0.
    """
    joint = [logprob + log(prior) for logprob, prior in zip(logprobs, priors, strict=True)]
    largest = max(joint)
    shares = [exp(each - largest) for each in joint]
    total = fsum(shares)
    return [share / total for share in shares]
