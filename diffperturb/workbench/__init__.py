"""Figures, explorers, experiments and the documentation: nothing in the library imports them."""
