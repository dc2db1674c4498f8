"""Grammars: how records become sequences and back."""

from data.grammar.base import Grammar, Rendered, Segment
from data.grammar.template import build_grammars

__all__ = ["Grammar", "Rendered", "Segment", "build_grammars"]
