"""Checks of ids and positions, so that no state makes a kernel read or write out of bounds."""

from charlm_model.kernels.cpu.jit import compiled


@compiled
def check_tokens(ids_BT, recent_BK, vocab_size):
    """Raises IndexError for an id that the vocabulary lacks; -1 in `recent_BK` means no token."""
    for b in range(ids_BT.shape[0]):
        for t in range(ids_BT.shape[1]):
            if ids_BT[b, t] < 0 or ids_BT[b, t] >= vocab_size:
                raise IndexError("a token id is not in the vocabulary")
        for k in range(recent_BK.shape[1]):
            if recent_BK[b, k] < -1 or recent_BK[b, k] >= vocab_size:
                raise IndexError("a recent token id is not in the vocabulary")


@compiled
def check_positions(position_B):
    """Raises IndexError for a position before the start of a text."""
    for position in position_B:
        if position < 0:
            raise IndexError("a position is negative")
