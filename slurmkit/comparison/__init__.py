"""Two collections, or two commits of one: what is matched, what differs in results, config and code."""
