"""A causal Transformer that attends through a sliding window kept in a ring.

Legend: B batch, T time, V vocabulary, E embedding, L layers, N heads, D head width, C ring slots,
S keys attended over.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm_model.config import ModelConfig
from charlm_model.errors import InvalidConfig
from charlm_model.exact import PackedLinear
from charlm_model.language_model import LanguageModel
from charlm_model.state import State

# The exact path takes at most this many tokens at a time; the ring has as many slots to spare.
CHUNK_LENGTH = 64
# Attention products are bit-equal for any number of queries that is a multiple of this.
_QUERY_MULTIPLE = 8
_ROPE_BASE = 10_000.0
