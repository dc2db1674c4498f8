"""Everything that has no weights: storage, manifests, audio I/O, vocabulary, grammar, packing, mixture, token store."""
