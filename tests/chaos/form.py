"""How much is done: CHARLM_CHAOS=long does all of it, what CI does is the short form."""

import os
from typing import TypeVar

Amount = TypeVar("Amount", int, float)
IS_LONG = os.environ.get("CHARLM_CHAOS", "short") == "long"


def of(short: Amount, long: Amount) -> Amount:
    return long if IS_LONG else short
