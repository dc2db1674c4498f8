"""Audio tokenizers: waveforms to discrete codes, and back where the codes suffice."""
