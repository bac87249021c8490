"""The comparison with other proxies, by kind of work."""
