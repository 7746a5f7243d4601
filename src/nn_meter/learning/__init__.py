"""Learns from measurements: regressors, metrics, and what is decided from them."""
