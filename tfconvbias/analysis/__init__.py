"""Measurements on arrays and models: numbers out, no training."""
