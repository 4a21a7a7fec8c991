"""Named data sets as uint8 arrays, image folders, embedded data and augmentation layers."""
