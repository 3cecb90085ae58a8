"""Measured statements: checks of theory, comparisons of estimators, a learning benchmark, data."""
