"""Many runs → one page: their results, what differs between their settings, and which is better."""
