"""A compact trainer that turns an entangled model of solution traces into one with a latent strategy variable.

It stands alone: a configuration goes in (``python -m trainer run CONFIG --run-dir DIR``), files below DIR come out.
Importing this package imports nothing heavy; `docs/trainer.md` states the method with its formulas.
"""
