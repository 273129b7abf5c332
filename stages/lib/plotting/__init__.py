"""Charts and grids of images, as PNG files whose bytes do not depend on the machine."""
