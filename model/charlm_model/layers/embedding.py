"""The input of a step: the embedding of its token, optionally with that of the tokens before.

Legend: B batch, T time, V vocabulary, E embedding, K recent tokens, S = K + T.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NO_TOKEN = -1  # before the start of a text
# Initial vectors shrink by this factor for every position that a token is further back.
_FADING = 0.5


class TokenEmbedding(nn.Module):
    """A vector for each token, plus vectors of earlier tokens and of the newest pair.

    The sum covers `kernel_size` tokens, the newest included: a causal convolution over one-hot
    tokens. Pairs of neighboring tokens are hashed into `pair_rows` vectors. Both let the first
    layer see n-grams without having to learn which token came last.

    Source: convolutions over characters, Kim et al. (2016); hashed n-grams, Bojanowski et al.
    (2017).
    """

    def __init__(
        self, vocab_size: int, width: int, *, kernel_size: int = 1, pair_rows: int = 0
    ) -> None:
        super().__init__()
        self._vocab_size, self.kernel_size, self.pair_rows = vocab_size, kernel_size, pair_rows
        self.weight = nn.Parameter(torch.empty(vocab_size, width))
        if kernel_size > 1:
            self.earlier = nn.Parameter(torch.empty((kernel_size - 1) * vocab_size, width))
        if pair_rows:
            self.pairs = nn.Parameter(torch.zeros(pair_rows, width))
        self.initialize(std=1.0)

    @property
    def num_recent(self) -> int:
        """How many recent tokens the state holds (K)."""
        return max(self.kernel_size - 1, 1 if self.pair_rows else 0)

    def initialize(self, std: float) -> None:
        nn.init.normal_(self.weight, std=std)
        if self.kernel_size > 1:
            nn.init.normal_(self.earlier, std=std)
            with torch.no_grad():
                for age, table_VE in enumerate(self.earlier.split(self._vocab_size), start=1):
                    table_VE *= _FADING**age

    def initial_recent(self, batch_size: int) -> dict[str, Tensor]:
        """The recent tokens at the start of a text, as a part of the state."""
        if not self.num_recent:
            return {}
        shape = batch_size, self.num_recent
        return {"recent": torch.full(shape, NO_TOKEN, device=self.weight.device)}

    def forward(self, ids_BT: Tensor, recent_BK: Tensor | None = None) -> Tensor:
        """Sums in a fixed order, so that a token's bits do not depend on its batch."""
        x_BTE = F.embedding(ids_BT, self.weight)
        if not self.num_recent:
            return x_BTE
        seen_BS = self._seen(ids_BT, recent_BK)
        for age in range(1, self.kernel_size):
            earlier_BT = seen_BS[:, self.num_recent - age : -age]
            rows_BT = earlier_BT + (age - 1) * self._vocab_size
            x_BTE = x_BTE + _lookup(self.earlier, rows_BT, earlier_BT)
        if self.pair_rows:
            before_BT = seen_BS[:, self.num_recent - 1 : -1]
            rows_BT = (before_BT * self._vocab_size + ids_BT) % self.pair_rows
            x_BTE = x_BTE + _lookup(self.pairs, rows_BT, before_BT)
        return x_BTE

    def recent_after(self, ids_BT: Tensor, recent_BK: Tensor | None) -> dict[str, Tensor]:
        """The recent tokens after these ids, as a part of the state."""
        if not self.num_recent:
            return {}
        return {"recent": self._seen(ids_BT, recent_BK)[:, -self.num_recent :]}

    def _seen(self, ids_BT: Tensor, recent_BK: Tensor | None) -> Tensor:
        """Recent and new tokens, in order (B, K + T)."""
        if recent_BK is None:
            recent_BK = ids_BT.new_full((len(ids_BT), self.num_recent), NO_TOKEN)
        return torch.cat([recent_BK, ids_BT], 1)


def _lookup(table: Tensor, rows_BT: Tensor, tokens_BT: Tensor) -> Tensor:
    """The table's rows; 0 before the start of the text."""
    is_token_BT = tokens_BT != NO_TOKEN
    return F.embedding(rows_BT.where(is_token_BT, 0), table) * is_token_BT[..., None]
