"""The Pusher protocol without I/O: names, frames, close codes, signatures, and the rules of one connection."""
