"""Settings → plan → Ray → the end of a run. Ray is imported only here."""
