"""Slurm as a scheduler: its programs, what they print, and what that means."""
