"""Corpora: speech and music made on the machine, or a manifest of recordings that the user brings."""
