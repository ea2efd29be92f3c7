"""Folder or archive → shards in a store → batches of rows."""
