"""Bundle, engines, tiles, gate, dense head, guide, decode."""
