"""What the node does on behalf of extensions outside of storage, events and realtime: requests to other servers."""
