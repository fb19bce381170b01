"""Sweeps over picture quality: a bundle inspects pictures that are made worse step by step."""
