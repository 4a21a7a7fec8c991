"""Optimizers that learn sparse connectivity."""
