"""Widths and strides of the deep families' layers, which builders and counts share."""

CHANNELS_AND_STRIDES = (
    (1, 1),
    (2, 2),
    (2, 1),
    (4, 2),
    (4, 1),
    (8, 2),
    (8, 1),
    (16, 2),
)
"""D-CONV: channels by α, and stride, of each of the eight layers."""

STAGES = ((1, 1), (2, 2), (4, 2), (8, 2))
"""ResNet18: channels by α of each stage, and the stride of its first layer."""
