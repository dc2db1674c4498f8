"""The jobs: thin entries, and everything that places work on Ray."""
