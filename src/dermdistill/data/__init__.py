"""From a folder of images to a catalog, a split, an image store and augmented views."""
