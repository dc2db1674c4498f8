"""Numbers computed from judged samples."""
