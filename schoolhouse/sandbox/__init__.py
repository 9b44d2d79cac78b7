"""Where generated programs run: hostile until proven otherwise, judged from outside, several hundred a second."""

from schoolhouse.sandbox.sandbox import Sandbox
from schoolhouse.sandbox.types import Job, SandboxError, Verdict, entry_point_of


__all__ = ["Job", "Sandbox", "SandboxError", "Verdict", "entry_point_of"]
