"""Streams to waveforms."""
