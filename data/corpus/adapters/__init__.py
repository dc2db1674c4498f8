"""Corpora as their publishers lay them out: one file per corpus behind one protocol (base.py)."""
