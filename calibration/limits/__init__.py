"""How bad a picture may be: disturbances of known strength, and the range in which a bundle keeps its F."""
