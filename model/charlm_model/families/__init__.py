"""Model families: n-gram, RNN, GRU, LSTM and Transformer, found by name in `registry`."""
