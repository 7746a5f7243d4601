"""Predictions for people and programs: text, JSON, one HTML file. Nothing is computed here."""
