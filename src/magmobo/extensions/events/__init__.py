"""What happens, brought to extensions: durable log, filters, retries, dead letters, replay; jobs, keys and values."""
