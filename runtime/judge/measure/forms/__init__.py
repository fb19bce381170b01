"""Defects of a known form, which is sought as such: a bowl under light, a thin line in a texture."""
