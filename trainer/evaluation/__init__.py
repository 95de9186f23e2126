"""What a run is measured by at its end: answers, controlled latents, probes, and which part fails."""
