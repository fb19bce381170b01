"""The line: what happens between a trigger and a committed report, and who may change what it inspects."""
