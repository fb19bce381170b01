"""Pixel scale: from pictures of something of known size to millimetres per pixel with an uncertainty."""
