"""The errors that a user can mend.

Every one is a single sentence that says what is wrong, where (file, key, value) and what to do. The command line
prints it without a traceback and exits with status 1; any other exception is a defect of this package and keeps
its traceback.
"""

from __future__ import annotations


class SyntherError(ValueError):
    """A mistake in what the user gave: a path, a file, a setting."""


class ConfigError(SyntherError):
    """A setting, or a combination of settings, that cannot be honoured."""


class DataError(SyntherError):
    """A file or a store that is missing, damaged, foreign, or made for something else."""


class BackendError(SyntherError):
    """Something outside Python is missing on this machine: an OpenGL library, a device, disk space."""
