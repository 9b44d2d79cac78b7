"""Where generated programs run: hostile until proven otherwise, judged from outside, several hundred a second."""

from eval.sandbox.jobs import Job, SandboxError, Verdict, entry_point_of
from eval.sandbox.sandbox import Sandbox


__all__ = ["Job", "Sandbox", "SandboxError", "Verdict", "entry_point_of"]
