"""The language models: n-gram, RNN, GRU, LSTM and Transformer."""
