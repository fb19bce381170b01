"""The exceptions of orinspect, one tree; each message says what happened, the value received, what to do.

OrinspectError                 exit code 1
|- UsageError                  exit code 2: the command line is wrong
|- ConfigError                 exit code 2: service.toml is wrong
|- RecipeError                 exit code 2: recipe.toml is wrong
|- CheckpointError             a checkpoint that cannot be exported
|- BundleError                 a bundle that is truncated, altered or of another version
|- PictureError                a file that is not a picture, or pictures that do not fit together
|- CaptureError                a camera that gives no frames
|- EngineError                 an inference engine that cannot be built or run
|- DeliveryError               a broker or an outbox that refuses
|- ScaleError                  a pixel scale that cannot be calibrated, read or trusted
|- AccuracyError               INT8 loses more than the recipe allows
`- DataSetError                a data set that cannot be read
"""

from __future__ import annotations


class OrinspectError(Exception):
    """Root of every error that orinspect raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(OrinspectError):
    """The command line asks for something that does not exist."""

    exit_code = 2


class ConfigError(OrinspectError):
    """service.toml holds an unknown key or an impossible value."""

    exit_code = 2


class RecipeError(OrinspectError):
    """recipe.toml holds an unknown key or an impossible value, or cannot be compiled with this tokenizer."""

    exit_code = 2


class CheckpointError(OrinspectError):
    """A checkpoint folder is not a dense Qwen3-VL, or a part of it is missing or broken."""


class BundleError(OrinspectError):
    """A bundle is truncated, altered, incomplete or of another version."""


class PictureError(OrinspectError):
    """A file is not a picture, or two pictures do not fit together."""


class CaptureError(OrinspectError):
    """A camera gives no usable frames."""


class EngineError(OrinspectError):
    """An inference engine cannot be built or failed while it ran."""


class DeliveryError(OrinspectError):
    """A broker refuses, or the outbox cannot be written."""


class DataSetError(OrinspectError):
    """A data set cannot be read or has no usable rows."""


class AccuracyError(OrinspectError):
    """An INT8 bundle is further from its float graphs than the recipe's [accuracy] allows."""


class ScaleError(OrinspectError):
    """The pixel scale cannot be calibrated from these pictures, or its file cannot be read or trusted."""
