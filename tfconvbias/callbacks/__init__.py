"""Keras callbacks that measure or guard a training run."""
