"""Everything that has weights: language model, train step, decoding, audio tokenizers, vocoders, encoders."""
