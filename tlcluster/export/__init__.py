"""Finished experiments → model files for other programs, scored again; and pictures → answers."""
