"""One or several trainings of each experiment, with a seed each → intervals, tests and verdicts."""
