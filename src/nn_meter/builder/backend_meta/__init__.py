"""nn-Meter's names for what scripts import from here."""
