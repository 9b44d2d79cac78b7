"""Isolated execution of untrusted programs and the verdict of tests on them."""

from schoolhouse.sandbox.sandbox import Sandbox
from schoolhouse.sandbox.types import Job, SandboxError, Verdict, entry_point_of


__all__ = ["Job", "Sandbox", "SandboxError", "Verdict", "entry_point_of"]
