"""The node's side of one extension's process: bytes, questions and answers, life and restarts."""
