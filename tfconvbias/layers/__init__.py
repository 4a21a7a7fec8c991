"""Keras layers between a dense layer and a convolution."""
